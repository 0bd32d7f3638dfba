"""Messages that wait are sent; what goes wrong is tried again, given up or called off, and nothing is lost."""

import logging
import smtplib
import threading
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.core import mail
from django.core.mail.backends.base import BaseEmailBackend

from alerts import channel_services, delivery_services
from alerts.channel_sets import email_channel
from alerts.channels.base import Answer
from alerts.deliveries import ALL_BUT_SUMMARIES, LEASE, MOST_OF_ONE_CHANNEL, THREADS, deliver_due
from alerts.delivery_results import PAUSES, REFUSALS_BELIEVED, Claim, pause_seconds, record
from alerts.models import (
    Action,
    Attempt,
    AttemptOutcome,
    Channel,
    ChannelState,
    Delivery,
    DeliveryState,
    MailOptOut,
    OptOutReason,
    Report,
    ReportState,
)
from alerts.outgoing import Envelope, post, queue
from opsmeter_site.lib.clock import utc_now
from tests.alerts.outbound import make_alert, make_webhook, queue_alert, queue_mail
from tests.alerts.receivers import raw_server, receiver
from tests.factories import make_workspace
from tests.servers import free_port

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)
LONG = 30.0
SENT, WAITING, FAILED = DeliveryState.SENT, DeliveryState.WAITING, DeliveryState.FAILED


@pytest.fixture(autouse=True)
def _loopback_is_allowed(settings):
    settings.CHANNEL_HOSTS_ALLOWED = ["127.0.0.1"]


@pytest.fixture
def hook():
    with receiver() as running:
        yield running


@pytest.fixture
def channel(opened, hook):
    return make_webhook(opened.workspace, hook.url)


@pytest.fixture
def clock():
    with time_machine.travel(NOON) as running:
        yield running


def reread(row):
    row.refresh_from_db()
    return row


def outcomes(delivery):
    return list(delivery.attempts.order_by("number").values_list("outcome", flat=True))


def seconds_until(delivery):
    return (reread(delivery).next_attempt_at - utc_now()).total_seconds()


def test_a_message_is_sent_once_under_its_id(channel, hook):
    delivery = queue_alert(channel)
    assert deliver_due(LONG) == 1
    assert deliver_due(LONG) == 0
    assert hook.ids == {str(delivery.pk)}
    assert len(hook.received) == 1
    assert (reread(delivery).state, delivery.attempts_made, delivery.last_error) == (SENT, 1, "")
    assert delivery.sent_at is not None
    assert reread(channel).last_sent_at == delivery.sent_at
    attempt = delivery.attempts.get()
    assert (attempt.number, attempt.outcome, attempt.status_code) == (1, AttemptOutcome.SENT, 200)
    assert attempt.duration_ms is not None


def test_a_message_for_later_waits(channel, hook, clock):
    delivery = queue_alert(channel, hold="quiet_hours", send_at=NOON + timedelta(hours=8))
    assert deliver_due(LONG) == 0
    clock.move_to(NOON + timedelta(hours=8))
    assert deliver_due(LONG) == 1
    assert reread(delivery).state == SENT


def test_summaries_wait_for_their_own_worker(opened, channel, hook):
    day = NOON.date()
    report = Report.objects.create(
        workspace=opened.workspace, kind="daily", zone="UTC", first_day=day, last_day=day, starts_at=NOON,
        ends_at=NOON, due_at=NOON, state=ReportState.READY, title="Daily", content={},
    )  # fmt: skip
    queue(channel, Action.REPORT, report=report)
    assert deliver_due(LONG, ALL_BUT_SUMMARIES) == 0


