"""The inbox of the provider's messages: stored at once, processed afterwards, kept for good.

Storing needs nothing but the database. Processing holds the event's row and commits what the event leads to together
with its outcome, so a process that is killed leaves the event as it was, and it is processed once.
"""

import threading
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic

import structlog
from django.db import InterfaceError, OperationalError, connection, transaction

from billing.checking import NOT_OURS, TROUBLE, ask, foreign, tell_operators
from billing.models import BillingEvent, EventSource, EventState, Invoice, Outcome, Subscription
from billing.providers import is_billing_on, provider
from billing.providers.base import OPEN, Notice, ProviderError, UnreadableMessage
from billing.subscriptions import Applied, AskFirst, apply_facts, apply_invoice, check_by, locked_subscription
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError, InvalidInput, OpsmeterError
from opsmeter_site.lib.sealed import seal, unseal
from workspaces.models import User
from workspaces.services import record_audit

logger = structlog.get_logger(__name__)

LARGEST_BODY = 256 * 1024  # bytes
MOST_ATTEMPTS = 12
_LONGEST_PAUSE_SECONDS = 3_600
# A payment does not say whose it is. Another message of the same purchase does, and may come after it.
_ATTEMPTS_FOR_A_WORKSPACE = 3
_NOTHING_IS_WRITTEN = TROUBLE - {Outcome.UNMATCHED, Outcome.UNKNOWN_VARIANT}
# Without the provider's word a message is believed, and the provider asked soon.
_UNSEEN = timedelta(minutes=5)

_INSERT = """
    INSERT INTO billing_billingevent (
        source, provider, dedupe_key, name, resource_type, resource_id, provider_subscription_id, sealed_body,
        received_at, repeats, state, outcome, error, attempts_made, next_attempt_at
    ) VALUES ('webhook', %s, %s, %s, %s, %s, %s, %s, %s, 0, 'waiting', '', '', 0, %s)
    ON CONFLICT (dedupe_key) DO NOTHING
"""
# One that is being processed is left out: its repeat must not wait for the provider's answer to another question.
_COUNT_REPEAT = """
    UPDATE billing_billingevent SET repeats = repeats + 1
    WHERE id = (SELECT id FROM billing_billingevent WHERE dedupe_key = %s FOR UPDATE SKIP LOCKED)
"""


class Refused(OpsmeterError):
    """A message that is not stored. `outcome` is what it is counted as."""

    outcome = ""


class Forged(Refused):
    """401: the signature is missing, or not the provider's of these bytes."""

    status = 401
    reason = "invalid_signature"
    outcome = "forged"


class Malformed(Refused):
    """400: the provider signed it, and it is not what the provider documents."""

    outcome = "malformed"


class TooLarge(Refused):
    """413: no message of the provider is so large."""

    status = 413
    reason = "payload_too_large"
    outcome = "too_large"

    def __init__(self) -> None:
        super().__init__(f"The body is larger than {LARGEST_BODY // 1024} KiB.")


class Unmeasured(Refused):
    """411: in pieces, without a length, nothing of it can be read here."""

    status = 411
    reason = "length_required"
    outcome = "malformed"

    def __init__(self) -> None:
        super().__init__("The body came without a Content-Length. If a proxy stands before this, let it send one.")


# --- Receiving --------------------------------------------------------------------------------------------------------


def receive(body: bytes, signature: str) -> bool:
    """Store a message of the provider; whether it is new. Raises `Forged` or `Malformed`, and then keeps nothing."""
    shop = provider()
    if not shop.verify_webhook(body, signature):
        raise Forged("The signature in X-Signature is missing or not of this body.")
    try:
        text, notice = body.decode(), shop.read_webhook(body)
    except (UnicodeDecodeError, UnreadableMessage):
        raise Malformed("The body is signed, but it is not a message that is known.") from None
    now = utc_now()
    about = (notice.name, notice.resource_type, notice.resource_id, notice.subscription_id)
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, (shop.name, notice.dedupe_key, *about, seal(text), now, now))
        is_new = bool(cursor.rowcount)
        if not is_new:
            cursor.execute(_COUNT_REPEAT, [notice.dedupe_key])
    return is_new


# --- Processing -------------------------------------------------------------------------------------------------------


