import json
import threading
from datetime import timedelta

import pytest
import time_machine
from django.db import IntegrityError, connection, transaction
from standardwebhooks import Webhook

from alerts import channel_services
from alerts.channel_services import ChannelWishes, config_of, create_channel, send_test, switch_off
from alerts.channel_sets import active_channels, email_channel
from alerts.models import Action, AttemptOutcome, Channel, ChannelKind, ChannelState, Delivery, DeliveryState
from alerts.outgoing import queue
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput, NotAllowed, NotFound
from tests.factories import UserFactory, make_cast, make_workspace
from workspaces.models import AuditEntry, Role
from workspaces.services import add_member

HOOK = "https://example.com/hook"


def wishes(name="Room", **changes):
    values = {"name": name, "minimum_severity": "info", "takes_alerts": True, "takes_summaries": False}
    return ChannelWishes(**values | changes)


def make(opened, url=HOOK, name="Room", kind=ChannelKind.WEBHOOK):
    channel, _ = create_channel(opened.workspace, kind, wishes(name), {"url": url}, acting_user=opened.owner)
    return channel


# --- Setting up -----------------------------------------------------------------------------------------------------


def test_a_workspace_has_twenty_channels_at_most(opened):
    for number in range(channel_services.MOST_CHANNELS - 1):  # and e-mail
        make(opened, name=f"Room {number}")
    with pytest.raises(NotAllowed, match="at most 20"):
        make(opened, name="One more")


def test_nobody_takes_the_name_of_email_before_it_is_there(opened):
    with pytest.raises(InvalidInput, match="name"):
        make(opened, name="E-mail")


def test_other_channels_need_a_plan_that_has_them(db):
    for plan in ("free", "starter"):
        with pytest.raises(NotAllowed, match="come with the Pro plan"):
            make(make_workspace(plan))


def test_a_long_host_is_shown_in_part(opened):
    channel = make(opened, "https://" + ".".join(["a" * 60] * 4) + ".example.com/hook")
    assert (len(channel.hint), channel.hint[-1]) == (200, "…")


def test_pagerduty_takes_no_summaries(opened):
    typed = {"routing_key": "k" * 32, "region": "us"}
    both = wishes(takes_summaries=True)
    channel, _ = create_channel(opened.workspace, ChannelKind.PAGERDUTY, both, typed, acting_user=opened.owner)
    assert not channel.takes_summaries
    with pytest.raises(InvalidInput, match="at least one"):
        channel_services.update_channel(
            channel, wishes(takes_alerts=False, takes_summaries=True), acting_user=opened.owner
        )


def test_a_configuration_is_stored_encrypted_and_opens_under_an_older_key(opened, settings):
    channel = make(opened)
    assert "example.com" not in channel.sealed
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "another"
    assert config_of(channel)["url"] == HOOK
    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(NotAllowed, match="set it up again"):
        config_of(channel)


def test_active_channels_are_those_that_take_messages(opened):
    first, second = make(opened, name="First"), make(opened, name="Second")
    channel_services.pause(first, acting_user=opened.owner)
    assert [channel.name for channel in active_channels(opened.workspace.pk)] == ["E-mail", "Second"]
    switch_off(second, "gone")
    assert [channel.name for channel in active_channels(opened.workspace.pk)] == ["E-mail"]


# --- Secrets --------------------------------------------------------------------------------------------------------


def test_for_a_day_both_secrets_sign(opened, there):
    channel = make(opened, there.url)
    old = config_of(channel)["secret"]
    new = channel_services.rotate_secret(channel, acting_user=opened.owner)
    assert new != old
    channel.refresh_from_db()
    send_test(channel, opened.owner)
    (got,) = there.received
    for secret in (old, new):
        assert Webhook(secret).verify(got.body, got.headers)["type"] == "channel.test"
    with time_machine.travel(utc_now() + timedelta(hours=24, seconds=1)):
        send_test(channel, opened.owner)
        later = there.received[-1]
        Webhook(new).verify(later.body, later.headers)
        assert len(later.headers["webhook-signature"].split()) == 1


def test_only_webhooks_have_a_signing_secret(opened):
    with pytest.raises(NotAllowed):
        channel_services.rotate_secret(email_channel(opened.workspace.pk), acting_user=opened.owner)


# --- On and off -----------------------------------------------------------------------------------------------------


def test_switching_off_tells_the_owners_once(opened):
    second = UserFactory()
    add_member(opened.workspace, second, Role.OWNER, acting_user=opened.owner)
    add_member(opened.workspace, UserFactory(), Role.ADMIN, acting_user=opened.owner)
    channel = make(opened)
    switch_off(channel, "HTTP 410: gone")
    switch_off(channel, "HTTP 404: not found")
    channel.refresh_from_db()
    assert (channel.state, channel.failure) == (ChannelState.OFF, "HTTP 410: gone")
    told = Delivery.objects.filter(action=Action.CHANNEL_OFF, about=channel, channel_kind=ChannelKind.EMAIL)
    assert set(told.values_list("recipient", flat=True)) == {opened.owner.email, second.email}
    assert told.count() == 2
    assert AuditEntry.objects.get(action="channel.switched_off").actor is None


