import pytest
from django.urls import reverse

from alerts.channel_services import config_of, switch_off
from alerts.channel_sets import email_channel
from alerts.models import Attempt, Channel, ChannelKind, ChannelState, Delivery, DeliveryState
from billing.services import change_workspace_plan
from tests.factories import make_cast
from tests.pages import page, signed_in
from workspaces.models import AuditEntry

pytestmark = pytest.mark.django_db

SLACK_URL = "https://hooks.slack.com/services/T012/B034/very-secret"


def url(cast, name, *args):
    return reverse(name, args=[cast.workspace.slug, *args])


def typed(**changes):
    return {"name": "Room", "takes_alerts": "on", "minimum_severity": "info", "url": SLACK_URL} | changes


def set_up(cast, kind="slack", **changes):
    """Through the page; the channel."""
    address = url(cast, "settings-channel-new", kind)
    response = signed_in(cast.admin).post(address, typed(**changes))
    assert response.status_code == 302, page(response).one("main").text
    return Channel.objects.latest("created_at")


# --- The list -------------------------------------------------------------------------------------------------------


def test_email_is_always_there(cast):
    (row,) = page(signed_in(cast.viewer).get(url(cast, "settings-channels"))).rows()
    assert row[0] == "E-mail E-mail"
    assert row[1:] == ["Active", "Recipients of this workspace", "Alerts Summaries", "never"]


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("free", "The Free plan sends no messages: every alert is in the inbox only."),
        ("starter", "The Starter plan sends messages by e-mail only."),
    ],
)
def test_what_the_plan_does_not_send_is_said(plan, said):
    cast = make_cast(plan)
    for name in ("settings-channels", "settings-channel-new"):
        notice = page(signed_in(cast.admin).get(url(cast, name))).one("div", "notice").text
        assert said in notice
        assert "the Pro plan" in notice


def test_the_list_says_how_each_fares(cast):
    channel = set_up(cast, name="Ops", minimum_severity="warning")
    switch_off(channel, "HTTP 404: no_service")
    rows = page(signed_in(cast.viewer).get(url(cast, "settings-channels"))).rows()
    assert rows[1][0] == "Ops Slack"
    assert rows[1][1] == "Switched off just now : HTTP 404: no_service"
    assert rows[1][2:4] == ["hooks.slack.com/T012/B034/…", "Alerts from warning on"]


def test_viewers_see_no_way_to_change_anything(cast):
    channel = set_up(cast)
    for name, args in (("settings-channels", []), ("settings-channel", [channel.pk])):
        shown = page(signed_in(cast.viewer).get(url(cast, name, *args)))
        assert not shown.one("main").all("form")
        assert "Add a channel" not in shown.text


# --- A new one ------------------------------------------------------------------------------------------------------


def test_every_kind_has_its_steps_and_a_form(cast):
    client = signed_in(cast.admin)
    kinds = page(client.get(url(cast, "settings-channel-new")))
    links = [link.attributes["href"] for link in kinds.one("main").all("a", "button-plain")]
    assert links == [url(cast, "settings-channel-new", kind) for kind in ("slack", "teams", "pagerduty", "webhook")]
    for link in links:
        shown = page(client.get(link))
        assert len(shown.one("main").all("ol")[-1].all("li")) >= 3
        assert shown.one("button", type="submit")


def test_a_kind_that_is_none(cast):
    client = signed_in(cast.admin)
    assert client.get(url(cast, "settings-channel-new", "email")).status_code == 404
    assert client.get(url(cast, "settings-channel-new", "fax")).status_code == 404


def test_setting_up_slack(cast):
    channel = set_up(cast)
    assert (channel.kind, channel.name, channel.state) == (ChannelKind.SLACK, "Room", ChannelState.ACTIVE)
    assert (channel.takes_alerts, channel.takes_summaries) == (True, False)
    assert config_of(channel) == {"url": SLACK_URL}
    shown = page(signed_in(cast.admin).get(url(cast, "settings-channel", channel.pk)))
    assert "very-secret" not in shown.text
    assert "very-secret" not in channel.sealed


