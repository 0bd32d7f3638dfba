"""Every kind of alert, by every channel, in every mode: really sent, and checked against what receivers document."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.core import mail as outbox
from standardwebhooks import Webhook

from alerts.channel_services import ChannelWishes, config_of, create_channel
from alerts.deliveries import deliver_due
from alerts.models import Action, Alert, AlertKind, Channel, ChannelKind, Delivery, DeliveryState, Mode, Severity
from alerts.noticing import raise_alerts
from alerts.report_runs import make_due_reports
from alerts.schedules import start_due_reports
from alerts.services import resolve
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.sealed import seal
from tests.alerts.channels import check, check_mail
from tests.alerts.receivers import receiver
from tests.alerts.telling import finding, set_alerts
from tests.factories import make_workspace

pytestmark = pytest.mark.django_db
# A Wednesday.
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
OK = {
    ChannelKind.SLACK: (200, "ok"),
    ChannelKind.TEAMS: (202, ""),
    ChannelKind.PAGERDUTY: (202, '{"status": "success", "message": "Event processed", "dedup_key": "x"}'),
    ChannelKind.WEBHOOK: (204, ""),
}
POSTING = tuple(OK)


@pytest.fixture
def receivers(settings):
    """One for each kind of channel that is posted to."""
    with receiver() as slack, receiver() as teams, receiver() as pagerduty, receiver() as webhook:
        running = dict(zip(POSTING, (slack, teams, pagerduty, webhook), strict=True))
        for kind, each in running.items():
            each.answer(*OK[kind])
        settings.CHANNEL_HOSTS_ALLOWED = [each.host for each in running.values()]
        yield running


@pytest.fixture
def clock():
    with time_machine.travel(NOON, tick=False) as travel:
        yield travel


@pytest.fixture
def opened(clock, receivers):
    """A workspace with a channel of every kind that takes everything."""
    opened = make_workspace("team")
    for kind, there in receivers.items():
        wishes = ChannelWishes(name=kind.label, minimum_severity="info", takes_alerts=True, takes_summaries=True)
        typed = {"url": there.url, "routing_key": "r" * 32, "region": "us"}
        channel, _ = create_channel(opened.workspace, kind, wishes, typed, acting_user=opened.owner)
        Channel.objects.filter(pk=channel.pk).update(sealed=seal(json.dumps(config_of(channel) | {"url": there.url})))
    return opened


def raised(opened, kind, **changes):
    """An alert of this kind, by the way every source takes."""
    severity = Severity.INFO if kind == AlertKind.RECOVERY else Severity.WARNING
    one = finding(opened, kind=kind, severity=severity, title=f"{kind.label}: checkout & <b>more</b>", **changes)
    (alert,) = raise_alerts([one], utc_now())
    return alert


def sent(opened, action):
    """The messages of this action by kind of channel; all of them were accepted."""
    deliver_due(5)
    found = {each.channel_kind: each for each in Delivery.objects.filter(workspace=opened.workspace, action=action)}
    assert {(kind, each.state, each.last_error) for kind, each in found.items()} == {
        (kind, DeliveryState.SENT, "") for kind in found
    }
    return found


def posted(receivers, kind, delivery, opened):
    """What the receiver got, if it is as its document says."""
    (got,) = receivers[kind].received
    receivers[kind].received.clear()
    payload = check(kind, got.body)
    if kind == ChannelKind.WEBHOOK:
        secret = config_of(delivery.channel)["secret"]
        assert Webhook(secret).verify(got.body, got.headers) == payload
        assert got.headers["webhook-id"] == payload["data"]["id"] == str(delivery.pk)
        assert payload["data"]["workspace"]["id"] == str(opened.workspace.pk)
    return payload


def mailed(delivery):
    """What the mail server got, if it is a proper mail."""
    (letter,) = outbox.outbox
    outbox.outbox.clear()
    check_mail(letter.message(), str(delivery.pk), is_subscribed=True)
    assert letter.to == [delivery.recipient]


@pytest.mark.parametrize("kind", AlertKind)
def test_immediately(opened, receivers, kind):
    set_alerts(opened, modes={kind: Mode.IMMEDIATE})
    alert = raised(opened, kind)
    found = sent(opened, Action.ALERT)
    # A recovery reaches PagerDuty as the end of an incident, not as one.
    told = set(ChannelKind) - ({ChannelKind.PAGERDUTY} if kind == AlertKind.RECOVERY else set())
    assert set(found) == told
    mailed(found[ChannelKind.EMAIL])
    payloads = {each: posted(receivers, each, found[each], opened) for each in told - {ChannelKind.EMAIL}}
    assert payloads[ChannelKind.WEBHOOK]["type"] == "alert.opened"
    (item,) = payloads[ChannelKind.WEBHOOK]["data"]["alerts"]
    assert (item["id"], item["kind"], item["hasCleared"]) == (str(alert.pk), kind, False)
    card = payloads[ChannelKind.TEAMS]["attachments"][0]["content"]
    assert card["body"][0]["text"] == alert.title
    assert "&lt;b&gt;" in payloads[ChannelKind.SLACK]["text"]
    if kind != AlertKind.RECOVERY:
        check_end(opened, receivers, alert, payloads[ChannelKind.PAGERDUTY])


def check_end(opened, receivers, alert, incident):
    """PagerDuty closes the incident that it opened."""
    assert (incident["event_action"], incident["payload"]["class"]) == ("trigger", alert.kind)
    resolve(Alert.objects.get(pk=alert.pk), acting_user=opened.owner)
    closing = sent(opened, Action.RESOLVE)
    end = posted(receivers, ChannelKind.PAGERDUTY, closing[ChannelKind.PAGERDUTY], opened)
    assert (end["event_action"], end["dedup_key"]) == ("resolve", incident["dedup_key"])


@pytest.mark.parametrize(("mode", "after"), [(Mode.DAILY, timedelta(days=1)), (Mode.WEEKLY, timedelta(days=7))])
def test_in_a_summary(opened, receivers, clock, mode, after):
    set_alerts(opened, modes=dict.fromkeys(AlertKind, mode))
    start_due_reports(NOON)
    alerts = [raised(opened, kind, scope=f"about:{kind}") for kind in AlertKind]
    assert not Delivery.objects.filter(workspace=opened.workspace).exists()
    clock.move_to(NOON + after)
    start_due_reports(utc_now())
    make_due_reports(5)
    # The other summaries that are due by then are not what is looked at.
    Delivery.objects.filter(workspace=opened.workspace).exclude(report__kind=mode).delete()
    found = sent(opened, Action.REPORT)
    assert set(found) == set(ChannelKind) - {ChannelKind.PAGERDUTY}
    content = json.dumps(found[ChannelKind.WEBHOOK].report.content)
    assert not [alert.title for alert in alerts if alert.title not in content]
    mailed(found[ChannelKind.EMAIL])
    payloads = {each: posted(receivers, each, found[each], opened) for each in set(found) - {ChannelKind.EMAIL}}
    assert payloads[ChannelKind.WEBHOOK]["type"] == "summary.ready"
    assert not receivers[ChannelKind.PAGERDUTY].received
