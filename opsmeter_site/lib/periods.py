"""The only place that knows quarter hours, days and months. All periods are UTC and half-open: `[start, end)`."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

QUARTER_HOUR = timedelta(minutes=15)
_QUARTER_SECONDS = 900


class Period(StrEnum):
    """The periods over which limits count."""

    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Window:
    """One period: `start` belongs to it, `end` does not. Both are aware and UTC."""

    start: datetime
    end: datetime

    @property
    def last_second(self) -> datetime:
        """The inclusive end that the workspace-status answer shows (…T23:59:59Z)."""
        return self.end - timedelta(seconds=1)


def quarter_hour_of(moment: datetime) -> datetime:
    """The start of the UTC quarter hour that holds `moment` (aware)."""
    seconds = int(moment.timestamp())
    return datetime.fromtimestamp(seconds - seconds % _QUARTER_SECONDS, UTC)


def day_of(moment: datetime) -> Window:
    """The UTC day that holds `moment` (aware)."""
    start = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return Window(start, start + timedelta(days=1))


def month_of(moment: datetime) -> Window:
    """The UTC calendar month that holds `moment` (aware)."""
    start = moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = start.replace(year=start.year + 1, month=1) if start.month == 12 else start.replace(month=start.month + 1)
    return Window(start, end)


def window_of(period: Period, moment: datetime) -> Window:
    """The window of `period` that holds `moment` (aware)."""
    return day_of(moment) if period is Period.DAY else month_of(moment)


def to_wire(moment: datetime) -> str:
    """`moment` (aware) as the contract writes times: UTC, whole seconds, trailing Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
