"""Changing when a workspace gets its summaries."""

from dataclasses import asdict, dataclass
from datetime import date, datetime, time

from django.db import transaction

from alerts.models import ReportKind, Schedule, Weekday
from alerts.report_windows import Timetable, due_until
from alerts.schedules import ensure_schedules, place, plan_includes
from billing.selectors import plan_features
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError, InvalidInput, NotAllowed
from workspaces.models import User, Workspace
from workspaces.services import record_audit


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleValues:
    """What people choose about one kind of summary."""

    is_enabled: bool
    skips_empty: bool
    send_at: time
    weekday: int


@dataclass(frozen=True, slots=True)
class ScheduleChange:
    """The values before and after."""

    old: ScheduleValues
    new: ScheduleValues


def values_of(schedule: Schedule) -> ScheduleValues:
    """What is chosen now."""
    return ScheduleValues(
        is_enabled=schedule.is_enabled,
        skips_empty=schedule.skips_empty,
        send_at=schedule.send_at,
        weekday=schedule.weekday,
    )


def cursor_after(schedule: Schedule, timetable: Timetable, *, is_enabled: bool, now: datetime) -> date:
    """Where a schedule that gets `timetable` goes on: where it is; one that is switched on, after what it missed.

    So off and on again before the send moment loses nothing.
    """
    is_switched_on = is_enabled and not schedule.is_enabled
    missed = due_until(timetable, schedule.next_day, now) if is_switched_on else []
    return missed[-1].next_day if missed else schedule.next_day


@transaction.atomic
def update_schedule(
    workspace: Workspace,
    kind: str,
    *,
    is_enabled: bool,
    skips_empty: bool,
    send_at: time,
    weekday: int,
    acting_user: User | None,
) -> ScheduleChange:
    """Choose when a kind of summary is sent; what changed.

    A period whose summary was not sent yet is still told: at its new moment, or at once if that has passed. One that
    was sent is not sent again. Raises `InvalidInput` for a bad `kind`, `send_at` or `weekday`, and `NotAllowed` if the
    plan has no such summary.
    """
    _check(workspace, kind, send_at, weekday)
    now = utc_now()
    ensure_schedules(workspace, now)
    schedule = Schedule.objects.select_for_update().get(workspace=workspace, kind=kind)
    old = values_of(schedule)
    new = ScheduleValues(is_enabled=is_enabled, skips_empty=skips_empty, send_at=send_at, weekday=weekday)
    if old == new:
        return ScheduleChange(old, new)
    timetable = Timetable(ReportKind(kind), workspace.timezone, send_at, weekday)
    cursor = cursor_after(schedule, timetable, is_enabled=is_enabled, now=now)
    for name, value in asdict(new).items():
        setattr(schedule, name, value)
    schedule.zone = str(workspace.timezone)
    place(schedule, cursor).save()
    record_audit(
        "summary_schedule.changed",
        acting_user=acting_user,
        workspace=workspace,
        target=ReportKind(kind).label.lower(),
        data={"old": _in_words(old), "new": _in_words(new)},
    )
    return ScheduleChange(old, new)


def _check(workspace: Workspace, kind: str, send_at: time, weekday: int) -> None:
    errors = []
    if kind not in ReportKind.values:
        errors.append(FieldError("kind", f"One of: {', '.join(ReportKind.values)}."))
    if send_at.tzinfo is not None or send_at.second or send_at.microsecond:
        errors.append(FieldError("sendAt", "A local wall time to the minute, such as 09:00."))
    if weekday not in Weekday.values:
        errors.append(FieldError("weekday", "One of 0 (Monday) to 6 (Sunday)."))
    if errors:
        raise InvalidInput(" ".join(error.message for error in errors), errors=errors)
    plan = plan_features(workspace.pk)
    if not plan_includes(plan, kind):
        raise NotAllowed(f"The plan {plan.name} has no such summary.")


def _in_words(values: ScheduleValues) -> dict[str, str | bool]:
    return {
        "switched_on": values.is_enabled,
        "send_time": f"{values.send_at:%H:%M}",
        "weekday": str(Weekday(values.weekday).label),
        "skips_empty": values.skips_empty,
    }
