"""When summaries are due: local wall time across every change of clocks.

A schedule is a row with a cursor (`alerts.report_windows`) and the moment that follows from it. Beat's task asks for
moments that have come; storing the reports and moving the cursor on is one transaction. Any number of workers may ask
at once.
"""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import F, QuerySet

from alerts.models import Report, ReportKind, Schedule
from alerts.report_windows import MOST_MADE_UP, DueReport, Timetable, due_until, first_cursor, next_due
from billing.selectors import NO_PLAN, PlanFeatures, features_of
from opsmeter_site.lib.periods import DAY
from workspaces.models import Workspace

_BATCH = 200
_NEW_WORKSPACES = 500
# Who opened a workspace while nobody looked is owed the days since. Older ones without schedules had no summaries yet.
_NEW_FOR = MOST_MADE_UP * DAY


def start_due_reports(now: datetime) -> int:
    """Store a report for every schedule that is due, and move the schedule on; how many.

    After a downtime each period that was missed gets its report, oldest first, but at most the last
    `report_windows.MOST_MADE_UP` of a schedule; older ones are skipped. Periods in which the plan has no such summary
    get none.
    """
    _add_missing(now)
    _follow_timezones()
    started = 0
    while True:
        claimed, stored = _start_some(now)
        started += stored
        if claimed < _BATCH:
            return started


def plan_includes(features: PlanFeatures, kind: str) -> bool:
    """Whether a plan has this kind of summary."""
    return features.has_executive_report if kind == ReportKind.EXECUTIVE else features.has_summaries


def timetable_of(schedule: Schedule) -> Timetable:
    """What a schedule says, in the zone that it was computed in."""
    return Timetable(ReportKind(schedule.kind), ZoneInfo(schedule.zone), schedule.send_at, schedule.weekday)


def schedules_of(workspace: Workspace, now: datetime) -> list[Schedule]:
    """The workspace's schedule for every kind, in their order; as they will be, where there are none yet."""
    stored = {schedule.kind: schedule for schedule in Schedule.objects.filter(workspace=workspace)}
    new = {schedule.kind: schedule for schedule in _new_schedules(workspace, now)}
    return [stored.get(kind, new[kind]) for kind in ReportKind]


# --- New workspaces ---------------------------------------------------------------------------------------------------


def _add_missing(now: datetime) -> None:
    """Give every workspace that has none its schedules."""
    while True:
        without = Workspace.objects.filter(report_schedules=None)[:_NEW_WORKSPACES]
        new = [schedule for workspace in without for schedule in _new_schedules(workspace, now)]
        Schedule.objects.bulk_create(new, ignore_conflicts=True)
        if len(new) < _NEW_WORKSPACES * len(ReportKind):
            return


def ensure_schedules(workspace: Workspace, now: datetime) -> None:
    """The same for one workspace, at once."""
    Schedule.objects.bulk_create(_new_schedules(workspace, now), ignore_conflicts=True)


def _new_schedules(workspace: Workspace, now: datetime) -> list[Schedule]:
    """The first report is about the day or week in which the workspace was opened, or else about the running one."""
    is_new = now - _NEW_FOR < workspace.created_at < now
    cursor = first_cursor(workspace.timezone, workspace.created_at if is_new else now)
    zone = str(workspace.timezone)
    return [place(Schedule(workspace=workspace, kind=kind, zone=zone), cursor) for kind in ReportKind]


# --- Changed timezones ------------------------------------------------------------------------------------------------


def _follow_timezones() -> None:
    """Compute anew what was computed in another zone than the workspace has now. The cursor stays: no day is lost."""
    moved = Schedule.objects.exclude(zone=F("workspace__timezone")).select_related("workspace")
    while True:
        with transaction.atomic():
            schedules = _locked(moved)
            for schedule in schedules:
                schedule.zone = str(schedule.workspace.timezone)
                place(schedule, schedule.next_day)
            Schedule.objects.bulk_update(schedules, ["zone", "next_due_at"])
        if len(schedules) < _BATCH:
            return


# --- What is due ------------------------------------------------------------------------------------------------------


@transaction.atomic
def _start_some(now: datetime) -> tuple[int, int]:
    """Start the reports of some due schedules; how many schedules, and how many reports."""
    schedules = _locked(Schedule.objects.filter(is_enabled=True, next_due_at__lte=now).order_by("next_due_at"))
    features = features_of({schedule.workspace_id for schedule in schedules})
    reports = [report for schedule in schedules for report in _due_reports(schedule, features, now)]
    Report.objects.bulk_create(reports, ignore_conflicts=True)
    Schedule.objects.bulk_update(schedules, ["next_day", "next_due_at"])
    return len(schedules), len(reports)


def _due_reports(schedule: Schedule, features: Mapping[UUID, PlanFeatures], now: datetime) -> Iterable[Report]:
    """The reports that a schedule owes, if its plan has them. The schedule is moved on, and not saved."""
    due = due_until(timetable_of(schedule), schedule.next_day, now)
    place(schedule, due[-1].next_day if due else schedule.next_day)
    if not plan_includes(features.get(schedule.workspace_id, NO_PLAN), schedule.kind):
        return []
    return [_report(schedule, each) for each in due]


def _report(schedule: Schedule, due: DueReport) -> Report:
    return Report(
        workspace_id=schedule.workspace_id,
        schedule=schedule,
        kind=schedule.kind,
        zone=due.days.zone.key,
        first_day=due.days.first_day,
        last_day=due.days.last_day,
        starts_at=due.days.start,
        ends_at=due.days.end,
        due_at=due.due_at,
        next_attempt_at=due.due_at,
    )


def place(schedule: Schedule, cursor: date) -> Schedule:
    """Set the cursor of a schedule, and the moment that follows from it. Not saved."""
    schedule.next_day = cursor
    schedule.next_due_at = next_due(timetable_of(schedule), cursor).due_at
    return schedule


def _locked(schedules: "QuerySet[Schedule]") -> list[Schedule]:
    """Some of `schedules` that nobody else is at work on."""
    return list(schedules.select_for_update(skip_locked=True, of=("self",))[:_BATCH])
