import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import time_machine
from django.db import connection, transaction

from alerts.channel_sets import email_channel
from alerts.models import (
    Action,
    Channel,
    ChannelKind,
    ChannelState,
    Delivery,
    MailOptOut,
    MailTopic,
    Report,
    ReportKind,
    ReportState,
    Schedule,
)
from alerts.report_runs import (
    LEASE,
    MOST_ATTEMPTS,
    MOST_BY_HAND_AN_HOUR,
    make_due_reports,
    make_report_now,
    retry_report,
)
from alerts.schedules import start_due_reports
from billing.models import WorkspacePlan
from billing.services import ensure_plans
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import NotAllowed
from tests.factories import make_cast, make_workspace
from tests.killed import run_and_kill
from tests.ledger import make_event
from tests.races import alone, at_once
from workspaces.models import AuditEntry, Workspace

DAILY, WEEKLY, EXECUTIVE = ReportKind
DAY = timedelta(days=1)
# A Wednesday.
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
SOON = 5.0


@pytest.fixture
def clock():
    with time_machine.travel(NOON, tick=False) as travel:
        yield travel


def due_report(workspace: Workspace, clock: Any = None) -> Report:
    """The daily report of the 18th, to be made now; `clock` is moved to its moment."""
    start_due_reports(NOON)
    start_due_reports(NOON + DAY)
    if clock:
        clock.move_to(NOON + DAY)
    else:
        Report.objects.update(next_attempt_at=utc_now())
    return Report.objects.get(workspace=workspace)


def told(workspace: Workspace) -> set[tuple[str, str]]:
    """Where messages go, and to whom."""
    return {
        (delivery.channel.name, delivery.recipient)
        for delivery in Delivery.objects.filter(workspace=workspace).select_related("channel")
    }


def add_channel(workspace: Workspace, kind: str, name: str, **facts: Any) -> Channel:
    return Channel.objects.create(workspace=workspace, kind=kind, name=name, **{"takes_summaries": True} | facts)


@pytest.mark.django_db
class TestMaking:
    def test_a_report_is_made_with_its_messages(self, clock: Any) -> None:
        cast = make_cast("pro")
        make_event(cast.workspace, occurred_at=NOON)
        report = due_report(cast.workspace, clock)
        assert make_due_reports(SOON) == 1
        report.refresh_from_db()
        assert report.state == ReportState.READY
        assert report.title
        assert report.content
        assert report.made_at == NOON + DAY
        assert told(cast.workspace) == {("E-mail", cast.owner.email), ("E-mail", cast.admin.email)}
        delivery = Delivery.objects.filter(report=report).first()
        assert (delivery.action, delivery.state) == (Action.REPORT, "waiting")
        assert make_due_reports(SOON) == 0

    def test_who_opted_out_of_summaries_gets_none(self, clock: Any) -> None:
        cast = make_cast("pro")
        MailOptOut.objects.create(
            workspace=cast.workspace, email=cast.admin.email, topic=MailTopic.SUMMARIES, reason="unsubscribed"
        )
        due_report(cast.workspace, clock)
        make_due_reports(SOON)
        assert told(cast.workspace) == {("E-mail", cast.owner.email)}

    def test_channels_that_take_summaries_get_them(self, clock: Any) -> None:
        opened = make_workspace("pro")
        add_channel(opened.workspace, ChannelKind.SLACK, "Slack")
        add_channel(opened.workspace, ChannelKind.WEBHOOK, "No summaries", takes_summaries=False)
        add_channel(opened.workspace, ChannelKind.TEAMS, "Paused", state=ChannelState.PAUSED)
        add_channel(opened.workspace, ChannelKind.PAGERDUTY, "PagerDuty takes none")
        due_report(opened.workspace, clock)
        make_due_reports(SOON)
        assert told(opened.workspace) == {("E-mail", opened.owner.email), ("Slack", "")}

    def test_starter_gets_mail_only(self, clock: Any) -> None:
        opened = make_workspace("starter")
        add_channel(opened.workspace, ChannelKind.SLACK, "Slack of before")
        due_report(opened.workspace, clock)
        make_due_reports(SOON)
        assert told(opened.workspace) == {("E-mail", opened.owner.email)}

    def test_after_a_downgrade_a_report_in_hand_goes_to_nobody(self, clock: Any) -> None:
        workspace = make_workspace("pro").workspace
        due_report(workspace, clock)
        WorkspacePlan.objects.filter(workspace=workspace).update(plan="free")
        make_due_reports(SOON)
        assert told(workspace) == set()

    def test_a_day_with_nothing_is_told_in_one_line(self, clock: Any) -> None:
        workspace = make_workspace("pro").workspace
        report = due_report(workspace, clock)
        make_due_reports(SOON)
        report.refresh_from_db()
        assert report.state == ReportState.READY
        assert len(told(workspace)) == 1

    def test_or_skipped_if_that_was_chosen(self, clock: Any) -> None:
        workspace = make_workspace("pro").workspace
        report = due_report(workspace, clock)
        Schedule.objects.filter(workspace=workspace).update(skips_empty=True)
        make_due_reports(SOON)
        report.refresh_from_db()
        assert report.state == ReportState.SKIPPED
        assert told(workspace) == set()

    def test_a_day_with_something_is_not_skipped(self, clock: Any) -> None:
        workspace = make_workspace("pro").workspace
        make_event(workspace, occurred_at=NOON)
        due_report(workspace, clock)
        Schedule.objects.filter(workspace=workspace).update(skips_empty=True)
        make_due_reports(SOON)
        assert len(told(workspace)) == 1


