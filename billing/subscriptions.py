"""What the provider says of a subscription, brought into our rows: the one place that changes what a plan follows from.

Lock order: the subscription's row first, then its checkout's, then what `billing.entitlements` locks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.core.exceptions import ObjectDoesNotExist
from django.db import Error, connection, transaction
from django.db.models import Model, Q

from billing.entitlements import apply_plan
from billing.models import (
    BillingEvent,
    ChangeKind,
    ChangeRequest,
    ChangeState,
    Checkout,
    EventState,
    Invoice,
    Outcome,
    PlanVariant,
    Status,
    Subscription,
)
from billing.providers.base import CHECKOUT_LIFETIME, OPEN, InvoiceFacts, SubscriptionFacts
from billing.selectors import OVERDUE
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError, InvalidInput
from workspaces.models import User, Workspace
from workspaces.services import record_audit

logger = structlog.get_logger(__name__)

_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
# A wish to which the provider gave no proper answer is looked into after this long, not only when it is `OVERDUE`.
UNSURE_FOR = timedelta(seconds=15)
# A payment that was begun while the address was good may take its time.
_CHECKOUT_OPEN_FOR = 2 * CHECKOUT_LIFETIME

# Ours on the left, the provider's on the right: everything that is stored as it was said.
_AS_SAID: Mapping[str, str] = {
    "provider_customer_id": "customer_id",
    "variant_id": "variant_id",
    "status": "status",
    "pause_mode": "pause_mode",
    "renews_at": "renews_at",
    "ends_at": "ends_at",
    "trial_ends_at": "trial_ends_at",
    "card_brand": "card_brand",
    "card_last_four": "card_last_four",
    "is_test": "is_test",
    "started_at": "created_at",
}
_WRITTEN = (
    *_AS_SAID,
    "plan",
    "interval",
    "workspace",
    "provider_updated_at",
    "checked_at",
    "next_check_at",
    "lapsed_at",
)
# What the plan of a workspace follows from.
_DECISIVE = {"status", "pause_mode", "ends_at", "plan", "workspace"}
# What the trail tells; a renewal that only moves the next one on is not worth a line.
_TOLD = ("status", "pause_mode", "plan", "interval", "ends_at", "trial_ends_at")


class AskFirst(Exception):
    """What a message says carries the same second as what is known: only the provider can tell which came last."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of it. `changes` maps columns to what stood there before and what stands there now, as text."""

    outcome: Outcome
    changes: dict[str, tuple[str, str]]


def locked_subscription(provider: str, provider_subscription_id: str) -> Subscription:
    """The row of a subscription, made if it is new, held until the transaction ends."""
    new = Subscription(provider=provider, provider_subscription_id=provider_subscription_id)
    Subscription.objects.bulk_create([new], ignore_conflicts=True)
    return Subscription.objects.select_for_update(no_key=True).get(
        provider=provider, provider_subscription_id=provider_subscription_id
    )


@transaction.atomic
def apply_facts(
    subscription: Subscription, facts: SubscriptionFacts, *, checkout_id: str, was_asked: bool, now: datetime
) -> Applied:
    """Bring a locked `subscription` to `facts`, its workspace to its plan, and open requests to their end.

    `was_asked`: the facts are the provider's answer of just now, and not what a message said. `checkout_id`: what came
    along with a message, or empty; it counts also when the facts themselves are old news. Raises `AskFirst`.
    """
    known_at = subscription.provider_updated_at
    is_stale = known_at is not None and facts.updated_at < known_at
    if facts.status not in Status.values and not is_stale:
        if was_asked:
            # Nothing is written of what was said; only that the provider was asked.
            subscription.checked_at, subscription.next_check_at = now, now + _HOUR
            subscription.save(update_fields=["checked_at", "next_check_at"])
        return Applied(Outcome.UNKNOWN_STATUS, {})
    before = _watched(subscription)
    if not is_stale:
        _take_over(subscription, facts, may_decide=was_asked or facts.updated_at != known_at)
    is_known_variant = _find_plan(subscription)
    _bind(subscription, checkout_id, now)
    if was_asked:
        subscription.checked_at = now
    if subscription.gives_access(now):
        subscription.lapsed_at = None
    if not is_stale:
        _settle_requests(subscription, now)
    if was_asked or not is_stale:
        subscription.next_check_at = _next_check(subscription, now, is_certain=was_asked and not is_stale)
    subscription.save(update_fields=_WRITTEN)
    changes = _differences(before, _watched(subscription))
    _follow(subscription, changes, now)
    return Applied(_outcome(subscription, changes, is_stale=is_stale, is_known_variant=is_known_variant), changes)