class _Undo(Exception):
    """What was begun for an event must not stay; it has this outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


@dataclass
class _Sweep:
    """One run over the waiting events."""

    seconds: float
    until: float
    can_ask: bool = True

    def stop_asking(self) -> None:
        """The provider does not answer: the rest believes the messages, and has the whole time for that."""
        self.can_ask = False
        self.until = monotonic() + self.seconds


# One sweep a process is enough; a second task that comes meanwhile has nothing to do.
_sweeping = threading.Lock()


def process_due(seconds: float) -> int:
    """Bring waiting messages into effect until none is due or `seconds` are over; how many were tried.

    Takes up to twice as long and the time of one call if the provider does not answer. Raises what the database raises
    when it is away; then nothing counts as tried.
    """
    if not is_billing_on() or not _sweeping.acquire(blocking=False):
        return 0
    try:
        sweep = _Sweep(seconds, monotonic() + seconds)
        tried = 0
        while monotonic() < sweep.until and _process_next(sweep):
            tried += 1
        return tried
    finally:
        _sweeping.release()


@transaction.atomic
def process_again(event: BillingEvent, *, acting_user: User | None) -> None:
    """Have an event processed anew, whatever came of it. Raises `InvalidInput` if it is waiting for that already."""
    locked = BillingEvent.objects.select_for_update().get(pk=event.pk)
    if locked.state == EventState.WAITING:
        message = "This event is waiting to be processed already."
        raise InvalidInput(message, errors=[FieldError("", message)])
    subscription = _known_subscription(locked.provider, locked.provider_subscription_id)
    record_audit(
        "billing_event.retried",
        acting_user=acting_user,
        workspace=subscription.workspace if subscription else None,
        target=locked,
        data={"event": locked.pk, "state_before": locked.state, "outcome_before": locked.outcome},
    )
    locked.state, locked.outcome, locked.error = EventState.WAITING, "", ""
    locked.attempts_made, locked.next_attempt_at, locked.processed_at = 0, utc_now(), None
    locked.save(update_fields=["state", "outcome", "error", "attempts_made", "next_attempt_at", "processed_at"])


def _process_next(sweep: _Sweep) -> bool:
    """Process the event that has waited longest and that nobody else is at; False if there is none."""
    due = BillingEvent.objects.filter(state=EventState.WAITING, next_attempt_at__lte=utc_now())
    event = None
    try:
        with transaction.atomic():
            event = due.order_by("next_attempt_at").select_for_update(skip_locked=True).first()
            if event is None:
                return False
            _process(event, sweep)
    except (OperationalError, InterfaceError):
        raise  # the database is away: that is nothing of this event's
    except Exception as error:  # whatever it is, it must not keep other events from being processed
        if event is None:
            raise
        event = _put_off(event, error)
    tell_operators(event)
    return True


def _process(event: BillingEvent, sweep: _Sweep) -> None:
    """Do what a locked `event` asks for, and write down what came of it."""
    try:
        notice = _read(event)
    except UnreadableMessage as error:
        _conclude(event, Outcome.UNREADABLE, error=str(error))
        return
    # New kinds of messages may come at any time; a new one about a subscription is a hint like all others.
    is_of_use = notice.name.startswith("subscription_") or event.source == EventSource.RECONCILE
    if not notice.subscription_id or not is_of_use:
        _conclude(event, Outcome.IGNORED)
        return
    outcome = foreign(notice.is_test, notice.store_id)
    if outcome is not None:
        _conclude(event, outcome)
        return
    try:
        with transaction.atomic():
            event.subscription = locked_subscription(event.provider, notice.subscription_id)
            outcome = _apply(event, event.subscription, notice, sweep)
            if outcome in NOT_OURS:
                raise _Undo(outcome)
    except _Undo as undo:
        event.subscription = _known_subscription(event.provider, notice.subscription_id)
        outcome = undo.outcome
    if _may_yet_be_matched(event, notice, outcome):
        _wait(event, "Nobody knows yet whose subscription it is.")
    else:
        _conclude(event, outcome)


def _read(event: BillingEvent) -> Notice:
    """What the event says. One that we made ourselves says only which subscription it is about."""
    if event.source == EventSource.WEBHOOK:
        return provider().read_webhook(unseal(event.sealed_body).encode())
    return Notice(
        dedupe_key=event.dedupe_key,
        name=event.name,
        resource_type=event.resource_type,
        resource_id=event.resource_id,
        is_test=None,
        store_id="",
        subscription_id=event.provider_subscription_id,
        checkout_id="",
    )


def _apply(event: BillingEvent, subscription: Subscription, notice: Notice, sweep: _Sweep) -> Outcome:
    """Bring the locked `subscription` to what the provider says, or else to what the message says."""
    if event.source == EventSource.WEBHOOK:
        subscription.heard_at = max(subscription.heard_at or event.received_at, event.received_at)
        subscription.save(update_fields=["heard_at"])
    found = _ask(subscription, notice, sweep)
    if found is None:
        found = _believe(subscription, notice)
    if notice.invoice is None or found.outcome in _NOTHING_IS_WRITTEN:
        return found.outcome
    paid = apply_invoice(subscription, notice.invoice)
    if found.outcome in TROUBLE:
        return found.outcome
    return Outcome.APPLIED if Outcome.APPLIED in (found.outcome, paid.outcome) else paid.outcome


def _ask(subscription: Subscription, notice: Notice, sweep: _Sweep) -> Applied | None:
    """Bring the subscription to the provider's answer; None if there is none in this sweep."""
    if not sweep.can_ask:
        return None
    try:
        with transaction.atomic():
            # People who wait for a page come first when calls are scarce: a message can be believed instead.
            return ask(
                subscription,
                utc_now(),
                urgent=False,
                with_invoices=_says_nothing(notice) or _is_payment_open(subscription, notice),
                checkout_id=notice.checkout_id,
            )
    except ProviderError:
        sweep.stop_asking()
        return None