@pytest.mark.django_db
class TestFailing:
    def test_it_is_tried_again_with_growing_pauses_and_then_given_up(self, clock: Any) -> None:
        cast = make_cast("pro")
        report = due_report(cast.workspace, clock)
        Report.objects.update(zone="No/Such_Zone")
        pauses = []
        for _ in range(MOST_ATTEMPTS):
            assert make_due_reports(SOON) == 0
            report.refresh_from_db()
            pauses.append((report.next_attempt_at - utc_now()).total_seconds())
            clock.move_to(report.next_attempt_at)
        assert pauses[:4] == [30, 120, 600, 1800]
        assert set(pauses[4:]) == {1800}
        assert (report.state, report.last_error) == (ReportState.FAILED, "ZoneInfoNotFoundError")
        assert told(cast.workspace) == set()

        Report.objects.update(zone="UTC")
        retry_report(report, acting_user=cast.owner)
        assert make_due_reports(SOON) == 1
        assert AuditEntry.objects.filter(action="report.retried").count() == 1

    def test_one_that_fails_stops_no_other(self, clock: Any) -> None:
        opened = [make_workspace("pro").workspace for _ in range(6)]
        start_due_reports(NOON)
        start_due_reports(NOON + DAY)
        clock.move_to(NOON + DAY)
        Report.objects.filter(workspace__in=opened[:2]).update(zone="No/Such_Zone")
        assert make_due_reports(SOON) == 4
        assert set(Report.objects.filter(state=ReportState.READY).values_list("workspace", flat=True)) == {
            workspace.pk for workspace in opened[2:]
        }

    def test_a_made_report_is_not_made_again(self, clock: Any) -> None:
        cast = make_cast("pro")
        report = due_report(cast.workspace, clock)
        make_due_reports(SOON)
        retry_report(report, acting_user=cast.owner)
        clock.move_to(NOON + DAY * 2)
        assert make_due_reports(SOON) == 0


@pytest.mark.django_db(transaction=True)
class TestTogether:
    def test_four_workers_make_every_report_once(self) -> None:
        ensure_plans()
        workspaces = [make_workspace("pro").workspace for _ in range(10)]
        start_due_reports(NOON)
        start_due_reports(NOON + DAY * 2)
        Report.objects.update(next_attempt_at=utc_now())
        made = at_once(*[partial(make_due_reports, SOON)] * 4)
        assert sum(made) == 20
        assert Delivery.objects.count() == 20
        assert all(Delivery.objects.filter(workspace=each).count() == 2 for each in workspaces)

    def test_a_maker_that_lost_its_lease_queues_nothing(self) -> None:
        """Two makers at the same report, the second one because the first was slower than its lease."""
        workspace = make_workspace("pro").workspace
        report = due_report(workspace)
        with ThreadPoolExecutor(3) as threads:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("LOCK TABLE ingest_rollup IN ACCESS EXCLUSIVE MODE")
                makers = []
                for attempt in (1, 2):
                    makers.append(threads.submit(alone, partial(make_due_reports, SOON)))
                    _wait_for_attempt(report, attempt)
                    threads.submit(alone, partial(_end_lease, report)).result()
            assert sorted(maker.result() for maker in makers) == [0, 1]
        assert Delivery.objects.filter(report=report).count() == 1

    def test_what_a_killed_worker_had_in_hand_is_made_when_its_lease_is_over(self) -> None:
        workspace = make_workspace("pro").workspace
        report = due_report(workspace)
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("LOCK TABLE ingest_rollup IN ACCESS EXCLUSIVE MODE")
            run_and_kill(
                "from alerts.report_runs import make_due_reports\nmake_due_reports(20)",
                lambda: Report.objects.get(pk=report.pk).attempts_made == 1,
            )
        assert make_due_reports(SOON) == 0
        report.refresh_from_db()
        assert report.next_attempt_at <= utc_now() + LEASE
        _end_lease(report)
        assert make_due_reports(SOON) == 1
        assert Delivery.objects.filter(report=report).count() == 1


