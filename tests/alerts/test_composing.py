"""What a message says at the moment at which it is sent."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.urls import reverse

from alerts.channel_sets import email_channel
from alerts.composing import compose
from alerts.models import Action, AlertKind, AlertState, ChannelState, Severity
from alerts.outgoing import queue
from opsmeter_site.lib.clock import utc_now
from tests.alerts.outbound import make_alert, make_webhook, queue_alert, queue_mail
from tests.factories import make_workspace

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _noon():
    with time_machine.travel(NOON, tick=False):
        yield


@pytest.fixture
def opened():
    return make_workspace("pro", name="Acme", timezone="Europe/Berlin")


@pytest.fixture
def channel(opened):
    return make_webhook(opened.workspace, "https://hooks.example.com/x")


def address(workspace, name, *arguments):
    return f"http://127.0.0.1:8000{reverse(name, args=[workspace.slug, *arguments])}"


def facts(message):
    return {fact.label: fact.value for fact in message.facts}


class TestOneAlert:
    def test_it_says_what_when_and_where(self, channel, opened):
        alert = make_alert(opened.workspace)
        delivery = queue_alert(channel, alert)
        message = compose(delivery)
        assert (message.id, message.action, message.severity) == (str(delivery.pk), Action.ALERT, Severity.CRITICAL)
        assert (message.workspace_name, message.workspace_slug) == ("Acme", opened.workspace.slug)
        assert (message.title, message.text) == (alert.title, alert.text)
        assert message.url == address(opened.workspace, "alert", alert.pk)
        assert facts(message) == {
            "So far": "$52.10",
            "Limit": "$50.00",
            "Share of it": "104.2%",
            "Window": "Mon 15 Jun 2026 (UTC day)",
            "When": "Mon 15 Jun 2026, 14:00 Europe/Berlin (12:00 UTC)",
        }
        item = message.items[0]
        assert (item.id, item.dedup_key, item.has_cleared) == (str(alert.pk), alert.dedup_key, False)
        assert (message.mail, message.unsubscribe_url) == (None, "")

    def test_requests_are_no_money(self, channel, opened):
        month = NOON.replace(day=1, hour=0)
        alert = make_alert(
            opened.workspace,
            kind=AlertKind.PLAN_LIMIT_NEAR,
            facts={"measure": "requests", "spend": "800000", "limit": "1000000", "share": "0.8"},
            window_start=month,
            window_end=month.replace(month=7),
        )
        shown = facts(compose(queue_alert(channel, alert)))
        assert (shown["So far"], shown["Limit"]) == ("800,000 requests", "1,000,000 requests")
        assert shown["Window"] == "June 2026 (UTC month)"

    def test_of_hours_both_ends_are_told(self, channel, opened):
        alert = make_alert(
            opened.workspace, facts={"actual_usd": "30"}, window_start=NOON - timedelta(hours=1), window_end=NOON
        )
        shown = facts(compose(queue_alert(channel, alert)))
        assert (shown["Spend"], shown["Window"]) == ("$30.00", "Mon 15 Jun 2026, 11:00 to 12:00 UTC")

    def test_a_zone_of_utc_is_told_once(self):
        opened = make_workspace("pro", timezone="UTC")
        channel = make_webhook(opened.workspace, "https://hooks.example.com/x")
        assert facts(compose(queue_alert(channel)))["When"] == "Mon 15 Jun 2026, 12:00 UTC"

    def test_a_day_that_differs_is_told_on_both_sides(self):
        opened = make_workspace("pro", timezone="Pacific/Auckland")
        channel = make_webhook(opened.workspace, "https://hooks.example.com/x")
        assert facts(compose(queue_alert(channel)))["When"] == (
            "Tue 16 Jun 2026, 00:00 Pacific/Auckland (Mon 15 Jun 2026, 12:00 UTC)"
        )


class TestHeld:
    @pytest.mark.parametrize(
        ("state", "end"), [(AlertState.RESOLVED, "it has cleared since."), (AlertState.OPEN, "it still holds.")]
    )
    def test_it_says_until_when_and_whether_it_has_cleared(self, channel, opened, state, end):
        alert = make_alert(opened.workspace, state=state, held_until=NOON + timedelta(hours=18))
        message = compose(queue_alert(channel, alert, hold="quiet_hours"))
        assert message.text.endswith(f"\n\nThis was held by quiet hours until 08:00 (Europe/Berlin); {end}")
        assert message.items[0].has_cleared == (state == AlertState.RESOLVED)

    def test_of_good_news_nothing_clears(self, channel, opened):
        until = NOON + timedelta(hours=18)
        recovery = make_alert(opened.workspace, kind=AlertKind.RECOVERY, state=AlertState.RESOLVED, held_until=until)
        message = compose(queue_alert(channel, recovery, hold="quiet_hours"))
        assert message.text.endswith("\n\nThis was held by quiet hours until 08:00 (Europe/Berlin).")
        warning = make_alert(opened.workspace, held_until=until)
        message = compose(queue_alert(channel, recovery, warning, hold="quiet_hours"))
        assert message.text.endswith("(Europe/Berlin); the alert still holds.")

    def test_a_named_address_is_told_that_it_asked_for_them(self, opened):
        message = compose(queue_mail(opened.workspace, "named@example.com"))
        assert message.mail is not None
        assert "Sent to named@example.com: this address confirmed that it wants the alerts" in message.mail.text

    def test_what_was_only_late_says_so_too(self, channel, opened):
        alert = make_alert(opened.workspace, state=AlertState.RESOLVED)
        assert compose(queue_alert(channel, alert)).text.endswith("\n\nIt has cleared since.")

    def test_several_come_together_the_worst_first(self, channel, opened):
        until = NOON + timedelta(minutes=5)
        mild = make_alert(opened.workspace, "Budget warning", severity=Severity.WARNING, held_until=until)
        bad = make_alert(opened.workspace, "Budget exceeded", held_until=until, opened_at=NOON - timedelta(minutes=1))
        worse = make_alert(
            opened.workspace, "Limit reached", held_until=until, opened_at=NOON - timedelta(minutes=2),
            state=AlertState.RESOLVED,
        )  # fmt: skip
        message = compose(queue_alert(channel, mild, bad, worse, hold="cooldown"))
        assert message.title == "3 alerts: Limit reached and 2 more"
        assert [item.title for item in message.items] == ["Limit reached", "Budget exceeded", "Budget warning"]
        assert message.severity == Severity.CRITICAL
        assert message.text == (
            "2 critical, 1 warning.\n\n"
            "These were held by the cooldown until 14:05 (Europe/Berlin); 1 of 3 has cleared since."
        )
        assert message.url == address(opened.workspace, "alerts")
        assert message.facts == ()


def test_a_recovery_ends_the_alert_that_it_is_about(channel, opened):
    over = make_alert(opened.workspace, state=AlertState.RESOLVED)
    recovery = make_alert(
        opened.workspace, "Daily budget no longer exceeded", kind=AlertKind.RECOVERY, severity=Severity.INFO,
        state=AlertState.RESOLVED, recovers=over,
    )  # fmt: skip
    message = compose(queue(channel, Action.RESOLVE, alerts=[recovery]))
    assert message.items[0].dedup_key == over.dedup_key
    assert not message.items[0].has_cleared
    assert message.text == recovery.text


def test_a_test_says_who_asked(channel, opened):
    message = compose(queue(channel, Action.TEST, requested_by=opened.owner))
    assert message.title == "Test message"
    assert opened.owner.email in message.text
    assert message.items == ()


def test_a_channel_that_was_switched_off(channel, opened):
    channel.state, channel.failure, channel.failed_at = ChannelState.OFF, "HTTP 410: gone", utc_now()
    channel.save()
    mail_channel = email_channel(opened.workspace.pk)
    delivery = queue(mail_channel, Action.CHANNEL_OFF, recipient=opened.owner.email, about=channel)
    message = compose(delivery)
    assert message.title == "The channel Hook (Signed webhook) was switched off"
    assert facts(message)["Answer"] == "HTTP 410: gone"
    assert message.url == address(opened.workspace, "settings-channels")
    assert message.unsubscribe_url == ""
    channel.delete()
    delivery.refresh_from_db()
    assert compose(delivery).title == "The channel that was deleted since was switched off"


def test_a_mail_can_be_unsubscribed_from(opened, client):
    message = compose(queue_mail(opened.workspace, opened.owner.email))
    assert message.recipient == opened.owner.email
    assert message.mail is not None
    assert message.unsubscribe_url in message.mail.html
    assert message.unsubscribe_url in message.mail.text
    assert f"Sent to {opened.owner.email}: as owner, you get the alerts of the workspace Acme." in message.mail.text
    page = client.get(message.unsubscribe_url.removeprefix("http://127.0.0.1:8000"))
    assert opened.owner.email in page.content.decode()
