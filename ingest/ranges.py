"""Which days a page shows, and which ones it compares them with. Pure: whole local days, as half-open ranges in UTC."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from opsmeter_site.lib.periods import QUARTER_HOUR, day_start, quarter_hour_of

RANGE_NAMES = ("today", "7d", "30d", "mtd", "custom")
DEFAULT_RANGE = "7d"
MOST_DAYS = 400
# Long before the first event there can be; calendars and timezones have no surprises from here on.
EARLIEST_DAY = date(2000, 1, 1)

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class DayRange:
    """The local days `first_day` to `last_day` (both included) of `zone`: the UTC range `[start, end)`.

    `end` is the end of `last_day`, or earlier where `previous` has cut the range; always at a quarter hour.
    """

    zone: ZoneInfo
    first_day: date
    last_day: date
    start: datetime
    end: datetime

    @property
    def days(self) -> int:
        """How many local days."""
        return (self.last_day - self.first_day).days + 1

    def is_running(self, now: datetime) -> bool:
        """Whether it is not over yet at `now` (aware)."""
        return now < self.end

    def previous(self, now: datetime) -> "DayRange":
        """As many local days just before. While this range is running, only up to where it stands now.

        That is the same local wall time on the matching day, at the end of its quarter hour.
        """
        shift = timedelta(days=self.days)
        before = day_range(self.zone, self.first_day - shift, self.last_day - shift)
        if not self.is_running(now):
            return before
        end = min(max(_same_wall_time(self.zone, now, shift), before.start), before.end)
        return DayRange(self.zone, before.first_day, before.last_day, before.start, end)


def _same_wall_time(zone: ZoneInfo, now: datetime, earlier: timedelta) -> datetime:
    """The moment at which clocks in `zone` showed what they show at `now`, rounded up to the quarter hour."""
    wall = (now.astimezone(zone).replace(tzinfo=None, fold=0) - earlier).replace(tzinfo=zone)
    moment = wall.astimezone(UTC)
    quarter = quarter_hour_of(moment)
    return quarter if quarter == moment else quarter + QUARTER_HOUR


def day_range(zone: ZoneInfo, first_day: date, last_day: date) -> DayRange:
    """The whole local days `first_day` to `last_day`, both included. Raises ValueError if none."""
    if last_day < first_day:
        raise ValueError("A range ends on its first day or later.")
    return DayRange(zone, first_day, last_day, day_start(zone, first_day), day_start(zone, last_day + _DAY))


@dataclass(frozen=True, slots=True)
class RangeChoice:
    """What a page shows: one of `RANGE_NAMES`, its range, and one sentence if what was asked for could not be had."""

    name: str
    range: DayRange
    error: str = ""


def choose_range(params: Mapping[str, str], zone: ZoneInfo, now: datetime) -> RangeChoice:
    """The range that a query string asks for: `range`, and for a custom one `from` and `to` (ISO dates, included).

    Anything that is no such range becomes the default one, with an error to show. A custom range that would go on after
    today ends today.
    """
    today = now.astimezone(zone).date()
    name = params.get("range") or DEFAULT_RANGE
    firsts = {"today": today, "7d": today - 6 * _DAY, "30d": today - 29 * _DAY, "mtd": today.replace(day=1)}
    if name in firsts:
        return RangeChoice(name, day_range(zone, firsts[name], today))
    default = RangeChoice(DEFAULT_RANGE, day_range(zone, firsts[DEFAULT_RANGE], today))
    if name != "custom":
        return RangeChoice(default.name, default.range, f"There is no range called “{name[:40]}”.")
    try:
        first, last = (date.fromisoformat(params.get(end, "").strip()) for end in ("from", "to"))
    except ValueError:
        return RangeChoice(default.name, default.range, "A custom range needs two dates, such as 2026-11-01.")
    error = _custom_error(first, last, today)
    if error:
        return RangeChoice(default.name, default.range, error)
    return RangeChoice(name, day_range(zone, first, min(last, today)))


def _custom_error(first: date, last: date, today: date) -> str:
    if first > last:
        return "The first day is after the last one."
    if first > today:
        return "The range begins after today."
    if first < EARLIEST_DAY:
        return f"The range begins before {EARLIEST_DAY}."
    if (min(last, today) - first).days >= MOST_DAYS:
        return f"A range has at most {MOST_DAYS} days."
    return ""