def apply_invoice(subscription: Subscription, facts: InvoiceFacts, *, was_asked: bool = False) -> Applied:
    """Store a payment of a locked `subscription`, unless what is known of it is newer.

    Of two messages that carry the same second the one that is further on counts: paid is never followed by pending.
    """
    invoice = Invoice.objects.filter(provider=subscription.provider, provider_invoice_id=facts.invoice_id).first()
    if invoice is None:
        invoice = Invoice(
            provider=subscription.provider, provider_invoice_id=facts.invoice_id, subscription=subscription
        )
    elif not _is_news(invoice, facts, was_asked=was_asked):
        return Applied(Outcome.STALE, {})
    wanted = _invoice_columns(facts)
    before = {} if invoice.pk is None else {name: getattr(invoice, name) for name in wanted}
    for name, each in wanted.items():
        setattr(invoice, name, each)
    invoice.save()
    changes = _differences({name: before.get(name) for name in wanted}, wanted)
    return Applied(Outcome.APPLIED if changes else Outcome.UNCHANGED, changes)


@transaction.atomic
def assign_workspace(subscription: Subscription, workspace: Workspace, *, acting_user: User | None) -> None:
    """An operator says whose subscription it is. Raises `InvalidInput` if another workspace has it already."""
    stored = locked_subscription(subscription.provider, subscription.provider_subscription_id)
    if stored.workspace_id == workspace.pk:
        return
    if stored.workspace_id is not None:
        message = "Another workspace has this subscription already."
        raise InvalidInput(message, errors=[FieldError("workspace", message)])
    stored.workspace = subscription.workspace = workspace
    stored.save(update_fields=["workspace"])
    record_audit(
        "subscription.assigned", acting_user=acting_user, workspace=workspace, target=stored, data=_state(stored)
    )
    apply_plan(workspace.pk, cause=_cause(stored), acting_user=acting_user)
    _look_again(stored)


@transaction.atomic
def follow_variant(variant: PlanVariant, *, acting_user: User | None) -> None:
    """Give every subscription with the variant its plan, and its workspace what follows from it.

    Messages that were parked for want of a plan are processed anew where the variant is known by now.
    """
    others = ~Q(plan=variant.plan) | Q(plan=None) | ~Q(interval=variant.interval)
    concerned = Subscription.objects.select_for_update(of=("self",)).filter(
        others, provider=variant.provider, variant_id=variant.variant_id
    )
    for subscription in concerned.order_by("pk"):
        subscription.plan, subscription.interval = variant.plan, variant.interval
        # What could not be applied for want of the plan is found by asking.
        subscription.next_check_at = utc_now()
        subscription.save(update_fields=["plan", "interval", "next_check_at"])
        if subscription.workspace_id is not None:
            cause = {"subscription": subscription.provider_subscription_id, "variant": variant.variant_id}
            apply_plan(subscription.workspace_id, cause=cause, acting_user=acting_user)
    sold = PlanVariant.objects.filter(provider=variant.provider).values("variant_id")
    understood = Subscription.objects.filter(provider=variant.provider, variant_id__in=sold)
    _process_anew(Q(state=EventState.PARKED, outcome=Outcome.UNKNOWN_VARIANT, subscription__in=understood))


