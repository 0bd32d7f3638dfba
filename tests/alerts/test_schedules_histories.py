"""Random histories of settings, zones, plans and downtimes, beside a plain reading of the rules day by day."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from alerts.models import Report, ReportKind, Weekday
from alerts.report_windows import MOST_MADE_UP
from alerts.schedule_services import update_schedule
from alerts.schedules import start_due_reports
from billing.models import WorkspacePlan
from tests.factories import make_workspace
from workspaces.services import update_workspace

pytestmark = pytest.mark.django_db

DAY, QUARTER = timedelta(days=1), timedelta(minutes=15)
ZONES = (
    "Africa/Casablanca",
    "America/Los_Angeles",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
)
# Clocks change soon after each; the second is before a leap day, the third before a new year.
STARTS = (
    datetime(2026, 10, 20, 12, tzinfo=UTC),
    datetime(2028, 2, 26, 12, tzinfo=UTC),
    datetime(2026, 12, 29, 12, tzinfo=UTC),
    datetime(2027, 3, 24, 12, tzinfo=UTC),
)

WAITS = some.one_of(some.integers(1, 40), some.integers(1, 130), some.sampled_from([3 * 96, 12 * 96, 30 * 96]))
TIMES = some.builds(time, some.integers(0, 23), some.sampled_from([0, 15, 30, 45]))
CHANGES = some.one_of(
    some.none(),
    some.tuples(some.just("timezone"), some.sampled_from(ZONES)),
    some.tuples(some.just("send_at"), TIMES),
    some.tuples(some.just("weekday"), some.sampled_from(Weekday.values)),
    some.tuples(some.just("is_enabled"), some.booleans()),
    some.tuples(some.just("plan"), some.sampled_from(["free", "starter", "team", "team"])),
)
# How many quarter hours nobody looks, what is changed then, and whether beat looks after it.
STEPS = some.lists(some.tuples(WAITS, CHANGES, some.booleans()), min_size=20, max_size=50)


@dataclass
class Expected:
    """What must have been sent: no calendar arithmetic besides reading off what clocks show."""

    kind: ReportKind
    zone: ZoneInfo
    cursor: date
    send_at: time = time(9)
    weekday: int = Weekday.MONDAY
    is_enabled: bool = True
    plan: str = "team"
    first_days: list[date] = field(default_factory=list)

    def send_days(self, now: datetime) -> list[date]:
        """The send days after the cursor whose moment has come."""
        return [day for day in self._later_days(now) if self._has_come(day, now)]

    def look(self, now: datetime) -> None:
        days = self.send_days(now) if self.is_enabled else []
        if days:
            self.cursor = days[-1]
        if self.plan != "free":
            length = DAY if self.kind is ReportKind.DAILY else DAY * 7
            self.first_days += [day - length for day in days[-MOST_MADE_UP:]]

    def switch(self, is_enabled: bool, now: datetime) -> None:
        if is_enabled and not self.is_enabled:
            self.cursor = max([self.cursor, *self.send_days(now)])
        self.is_enabled = is_enabled

    def _later_days(self, now: datetime) -> Iterator[date]:
        day = self.cursor + DAY
        while day <= now.date() + DAY * 2:
            if self.kind is ReportKind.DAILY or day.weekday() == self.weekday:
                yield day
            day += DAY

    def _has_come(self, day: date, now: datetime) -> bool:
        """Whether clocks have shown the send time; they may have been put back since."""
        shown = ((now - QUARTER * back).astimezone(self.zone).replace(tzinfo=None) for back in range(9))
        return max(shown) >= datetime.combine(day, self.send_at)


@pytest.mark.parametrize("kind", [ReportKind.DAILY, ReportKind.WEEKLY])
@given(start=some.sampled_from(STARTS), zone=some.sampled_from(ZONES), steps=STEPS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_period_is_told_once_whatever_people_change(
    kind: ReportKind, start: datetime, zone: str, steps: list[tuple[int, tuple[str, Any] | None, bool]]
) -> None:
    with time_machine.travel(start, tick=False) as clock:
        workspace = make_workspace("team", timezone=zone).workspace
        expected = Expected(kind, ZoneInfo(zone), start.astimezone(ZoneInfo(zone)).date())
        start_due_reports(start)
        now = start
        for wait, change, is_looked_at in steps:
            now += QUARTER * wait
            clock.move_to(now)
            if change:
                _make(change, workspace, expected, now)
            if is_looked_at:
                start_due_reports(now)
                expected.look(now)
        reports = Report.objects.filter(workspace=workspace, kind=kind).order_by("first_day")
        assert [report.first_day for report in reports] == expected.first_days
        assert all(report.ends_at <= report.due_at <= now for report in reports)


def _make(change: tuple[str, Any], workspace: Any, expected: Expected, now: datetime) -> None:
    name, value = change
    if name == "plan":
        WorkspacePlan.objects.filter(workspace=workspace).update(plan=value)
        expected.plan = value
    elif name == "timezone":
        update_workspace(workspace, timezone=value, acting_user=None)
        workspace.refresh_from_db()
        expected.zone = ZoneInfo(value)
    elif expected.plan != "free":
        chosen = {each: getattr(expected, each) for each in ("send_at", "weekday", "is_enabled")} | {name: value}
        update_schedule(workspace, expected.kind, **chosen, skips_empty=False, acting_user=None)
        if name == "is_enabled":
            expected.switch(value, now)
        else:
            setattr(expected, name, value)
