from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from alerts.models import Report, ReportKind, Schedule, Weekday
from alerts.report_windows import MOST_MADE_UP
from alerts.schedules import start_due_reports
from billing.models import WorkspacePlan
from billing.services import ensure_plans
from tests.factories import make_workspace
from tests.races import at_once
from workspaces.models import Workspace
from workspaces.services import update_workspace

DAILY, WEEKLY, EXECUTIVE = ReportKind
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
# A Wednesday.
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)


def days_of(workspace: Workspace, kind: str = DAILY) -> list[str]:
    reports = Report.objects.filter(workspace=workspace, kind=kind).order_by("due_at", "first_day")
    return [report.first_day.isoformat() for report in reports]


def walk(workspace: Workspace, start: datetime, end: datetime) -> list[Report]:
    """The reports that come up at the first question after they are due, while beat asks again and again.

    Every quarter hour for a day before and after clocks change, every three hours otherwise.
    """
    now, seen = start, []
    while now <= end:
        around = {(now + days).astimezone(workspace.timezone).utcoffset() for days in (-DAY, DAY)}
        step = HOUR * 3 if len(around) == 1 else HOUR / 4
        now += step
        if start_due_reports(now):
            new = Report.objects.filter(workspace=workspace).exclude(pk__in=[report.pk for report in seen])
            seen += [report for report in new.order_by("due_at") if now - report.due_at < step]
    return seen


@pytest.mark.django_db
class TestOneWorkspace:
    def test_a_new_workspace_gets_three_schedules_and_no_past(self) -> None:
        workspace = make_workspace("team", timezone="Asia/Kathmandu").workspace
        assert start_due_reports(NOON) == 0
        schedules = Schedule.objects.filter(workspace=workspace)
        assert {schedule.kind for schedule in schedules} == set(ReportKind.values)
        assert {(each.zone, each.next_day, each.is_enabled) for each in schedules} == {
            ("Asia/Kathmandu", date(2026, 11, 18), True)
        }
        assert start_due_reports(NOON) == 0
        assert Schedule.objects.filter(workspace=workspace).count() == 3

    @pytest.mark.parametrize(
        ("days_ago", "first_day"), [(0, "2026-11-18"), (3, "2026-11-15"), (MOST_MADE_UP + 1, "2026-11-18")]
    )
    def test_who_came_during_a_downtime_is_owed_the_days_since(self, days_ago: int, first_day: str) -> None:
        """A workspace that is older had no summaries before: it was there before they were."""
        workspace = make_workspace("pro").workspace
        Workspace.objects.filter(pk=workspace.pk).update(created_at=NOON - DAY * days_ago)
        start_due_reports(NOON)
        start_due_reports(NOON + DAY)
        assert days_of(workspace)[0] == first_day
        assert days_of(workspace)[-1] == "2026-11-18"

    def test_a_report_says_what_it_covers(self) -> None:
        workspace = make_workspace("team", timezone="Europe/Berlin").workspace
        start_due_reports(NOON)
        assert start_due_reports(datetime(2026, 11, 19, 7, 59, 59, tzinfo=UTC)) == 0
        assert start_due_reports(datetime(2026, 11, 19, 8, 0, 3, tzinfo=UTC)) == 1
        report = Report.objects.get(workspace=workspace)
        assert (report.kind, report.zone, report.state) == (DAILY, "Europe/Berlin", "pending")
        assert (report.first_day, report.last_day) == (date(2026, 11, 18), date(2026, 11, 18))
        assert (report.starts_at, report.ends_at) == (
            datetime(2026, 11, 17, 23, tzinfo=UTC),
            datetime(2026, 11, 18, 23, tzinfo=UTC),
        )
        assert report.due_at == report.next_attempt_at == datetime(2026, 11, 19, 8, tzinfo=UTC)
        assert start_due_reports(datetime(2026, 11, 19, 8, 0, 8, tzinfo=UTC)) == 0

    def test_the_executive_report_covers_utc_days(self) -> None:
        workspace = make_workspace("team", timezone="Asia/Tokyo").workspace
        start_due_reports(NOON)
        start_due_reports(NOON + DAY * 7)
        report = Report.objects.get(workspace=workspace, kind=EXECUTIVE)
        assert (report.zone, report.first_day, report.last_day) == ("UTC", date(2026, 11, 16), date(2026, 11, 22))
        assert report.due_at == datetime(2026, 11, 23, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("plan", "kinds"),
        [("free", set()), ("starter", {DAILY, WEEKLY}), ("pro", {DAILY, WEEKLY}), ("team", set(ReportKind))],
    )
    def test_the_plan_says_which_kinds_there_are(self, plan: str, kinds: set[str]) -> None:
        workspace = make_workspace(plan).workspace
        start_due_reports(NOON)
        start_due_reports(NOON + DAY * 6)
        assert set(Report.objects.filter(workspace=workspace).values_list("kind", flat=True)) == kinds
        assert {each.next_due_at > NOON + DAY * 6 for each in Schedule.objects.filter(workspace=workspace)} == {True}

    def test_an_upgrade_brings_no_reports_of_before(self) -> None:
        workspace = make_workspace("free").workspace
        start_due_reports(NOON)
        start_due_reports(NOON + DAY * 3)
        WorkspacePlan.objects.filter(workspace=workspace).update(plan="pro")
        start_due_reports(NOON + DAY * 4)
        assert days_of(workspace) == ["2026-11-21"]

    def test_what_is_switched_off_is_not_due(self) -> None:
        workspace = make_workspace("pro").workspace
        start_due_reports(NOON)
        Schedule.objects.filter(workspace=workspace, kind=DAILY).update(is_enabled=False)
        start_due_reports(NOON + DAY * 3)
        assert days_of(workspace) == []

    def test_missed_days_are_made_up_but_not_without_end(self) -> None:
        workspace = make_workspace("pro").workspace
        start_due_reports(NOON)
        assert start_due_reports(NOON + DAY * 3) == 3
        assert days_of(workspace) == ["2026-11-18", "2026-11-19", "2026-11-20"]
        start_due_reports(NOON + DAY * 40)
        assert len(days_of(workspace)) == 3 + MOST_MADE_UP
        assert days_of(workspace)[-1] == "2026-12-27"
        assert start_due_reports(NOON + DAY * 40) == 0