class TestRetries:
    def test_a_failure_is_tried_again_after_a_pause_under_the_same_id(self, channel, hook, clock):
        delivery = queue_alert(channel)
        hook.answer(503, "busy")
        deliver_due(LONG)
        assert (reread(delivery).state, delivery.last_error) == (WAITING, "HTTP 503: busy")
        assert 8 < seconds_until(delivery) <= 11
        assert deliver_due(LONG) == 0
        hook.answer(200)
        clock.shift(12)
        deliver_due(LONG)
        assert (reread(delivery).state, delivery.last_error) == (SENT, "")
        assert outcomes(delivery) == [AttemptOutcome.RETRY, AttemptOutcome.SENT]
        assert hook.ids == {str(delivery.pk)}
        assert len(hook.received) == 2

    def test_pauses_grow_to_an_hour_and_last_two_days(self):
        for attempt, usual in enumerate(PAUSES, start=1):
            assert 0.9 * usual <= pause_seconds(attempt, None) <= 1.1 * usual
        assert list(PAUSES) == sorted(PAUSES)
        assert PAUSES[-1] == 3_600
        assert 47 * 3_600 <= sum(PAUSES) <= 48 * 3_600

    @pytest.mark.parametrize(("asked", "at_least", "at_most"), [("120", 118, 121), ("86400", 3_598, 3_601)])
    def test_a_receiver_may_ask_for_a_longer_pause(self, channel, hook, clock, asked, at_least, at_most):
        delivery = queue_alert(channel)
        hook.answer(429, "slow down", retry_after=asked)
        deliver_due(LONG)
        assert at_least < seconds_until(delivery) <= at_most

    def test_what_else_waits_for_a_receiver_that_is_down_leaves_it_alone(self, channel, hook, clock):
        deliveries = [queue_alert(channel) for _ in range(3 * MOST_OF_ONE_CHANNEL)]
        hook.answer(503)
        deliver_due(LONG)
        assert MOST_OF_ONE_CHANNEL <= len(hook.received) < 2 * MOST_OF_ONE_CHANNEL
        hook.answer(200)
        clock.shift(12)
        deliver_due(LONG)
        assert {reread(delivery).state for delivery in deliveries} == {SENT}

    def test_it_is_given_up_after_two_days(self, channel, hook):
        delivery = queue_alert(channel)
        Delivery.objects.update(attempts_made=len(PAUSES))
        hook.answer(500, "still broken")
        deliver_due(LONG)
        assert reread(delivery).state == FAILED
        assert delivery.last_error == "Given up after 53 attempts. HTTP 500: still broken"

    def test_who_took_nothing_for_two_days_is_switched_off_and_the_owners_are_told(self, channel, hook, opened):
        queue_alert(channel)
        Delivery.objects.update(attempts_made=len(PAUSES))
        hook.answer(500, "still broken")
        deliver_due(LONG)
        failure = "Given up after 53 attempts. HTTP 500: still broken"
        assert (reread(channel).state, channel.failure) == (ChannelState.OFF, failure)
        assert [one.to for one in mail.outbox] == [[opened.owner.email]]

    def test_who_took_others_meanwhile_stays_on(self, channel, hook):
        delivery = queue_alert(channel)
        Delivery.objects.update(attempts_made=len(PAUSES))
        Channel.objects.update(last_sent_at=utc_now())
        hook.answer(500, "not this one")
        deliver_due(LONG)
        assert (reread(delivery).state, reread(channel).state) == (FAILED, ChannelState.ACTIVE)

    def test_what_we_cannot_write_switches_no_channel_off(self, channel):
        delivery = queue_alert(channel)
        Delivery.objects.update(attempts_made=len(PAUSES))
        Channel.objects.filter(pk=channel.pk).update(sealed="not-what-we-sealed")
        deliver_due(LONG)
        assert (reread(delivery).state, reread(channel).state) == (FAILED, ChannelState.ACTIVE)

    def test_a_mistake_of_ours_is_tried_again_and_gives_nothing_away(self, channel, hook, caplog):
        delivery = queue_alert(channel)
        Channel.objects.filter(pk=channel.pk).update(sealed="not-what-we-sealed")
        with caplog.at_level(logging.ERROR):
            deliver_due(LONG)
        assert reread(delivery).state == WAITING
        assert delivery.last_error.startswith("What is stored of this channel cannot be read any more.")
        assert "message_not_composed" in caplog.text
        assert "not-what-we-sealed" not in caplog.text
        assert outcomes(delivery) == [AttemptOutcome.RETRY]


