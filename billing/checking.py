"""Asking the provider how a subscription stands, and believing the answer."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import uuid4

import structlog
from django.conf import settings
from django.db import transaction

from billing.models import BillingEvent, ChangeState, EventSource, EventState, Outcome, Subscription
from billing.providers import provider
from billing.providers.base import InvoiceFacts, ProviderError, ProviderNotFound
from billing.subscriptions import Applied, apply_facts, apply_invoice, check_by, locked_subscription
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.sealed import seal

logger = structlog.get_logger(__name__)

# It is nothing of this installation's, as far as anybody can tell: no trace of it stays among subscriptions.
NOT_OURS = frozenset({Outcome.WRONG_MODE, Outcome.WRONG_STORE, Outcome.NOT_FOUND})
# What only an operator can put right.
TROUBLE = NOT_OURS | {Outcome.UNMATCHED, Outcome.UNKNOWN_VARIANT, Outcome.UNKNOWN_STATUS, Outcome.UNREADABLE}
# When the provider was away it is asked again after this, and about what it does not know after the second.
_AWAY_PAUSE = timedelta(minutes=5)
# Sooner while somebody waits for what became of a request.
_AWAY_PAUSE_WAITED_FOR = timedelta(seconds=30)
_TROUBLE_PAUSE = timedelta(hours=24)


def check_subscription(subscription: Subscription, now: datetime, *, urgent: bool, with_invoices: bool) -> Applied:
    """Ask for the subscription's state, with its payments if wanted, and apply it.

    The row is locked while the provider is asked, so that of two answers the later one is applied last. A difference
    that no message had told is kept as an event of its own. That the provider does not know it is an outcome; every
    other refusal raises `ProviderError`, and the next check is soon.
    """
    try:
        with transaction.atomic():
            locked = locked_subscription(subscription.provider, subscription.provider_subscription_id)
            applied = ask(locked, now, urgent=urgent, with_invoices=with_invoices)
            event = keep(locked, applied)
    except ProviderError:
        is_waited_for = subscription.changes.filter(state=ChangeState.PENDING).exists()
        check_by(subscription, now + (_AWAY_PAUSE_WAITED_FOR if is_waited_for else _AWAY_PAUSE), whatever=True)
        raise
    tell_operators(event)
    return applied


def ask(
    subscription: Subscription, now: datetime, *, urgent: bool, with_invoices: bool = False, checkout_id: str = ""
) -> Applied:
    """The same for a locked `subscription`, without a trace in the inbox. `now` is from before the question."""
    shop, known_as = provider(), subscription.provider_subscription_id
    payments: Sequence[InvoiceFacts] = ()
    try:
        facts = shop.fetch_subscription(known_as, urgent=urgent)
        if with_invoices and not foreign(facts.is_test, facts.store_id):
            # Before anything is applied: from then on the workspace's ledger is locked.
            payments = shop.fetch_invoices(known_as, urgent=urgent)
    except ProviderNotFound:
        applied = Applied(Outcome.NOT_FOUND, {})
    else:
        trouble = foreign(facts.is_test, facts.store_id)
        applied = (
            Applied(trouble, {})
            if trouble
            else apply_facts(subscription, facts, checkout_id=checkout_id, was_asked=True, now=now)
        )
    if applied.outcome in NOT_OURS:
        check_by(subscription, now + _TROUBLE_PAUSE, whatever=True)
        return applied
    changes = dict(applied.changes)
    for invoice in payments:
        found = apply_invoice(subscription, invoice, was_asked=True).changes
        changes |= {f"payment {invoice.invoice_id}: {name}": change for name, change in found.items()}
    is_news = bool(changes) and applied.outcome == Outcome.UNCHANGED
    return Applied(Outcome.APPLIED if is_news else applied.outcome, changes)


def foreign(is_test: bool | None, store_id: str) -> Outcome | None:
    """What is wrong with something of this mode and store; None where it is ours or does not say."""
    if is_test is not None and is_test != settings.LEMONSQUEEZY_TEST_MODE:
        return Outcome.WRONG_MODE
    if store_id and store_id != settings.LEMONSQUEEZY_STORE_ID:
        return Outcome.WRONG_STORE
    return None


def tell_operators(event: BillingEvent | None) -> None:
    """Say in the log that an event waits for somebody, if it does; nothing of what it says."""
    if event is not None and event.state in (EventState.PARKED, EventState.FAILED):
        logger.error("billing_event_parked", billing_event=event.pk, outcome=str(event.outcome))


def keep(subscription: Subscription, applied: Applied) -> BillingEvent | None:
    """Store what a check found, unless it found nothing new; trouble that stands in the inbox already is not new."""
    is_trouble = applied.outcome in TROUBLE
    known = BillingEvent.objects.filter(
        subscription=subscription, state=EventState.PARKED, outcome=applied.outcome
    ).exists()
    if not applied.changes and (known or not is_trouble):
        return None
    now = utc_now()
    return BillingEvent.objects.create(
        source=EventSource.RECONCILE,
        provider=subscription.provider,
        dedupe_key=f"reconcile:{uuid4()}",
        name="reconciled",
        resource_type="subscriptions",
        resource_id=subscription.provider_subscription_id,
        provider_subscription_id=subscription.provider_subscription_id,
        subscription=subscription,
        sealed_body=seal(json.dumps({"changes": applied.changes})),
        received_at=now,
        state=EventState.PARKED if is_trouble else EventState.DONE,
        outcome=applied.outcome,
        processed_at=now,
    )
