"""What an answer means for a message: sent, tried again later, or given up."""

import random
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import structlog
from django.db import transaction

from alerts import channel_services
from alerts.channels.base import Answer
from alerts.metrics import ATTEMPTS
from alerts.models import (
    Action,
    Attempt,
    AttemptOutcome,
    Channel,
    ChannelKind,
    Delivery,
    DeliveryState,
    MailOptOut,
    OptOutReason,
)
from alerts.topics import topic_of
from opsmeter_site.lib.clock import utc_now

logger = structlog.get_logger(__name__)

_HOUR = 3_600
# Seconds after the first, second, … failed attempt; then hourly, for two days in all.
PAUSES = (10, 30, 120, 600, 1_800, *[_HOUR] * 47)
LONGEST_PAUSE = _HOUR
_LONGEST_ERROR = 500


@dataclass(frozen=True, slots=True)
class Claim:
    """A message that this process has taken, as it was then, and the attempt that it makes."""

    delivery: Delivery
    attempt: Attempt


@transaction.atomic
def record(claim: Claim, answer: Answer | None, reason: str = "") -> None:
    """Store what became of an attempt. Without an answer it was not made, for `reason`.

    Somebody else may have taken the message meanwhile, because this attempt took longer than its lease: then only
    that it was sent counts.
    """
    stored = Delivery.objects.select_for_update().filter(pk=claim.delivery.pk).first()
    if stored is None:
        return
    if answer is None:
        claim.attempt.delete()
        if _is_ours(stored, claim):
            _end(stored, DeliveryState.CANCELLED, reason)
        return
    _keep(claim.attempt, answer)
    ATTEMPTS.labels(stored.channel_kind, answer.outcome.value).inc()
    if answer.outcome == AttemptOutcome.SENT:
        _note_sent(stored)
    elif _is_ours(stored, claim):
        if answer.outcome == AttemptOutcome.REFUSED:
            _refuse(stored, claim, answer)
        else:
            _try_again(stored, answer)


def _is_ours(stored: Delivery, claim: Claim) -> bool:
    return stored.state == DeliveryState.SENDING and stored.attempts_made == claim.attempt.number


def _keep(attempt: Attempt, answer: Answer) -> None:
    attempt.duration_ms = max(0, int((utc_now() - attempt.started_at).total_seconds() * 1_000))
    attempt.outcome, attempt.status_code = answer.outcome, answer.status_code
    attempt.answer = answer.text[:_LONGEST_ERROR]
    attempt.save()


def _note_sent(stored: Delivery) -> None:
    if stored.state == DeliveryState.SENT:
        return
    stored.sent_at = utc_now()
    _end(stored, DeliveryState.SENT, "")
    if stored.channel_id:
        Channel.objects.filter(pk=stored.channel_id).update(last_sent_at=stored.sent_at)


def _try_again(stored: Delivery, answer: Answer) -> None:
    if stored.attempts_made > len(PAUSES):
        _end(stored, DeliveryState.FAILED, f"Given up after {stored.attempts_made} attempts. {answer.text}")
        return
    pause = pause_seconds(stored.attempts_made, answer.retry_after_seconds)
    stored.state, stored.last_error = DeliveryState.WAITING, answer.text[:_LONGEST_ERROR]
    stored.next_attempt_at = utc_now() + timedelta(seconds=pause)
    stored.save(update_fields=["state", "last_error", "next_attempt_at"])
    if stored.channel_id and stored.channel_kind != ChannelKind.EMAIL:
        _leave_alone(stored.channel_id, answer)


def _leave_alone(channel_id: UUID, answer: Answer) -> None:
    """What else waits for a receiver that is down need not find that out by itself."""
    until = utc_now() + timedelta(seconds=pause_seconds(1, answer.retry_after_seconds))
    waiting = Delivery.objects.filter(channel_id=channel_id, state=DeliveryState.WAITING)
    # Rows that somebody else holds are being dealt with; waiting for them could be for each other.
    sooner = waiting.filter(next_attempt_at__lt=until).select_for_update(skip_locked=True)
    Delivery.objects.filter(pk__in=sooner.values("pk")).update(next_attempt_at=until)


def pause_seconds(attempts_made: int, retry_after_seconds: int | None) -> float:
    """How long to wait after so many attempts: growing, a little at random, and no less than the receiver asks for."""
    # Without the randomness everything that failed together would come back together.
    usual = PAUSES[attempts_made - 1] * random.uniform(0.9, 1.1)  # noqa: S311 - no secret
    asked = min(retry_after_seconds or 0, LONGEST_PAUSE)
    return max(usual, asked)


def _refuse(stored: Delivery, claim: Claim, answer: Answer) -> None:
    _end(stored, DeliveryState.FAILED, answer.text)
    if answer.is_recipient_fault:
        _stop_mail_to(stored)
    # Whoever tests a channel sees the answer.
    elif stored.channel_id and not answer.is_message_fault and stored.action != Action.TEST:
        channel = Channel.objects.select_for_update().get(pk=stored.channel_id)
        was = claim.delivery.channel
        # One that was changed meanwhile deserves another chance.
        if was is not None and channel.sealed == was.sealed:
            channel_services.switch_off(channel, answer.text)


def _stop_mail_to(stored: Delivery) -> None:
    MailOptOut.objects.get_or_create(
        workspace_id=stored.workspace_id,
        email=stored.recipient.lower(),
        topic=topic_of(stored),
        defaults={"reason": OptOutReason.UNDELIVERABLE},
    )
    logger.warning("recipient_refused", delivery=str(stored.pk))


def _end(stored: Delivery, state: DeliveryState, error: str) -> None:
    stored.state, stored.last_error = state, error[:_LONGEST_ERROR]
    stored.save(update_fields=["state", "last_error", "sent_at"])
