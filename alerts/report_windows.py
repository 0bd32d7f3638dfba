"""When each kind of summary is sent, and which days it covers. Pure: dates, wall times and zones in, moments out.

A schedule's cursor is a local day: everything before it has had its report. The next report is sent on the first send
day after the cursor, and that send day is the next cursor. So a changed time, weekday or zone moves when something is
sent, and neither skips nor repeats a day; after a change of weekday a weekly report overlaps with the one before.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from alerts.models import ReportKind
from ingest.ranges import DayRange, day_range
from opsmeter_site.lib.periods import DAY, exists, next_weekday, wall_moment

# After a downtime a schedule makes up at most so many reports; older ones are skipped.
MOST_MADE_UP = 7
_WEEK = timedelta(days=7)
_UTC = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class Timetable:
    """What decides when a summary of `kind` is sent. `weekday` concerns the weekly ones (Monday is 0)."""

    kind: ReportKind
    zone: ZoneInfo
    send_at: time
    weekday: int


@dataclass(frozen=True, slots=True)
class DueReport:
    """One report: sent at `due_at` (UTC), about the whole days of `days`. Afterwards the cursor is `next_day`."""

    due_at: datetime
    days: DayRange
    next_day: date


def first_cursor(zone: ZoneInfo, now: datetime) -> date:
    """The cursor of a schedule that begins at `now`: its first report covers the running day or week."""
    return now.astimezone(zone).date()


def next_due(timetable: Timetable, cursor: date) -> DueReport:
    """The first report that is sent from `cursor` on."""
    if timetable.kind is not ReportKind.DAILY:
        return _sent_on(timetable, next_weekday(cursor, timetable.weekday))
    while not exists(timetable.zone, cursor):
        cursor += DAY
    return _sent_on(timetable, cursor + DAY)


def upcoming(timetable: Timetable, cursor: date) -> Iterator[DueReport]:
    """The reports from `cursor` on, one after the other, without end."""
    while True:
        due = next_due(timetable, cursor)
        yield due
        cursor = due.next_day


def next_three(timetable: Timetable, cursor: date) -> list[DueReport]:
    """What a page shows of a schedule."""
    return list(islice(upcoming(timetable, cursor), 3))


def due_until(timetable: Timetable, cursor: date, now: datetime) -> list[DueReport]:
    """The reports whose moment has come by `now`, oldest first; of many the last `MOST_MADE_UP`."""
    has_come = takewhile(lambda report: report.due_at <= now, upcoming(timetable, cursor))
    return list(deque(has_come, MOST_MADE_UP))


def last_completed(timetable: Timetable, now: datetime) -> DueReport:
    """The report about the day or week that was over most recently at `now`, whatever the send time."""
    today = now.astimezone(timetable.zone).date()
    if timetable.kind is ReportKind.EXECUTIVE:
        return DueReport(now, _utc_week_before(now), today)
    if timetable.kind is ReportKind.WEEKLY:
        today = next_weekday(today, timetable.weekday) - _WEEK
    elif not exists(timetable.zone, today - DAY):
        today -= DAY
    return DueReport(now, _days_before(timetable, today), today)


def _sent_on(timetable: Timetable, send_day: date) -> DueReport:
    due_at = wall_moment(timetable.zone, send_day, timetable.send_at)
    if timetable.kind is ReportKind.EXECUTIVE:
        return DueReport(due_at, _utc_week_before(due_at), send_day)
    return DueReport(due_at, _days_before(timetable, send_day), send_day)


def _days_before(timetable: Timetable, send_day: date) -> DayRange:
    first_day = send_day - (DAY if timetable.kind is ReportKind.DAILY else _WEEK)
    return day_range(timetable.zone, first_day, send_day - DAY)


def _utc_week_before(moment: datetime) -> DayRange:
    """The last seven UTC days that are over at `moment`."""
    today = moment.astimezone(UTC).date()
    return day_range(_UTC, today - _WEEK, today - DAY)