def expire_lapsed(now: datetime) -> int:
    """Take the plans of cancelled subscriptions whose end has passed, whether or not anybody says so; how many.

    May be killed and run again at any time, also twice at once. One that fails is logged and tried again by the next
    run, and holds up no other.
    """
    ended = Subscription.objects.filter(status=Status.CANCELLED, ends_at__lte=now, lapsed_at=None)
    lapsed = 0
    for pk in list(ended.order_by("ends_at").values_list("pk", flat=True)):
        try:
            lapsed += _expire(pk, now)
        except (Error, ObjectDoesNotExist):
            connection.close_if_unusable_or_obsolete()
            logger.exception("subscription_not_expired", subscription=str(pk))
    return lapsed


@transaction.atomic
def _expire(pk: UUID, now: datetime) -> bool:
    still = Subscription.objects.filter(pk=pk, status=Status.CANCELLED, ends_at__lte=now, lapsed_at=None)
    subscription = still.select_for_update(no_key=True).first()
    if subscription is None:
        return False
    subscription.lapsed_at = now
    subscription.save(update_fields=["lapsed_at"])
    if subscription.workspace_id is not None:
        apply_plan(subscription.workspace_id, cause=_cause(subscription), now=now)
    return True


# --- What is written --------------------------------------------------------------------------------------------------


def _take_over(subscription: Subscription, facts: SubscriptionFacts, *, may_decide: bool) -> None:
    wanted = {ours: _fitting(Subscription, ours, getattr(facts, theirs)) for ours, theirs in _AS_SAID.items()}
    if not may_decide and any(getattr(subscription, name) != each for name, each in wanted.items()):
        raise AskFirst
    for name, each in wanted.items():
        setattr(subscription, name, each)
    subscription.provider_updated_at = facts.updated_at


def _fitting(model: type[Model], column: str, said: Any) -> Any:
    """What the provider said, cut where it is longer than the column: words for people are not worth an error."""
    longest = getattr(model._meta.get_field(column), "max_length", None)
    return said[:longest] if isinstance(said, str) else said


def _find_plan(subscription: Subscription) -> bool:
    """Set plan and interval by the variant; those of the last known one stay where it is unknown. Whether it is known.

    Looked up each time, so that a variant that an operator adds later is found.
    """
    sold_as = PlanVariant.objects.select_related("plan").filter(
        provider=subscription.provider, variant_id=subscription.variant_id
    )
    variant = sold_as.first()
    if variant is None:
        return False
    subscription.plan, subscription.interval = variant.plan, variant.interval
    return True


def _bind(subscription: Subscription, checkout_id: str, now: datetime) -> None:
    """Say whose subscription it is, if that is not known yet: by the checkout that came along, else by the customer.

    A checkout speaks for one subscription only. Somebody who pays twice on the same page is the same customer, so the
    second one is found by that and shows as a further live subscription; another customer's waits for an operator.
    """
    checkout = _named_checkout(subscription.provider, checkout_id)
    if checkout is not None and checkout.subscription_id is None:
        if subscription.workspace_id is None:
            subscription.workspace_id = checkout.workspace_id
        if subscription.workspace_id == checkout.workspace_id:
            checkout.subscription = subscription
            checkout.save(update_fields=["subscription"])
    if subscription.workspace_id is None:
        subscription.workspace_id = _workspace_of_customer(subscription, now)


def _named_checkout(provider: str, checkout_id: str) -> Checkout | None:
    try:
        wanted = UUID(checkout_id)
    except ValueError:
        return None
    return Checkout.objects.select_for_update(no_key=True).filter(pk=wanted, provider=provider).first()