class TestRefusals:
    def test_a_channel_that_refuses_for_good_is_switched_off(self, channel, hook, opened):
        delivery, held = queue_alert(channel), queue_alert(channel, send_at=utc_now() + timedelta(seconds=0.1))
        hook.answer(410, "gone")
        deliver_due(LONG)
        assert (reread(delivery).state, delivery.last_error) == (FAILED, "HTTP 410: gone")
        assert (reread(channel).state, channel.failure) == (ChannelState.OFF, "HTTP 410: gone")
        Delivery.objects.filter(pk=held.pk).update(next_attempt_at=utc_now())
        deliver_due(LONG)
        assert (reread(held).state, held.attempts_made) == (DeliveryState.CANCELLED, 1)
        assert held.last_error == "The channel was switched off. HTTP 410: gone"
        assert [(one.to, one.subject) for one in mail.outbox] == [
            ([opened.owner.email], f"{opened.workspace.name}: The channel Hook (Signed webhook) was switched off")
        ]

    def test_an_answer_that_no_database_stores_is_kept_without_that(self, channel):
        delivery = queue_alert(channel)
        claim = Claim(delivery, delivery.attempts.create(number=1, started_at=utc_now()))
        Delivery.objects.filter(pk=delivery.pk).update(state=DeliveryState.SENDING, attempts_made=1)
        record(claim, Answer(AttemptOutcome.RETRY, None, "451 a\0b"))
        assert (reread(delivery).state, delivery.last_error) == (WAITING, "451 ab")

    def test_a_refusal_that_may_pass_is_believed_when_it_is_repeated(self, channel, hook, clock):
        delivery = queue_alert(channel)
        for status in (503, 404, 429, *[404] * (REFUSALS_BELIEVED - 2)):
            hook.answer(status, "nothing here")
            deliver_due(LONG)
            assert (reread(delivery).state, reread(channel).state) == (WAITING, ChannelState.ACTIVE)
            clock.shift(seconds_until(delivery) + 1)
        hook.answer(404, "nothing here")
        deliver_due(LONG)
        assert (reread(delivery).state, delivery.last_error) == (FAILED, "HTTP 404: nothing here")
        assert (reread(channel).state, channel.failure) == (ChannelState.OFF, "HTTP 404: nothing here")
        assert outcomes(delivery)[-2:] == [AttemptOutcome.RETRY, AttemptOutcome.REFUSED]
        assert len(mail.outbox) == 1

    def test_a_receiver_that_refuses_during_its_deployment_gets_the_message_after_it(self, channel, hook, clock):
        delivery = queue_alert(channel)
        for status in (404, 502, 401, 200):
            hook.answer(status)
            deliver_due(LONG)
            clock.shift(seconds_until(delivery) + 1)
        assert (reread(delivery).state, reread(channel).state) == (SENT, ChannelState.ACTIVE)

    def test_what_was_missed_can_be_sent_after_it_was_put_right(self, channel, hook, opened):
        delivery = queue_alert(channel)
        hook.answer(410)
        deliver_due(LONG)
        hook.answer(200)
        channel_services.resume(reread(channel), acting_user=opened.owner)
        delivery_services.retry(delivery, acting_user=opened.owner)
        deliver_due(LONG)
        assert (reread(delivery).state, delivery.attempts_made) == (SENT, 2)

    def test_a_message_that_is_at_fault_leaves_its_channel_on(self, channel, hook):
        delivery = queue_alert(channel)
        hook.answer(413, "too large")
        deliver_due(LONG)
        assert (reread(delivery).state, reread(channel).state) == (FAILED, ChannelState.ACTIVE)

    def test_a_test_leaves_its_channel_on(self, channel, hook, opened):
        delivery = queue(channel, Action.TEST, requested_by=opened.owner)
        hook.answer(410)
        deliver_due(LONG)
        assert (reread(delivery).state, reread(channel).state) == (FAILED, ChannelState.ACTIVE)

    def test_a_channel_that_was_changed_meanwhile_stays_on(self, channel, hook):
        claim = claimed(queue_alert(channel))
        Channel.objects.filter(pk=channel.pk).update(sealed=make_webhook(channel.workspace, hook.url, "B").sealed)
        record(claim, Answer(AttemptOutcome.REFUSED, 404, "not here"))
        assert (reread(claim.delivery).state, reread(channel).state) == (FAILED, ChannelState.ACTIVE)


class TestCalledOff:
    def test_by_deleting_the_channel(self, channel, hook):
        delivery = queue_alert(channel)
        channel.delete()
        deliver_due(LONG)
        assert (reread(delivery).state, delivery.last_error) == (DeliveryState.CANCELLED, "The channel was deleted.")
        assert hook.received == []
        assert outcomes(delivery) == []

    def test_by_pausing_the_channel_but_for_tests(self, channel, hook, opened):
        delivery = queue_alert(channel)
        test = queue(channel, Action.TEST, requested_by=opened.owner)
        Channel.objects.filter(pk=channel.pk).update(state=ChannelState.PAUSED)
        deliver_due(LONG)
        assert (reread(delivery).state, delivery.last_error) == (DeliveryState.CANCELLED, "The channel is paused.")
        assert reread(test).state == SENT
        assert hook.ids == {str(test.pk)}

    def test_by_deleting_what_it_was_about(self, channel, hook):
        alert = make_alert(channel.workspace)
        delivery = queue_alert(channel, alert)
        alert.delete()
        deliver_due(LONG)
        assert reread(delivery).state == DeliveryState.CANCELLED
        assert hook.received == []

    def test_by_leaving_the_recipients(self, opened):
        leaver = queue_mail(opened.workspace, "was-a-member@example.com")
        stayer = queue_mail(opened.workspace, opened.owner.email.upper())
        deliver_due(LONG)
        assert reread(leaver).state == DeliveryState.CANCELLED
        assert leaver.last_error == "This address does not get such mail any more."
        assert reread(stayer).state == SENT
        assert len(mail.outbox) == 1


