"""Opsmeter: the project package (settings, URLs, wiring) and its pure helpers in `lib`."""
