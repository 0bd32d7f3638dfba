from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
import time_machine

from alerts.models import Report, ReportKind, Schedule, Weekday
from alerts.schedule_services import ScheduleValues, update_schedule
from alerts.schedules import start_due_reports
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput, NotAllowed
from tests.factories import make_workspace
from tests.races import at_once
from workspaces.audit_words import deed
from workspaces.models import AuditEntry, Workspace

DAILY, WEEKLY, EXECUTIVE = ReportKind
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
# A Wednesday, 13:00 in Berlin.
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
AS_IT_IS = {"is_enabled": True, "skips_empty": False, "send_at": time(9), "weekday": Weekday.MONDAY}


@pytest.fixture
def clock():
    with time_machine.travel(NOON, tick=False) as travel:
        yield travel


@pytest.fixture
def workspace(db: None, clock: Any) -> Workspace:
    workspace = make_workspace("team", timezone="Europe/Berlin").workspace
    start_due_reports(NOON)
    return workspace


def change(workspace: Workspace, kind: str = DAILY, **values: Any) -> None:
    update_schedule(workspace, kind, **AS_IT_IS | values, acting_user=None)


def ask_beat(clock: Any, moment: datetime) -> None:
    clock.move_to(moment)
    start_due_reports(utc_now())


def sent(workspace: Workspace, kind: str = DAILY) -> list[tuple[str, str]]:
    """First day and local moment at which each was due."""
    return [
        (report.first_day.isoformat()[5:], f"{report.due_at.astimezone(workspace.timezone):%m-%d %H:%M}")
        for report in Report.objects.filter(workspace=workspace, kind=kind).order_by("first_day")
    ]


class TestSendTime:
    def test_what_is_not_sent_yet_is_sent_at_the_new_time(self, workspace: Workspace, clock: Any) -> None:
        ask_beat(clock, datetime(2026, 11, 19, 7, tzinfo=UTC))
        change(workspace, send_at=time(20, 15))
        ask_beat(clock, datetime(2026, 11, 19, 19, 14, 59, tzinfo=UTC))
        assert sent(workspace) == []
        ask_beat(clock, datetime(2026, 11, 19, 19, 15, tzinfo=UTC))
        assert sent(workspace) == [("11-18", "11-19 20:15")]

    def test_a_new_time_that_has_just_passed_sends_at_once(self, workspace: Workspace, clock: Any) -> None:
        ask_beat(clock, datetime(2026, 11, 19, 7, tzinfo=UTC))
        change(workspace, send_at=time(7, 30))
        ask_beat(clock, datetime(2026, 11, 19, 7, 0, 5, tzinfo=UTC))
        assert sent(workspace) == [("11-18", "11-19 07:30")]

    def test_what_is_sent_is_not_sent_again(self, workspace: Workspace, clock: Any) -> None:
        ask_beat(clock, datetime(2026, 11, 19, 8, tzinfo=UTC))
        change(workspace, send_at=time(10))
        ask_beat(clock, datetime(2026, 11, 19, 10, tzinfo=UTC))
        assert sent(workspace) == [("11-18", "11-19 09:00")]
        ask_beat(clock, datetime(2026, 11, 20, 9, tzinfo=UTC))
        assert sent(workspace) == [("11-18", "11-19 09:00"), ("11-19", "11-20 10:00")]

    def test_the_executive_report_of_a_send_day_comes_once(self, workspace: Workspace, clock: Any) -> None:
        """Also where the new time lies behind the next midnight of UTC."""
        change(workspace, EXECUTIVE, send_at=time(0, 30))
        ask_beat(clock, datetime(2026, 11, 22, 23, 30, tzinfo=UTC))
        change(workspace, EXECUTIVE, send_at=time(9))
        ask_beat(clock, datetime(2026, 11, 24, tzinfo=UTC))
        assert sent(workspace, EXECUTIVE) == [("11-15", "11-23 00:30")]


class TestWeekday:
    def test_a_later_weekday_overlaps_and_leaves_no_gap(self, workspace: Workspace, clock: Any) -> None:
        ask_beat(clock, datetime(2026, 11, 23, 8, tzinfo=UTC))
        change(workspace, WEEKLY, weekday=Weekday.WEDNESDAY)
        ask_beat(clock, datetime(2026, 12, 3, tzinfo=UTC))
        assert sent(workspace, WEEKLY) == [
            ("11-16", "11-23 09:00"),
            ("11-18", "11-25 09:00"),
            ("11-25", "12-02 09:00"),
        ]

    def test_a_weekday_that_has_passed_is_made_up_at_once(self, workspace: Workspace, clock: Any) -> None:
        ask_beat(clock, datetime(2026, 11, 27, 12, tzinfo=UTC))
        change(workspace, WEEKLY, weekday=Weekday.WEDNESDAY)
        ask_beat(clock, datetime(2026, 11, 27, 12, 0, 5, tzinfo=UTC))
        assert sent(workspace, WEEKLY) == [("11-16", "11-23 09:00"), ("11-18", "11-25 09:00")]
        ask_beat(clock, datetime(2026, 12, 2, 8, tzinfo=UTC))
        assert sent(workspace, WEEKLY)[2:] == [("11-25", "12-02 09:00")]