def claimed(delivery):
    """The message as a sender has it that has just claimed it."""
    delivery.state, delivery.attempts_made = DeliveryState.SENDING, delivery.attempts_made + 1
    delivery.next_attempt_at = utc_now() + LEASE
    delivery.save()
    attempt = Attempt.objects.create(delivery=delivery, number=delivery.attempts_made, started_at=utc_now())
    return Claim(Delivery.objects.select_related("channel").get(pk=delivery.pk), attempt)


class TestLeases:
    def test_what_somebody_sends_is_left_alone_until_the_lease_ends(self, channel, hook, clock):
        delivery = queue_alert(channel)
        claimed(delivery)
        assert deliver_due(LONG) == 0
        clock.shift(LEASE.total_seconds() + 1)
        assert deliver_due(LONG) == 1
        assert (reread(delivery).state, delivery.attempts_made) == (SENT, 2)
        assert outcomes(delivery) == [AttemptOutcome.UNKNOWN, AttemptOutcome.SENT]

    @pytest.mark.parametrize("outcome", [AttemptOutcome.RETRY, AttemptOutcome.REFUSED])
    def test_a_sender_that_lost_its_lease_changes_nothing(self, channel, outcome):
        delivery = queue_alert(channel)
        slow, fast = claimed(delivery), claimed(delivery)
        record(slow, Answer(outcome, 500, "late"))
        assert (reread(delivery).state, delivery.attempts_made) == (DeliveryState.SENDING, 2)
        record(fast, Answer(AttemptOutcome.SENT, 200, "ok"))
        assert reread(delivery).state == SENT
        assert reread(channel).state == ChannelState.ACTIVE
        assert outcomes(delivery) == [outcome, AttemptOutcome.SENT]

    def test_but_what_it_has_sent_counts_as_sent(self, channel):
        delivery = queue_alert(channel)
        slow, fast = claimed(delivery), claimed(delivery)
        record(slow, Answer(AttemptOutcome.SENT, 200, "ok"))
        record(fast, Answer(AttemptOutcome.RETRY, 500, "late"))
        assert (reread(delivery).state, delivery.last_error) == (SENT, "")

    def test_a_channel_deleted_while_its_message_is_sent(self, channel):
        sent, refused = claimed(queue_alert(channel)), claimed(queue_alert(channel))
        channel.delete()
        record(sent, Answer(AttemptOutcome.SENT, 200, "ok"))
        record(refused, Answer(AttemptOutcome.REFUSED, 404, "no"))
        assert (reread(sent.delivery).state, reread(refused.delivery).state) == (SENT, FAILED)

    def test_a_message_deleted_while_it_is_sent(self, channel):
        claim = claimed(queue_alert(channel))
        Delivery.objects.all().delete()
        record(claim, Answer(AttemptOutcome.SENT, 200, "ok"))
        assert not Attempt.objects.exists()


class RefusingBackend(BaseEmailBackend):
    """A mail server that does not know the address."""

    def send_messages(self, messages):
        raise smtplib.SMTPRecipientsRefused({messages[0].to[0]: (550, b"no such user")})


class TestMail:
    def test_a_refused_address_gets_no_more_mail_and_the_others_do(self, opened, settings):
        refused = queue_mail(opened.workspace, opened.owner.email)
        settings.EMAIL_BACKEND = f"{__name__}.RefusingBackend"
        deliver_due(LONG)
        assert (reread(refused).state, refused.last_error) == (FAILED, "550: no such user")
        opt_out = MailOptOut.objects.get()
        assert (opt_out.email, opt_out.topic, opt_out.reason) == (
            opened.owner.email, "alerts", OptOutReason.UNDELIVERABLE,
        )  # fmt: skip
        assert email_channel(opened.workspace.pk).state == ChannelState.ACTIVE

    def test_a_mail_server_that_is_down_for_a_day_loses_nothing(self, opened, settings, clock):
        deliveries = [queue_mail(opened.workspace, opened.owner.email) for _ in range(3)]
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", free_port()
        while utc_now() < NOON + timedelta(days=1):
            deliver_due(LONG)
            assert {reread(delivery).state for delivery in deliveries} == {WAITING}
            clock.move_to(max(delivery.next_attempt_at for delivery in deliveries))
        assert email_channel(opened.workspace.pk).state == ChannelState.ACTIVE
        settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
        clock.shift(1)
        deliver_due(LONG)
        assert {reread(delivery).state for delivery in deliveries} == {SENT}
        assert sorted(one.extra_headers["X-Opsmeter-Delivery"] for one in mail.outbox) == sorted(
            str(delivery.pk) for delivery in deliveries
        )


