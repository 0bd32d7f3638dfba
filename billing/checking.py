"""Asking the provider how a subscription stands, and believing the answer."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import uuid4

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q

from billing.models import BillingEvent, EventSource, EventState, Outcome, Subscription
from billing.providers import provider
from billing.providers.base import InvoiceFacts, ProviderError, ProviderNotFound, SubscriptionFacts
from billing.subscriptions import Applied, apply_facts, apply_invoice, locked_subscription
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.sealed import seal

logger = structlog.get_logger(__name__)

# What only an operator can put right.
TROUBLE = frozenset(
    {
        Outcome.UNMATCHED,
        Outcome.WRONG_MODE,
        Outcome.WRONG_STORE,
        Outcome.UNKNOWN_VARIANT,
        Outcome.UNKNOWN_STATUS,
        Outcome.NOT_FOUND,
        Outcome.UNREADABLE,
    }
)
# When the provider was away it is asked again after this, and about what it does not know after the second.
_AWAY_PAUSE = timedelta(minutes=5)
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
        check_by(subscription, now + _AWAY_PAUSE, whatever=True)
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
            else bring_in(subscription, facts, checkout_id=checkout_id, was_asked=True, now=now)
        )
    if applied.outcome in (Outcome.NOT_FOUND, Outcome.WRONG_MODE, Outcome.WRONG_STORE):
        check_by(subscription, now + _TROUBLE_PAUSE, whatever=True)
        return applied
    changes = dict(applied.changes)
    for invoice in payments:
        found = apply_invoice(subscription, invoice, was_asked=True).changes
        changes |= {f"payment {invoice.invoice_id}: {name}": change for name, change in found.items()}
    is_news = bool(changes) and applied.outcome == Outcome.UNCHANGED
    return Applied(Outcome.APPLIED if is_news else applied.outcome, changes)


def bring_in(
    subscription: Subscription, facts: SubscriptionFacts, *, checkout_id: str, was_asked: bool, now: datetime
) -> Applied:
    """`apply_facts`; once the workspace of a locked `subscription` is known, what waited for that is processed."""
    was_known = subscription.workspace_id is not None
    applied = apply_facts(subscription, facts, checkout_id=checkout_id, was_asked=was_asked, now=now)
    if not was_known and subscription.workspace_id is not None:
        look_again(subscription)
    return applied


def foreign(is_test: bool | None, store_id: str) -> Outcome | None:
    """What is wrong with something of this mode and store; None where it is ours or does not say."""
    if is_test is not None and is_test != settings.LEMONSQUEEZY_TEST_MODE:
        return Outcome.WRONG_MODE
    if store_id and store_id != settings.LEMONSQUEEZY_STORE_ID:
        return Outcome.WRONG_STORE
    return None


def check_by(subscription: Subscription, moment: datetime, *, whatever: bool = False) -> None:
    """Have the subscription checked no later than `moment`; `whatever`: at that moment, planned earlier or not."""
    rows = Subscription.objects.filter(pk=subscription.pk)
    if not whatever:
        rows = rows.filter(Q(next_check_at=None) | Q(next_check_at__gt=moment))
    rows.update(next_check_at=moment)


def look_again(subscription: Subscription) -> None:
    """Its workspace is known now: what was parked or put off for want of it is processed anew."""
    waiting_for_it = BillingEvent.objects.filter(
        Q(state=EventState.PARKED, outcome=Outcome.UNMATCHED) | Q(state=EventState.WAITING, attempts_made__gt=0),
        provider=subscription.provider,
        provider_subscription_id=subscription.provider_subscription_id,
    )
    with transaction.atomic():
        # Never waiting for an event: whoever processes it waits for this subscription.
        free = list(waiting_for_it.select_for_update(skip_locked=True).values_list("pk", flat=True))
        BillingEvent.objects.filter(pk__in=free).update(
            state=EventState.WAITING, outcome="", error="", attempts_made=0, next_attempt_at=utc_now()
        )


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