def _workspace_of_customer(subscription: Subscription, now: datetime) -> UUID | None:
    """The one workspace that pays as this customer, unless a checkout of another one may still claim the subscription.

    Messages about payments name no checkout and may come first.
    """
    if not subscription.provider_customer_id:
        return None
    own = Subscription.objects.filter(
        provider=subscription.provider, provider_customer_id=subscription.provider_customer_id
    ).exclude(workspace=None)
    found = set(own.values_list("workspace_id", flat=True))
    if len(found) != 1:
        return None
    claims = Checkout.objects.filter(
        provider=subscription.provider,
        variant_id=subscription.variant_id,
        subscription=None,
        created_at__gt=now - _CHECKOUT_OPEN_FOR,
    )
    workspace_id = found.pop()
    return None if claims.exclude(workspace=workspace_id).exists() else workspace_id


def _settle_requests(subscription: Subscription, now: datetime) -> None:
    is_ending = subscription.status in (Status.CANCELLED, Status.EXPIRED)
    for wish in subscription.changes.filter(state=ChangeState.PENDING):
        match wish.kind:
            case ChangeKind.CHANGE_PLAN:
                is_so = wish.variant_id == subscription.variant_id
            case ChangeKind.CANCEL:
                is_so = is_ending
            case _:
                is_so = not is_ending
        if is_so:
            wish.state, wish.resolved_at = ChangeState.CONFIRMED, now
            wish.save(update_fields=["state", "resolved_at"])


# --- When to ask again ------------------------------------------------------------------------------------------------


def check_by(subscription: Subscription, moment: datetime, *, whatever: bool = False) -> None:
    """Have the subscription checked no later than `moment`; `whatever`: at that moment, planned earlier or not."""
    rows = Subscription.objects.filter(pk=subscription.pk)
    if not whatever:
        rows = rows.filter(Q(next_check_at=None) | Q(next_check_at__gt=moment))
    rows.update(next_check_at=moment)


def _next_check(subscription: Subscription, now: datetime, *, is_certain: bool) -> datetime | None:
    wish = subscription.changes.filter(state=ChangeState.PENDING).first()
    if wish is not None:
        return _wish_check(wish, now)
    if not is_certain or _is_doubtful(subscription, now):
        return now + _HOUR
    told_at = subscription.provider_updated_at
    if subscription.status == Status.EXPIRED and told_at is not None and now >= told_at + _DAY:
        return None
    return now + _DAY


def _wish_check(wish: ChangeRequest, now: datetime) -> datetime:
    moments = [wish.requested_at + OVERDUE]
    if wish.is_unsure:
        moments.insert(0, wish.requested_at + UNSURE_FOR)
    return next((moment for moment in moments if moment > now), now + _MINUTE)


def _is_doubtful(subscription: Subscription, now: datetime) -> bool:
    """Whether something has gone unsaid, or is about to happen that must be noticed soon."""
    match subscription.status:
        case Status.EXPIRED:
            return False
        case Status.PAST_DUE | Status.UNPAID:
            return True
        case Status.CANCELLED:
            return subscription.ends_at is not None and subscription.ends_at <= now + _DAY
    due = subscription.trial_ends_at if subscription.status == Status.ON_TRIAL else subscription.renews_at
    return subscription.workspace_id is None or (due is not None and due <= now)


# --- What follows -----------------------------------------------------------------------------------------------------


def _follow(subscription: Subscription, changes: Mapping[str, tuple[str, str]], now: datetime) -> None:
    """Audit what people can see, and bring the workspace to the plan that follows from it."""
    workspace = subscription.workspace
    if workspace is None:
        return
    told = {name: list(changes[name]) for name in (*_TOLD, "renews_at") if name in changes}
    if "workspace" in changes:
        record_audit(
            "subscription.started",
            acting_user=None,
            workspace=workspace,
            target=subscription,
            data=_state(subscription),
        )
    elif any(name in told for name in _TOLD):
        record_audit("subscription.changed", acting_user=None, workspace=workspace, target=subscription, data=told)
    if _DECISIVE & changes.keys():
        apply_plan(workspace.pk, cause=_cause(subscription), now=now)
    if "workspace" in changes:
        _look_again(subscription)


