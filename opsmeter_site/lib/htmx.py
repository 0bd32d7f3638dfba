"""Answers to htmx, which asks for parts of pages."""

from django.http import HttpRequest


def wants_part(request: HttpRequest) -> bool:
    """Whether a script asks for what it will put into the page; one that goes back in history wants the whole page."""
    htmx = request.htmx  # type: ignore[attr-defined]
    return bool(htmx) and not htmx.history_restore_request