@pytest.mark.django_db
class TestTimezones:
    def test_eastwards_no_day_is_lost(self) -> None:
        """In Tokyo it is past nine already: what was not sent yet is sent at once, and the next day in its turn."""
        workspace = make_workspace("pro", timezone="America/Los_Angeles").workspace
        start_due_reports(NOON)
        start_due_reports(NOON + DAY)
        update_workspace(workspace, timezone="Asia/Tokyo", acting_user=None)
        for hours in range(72):
            start_due_reports(NOON + DAY + HOUR * hours)
        assert days_of(workspace) == ["2026-11-18", "2026-11-19", "2026-11-20", "2026-11-21"]
        assert set(Schedule.objects.filter(workspace=workspace).values_list("zone", flat=True)) == {"Asia/Tokyo"}

    def test_westwards_no_day_comes_twice(self) -> None:
        workspace = make_workspace("pro", timezone="Pacific/Kiritimati").workspace
        start_due_reports(NOON)
        evening = NOON + DAY + HOUR * 8
        start_due_reports(evening)
        assert days_of(workspace) == ["2026-11-19"]
        update_workspace(workspace, timezone="Pacific/Pago_Pago", acting_user=None)
        for hours in range(60):
            start_due_reports(evening + HOUR * hours)
        assert days_of(workspace) == ["2026-11-19", "2026-11-20"]
        late = Report.objects.get(workspace=workspace, first_day=date(2026, 11, 20))
        assert (late.zone, late.due_at) == ("Pacific/Pago_Pago", datetime(2026, 11, 21, 20, tzinfo=UTC))

    def test_there_and_back_every_day_comes_once(self) -> None:
        workspace = make_workspace("pro", timezone="Europe/Berlin").workspace
        zones = ("Pacific/Kiritimati", "Europe/Berlin", "Pacific/Pago_Pago", "Asia/Kathmandu", "Europe/Berlin")
        start_due_reports(NOON)
        for number in range(20 * 24):
            if number % 31 == 0:
                zone = zones[number // 31 % len(zones)]
                update_workspace(workspace, timezone=zone, acting_user=None)
            start_due_reports(NOON + HOUR * number)
        expected = [(date(2026, 11, 18) + DAY * number).isoformat() for number in range(len(days_of(workspace)))]
        assert days_of(workspace) == expected
        assert len(expected) >= 18


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("zone", "start", "send_at"),
    [
        ("Europe/Berlin", datetime(2026, 3, 26, tzinfo=UTC), time(2, 30)),
        ("Australia/Lord_Howe", datetime(2026, 10, 1, tzinfo=UTC), time(2, 15)),
        ("America/Sao_Paulo", datetime(2018, 11, 1, tzinfo=UTC), time(0)),
        ("Pacific/Apia", datetime(2011, 12, 27, tzinfo=UTC), time(9)),
        ("Africa/Cairo", datetime(2026, 4, 20, tzinfo=UTC), time(0, 30)),
        ("America/Los_Angeles", datetime(2026, 10, 30, tzinfo=UTC), time(1, 30)),
        ("Asia/Kathmandu", datetime(2026, 1, 1, tzinfo=UTC), time(9)),
    ],
)
def test_beat_walks_through_changes_of_clocks(zone: str, start: datetime, send_at: time) -> None:
    workspace = make_workspace("team", timezone=zone).workspace
    start_due_reports(start)
    schedules = Schedule.objects.filter(workspace=workspace)
    schedules.update(send_at=send_at, weekday=Weekday.SUNDAY, zone="")
    reports = walk(workspace, start, start + DAY * 9)
    assert len(reports) == Report.objects.filter(workspace=workspace).count(), "one came late"
    daily = [report for report in reports if report.kind == DAILY]
    first_local_day = start.astimezone(ZoneInfo(zone)).date()
    expected = [first_local_day + DAY * number for number in range(len(daily) + 1)]
    missing = [date(2011, 12, 30)] if zone == "Pacific/Apia" else []
    assert [report.first_day for report in daily] == [day for day in expected if day not in missing][: len(daily)]
    assert len(daily) >= 8
    assert all(before.ends_at == after.starts_at for before, after in pairwise(daily))
    weekly = [report for report in reports if report.kind == WEEKLY]
    assert [report.last_day.weekday() for report in weekly] in ([5], [5, 5])


@pytest.mark.django_db(transaction=True)
def test_two_beats_and_four_workers_start_every_report_once() -> None:
    ensure_plans()
    opened = [make_workspace("pro", timezone="Asia/Kathmandu").workspace for _ in range(12)]
    at_once(*[partial(start_due_reports, NOON)] * 6)
    assert Schedule.objects.count() == 36
    for number in range(1, 4):
        started = at_once(*[partial(start_due_reports, NOON + DAY * number)] * 6)
        assert sum(started) == 12
        assert Report.objects.count() == 12 * number
    assert all(days_of(workspace) == ["2026-11-18", "2026-11-19", "2026-11-20"] for workspace in opened)


@pytest.mark.django_db
def test_asking_in_vain_is_three_statements_whatever_the_number_of_workspaces() -> None:
    for _ in range(5):
        make_workspace("pro")
    start_due_reports(NOON)
    with CaptureQueriesContext(connection) as asked:
        start_due_reports(NOON + timedelta(seconds=5))
    statements = [each["sql"] for each in asked if each["sql"].startswith("SELECT")]
    assert len(statements) == 3