def _look_again(subscription: Subscription) -> None:
    """Its workspace is known now: have what was parked or put off for want of it processed anew.

    So is what is parked of its customer's other subscriptions: it may tell whose they are.
    """
    of_customer = Subscription.objects.filter(
        provider=subscription.provider, provider_customer_id=subscription.provider_customer_id, workspace=None
    ).exclude(provider_customer_id="")
    unmatched = Q(state=EventState.PARKED, outcome=Outcome.UNMATCHED)
    own = Q(provider=subscription.provider, provider_subscription_id=subscription.provider_subscription_id)
    _process_anew(own & (unmatched | Q(state=EventState.WAITING, attempts_made__gt=0)))
    _process_anew(unmatched & Q(subscription__in=of_customer))


def _process_anew(which: Q) -> None:
    # Never waiting for an event: whoever processes it waits for its subscription.
    free = list(BillingEvent.objects.select_for_update(skip_locked=True).filter(which).values_list("pk", flat=True))
    BillingEvent.objects.filter(pk__in=free).update(
        state=EventState.WAITING, outcome="", error="", attempts_made=0, next_attempt_at=utc_now(), processed_at=None
    )


def _outcome(
    subscription: Subscription, changes: Mapping[str, object], *, is_stale: bool, is_known_variant: bool
) -> Outcome:
    if is_stale:
        return Outcome.APPLIED if changes else Outcome.STALE
    if not is_known_variant:
        return Outcome.UNKNOWN_VARIANT
    if subscription.workspace_id is None:
        return Outcome.UNMATCHED
    return Outcome.APPLIED if changes else Outcome.UNCHANGED


def _cause(subscription: Subscription) -> dict[str, str]:
    return {"subscription": subscription.provider_subscription_id, "subscription_status": subscription.status}


def _state(subscription: Subscription) -> dict[str, str]:
    """What the trail says of a subscription: neither card nor person."""
    return {
        "provider": subscription.provider,
        **{name: _text(each) for name, each in _watched(subscription).items() if name in _TOLD},
    }


def _watched(subscription: Subscription) -> dict[str, object]:
    return {
        **{name: getattr(subscription, name) for name in (*_AS_SAID, "interval")},
        "plan": subscription.plan_id,
        "workspace": subscription.workspace_id,
    }


def _differences(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, tuple[str, str]]:
    return {
        name: (_text(before[name]), _text(after[name])) for name in after if _text(before[name]) != _text(after[name])
    }


def _text(value: object) -> str:
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, datetime) else str(value)


# --- Payments ---------------------------------------------------------------------------------------------------------


def _invoice_columns(facts: InvoiceFacts) -> dict[str, Any]:
    said = {
        "reason": facts.reason,
        "status": facts.status,
        "is_refunded": facts.is_refunded,
        "total_text": facts.total_text,
        "refunded_text": facts.refunded_text,
        "currency": facts.currency,
        "card_brand": facts.card_brand,
        "card_last_four": facts.card_last_four,
        "invoiced_at": facts.created_at,
        "provider_updated_at": facts.updated_at,
    }
    return {column: _fitting(Invoice, column, each) for column, each in said.items()}


def _is_news(invoice: Invoice, facts: InvoiceFacts, *, was_asked: bool) -> bool:
    if facts.updated_at != invoice.provider_updated_at:
        return facts.updated_at > invoice.provider_updated_at
    return was_asked or _stage(facts) >= _stage(invoice)


def _stage(payment: Invoice | InvoiceFacts) -> int:
    """How far a payment has come; two messages of one second are put in order by it."""
    if payment.is_refunded:
        return 3
    return 2 if payment.refunded_text else int(payment.status != OPEN)
