"""The one clock. Times that are stored or compared come from here, never from the database's own `now()`."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The current time, aware, UTC."""
    return datetime.now(UTC)
