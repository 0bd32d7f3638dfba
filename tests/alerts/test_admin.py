"""Alerts in the operators' console: everything to be seen but secrets, and what operators do about messages."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from alerts import outgoing
from alerts.channel_sets import email_channel
from alerts.lateness import DELIVERY_IS_LATE_AFTER
from alerts.models import (
    Action,
    Alert,
    AlertSettings,
    Attempt,
    Channel,
    ChannelKind,
    Delivery,
    DeliveryState,
    MailOptOut,
    MailTopic,
    OptOutReason,
    Recipient,
    Report,
    ReportKind,
    ReportState,
    Rule,
    Schedule,
)
from alerts.report_windows import due_until
from alerts.schedules import ensure_schedules, start_due_reports, timetable_of
from ingest.models import Limit, LimitCrossing
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import day_of
from opsmeter_site.lib.sealed import seal
from opsmeter_site.operators import state
from opsmeter_site.operators.state import service_state
from tests.factories import OperatorFactory, UserFactory, make_cast
from workspaces.models import AuditEntry

pytestmark = pytest.mark.django_db

SECRET = "https://hooks.slack.example/T000/B000/very-secret"
MODELS = [Alert, AlertSettings, Channel, Delivery, MailOptOut, Recipient, Report, Rule, Schedule]


def url(model, name="changelist", *args):
    return reverse(f"admin:alerts_{model._meta.model_name}_{name}", args=args)


@pytest.fixture
def console(client):
    client.force_login(OperatorFactory())
    return client


@pytest.fixture
def cast():
    return make_cast("team")


@pytest.fixture
def channel(space):
    return Channel.objects.create(workspace=space, kind=ChannelKind.SLACK, name="Ops", sealed=seal(SECRET))


def queue(channel, state=DeliveryState.WAITING, **facts):
    delivery = outgoing.queue(channel, Action.TEST, **facts)
    Delivery.objects.filter(pk=delivery.pk).update(state=state)
    delivery.refresh_from_db()
    return delivery


def last_due(schedule):
    """The report whose moment came last."""
    now = utc_now()
    return due_until(timetable_of(schedule), now.date() - timedelta(days=22), now)[-1]


def make_report(space, **facts):
    ensure_schedules(space, utc_now())
    schedule = Schedule.objects.get(workspace=space, kind=ReportKind.DAILY)
    days = last_due(schedule).days
    return Report.objects.create(
        workspace=space,
        schedule=schedule,
        kind=ReportKind.DAILY,
        zone="UTC",
        first_day=days.first_day,
        last_day=days.last_day,
        starts_at=days.start,
        ends_at=days.end,
        due_at=utc_now(),
        **facts,
    )


@pytest.fixture
def rows(cast, space, channel):
    """A row in every table."""
    now = utc_now()
    alert = Alert.objects.create(
        workspace=space,
        kind="spend_spike",
        severity="warning",
        scope="workspace",
        metric="usd",
        dedup_key="workspace|usd",
        title="Spend is up <b>",
        text="Spend",
        window_start=now,
        window_end=now,
        handling="sent",
    )
    alert.notes.create(author=cast.owner, text="Looking")
    AlertSettings.objects.create(workspace=space)
    Rule.objects.create(workspace=space, kind="unit_cost", dimension="model", threshold_usd=Decimal("0.5"))
    Recipient.objects.create(workspace=space, email="bob@example.org", added_by=cast.owner)
    MailOptOut.objects.create(
        workspace=space, email="eve@example.org", topic=MailTopic.ALERTS, reason=OptOutReason.UNSUBSCRIBED
    )
    report = make_report(space, content={"secret": "figures"})
    delivery = outgoing.queue(channel, Action.ALERT, alerts=[alert], report=report)
    Attempt.objects.create(delivery=delivery, number=1, started_at=now, answer="no_service")


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("model", MODELS)
def test_everything_is_shown_and_nothing_changed_by_hand(console, space, model):
    row = model.objects.filter(workspace=space).first()
    for query in ({}, {"workspace": str(space.pk)}, {"q": space.name}, {"q": "nobody at all"}):
        page = console.get(url(model), query)
        assert page.status_code == 200
        assert "unsafe" not in page["Content-Security-Policy"]
    page = console.get(url(model, "change", row.pk))
    assert page.status_code == 200
    for hidden in (SECRET, "very-secret", row.sealed if model is Channel else SECRET, "figures"):
        assert hidden not in page.content.decode()
    assert console.post(url(model, "change", row.pk), {}).status_code == 403
    assert console.get(url(model, "add")).status_code == 403
    assert console.post(url(model, "delete", row.pk), {"post": "yes"}).status_code == 403


@pytest.mark.usefixtures("rows")
def test_a_message_is_shown_with_its_attempts_and_an_alert_with_its_notes(console):
    delivery = Delivery.objects.latest("created_at")
    assert "no_service" in console.get(url(Delivery, "change", delivery.pk)).content.decode()
    assert "Looking" in console.get(url(Alert, "change", Alert.objects.get().pk)).content.decode()


def act(client, model, action, rows, **answers):
    data = {"action": action, "_selected_action": [row.pk for row in rows], **answers}
    return client.post(url(model), data, follow=True)


def test_messages_are_tried_again_and_cancelled(console, channel):
    failed, sent, waiting = (queue(channel, state) for state in ("failed", "sent", "waiting"))
    page = act(console, Delivery, "retry", [failed, sent]).content.decode()
    assert "On their way again: 1." in page
    assert "was sent already" in page
    assert act(console, Delivery, "cancel", [waiting]).context["consequence"]
    page = act(console, Delivery, "cancel", [waiting, sent], confirmed="yes").content.decode()
    assert "Cancelled: 1." in page
    for row in (failed, sent, waiting):
        row.refresh_from_db()
    assert [failed.state, sent.state, waiting.state] == ["waiting", "sent", "cancelled"]
    operators = AuditEntry.objects.filter(workspace=channel.workspace, action__startswith="delivery.")
    assert set(operators.values_list("action", flat=True)) == {"delivery.retried", "delivery.cancelled"}


def test_who_may_only_look_may_not_act(client, channel):
    helper = UserFactory(is_staff=True)
    helper.user_permissions.set(Permission.objects.filter(codename="view_delivery"))
    client.force_login(helper)
    failed = queue(channel, "failed")
    assert client.get(url(Delivery)).status_code == 200
    act(client, Delivery, "retry", [failed])
    failed.refresh_from_db()
    assert failed.state == DeliveryState.FAILED


def test_overdue_messages_and_schedules_are_listed(console, channel, space):
    now = utc_now()
    late, _soon = queue(channel, send_at=now - timedelta(minutes=3)), queue(channel, send_at=now)
    assert list(console.get(url(Delivery), {"due": "late"}).context["cl"].result_list) == [late]
    ensure_schedules(space, now)
    schedule = space.report_schedules.get(kind=ReportKind.DAILY)
    assert schedule not in console.get(url(Schedule), {"due": "late"}).context["cl"].result_list
    Schedule.objects.filter(pk=schedule.pk).update(next_due_at=now - timedelta(minutes=6))
    assert schedule in console.get(url(Schedule), {"due": "late"}).context["cl"].result_list


# --- Summaries --------------------------------------------------------------------------------------------------------


def test_a_failed_summary_is_made_again(console, space):
    report = make_report(space, state=ReportState.FAILED, attempts_made=10)
    act(console, Report, "make_again", [report])
    report.refresh_from_db()
    assert (report.state, report.attempts_made) == (ReportState.PENDING, 0)


def test_only_what_failed_of_a_summary_is_sent_again(console, space, channel):
    report = make_report(space, state=ReportState.READY)
    failed, sent = (queue(channel, state, report=report) for state in ("failed", "sent"))
    assert "Messages on their way again: 1." in act(console, Report, "send_again", [report]).content.decode()
    assert list(report.deliveries.filter(state=DeliveryState.WAITING)) == [failed]
    assert list(report.deliveries.filter(state=DeliveryState.SENT)) == [sent]


def run_again(console, schedule):
    assert act(console, Schedule, "run_again", [schedule]).context["consequence"]
    return act(console, Schedule, "run_again", [schedule], confirmed="yes").content.decode()


@pytest.mark.parametrize("kind", ReportKind)
def test_a_schedule_makes_up_for_a_missing_summary_once(console, space, kind):
    now = utc_now()
    ensure_schedules(space, now)
    schedule = space.report_schedules.get(kind=kind)
    assert "is due now" in run_again(console, schedule)
    schedule.refresh_from_db()
    assert schedule.next_due_at <= now
    for _ in range(2):
        start_due_reports(utc_now())
        report = Report.objects.get(schedule=schedule)
        schedule.refresh_from_db()
        assert schedule.next_due_at > now
        run_again(console, schedule)
    assert report.first_day == last_due(schedule).days.first_day


def test_a_schedule_whose_summary_failed_makes_it_again(console, space):
    report = make_report(space, state=ReportState.FAILED)
    assert "is made again" in run_again(console, report.schedule)
    report.refresh_from_db()
    assert report.state == ReportState.PENDING


def test_a_schedule_whose_summary_was_made_sends_what_is_unsent(console, space, channel):
    report = make_report(space, state=ReportState.READY)
    assert "nothing of it is unsent" in run_again(console, report.schedule)
    queue(channel, "failed", report=report)
    assert "is sent again to 1 that did not get it" in run_again(console, report.schedule)


# --- The first page ---------------------------------------------------------------------------------------------------


@pytest.fixture
def _fresh_state(monkeypatch):
    monkeypatch.setattr(state, "_kept", None)


def figures():
    return {figure.label: figure for section in service_state(utc_now()) for figure in section.figures}


def crossing(space, crossed_at):
    limit = Limit.objects.filter(workspace=space).first()
    return LimitCrossing.objects.create(
        limit=limit, period_start=day_of(crossed_at).start, threshold=1, amount=1, value=1, crossed_at=crossed_at
    )


@pytest.mark.usefixtures("_fresh_state")
def test_a_crossing_that_reached_no_inbox_is_red_after_five_minutes(space):
    assert figures()["Crossings without an alert"].value == "0"
    row = crossing(space, utc_now() - timedelta(minutes=4))
    figure = figures()["Crossings without an alert"]
    assert (figure.value, figure.tone) == ("1", "")
    LimitCrossing.objects.filter(pk=row.pk).update(crossed_at=utc_now() - timedelta(minutes=6))
    figure = figures()["Crossings without an alert"]
    assert figure.tone == "bad"
    assert "6 minutes ago" in figure.window


@pytest.mark.usefixtures("_fresh_state")
def test_messages_and_summaries_in_figures_that_lead_to_their_lists(console, channel, space):
    now = utc_now()
    queue(channel)
    queue(channel, "sending", send_at=now + timedelta(minutes=1))
    queue(channel, "failed")
    make_report(space, state=ReportState.FAILED)
    shown = figures()
    values = {label: shown[label].value for label in shown if label.startswith(("Messages", "Summaries ", "Schedules"))}
    assert values == {
        "Messages waiting": "1",
        "Messages being sent": "1",
        "Messages overdue": "0",
        "Messages failed": "1",
        "Summaries to be made": "0",
        "Summaries failed": "1",
        "Schedules overdue": "0",
    }
    queue(channel, send_at=now - DELIVERY_IS_LATE_AFTER - timedelta(seconds=1))
    Schedule.objects.filter(workspace=space).update(next_due_at=now - timedelta(hours=1))
    shown = figures()
    assert (shown["Messages overdue"].value, shown["Messages overdue"].tone) == ("1", "bad")
    assert (shown["Schedules overdue"].value, shown["Schedules overdue"].tone) == ("3", "bad")
    for figure in (each for section in service_state(now) if section.title == "Alerts" for each in section.figures):
        assert console.get(figure.url).status_code == 200, figure.url


@pytest.mark.usefixtures("rows")
def test_the_support_page_shows_channels_messages_and_schedules(console, space):
    email_channel(space.pk)
    page = console.get(reverse("admin:support", args=[space.pk])).content.decode()
    for part in ("Ops", "E-mail", "Last messages", "Daily summary"):
        assert part in page
    assert "very-secret" not in page
