"""What an answer means for a message: sent, tried again later, or given up."""

import random
from dataclasses import dataclass, replace
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
from opsmeter_site.lib.clock import utc_now

logger = structlog.get_logger(__name__)

_HOUR = 3_600
# Seconds after the first, second, … failed attempt; then hourly, for two days in all.
PAUSES = (10, 30, 120, 600, 1_800, *[_HOUR] * 47)
LONGEST_PAUSE = _HOUR
# A refusal that may pass is believed when it has come so often: with these pauses after almost three minutes.
REFUSALS_BELIEVED = 4
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
    # PostgreSQL stores no NUL.
    answer = _believed(stored, replace(answer, text=answer.text.replace("\0", "")))
    claim.attempt.end(answer.outcome, answer.status_code, answer.text)
    ATTEMPTS.labels(stored.channel_kind, answer.outcome.value).inc()
    if answer.outcome == AttemptOutcome.SENT:
        _note_sent(stored)
    elif _is_ours(stored, claim):
        if answer.outcome == AttemptOutcome.REFUSED:
            _refuse(stored, claim, answer)
        else:
            _try_again(stored, claim, answer)


def _believed(stored: Delivery, answer: Answer) -> Answer:
    """The answer, as one for good if it is a doubted refusal that has been repeated."""
    if not answer.is_doubted:
        return answer
    before = stored.attempts.filter(status_code=answer.status_code).count()
    return replace(answer, outcome=AttemptOutcome.REFUSED) if before + 1 >= REFUSALS_BELIEVED else answer


def _is_ours(stored: Delivery, claim: Claim) -> bool:
    return stored.state == DeliveryState.SENDING and stored.attempts_made == claim.attempt.number


def _note_sent(stored: Delivery) -> None:
    if stored.state == DeliveryState.SENT:
        return
    stored.sent_at = utc_now()
    _end(stored, DeliveryState.SENT, "")
    if stored.channel_id:
        Channel.objects.filter(pk=stored.channel_id).update(last_sent_at=stored.sent_at)


def _try_again(stored: Delivery, claim: Claim, answer: Answer) -> None:
    if stored.attempts_made > len(PAUSES):
        _give_up(stored, claim, answer)
        return
    pause = pause_seconds(stored.attempts_made, answer.retry_after_seconds)
    stored.state, stored.last_error = DeliveryState.WAITING, answer.text[:_LONGEST_ERROR]
    stored.next_attempt_at = utc_now() + timedelta(seconds=pause)
    stored.save(update_fields=["state", "last_error", "next_attempt_at"])
    if stored.channel_id and stored.channel_kind != ChannelKind.EMAIL:
        _leave_alone(stored.channel_id, answer)


def _give_up(stored: Delivery, claim: Claim, answer: Answer) -> None:
    text = f"Given up after {stored.attempts_made} attempts. {answer.text}"
    _end(stored, DeliveryState.FAILED, text)
    took_others = Channel.objects.filter(deliveries=stored, last_sent_at__gt=stored.created_at).exists()
    if not (took_others or answer.is_message_fault):
        _switch_off(stored, claim, text)


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
    elif not answer.is_message_fault:
        _switch_off(stored, claim, answer.text)


def _switch_off(stored: Delivery, claim: Claim, failure: str) -> None:
    # Whoever tests a channel sees the answer.
    if stored.channel_id is None or stored.action == Action.TEST:
        return
    channel = Channel.objects.select_for_update().get(pk=stored.channel_id)
    was = claim.delivery.channel
    # One that was changed meanwhile deserves another chance.
    if was is not None and channel.sealed == was.sealed:
        channel_services.switch_off(channel, failure)


def _stop_mail_to(stored: Delivery) -> None:
    MailOptOut.objects.get_or_create(
        workspace_id=stored.workspace_id,
        email=stored.recipient.lower(),
        topic=stored.topic,
        defaults={"reason": OptOutReason.UNDELIVERABLE},
    )
    logger.warning("recipient_refused", delivery=str(stored.pk))


def _end(stored: Delivery, state: DeliveryState, error: str) -> None:
    stored.state, stored.last_error = state, error[:_LONGEST_ERROR]
    stored.save(update_fields=["state", "last_error", "sent_at"])
