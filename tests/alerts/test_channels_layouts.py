"""What each channel makes of a message: long ones, many alerts, and texts that try to be more than text."""

import hashlib
import json
from decimal import Decimal

import pytest

from alerts.channels import MODULES, pagerduty, slack, teams, webhook
from alerts.channels.texts import MOST_ITEMS, cut
from alerts.messages import Fact
from alerts.models import Action, AlertKind, ChannelKind, Severity
from opsmeter_site.lib.errors import InvalidInput
from opsmeter_site.lib.wire import encode
from tests.alerts.channels import check
from tests.alerts.messages import alert_item, message

CONFIGS = {
    ChannelKind.SLACK: {"url": "https://hooks.slack.com/services/T0/B0/secret"},
    ChannelKind.TEAMS: {"url": "https://x.api.powerplatform.com/powerautomate/secret"},
    ChannelKind.PAGERDUTY: {"routing_key": "k" * 32, "url": pagerduty.ENDPOINTS["us"]},
    ChannelKind.WEBHOOK: {"url": "https://example.com/secret", "secret": "whsec_MTIz"},
}
NASTY = "<!channel> <@U1> <script>&amp; [click](https://evil.example) *bold* \u202e\U0001f4b8 \"' \\"


def written(kind, told):
    """The payload, checked."""
    return check(kind, encode(MODULES[kind].payload(CONFIGS[kind], told)))


def huge(text):
    """A message in which everything is far too long."""
    facts = tuple(Fact(f"{number} {text * 300}", text * 3_000) for number in range(30))
    items = [alert_item(title=text * 1_000, text=text * 30_000, facts=facts) for _ in range(47)]
    return message(Action.ALERT, *items, title=text * 2_000, text=text * 50_000, facts=facts, workspace_name=text * 100)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("text", ["a", "&", "<", "ä", "💸", '"', "\n"])
def test_whatever_is_too_long_is_cut(kind, text):
    written(kind, huge(text + "x"))


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("action", Action)
def test_texts_are_nothing_but_text(kind, action):
    told = message(action, alert_item(title=NASTY, text=NASTY), alert_item(), workspace_name=NASTY, title=NASTY)
    shown = json.dumps(written(kind, told))
    if kind == ChannelKind.SLACK:
        assert "<!channel>" not in shown.replace(json.dumps(NASTY)[1:-1], "")
    if kind == ChannelKind.TEAMS:
        assert "](" not in shown


@pytest.mark.parametrize("kind", [ChannelKind.SLACK, ChannelKind.TEAMS])
def test_of_many_alerts_the_first_are_told_and_the_rest_counted(kind):
    items = [alert_item(title=f"Alert {number}.") for number in range(47)]
    shown = json.dumps(written(kind, message(Action.ALERT, *items)))
    assert "and 37 more in the inbox" in shown
    assert f"Alert {MOST_ITEMS - 1}." in shown
    assert f"Alert {MOST_ITEMS}." not in shown


@pytest.mark.parametrize("kind", [ChannelKind.SLACK, ChannelKind.TEAMS])
def test_a_single_alert_is_told_once(kind):
    told = message(Action.ALERT, alert_item(text="Only once."))
    shown = written(kind, told)
    shown.pop("text", None)  # what Slack shows where it shows no blocks
    assert json.dumps(shown).count("Only once.") == 1


def test_a_card_has_as_many_alerts_as_fit():
    items = [alert_item(title=f"Alert {number}.", text="ä" * 30_000) for number in range(12)]
    shown = json.dumps(written(ChannelKind.TEAMS, message(Action.ALERT, *items, text="ö" * 30_000)))
    assert "Alert 3." in shown
    assert "more in the inbox" in shown


@pytest.mark.parametrize("kind", [ChannelKind.SLACK, ChannelKind.TEAMS])
def test_what_has_cleared_is_said(kind):
    told = message(Action.ALERT, alert_item(title="One", has_cleared=True), alert_item())
    assert "One (has cleared since)" in json.dumps(written(kind, told))


@pytest.mark.parametrize("severity", Severity)
def test_the_severity_is_seen(severity):
    told = message(Action.ALERT, alert_item(severity=severity))
    assert written(ChannelKind.PAGERDUTY, told)["payload"]["severity"] == severity
    assert written(ChannelKind.WEBHOOK, told)["data"]["severity"] == severity
    headers = {written(ChannelKind.SLACK, message(severity=each))["blocks"][0]["text"]["text"] for each in Severity}
    assert len(headers) == len(Severity)


# --- PagerDuty ------------------------------------------------------------------------------------------------------


def test_an_incident_is_opened_and_closed_under_one_key():
    item = alert_item(AlertKind.SPEND_SPIKE, severity=Severity.CRITICAL)
    opening = message(Action.ALERT, item)
    closing = message(Action.RESOLVE, item, workspace_id=opening.workspace_id)
    first, last = written(ChannelKind.PAGERDUTY, opening), written(ChannelKind.PAGERDUTY, closing)
    assert (first["event_action"], last["event_action"]) == ("trigger", "resolve")
    assert first["dedup_key"] == last["dedup_key"] == f"{opening.workspace_id}|{item.dedup_key}"
    assert first["payload"]["class"] == "spend_spike"
    assert first["payload"]["timestamp"] == "2026-11-22T12:00:00.000Z"
    assert first["payload"]["custom_details"]["So far"] == "$51.20"
    assert "payload" not in last


