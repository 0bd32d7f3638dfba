"""Send moments in words, for the page on which they are chosen. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from alerts.models import ReportKind
from alerts.report_windows import DueReport, Timetable
from ingest.ranges import DayRange
from opsmeter_site.lib.periods import DAY

MEANINGS = {
    ReportKind.DAILY: "What the local day before cost, against the day before that and against the budget.",
    ReportKind.WEEKLY: "The seven local days up to the day before, against the seven before those.",
    ReportKind.EXECUTIVE: "The last seven completed UTC days against the seven before, for people who decide.",
}
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class MomentInWords:
    """When one summary is sent, in local time and UTC, what it covers, and what is unusual about it."""

    due_at: datetime
    local: str
    utc: str
    covers: str
    notes: tuple[str, ...]


def moments_in_words(timetable: Timetable, reports: Iterable[DueReport], now: datetime) -> list[MomentInWords]:
    """`reports` of `timetable` for reading, as they stand at `now`."""
    return [
        MomentInWords(
            due_at=report.due_at,
            local=f"{report.due_at.astimezone(timetable.zone):%a %-d %b %Y, %H:%M}",
            utc=f"{report.due_at.astimezone(UTC):%a %-d %b, %H:%M} UTC",
            covers=_covered(timetable.kind, report.days),
            notes=tuple(_notes(timetable, report, now)),
        )
        for report in reports
    ]


def _covered(kind: ReportKind, days: DayRange) -> str:
    """The days of a window: "Wed 18 Nov 2026", or the first and the last one."""
    last = f"{days.last_day:%a %-d %b %Y}"
    words = last if kind is ReportKind.DAILY else f"{days.first_day:%a %-d %b} – {last}"
    return f"{words} (UTC)" if kind is ReportKind.EXECUTIVE else words


def _notes(timetable: Timetable, report: DueReport, now: datetime) -> Iterable[str]:
    local = report.due_at.astimezone(timetable.zone)
    if report.due_at <= now:
        yield "Sent at once: that moment has passed, and nothing was sent about these days yet."
    if local.time() != timetable.send_at:
        yield f"Clocks skip {timetable.send_at:%H:%M} then; this is the next minute that they show."
    elif local.replace(fold=1).utcoffset() != local.utcoffset():
        yield f"Clocks show {timetable.send_at:%H:%M} twice then; it is sent the first time only."
    length = report.days.end - report.days.start
    if length != DAY * report.days.days:
        yield f"These days have {length / _HOUR:g} hours, since clocks change."