def test_setting_up_pagerduty(cast):
    channel = set_up(cast, "pagerduty", routing_key="a" * 32, region="eu")
    assert config_of(channel)["url"] == "https://events.eu.pagerduty.com/v2/enqueue"
    assert channel.hint == "EU region, key aaaa…"


@pytest.mark.parametrize(
    ("kind", "changes", "field", "words"),
    [
        ("slack", {"url": "https://example.com/services/x"}, "url", "hooks.slack.com/services/"),
        ("slack", {"url": ""}, "url", "required"),
        ("slack", {"name": " "}, "name", "required"),
        ("slack", {"takes_alerts": ""}, "takes_alerts", "at least one"),
        ("slack", {"minimum_severity": "worst"}, "minimum_severity", "valid choice"),
        ("teams", {"url": "https://acme.webhook.office.com/webhookb2/x"}, "url", "retired"),
        ("teams", {"url": "https://example.com/"}, "url", "workflow"),
        ("pagerduty", {"routing_key": "short", "region": "us"}, "routing_key", "32 letters"),
        ("webhook", {"url": "http://example.com/"}, "url", "https://"),
        ("webhook", {"url": "https://0x7f.1/"}, "url", "private or reserved"),
        ("webhook", {"url": "https://localhost/"}, "url", "private network"),
        ("webhook", {"url": "nonsense"}, "url", "https://"),
    ],
)
def test_what_is_wrong_is_said_beside_the_field(cast, kind, changes, field, words):
    response = signed_in(cast.admin).post(url(cast, "settings-channel-new", kind), typed(**changes))
    assert response.status_code == 422
    bad = page(response).one("div", "field-bad")
    assert words in bad.text
    assert bad.all(name=field)
    assert not Channel.objects.exclude(kind=ChannelKind.EMAIL).exists()


def test_the_signing_secret_of_a_webhook_is_shown_once(cast):
    client = signed_in(cast.admin)
    address = url(cast, "settings-channel-new", "webhook")
    response = client.post(address, typed(url="https://example.com/hook"), follow=True)
    secret = page(response).one(id="fresh-secret").text
    channel = Channel.objects.latest("created_at")
    assert secret.startswith("whsec_")
    assert config_of(channel)["secret"] == secret
    assert secret not in client.get(url(cast, "settings-channel", channel.pk)).content.decode()


# --- One of them ----------------------------------------------------------------------------------------------------


def test_changing_what_it_takes(cast):
    channel = set_up(cast)
    address = url(cast, "settings-channel", channel.pk)
    changes = {"name": "Money", "minimum_severity": "critical", "takes_alerts": "on", "takes_summaries": "on"}
    assert signed_in(cast.admin).post(address, changes).status_code == 302
    channel.refresh_from_db()
    assert (channel.name, channel.minimum_severity, channel.takes_summaries) == ("Money", "critical", True)
    assert config_of(channel) == {"url": SLACK_URL}


def test_two_channels_of_one_name(cast):
    set_up(cast, name="Money")
    response = signed_in(cast.admin).post(url(cast, "settings-channel-new", "slack"), typed(name="Money"))
    assert response.status_code == 422
    assert "has this name" in page(response).one("div", "field-bad").text
    other = set_up(cast, name="Other")
    response = signed_in(cast.admin).post(url(cast, "settings-channel", other.pk), typed(name="Money"))
    assert "has this name" in page(response).one("div", "field-bad").text


def test_another_address(cast, there):
    channel = set_up(cast, "webhook", url="https://example.com/hook")
    secret = config_of(channel)["secret"]
    address = url(cast, "settings-channel-address", channel.pk)
    assert signed_in(cast.admin).post(address, {"url": "https://10.0.0.1/"}).status_code == 422
    assert signed_in(cast.admin).post(address, {"url": there.url}).status_code == 302
    channel.refresh_from_db()
    assert config_of(channel) == {"url": there.url, "secret": secret}
    assert channel.hint == f"{there.host}/…"