def test_a_receiver_that_hangs_does_not_keep_the_others_waiting(opened, hook):
    """It answers only once every message to the other one has arrived."""
    others_have_theirs = threading.Event()

    def answer_last(connection):
        connection.recv(65_536)
        others_have_theirs.wait(10)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with raw_server(answer_last) as port:
        hanging = make_webhook(opened.workspace, f"http://127.0.0.1:{port}/", "Hangs")
        well = make_webhook(opened.workspace, hook.url, "Well")
        alert = make_alert(opened.workspace)
        deliveries = [queue_alert(hanging, alert) for _ in range(40)] + [queue_alert(well, alert) for _ in range(40)]
        watcher = threading.Thread(target=lambda: _wait_for(hook, 40, others_have_theirs))
        watcher.start()
        deliver_due(LONG)
        watcher.join()
    assert others_have_theirs.is_set()
    assert {reread(delivery).state for delivery in deliveries} == {SENT}
    assert {delivery.attempts_made for delivery in deliveries} == {1}


@pytest.mark.parametrize("fields", [{"attempts_made": 1}, {"created_at": NOON}], ids=["tried before", "put off"])
def test_receivers_that_have_failed_and_hang_leave_room_for_new_messages(opened, hook, fields):
    """More of them than there are threads: they answer once the new message has arrived."""
    new_one_arrived, was_first = threading.Event(), []

    def answer_last(connection):
        connection.recv(65_536)
        was_first.append(new_one_arrived.wait(3))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with raw_server(answer_last) as port:
        alert, well = make_alert(opened.workspace), make_webhook(opened.workspace, hook.url)
        for number in range(THREADS // MOST_OF_ONE_CHANNEL):
            hanging = make_webhook(opened.workspace, f"http://127.0.0.1:{port}/", f"Hangs {number}")
            for _ in range(MOST_OF_ONE_CHANNEL):
                queue_alert(hanging, alert)
        Delivery.objects.update(**fields)
        queue_alert(well, alert, hold="cooldown", send_at=utc_now() + timedelta(seconds=0.3))
        watcher = threading.Thread(target=lambda: _wait_for(hook, 1, new_one_arrived))
        watcher.start()
        deliver_due(LONG)
        watcher.join()
    assert was_first == [True] * THREADS
    assert set(Delivery.objects.values_list("state", flat=True)) == {SENT}


def test_a_mail_server_that_hangs_does_not_keep_other_channels_waiting(hook, settings):
    """It greets nobody until every message to the webhook has arrived; then it hangs up."""
    hook_has_all = threading.Event()

    with raw_server(lambda _connection: hook_has_all.wait(10)) as port:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", port
        mails = [queue_mail(opened.workspace, opened.owner.email) for opened in _opened(10) for _ in range(12)]
        hooks = [make_webhook(opened.workspace, hook.url) for opened in _opened(5)]
        calls = [queue_alert(each) for each in hooks for _ in range(4)]
        watcher = threading.Thread(target=lambda: _wait_for(hook, len(calls), hook_has_all))
        watcher.start()
        deliver_due(LONG)
        watcher.join()
    assert hook_has_all.is_set()
    assert {reread(delivery).state for delivery in calls} == {SENT}
    assert {reread(delivery).state for delivery in mails} == {WAITING}


def _opened(number):
    return [make_workspace("pro") for _ in range(number)]


def _wait_for(hook, number, then):
    for _ in range(1_000):
        if len(hook.received) >= number:
            then.set()
            return
        threading.Event().wait(0.01)


def test_a_thousand_messages_at_once_arrive_once_each(opened, hook):
    channels = [make_webhook(opened.workspace, hook.url, f"Hook {number}") for number in range(8)]
    alert = make_alert(opened.workspace)
    post([Envelope(channels[number % 8], [alert], send_at=utc_now()) for number in range(1_000)], utc_now())
    assert deliver_due(60.0) == 1_000
    assert len(hook.received) == 1_000
    assert hook.ids == {str(pk) for pk in Delivery.objects.values_list("pk", flat=True)}
    assert set(Delivery.objects.values_list("state", flat=True)) == {SENT.value}
