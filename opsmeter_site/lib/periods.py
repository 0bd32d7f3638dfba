"""The only place that knows quarter hours, days, weeks and months. All periods are half-open: `[start, end)`.

Limits count UTC periods. What people read follows the clocks of a zone; its days begin and end here, too.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)
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


# --- By the clocks of a zone ----------------------------------------------------------------------------------------


def wall_moment(zone: ZoneInfo, day: date, wall_time: time) -> datetime:
    """The UTC moment at which clocks in `zone` show `wall_time` on `day`.

    Where they show it twice, the first one. Where they skip it, the moment at which they jump to the next valid minute.
    """
    wall = datetime.combine(day, wall_time.replace(tzinfo=None, fold=0))
    moment = wall.replace(tzinfo=zone).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == wall:
        return moment
    # Counted with the clocks before the jump, a skipped time lies after it; counted with those after it, before it.
    return _jump(zone, wall.replace(tzinfo=zone, fold=1), moment)


def _jump(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first second after `before` and not after `after` at which clocks in `zone` are those of `after`."""
    offset = after.astimezone(zone).utcoffset()
    low, high = int(before.timestamp()), int(after.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return datetime.fromtimestamp(high, UTC)


def day_start(zone: ZoneInfo, day: date) -> datetime:
    """The UTC moment at which `day` begins in `zone`.

    Where clocks skip midnight, the moment of the change; where midnight comes twice, the first one.
    """
    return wall_moment(zone, day, time())


def exists(zone: ZoneInfo, day: date) -> bool:
    """Whether `zone` has that day: who moves across the date line skips one (Apia, 30 December 2011)."""
    return day_start(zone, day) < day_start(zone, day + DAY)


def next_weekday(day: date, weekday: int) -> date:
    """The first day after `day` with that weekday (Monday is 0)."""
    return day + timedelta(days=(weekday - day.weekday() - 1) % 7 + 1)


def to_wire(moment: datetime) -> str:
    """`moment` (aware) as the contract writes times: UTC, whole seconds, trailing Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