def test_two_workspaces_never_share_an_incident():
    item = alert_item()
    keys = {written(ChannelKind.PAGERDUTY, message(Action.ALERT, item))["dedup_key"] for _ in range(2)}
    assert len(keys) == 2


def test_a_long_key_is_a_digest():
    told = message(Action.ALERT, alert_item(dedup_key="endpoint_tag:" + "x" * 300))
    whole = f"{told.workspace_id}|endpoint_tag:{'x' * 300}"
    assert written(ChannelKind.PAGERDUTY, told)["dedup_key"] == hashlib.sha256(whole.encode()).hexdigest()


# --- The signed webhook ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "name"),
    [
        (Action.ALERT, "alert.opened"),
        (Action.RESOLVE, "alert.resolved"),
        (Action.REPORT, "summary.ready"),
        (Action.TEST, "channel.test"),
        (Action.CHANNEL_OFF, "channel.off"),
    ],
)
def test_every_action_has_its_type(action, name):
    told = message(action, workspace_name="Söhne 💸")
    shown = written(ChannelKind.WEBHOOK, told)
    assert (shown["type"], shown["timestamp"]) == (name, "2026-11-22T12:00:00.000Z")
    assert (shown["data"]["id"], shown["data"]["workspace"]["name"]) == (told.id, "Söhne 💸")


def test_money_is_a_number_with_exactly_its_digits():
    figures = {"usd_per_request": Decimal("0.000000000001"), "measure": "usd", "requests": 7}
    told = message(Action.ALERT, alert_item(AlertKind.UNIT_COST, figures=figures))
    body = encode(webhook.payload(CONFIGS[ChannelKind.WEBHOOK], told))
    check(ChannelKind.WEBHOOK, body)
    (item,) = json.loads(body, parse_float=Decimal)["data"]["alerts"]
    assert item["figures"] == {"usdPerRequest": Decimal("0.000000000001"), "measure": "usd", "requests": 7}


def test_more_alerts_than_a_webhook_lists_are_counted():
    shown = written(ChannelKind.WEBHOOK, message(Action.ALERT, *[alert_item() for _ in range(1_000)]))
    assert (len(shown["data"]["alerts"]), shown["data"]["alertCount"]) == (webhook.MOST_ALERTS, 1_000)


# --- What is typed, and what may be shown of it ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "typed", "stored"),
    [
        ("slack", {"url": " https://hooks.slack.com/services/T0/B0/x "}, "https://hooks.slack.com/services/T0/B0/x"),
        ("slack", {"url": "https://hooks.slack-gov.com/services/T0/B0/x"}, None),
        ("teams", {"url": "https://prod-1.westeurope.logic.azure.com:443/workflows/a/b?sig=c"}, None),
        ("teams", {"url": "https://a.b.environment.api.powerplatform.com:443/powerautomate/c?sig=d"}, None),
        ("webhook", {"url": "https://example.com:8443/a?token=b"}, None),
    ],
)
def test_addresses_that_are_taken(kind, typed, stored):
    assert MODULES[ChannelKind(kind)].clean(typed) == {"url": stored or typed["url"]}


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("slack", "https://hooks.slack.com/triggers/T0/1/x"),
        ("slack", "https://hooks.slack.com.evil.example/services/T0/B0/x"),
        ("slack", "http://hooks.slack.com/services/T0/B0/x"),
        ("teams", "https://logic.azure.com.evil.example/workflows"),
        ("teams", "https://acme.webhook.office.com/webhookb2/x"),
        ("webhook", "https://169.254.169.254/latest"),
        ("webhook", ""),
    ],
)
def test_addresses_that_are_refused(kind, url):
    with pytest.raises(InvalidInput) as refusal:
        MODULES[ChannelKind(kind)].clean({"url": url})
    assert [error.field for error in refusal.value.errors] == ["url"]


@pytest.mark.parametrize("typed", [{"routing_key": "k" * 31}, {"routing_key": "k" * 31 + "-"}, {}, {"routing_key": ""}])
def test_integration_keys_that_are_refused(typed):
    with pytest.raises(InvalidInput):
        pagerduty.clean({"region": "us", **typed})


def test_a_region_that_is_none():
    with pytest.raises(InvalidInput):
        pagerduty.clean({"region": "moon", "routing_key": "k" * 32})


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_is_shown_of_an_address_is_no_secret(kind):
    shown = MODULES[kind].hint(CONFIGS[kind])
    assert shown
    assert "secret" not in shown
    assert "k" * 8 not in shown
    assert "whsec" not in shown


def test_hints():
    assert slack.hint(CONFIGS[ChannelKind.SLACK]) == "hooks.slack.com/T0/B0/…"
    assert teams.hint(CONFIGS[ChannelKind.TEAMS]) == "x.api.powerplatform.com/…"
    assert pagerduty.hint(CONFIGS[ChannelKind.PAGERDUTY]) == "US region, key kkkk…"
    assert webhook.hint(CONFIGS[ChannelKind.WEBHOOK]) == "example.com/…"


@pytest.mark.parametrize(("text", "shown"), [("four", "four"), ("fives", "fiv…"), ("abc defg", "abc…"), ("", "")])
def test_cutting(text, shown):
    assert cut(text, 4) == shown