class TestOffAndOn:
    def test_switched_on_again_it_begins_with_the_running_day(self, workspace: Workspace, clock: Any) -> None:
        change(workspace, is_enabled=False)
        ask_beat(clock, NOON + DAY * 4)
        change(workspace)
        ask_beat(clock, NOON + DAY * 6)
        assert sent(workspace) == [("11-22", "11-23 09:00"), ("11-23", "11-24 09:00")]

    @pytest.mark.parametrize("hour", [7, 8], ids=["before the send moment", "at it"])
    def test_off_and_on_at_once_loses_only_what_was_due_meanwhile(
        self, workspace: Workspace, clock: Any, hour: int
    ) -> None:
        clock.move_to(datetime(2026, 11, 19, 6, 59, tzinfo=UTC))
        change(workspace, is_enabled=False)
        ask_beat(clock, datetime(2026, 11, 19, hour, 0, tzinfo=UTC))
        change(workspace)
        ask_beat(clock, NOON + DAY * 2)
        still_to_come = [("11-18", "11-19 09:00")] if hour == 7 else []
        assert sent(workspace) == [*still_to_come, ("11-19", "11-20 09:00")]

    def test_off_and_on_within_a_day_changes_nothing(self, workspace: Workspace, clock: Any) -> None:
        ask_beat(clock, NOON + DAY)
        change(workspace, is_enabled=False)
        change(workspace)
        ask_beat(clock, NOON + DAY * 2)
        assert sent(workspace) == [("11-18", "11-19 09:00"), ("11-19", "11-20 09:00")]


class TestRefusals:
    @pytest.mark.parametrize(
        ("values", "field"),
        [
            ({"send_at": time(9, 0, 30)}, "sendAt"),
            ({"send_at": time(9, tzinfo=UTC)}, "sendAt"),
            ({"weekday": 7}, "weekday"),
            ({"weekday": -1}, "weekday"),
            ({"kind": "monthly"}, "kind"),
        ],
    )
    def test_impossible_values_are_refused_by_name(
        self, workspace: Workspace, values: dict[str, Any], field: str
    ) -> None:
        with pytest.raises(InvalidInput) as refusal:
            change(workspace, **values)
        assert [error.field for error in refusal.value.errors] == [field]
        assert not AuditEntry.objects.filter(action="summary_schedule.changed").exists()

    @pytest.mark.parametrize(("plan", "kind"), [("free", DAILY), ("pro", EXECUTIVE)])
    def test_a_kind_that_the_plan_has_not_is_refused(self, db: None, plan: str, kind: str) -> None:
        with pytest.raises(NotAllowed, match=f"The plan {plan.capitalize()} has no such summary"):
            change(make_workspace(plan).workspace, kind, send_at=time(8))


def test_the_trail_says_what_was_changed(workspace: Workspace) -> None:
    changed = update_schedule(workspace, DAILY, **AS_IT_IS | {"send_at": time(7, 45)}, acting_user=None)
    assert changed.old == ScheduleValues(**AS_IT_IS)
    assert changed.new.send_at == time(7, 45)
    entry = AuditEntry.objects.get(action="summary_schedule.changed")
    assert deed(entry) == "changed when the daily summary is sent"
    assert (entry.data["old"]["send_time"], entry.data["new"]["send_time"]) == ("09:00", "07:45")


def test_the_same_values_again_change_nothing(workspace: Workspace) -> None:
    change(workspace)
    assert not AuditEntry.objects.filter(action="summary_schedule.changed").exists()


def test_a_workspace_that_beat_has_not_seen_yet_can_choose(db: None) -> None:
    workspace = make_workspace("pro").workspace
    change(workspace, send_at=time(6))
    assert Schedule.objects.get(workspace=workspace, kind=DAILY).send_at == time(6)
    assert Schedule.objects.filter(workspace=workspace).count() == 3


def test_a_changed_timezone_holds_from_the_change_on(workspace: Workspace, clock: Any) -> None:
    """Whichever comes first, beat's look or somebody's next change of the schedule."""
    Workspace.objects.filter(pk=workspace.pk).update(timezone="Asia/Tokyo")
    workspace.refresh_from_db()
    change(workspace, send_at=time(10))
    schedule = Schedule.objects.get(workspace=workspace, kind=DAILY)
    assert (schedule.zone, schedule.next_day) == ("Asia/Tokyo", date(2026, 11, 18))
    assert schedule.next_due_at == datetime(2026, 11, 19, 1, tzinfo=UTC)


@pytest.mark.django_db(transaction=True)
def test_a_change_and_a_beat_at_once_send_one_report() -> None:
    workspace = make_workspace("pro", timezone="Europe/Berlin").workspace
    start_due_reports(NOON)
    for number in range(1, 6):
        now = NOON + DAY * number
        at_once(
            lambda now=now: start_due_reports(now),
            lambda number=number: change(workspace, send_at=time(9, number)),
            lambda now=now: start_due_reports(now),
        )
        start_due_reports(now)
    assert [day for day, _ in sent(workspace)] == [f"11-{day}" for day in range(18, 23)]
