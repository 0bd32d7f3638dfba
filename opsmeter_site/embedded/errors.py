"""The one error of this package."""


class LocalError(Exception):
    """Something on this machine stands in the way; the text says what, and is shown as one line."""