def _believe(subscription: Subscription, notice: Notice) -> Applied:
    """Bring the subscription to what the message says of it. Raises `AskFirst`."""
    if _says_nothing(notice):
        raise AskFirst
    now = utc_now()
    if notice.subscription is None:
        found = Applied(Outcome.UNCHANGED, {})
    else:
        found = apply_facts(subscription, notice.subscription, checkout_id=notice.checkout_id, was_asked=False, now=now)
    check_by(subscription, now + _UNSEEN)
    return found


def _says_nothing(notice: Notice) -> bool:
    """Whether it only names a subscription: it was made by us, or what it says could not be read."""
    return notice.subscription is None and notice.invoice is None


def _is_payment_open(subscription: Subscription, notice: Notice) -> bool:
    """Whether a payment is not made yet, for all that is known. No message tells that the provider gives one up."""
    is_said = notice.invoice is not None and notice.invoice.status == OPEN
    return is_said or Invoice.objects.filter(subscription=subscription, status=OPEN).exists()


def _known_subscription(name: str, subscription_id: str) -> Subscription | None:
    return Subscription.objects.filter(provider=name, provider_subscription_id=subscription_id).first()


# --- What came of it --------------------------------------------------------------------------------------------------


def _conclude(event: BillingEvent, outcome: Outcome, *, error: str = "") -> None:
    event.state = EventState.PARKED if outcome in TROUBLE else EventState.DONE
    event.outcome, event.error, event.processed_at = outcome, error[:500], utc_now()
    event.save(update_fields=["state", "outcome", "error", "processed_at", "subscription"])


def _may_yet_be_matched(event: BillingEvent, notice: Notice, outcome: Outcome) -> bool:
    is_orphan = outcome == Outcome.UNMATCHED and notice.invoice is not None
    return is_orphan and event.attempts_made < _ATTEMPTS_FOR_A_WORKSPACE


def _put_off(event: BillingEvent, error: Exception) -> BillingEvent:
    """Have an event tried again after an error that undid everything else; the last attempt is the end of it."""
    with transaction.atomic():
        locked = BillingEvent.objects.select_for_update().get(pk=event.pk)
        if isinstance(error, AskFirst):
            _wait(locked, "Only the provider knows, and it could not be asked.")
            return locked
        # Of any error but our own the class alone: its text may quote what must not be kept.
        name = type(error).__name__
        logger.warning("billing_event_not_processed", billing_event=locked.pk, error=name)
        _wait(locked, f"{name}: {error.message}" if isinstance(error, OpsmeterError) else name)
        if locked.attempts_made >= MOST_ATTEMPTS:
            locked.state, locked.outcome, locked.processed_at = EventState.FAILED, Outcome.ERROR, utc_now()
            locked.save(update_fields=["state", "outcome", "processed_at"])
    return locked


def _wait(event: BillingEvent, why: str) -> None:
    """Plan the next attempt, after 5 s, 25 s, 125 s, … and at most an hour."""
    event.attempts_made += 1
    pause = min(5.0 ** min(event.attempts_made, 6), _LONGEST_PAUSE_SECONDS)
    event.next_attempt_at = utc_now() + timedelta(seconds=pause)
    event.error = why[:500]
    event.save(update_fields=["attempts_made", "next_attempt_at", "error", "subscription"])