def test_email_itself_is_never_switched_off(opened):
    mail = email_channel(opened.workspace.pk)
    switch_off(mail, "550: no")
    mail.refresh_from_db()
    assert mail.state == ChannelState.ACTIVE


def test_only_an_active_channel_is_paused(opened):
    channel = make(opened)
    switch_off(channel, "gone")
    with pytest.raises(NotAllowed):
        channel_services.pause(channel, acting_user=opened.owner)


def test_a_deleted_channel_leaves_its_messages_in_the_log(opened):
    channel = make(opened)
    waiting, sending, sent = (queue(channel, Action.REPORT) for _ in range(3))
    Delivery.objects.filter(pk=sending.pk).update(state=DeliveryState.SENDING)
    Delivery.objects.filter(pk=sent.pk).update(state=DeliveryState.SENT)
    channel_services.delete_channel(channel, acting_user=opened.owner)
    states = {each.pk: (each.state, each.last_error) for each in Delivery.objects.all()}
    assert states[waiting.pk] == states[sending.pk] == ("cancelled", "The channel was deleted.")
    assert states[sent.pk] == ("sent", "")
    assert not Delivery.objects.filter(channel__isnull=False).exists()
    with pytest.raises(NotFound):
        channel_services.resume(channel, acting_user=opened.owner)


@pytest.mark.usefixtures("committed")
def test_a_message_that_is_queued_while_its_channel_is_deleted():
    opened = make_workspace("pro")
    channel = make(opened)
    failures = []

    def delete():
        try:
            channel_services.delete_channel(channel, acting_user=opened.owner)
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    @transaction.atomic
    def queue_meanwhile():
        queue(channel, Action.REPORT)
        deleting = threading.Thread(target=delete)
        deleting.start()
        deleting.join(5)

    # Whoever queued it finds the channel gone, and begins again without it.
    with pytest.raises(IntegrityError):
        queue_meanwhile()
    assert not failures
    assert not Channel.objects.filter(pk=channel.pk).exists()
    assert not Delivery.objects.filter(workspace=opened.workspace).exists()


# --- Testing --------------------------------------------------------------------------------------------------------


def test_a_test_is_in_the_log_like_any_message(opened, there):
    channel = make(opened, there.url)
    answer = send_test(channel, opened.owner)
    assert (answer.outcome, answer.status_code, answer.text) == (AttemptOutcome.SENT, 200, "HTTP 200: ok")
    delivery = Delivery.objects.get()
    assert (delivery.action, delivery.state, delivery.requested_by) == (Action.TEST, "sent", opened.owner)
    attempt = delivery.attempts.get()
    assert (attempt.number, attempt.outcome, attempt.status_code) == (1, "sent", 200)
    assert attempt.duration_ms is not None
    channel.refresh_from_db()
    assert channel.last_sent_at == delivery.sent_at
    assert there.ids == {str(delivery.pk)}
    assert json.loads(there.received[0].body)["data"]["workspace"]["name"] == opened.workspace.name


def test_a_test_that_fails_is_not_tried_again(opened, there):
    channel = make(opened, there.url)
    there.answer(503, "later", Retry_After="60")
    assert send_test(channel, opened.owner).outcome == AttemptOutcome.RETRY
    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.last_error) == (DeliveryState.FAILED, "HTTP 503: later")


def test_a_test_that_was_cut_off_is_left_to_whoever_sends_messages(opened, there, monkeypatch):
    channel = make(opened, there.url)

    def killed(*_):
        raise SystemExit

    monkeypatch.setattr(channel_services, "compose", killed)
    with pytest.raises(SystemExit):
        send_test(channel, opened.owner)
    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.attempts.get().outcome) == (DeliveryState.SENDING, AttemptOutcome.UNKNOWN)
    assert delivery.next_attempt_at <= utc_now() + timedelta(seconds=60)


def test_so_many_tests_a_minute(opened, there):
    channel = make(opened, there.url)
    for _ in range(channel_services.MOST_TESTS_A_MINUTE):
        send_test(channel, opened.owner)
    with pytest.raises(NotAllowed, match="5 tests a minute"):
        send_test(channel, opened.owner)
    assert len(there.received) == channel_services.MOST_TESTS_A_MINUTE


def test_a_paused_channel_can_be_tested(opened, there):
    channel = make(opened, there.url)
    channel_services.pause(channel, acting_user=opened.owner)
    assert send_test(channel, opened.owner).outcome == AttemptOutcome.SENT


def test_email_can_be_tested_on_every_plan(db):
    cast = make_cast("free")
    assert send_test(email_channel(cast.workspace.pk), cast.admin).outcome == AttemptOutcome.SENT