def test_a_test_message_shows_the_real_answer(cast, there):
    channel = set_up(cast, "webhook", url=there.url)
    client, address = signed_in(cast.admin), url(cast, "settings-channel-test", channel.pk)
    there.answer(200, "thank you")
    shown = page(client.post(address, follow=True)).one("section", aria_labelledby="test-heading").text
    assert "Accepted" in shown
    assert "HTTP 200: thank you" in shown
    there.answer(410, "gone for ever")
    shown = page(client.post(address, follow=True)).one("section", aria_labelledby="test-heading").text
    assert "Not accepted" in shown
    assert "HTTP 410: gone for ever" in shown
    channel.refresh_from_db()
    assert channel.state == ChannelState.ACTIVE
    assert [each.state for each in Delivery.objects.order_by("created_at")] == ["sent", "failed"]
    assert list(Attempt.objects.order_by("pk").values_list("status_code", flat=True)) == [200, 410]


def test_a_channel_that_works_again_offers_to_be_resumed(cast, there):
    channel = set_up(cast, "webhook", url=there.url)
    switch_off(channel, "HTTP 404: nothing here")
    client = signed_in(cast.admin)
    shown = page(client.post(url(cast, "settings-channel-test", channel.pk), follow=True))
    assert "It works again." in shown.text
    assert "HTTP 404: nothing here" in shown.one("div", "notice-bad").text
    client.post(url(cast, "settings-channel-resume", channel.pk))
    channel.refresh_from_db()
    assert (channel.state, channel.failure, channel.failed_at) == (ChannelState.ACTIVE, "", None)


def test_a_test_of_email_goes_to_whoever_asks(cast, mailoutbox):
    mail = email_channel(cast.workspace.pk)
    client = signed_in(cast.admin)
    assert f"Send a test to {cast.admin.email}" in page(client.get(url(cast, "settings-channel", mail.pk))).text
    client.post(url(cast, "settings-channel-test", mail.pk))
    assert [each.to for each in mailoutbox] == [[cast.admin.email]]


def test_email_can_be_paused_and_neither_deleted_nor_moved(cast):
    mail = email_channel(cast.workspace.pk)
    client = signed_in(cast.owner)
    client.post(url(cast, "settings-channel-delete", mail.pk))
    assert Channel.objects.filter(pk=mail.pk).exists()
    assert client.get(url(cast, "settings-channel-address", mail.pk)).url == url(cast, "settings-recipients")
    assert client.get(url(cast, "settings-channel-rotate", mail.pk)).status_code == 404
    client.post(url(cast, "settings-channel-pause", mail.pk))
    mail.refresh_from_db()
    assert mail.state == ChannelState.PAUSED


def test_pausing_can_be_undone(cast):
    channel = set_up(cast)
    client = signed_in(cast.admin)
    shown = page(client.post(url(cast, "settings-channel-pause", channel.pk), follow=True))
    assert "Nothing is sent there until it is resumed." in shown.text
    undo = [form for form in shown.all("form") if form.attributes.get("action", "").endswith("/resume/")]
    assert undo
    client.post(undo[0].attributes["action"])
    channel.refresh_from_db()
    assert channel.state == ChannelState.ACTIVE


def test_a_new_signing_secret_after_a_second_question(cast):
    channel = set_up(cast, "webhook", url="https://example.com/hook")
    old = config_of(channel)["secret"]
    client, address = signed_in(cast.admin), url(cast, "settings-channel-rotate", channel.pk)
    assert "24 hours" in page(client.get(address)).text
    fresh = page(client.post(address, follow=True)).one(id="fresh-secret").text
    channel.refresh_from_db()
    config = config_of(channel)
    assert (config["secret"], config["old_secret"]) == (fresh, old)