def _wait_for_attempt(report: Report, number: int) -> None:
    end = time.monotonic() + 20
    while Report.objects.get(pk=report.pk).attempts_made < number:
        assert time.monotonic() < end
        time.sleep(0.01)


def _end_lease(report: Report) -> None:
    Report.objects.filter(pk=report.pk).update(next_attempt_at=utc_now())


@pytest.mark.django_db
class TestByHand:
    def test_a_preview_goes_to_nobody(self, clock: Any) -> None:
        cast = make_cast("team", timezone="Europe/Berlin")
        report = make_report_now(cast.workspace, DAILY, cast.admin, queue_mail=False)
        assert (report.state, report.schedule, report.requested_by) == (ReportState.READY, None, cast.admin)
        assert (report.first_day, report.last_day) == (date(2026, 11, 17), date(2026, 11, 17))
        assert told(cast.workspace) == set()

    @pytest.mark.parametrize(("kind", "first_day"), [(WEEKLY, date(2026, 11, 9)), (EXECUTIVE, date(2026, 11, 11))])
    def test_weekly_ones_cover_the_last_completed_week(self, clock: Any, kind: str, first_day: date) -> None:
        cast = make_cast("team", timezone="Europe/Berlin")
        report = make_report_now(cast.workspace, kind, cast.admin, queue_mail=False)
        assert (report.first_day, report.last_day) == (first_day, first_day + DAY * 6)

    def test_sent_by_hand_it_goes_to_whoever_asked_alone(self, clock: Any) -> None:
        cast = make_cast("team")
        add_channel(cast.workspace, ChannelKind.SLACK, "Slack")
        make_report_now(cast.workspace, DAILY, cast.admin, queue_mail=True)
        delivery = Delivery.objects.get(workspace=cast.workspace)
        assert (delivery.recipient, delivery.requested_by) == (cast.admin.email, cast.admin)
        assert delivery.channel == email_channel(cast.workspace.pk)

    def test_it_takes_nothing_from_the_schedule(self, clock: Any) -> None:
        cast = make_cast("team")
        start_due_reports(NOON)
        clock.move_to(NOON + DAY - timedelta(hours=4))
        make_report_now(cast.workspace, DAILY, cast.admin, queue_mail=True)
        assert start_due_reports(NOON + DAY) == 1

    @pytest.mark.parametrize(("plan", "kind"), [("free", DAILY), ("pro", EXECUTIVE)])
    def test_a_plan_without_it_is_told_so(self, plan: str, kind: str) -> None:
        cast = make_cast("free")
        WorkspacePlan.objects.filter(workspace=cast.workspace).update(plan=plan)
        with pytest.raises(NotAllowed, match="has no such summary"):
            make_report_now(cast.workspace, kind, cast.admin, queue_mail=False)

    def test_not_without_end(self, clock: Any) -> None:
        cast = make_cast("team")
        for _ in range(MOST_BY_HAND_AN_HOUR):
            make_report_now(cast.workspace, DAILY, cast.admin, queue_mail=False)
        with pytest.raises(NotAllowed, match="an hour are enough"):
            make_report_now(cast.workspace, DAILY, cast.admin, queue_mail=False)
        make_report_now(cast.workspace, DAILY, cast.owner, queue_mail=False)
        clock.shift(timedelta(hours=1, seconds=1))
        make_report_now(cast.workspace, DAILY, cast.admin, queue_mail=False)