def test_deleting_after_a_second_question(cast):
    channel = set_up(cast)
    client, address = signed_in(cast.admin), url(cast, "settings-channel-delete", channel.pk)
    assert "cannot be brought back" in page(client.get(address)).text
    assert Channel.objects.filter(pk=channel.pk).exists()
    assert client.post(address).url == url(cast, "settings-channels")
    assert not Channel.objects.filter(pk=channel.pk).exists()


# --- Plans, roles, trail --------------------------------------------------------------------------------------------


def test_after_a_downgrade_channels_stay_and_are_not_used(cast):
    channel = set_up(cast)
    change_workspace_plan(cast.workspace, plan_tier="starter", acting_user=None)
    client = signed_in(cast.admin)
    assert "not used" in page(client.get(url(cast, "settings-channels"))).one("div", "notice-warn").text
    assert "not used" in page(client.get(url(cast, "settings-channel", channel.pk))).one("div", "notice-warn").text
    new = page(client.get(url(cast, "settings-channel-new")))
    assert "Pro plan" in new.text
    assert not new.one("main").all("a", "button-plain")
    refused = client.post(url(cast, "settings-channel-new", "slack"), typed(name="Another"))
    assert (refused.status_code, "come with the Pro plan" in page(refused).text) == (422, True)
    client.post(url(cast, "settings-channel-test", channel.pk))
    assert not Delivery.objects.exists()


ACTIONS = ("address", "test", "pause", "resume", "rotate", "delete")


def test_only_admins_and_owners_change_channels(cast):
    channel = set_up(cast, "webhook", url="https://example.com/hook")
    for person, status in ((cast.viewer, 403), (cast.member, 403), (cast.outsider, 404)):
        client = signed_in(person)
        addresses = [url(cast, f"settings-channel-{action}", channel.pk) for action in ACTIONS]
        addresses += [url(cast, "settings-channel", channel.pk), url(cast, "settings-channel-new", "slack")]
        assert {client.post(address, typed()).status_code for address in addresses} == {status}
    channel.refresh_from_db()
    assert channel.state == ChannelState.ACTIVE
    assert not Delivery.objects.exists()


def test_channels_of_other_workspaces_are_not_there(cast):
    channel = set_up(cast)
    other = make_cast("pro")
    client = signed_in(other.owner)
    addresses = [url(other, f"settings-channel-{action}", channel.pk) for action in ACTIONS]
    addresses.append(url(other, "settings-channel", channel.pk))
    assert {client.post(address).status_code for address in addresses} == {404}


def test_the_trail_has_every_change_and_no_secret(cast, there):
    channel = set_up(cast, "webhook", url=there.url + "?token=very-secret")
    client = signed_in(cast.admin)
    client.post(url(cast, "settings-channel", channel.pk), typed(name="Other"))
    client.post(url(cast, "settings-channel-address", channel.pk), {"url": there.url + "?token=very-secret-2"})
    for action in ("rotate", "pause", "resume", "delete"):
        client.post(url(cast, f"settings-channel-{action}", channel.pk))
    entries = AuditEntry.objects.filter(workspace=cast.workspace, action__startswith="channel.").order_by("pk")
    deeds = [entry.action.removeprefix("channel.") for entry in entries]
    assert deeds == ["created", "changed", "address_replaced", "secret_rotated", "paused", "resumed", "deleted"]
    told = str(list(entries.values("target", "data")))
    assert "very-secret" not in told
    assert "whsec_" not in told


def test_log_lines_of_messages_are_on_the_page(cast, there):
    channel = set_up(cast, "webhook", url=there.url)
    client = signed_in(cast.admin)
    client.post(url(cast, "settings-channel-test", channel.pk))
    shown = page(client.get(url(cast, "settings-channel", channel.pk)))
    (row,) = shown.rows()
    assert row[0].startswith("Test")
    assert Delivery.objects.get().state == DeliveryState.SENT
