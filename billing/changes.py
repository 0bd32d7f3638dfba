"""What people ask the provider for: a checkout, another plan, an end, its withdrawal. Nothing here changes a plan.

A request is a committed row before the provider is called, and no transaction is open during the call. Whatever dies in
between leaves a pending row and a time at which the provider is asked, so what became of it is found either way.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from billing.models import (
    ChangeKind,
    ChangeRequest,
    ChangeState,
    Checkout,
    Interval,
    Plan,
    PlanVariant,
    Subscription,
)
from billing.obstacles import (
    NO_SUBSCRIPTION,
    ChangeRefused,
    Refusal,
    obstacle_to_cancel,
    obstacle_to_change,
    obstacle_to_checkout,
    obstacle_to_resume,
)
from billing.providers import provider
from billing.providers.base import CHECKOUT_LIFETIME, CheckoutWish, PortalLinks, ProviderError, ProviderUnsure
from billing.selectors import CHECKOUT, OVERDUE, Standing, standing
from billing.services import FIRST_PLAN
from billing.subscriptions import UNSURE_FOR, check_by
from billing.turns import check_unpaid, take_turn
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError, InvalidInput
from workspaces.models import User, Workspace
from workspaces.services import record_audit

_LONGEST_NOTE = 300


# --- A first subscription ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartedCheckout:
    """Where to send the buyer, until `expires_at`."""

    checkout: Checkout
    url: str = field(repr=False)

    @property
    def expires_at(self) -> datetime:
        """When the address stops working, to the second or a little later."""
        return self.checkout.created_at + CHECKOUT_LIFETIME


def start_checkout(
    workspace: Workspace, *, plan_tier: str, interval: str, acting_user: User, return_url: str
) -> StartedCheckout:
    """Where to send the buyer for a first subscription. `return_url` gets `?checkout=<id>` appended.

    Raises `InvalidInput` for `planTier` or `interval`, `ChangeRefused`, `TooOften`, `BillingOff` or `ProviderError`.
    """
    seller = provider()
    plan = _known_plan(plan_tier)
    variant = _offered_variant(seller.name, plan, interval)
    checkout = _store_checkout(workspace, variant, acting_user)
    url = seller.create_checkout(
        CheckoutWish(
            checkout_id=str(checkout.pk),
            workspace_id=str(workspace.pk),
            user_id=str(acting_user.pk),
            variant_id=variant.variant_id,
            email=checkout.buyer_email,
            name=acting_user.name,
            return_url=_with_checkout(return_url, checkout.pk),
        )
    )
    return StartedCheckout(checkout, url)


@transaction.atomic
def _store_checkout(workspace: Workspace, variant: PlanVariant, acting_user: User) -> Checkout:
    refusal = obstacle_to_checkout(_locked_standing(workspace))
    if refusal is not None:
        raise ChangeRefused(refusal)
    take_turn(acting_user)
    check_unpaid(acting_user)
    checkout = Checkout.objects.create(
        workspace=workspace,
        requested_by=acting_user,
        provider=variant.provider,
        plan=variant.plan,
        interval=variant.interval,
        variant_id=variant.variant_id,
        buyer_email=acting_user.email,
    )
    record_audit(
        "checkout.started",
        acting_user=acting_user,
        workspace=workspace,
        target=variant.plan,
        data={"plan": variant.plan_id, "interval": variant.interval, "checkout": str(checkout.pk)},
    )
    return checkout


def _with_checkout(url: str, checkout_id: UUID) -> str:
    parts = urlsplit(url)
    query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != CHECKOUT]
    return parts._replace(query=urlencode([*query, (CHECKOUT, str(checkout_id))])).geturl()


def note_return(workspace: Workspace, checkout_id: UUID) -> None:
    """The buyer is back; from now on people wait for the provider's word. Others' checkouts are left alone."""
    Checkout.objects.filter(pk=checkout_id, workspace=workspace, returned_at=None).update(returned_at=utc_now())


# --- Changes of a subscription ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """A request to be stored. `obstacle`: what stands in its way unless the same is pending already."""

    kind: ChangeKind
    obstacle: Refusal | None
    plan: Plan | None = None
    interval: str = ""
    variant_id: str = ""


def request_plan(workspace: Workspace, *, plan_tier: str, interval: str | None, acting_user: User) -> ChangeRequest:
    """Ask the provider for another plan; None keeps the interval. A wish that is pending already is not sent again.

    Raises `InvalidInput` for `planTier` or `interval`, `ChangeRefused`, `TooOften`, `BillingOff` or `ProviderError`.
    """
    seller = provider()
    plan = _known_plan(plan_tier)

    def ask(request: ChangeRequest) -> None:
        now_on = request.subscription.plan
        rises = now_on is not None and plan.rank > now_on.rank
        seller.change_plan(_provider_id(request), request.variant_id, charge_now=rises)

    return _request(workspace, acting_user, lambda at: _wish_for_plan(seller.name, at, plan, interval), ask)


def request_cancel(workspace: Workspace, *, acting_user: User) -> ChangeRequest:
    """Ask the provider to end the subscription with its paid period. Raises like `request_plan`."""
    seller = provider()
    return _request(
        workspace,
        acting_user,
        lambda at: _Wish(kind=ChangeKind.CANCEL, obstacle=obstacle_to_cancel(at)),
        lambda request: seller.cancel(_provider_id(request)),
    )


def request_resume(workspace: Workspace, *, acting_user: User) -> ChangeRequest:
    """Ask the provider to take the cancellation back. Raises like `request_plan`."""
    seller = provider()
    return _request(
        workspace,
        acting_user,
        lambda at: _Wish(kind=ChangeKind.RESUME, obstacle=obstacle_to_resume(at)),
        lambda request: seller.resume(_provider_id(request)),
    )


def portal_links(workspace: Workspace, *, acting_user: User) -> PortalLinks:
    """Fresh links to the provider's pages for payment method and invoices. Raises like `request_plan`."""
    seller = provider()
    subscription = standing(workspace.pk, utc_now()).subscription
    if subscription is None:
        raise ChangeRefused(Refusal("no_subscription", "Nothing was bought yet. Start a subscription first."))
    take_turn(acting_user)
    links = seller.portal_links(subscription.provider_subscription_id)
    record_audit("billing_portal.opened", acting_user=acting_user, workspace=workspace, target=subscription)
    return links


def _wish_for_plan(provider_name: str, at: Standing, plan: Plan, interval: str | None) -> _Wish:
    now_on = at.subscription
    wanted = interval or (now_on.interval if now_on is not None else "") or Interval.MONTH.value
    obstacle = obstacle_to_change(at, plan, wanted)
    if obstacle is not None and obstacle.reason == "already_on_plan":
        # Also of a plan that is not offered any more.
        return _Wish(kind=ChangeKind.CHANGE_PLAN, obstacle=obstacle)
    variant = _offered_variant(provider_name, plan, wanted)
    return _Wish(
        kind=ChangeKind.CHANGE_PLAN, obstacle=obstacle, plan=plan, interval=wanted, variant_id=variant.variant_id
    )


def _request(
    workspace: Workspace,
    acting_user: User,
    decide: Callable[[Standing], _Wish],
    ask: Callable[[ChangeRequest], None],
) -> ChangeRequest:
    request, is_new = _store_request(workspace, acting_user, decide)
    if is_new:
        try:
            ask(request)
        except ProviderUnsure:
            _note_unsure(request)
        except ProviderError as error:
            _note_refusal(request, error.message)
            raise
    return request


@transaction.atomic
def _store_request(
    workspace: Workspace, acting_user: User, decide: Callable[[Standing], _Wish]
) -> tuple[ChangeRequest, bool]:
    """The request, and whether it is new. With it comes the time to ask what became of it."""
    at = _locked_standing(workspace)
    wish = decide(at)
    same = ChangeRequest.objects.select_related("subscription__plan", "plan").filter(
        subscription=at.subscription, state=ChangeState.PENDING, kind=wish.kind, variant_id=wish.variant_id
    )
    if (pending := same.first()) is not None:
        return pending, False
    if wish.obstacle is not None or at.subscription is None:
        raise ChangeRefused(wish.obstacle or NO_SUBSCRIPTION)
    take_turn(acting_user)
    request = ChangeRequest.objects.create(
        subscription=at.subscription,
        kind=wish.kind,
        plan=wish.plan,
        interval=wish.interval,
        variant_id=wish.variant_id,
        requested_by=acting_user,
    )
    check_by(request.subscription, request.requested_at + OVERDUE)
    _record_request(request, workspace, acting_user)
    return request, True


def _locked_standing(workspace: Workspace) -> Standing:
    """Where the workspace stands, with its subscriptions held until the transaction ends."""
    mine = Subscription.objects.select_for_update().filter(workspace=workspace)
    list(mine.order_by("pk").values_list("pk"))
    return standing(workspace.pk, utc_now())


def _record_request(request: ChangeRequest, workspace: Workspace, acting_user: User) -> None:
    now_on = request.subscription.plan
    data: dict[str, str | None] = {"plan_before": now_on.tier if now_on is not None else None}
    match request.kind:
        case ChangeKind.CHANGE_PLAN:
            action, target = "subscription.change_requested", request.plan
            data |= {
                "plan": request.plan_id,
                "interval": request.interval,
                "interval_before": request.subscription.interval,
            }
        case ChangeKind.CANCEL:
            action, target = "subscription.cancel_requested", now_on
        case _:
            action, target = "subscription.resume_requested", now_on
    record_audit(action, acting_user=acting_user, workspace=workspace, target=target or "", data=data)


@transaction.atomic
def _note_unsure(request: ChangeRequest) -> None:
    # The subscription first: the order in which the provider's word locks them.
    subscription = Subscription.objects.select_for_update().get(pk=request.subscription_id)
    if _still_pending(request).update(is_unsure=True):
        request.is_unsure = True
        check_by(subscription, request.requested_at + UNSURE_FOR)


def _note_refusal(request: ChangeRequest, message: str) -> None:
    _still_pending(request).update(state=ChangeState.REFUSED, resolved_at=utc_now(), note=message[:_LONGEST_NOTE])


def _still_pending(request: ChangeRequest) -> QuerySet[ChangeRequest]:
    """The provider's word may have come before its answer."""
    return ChangeRequest.objects.filter(pk=request.pk, state=ChangeState.PENDING)


def _provider_id(request: ChangeRequest) -> str:
    return request.subscription.provider_subscription_id


# --- What is wished for -----------------------------------------------------------------------------------------------


def _known_plan(tier: str) -> Plan:
    if tier == FIRST_PLAN:
        raise _wrong("planTier", "Nobody subscribes to this plan. Cancel the subscription instead.")
    plan = Plan.objects.filter(pk=tier).first()
    if plan is None:
        raise _wrong("planTier", "There is no such plan.")
    return plan


def _offered_variant(provider_name: str, plan: Plan, interval: str) -> PlanVariant:
    if interval not in Interval.values:
        raise _wrong("interval", f"Must be one of: {', '.join(Interval.values)}.")
    offered = PlanVariant.objects.select_related("plan").filter(provider=provider_name, plan=plan, is_offered=True)
    variants = {each.interval: each for each in offered}
    if not variants:
        raise _wrong("planTier", f"{plan.name} is not offered here: it is by contract. Ask whoever runs this service.")
    if interval not in variants:
        raise _wrong("interval", f"{plan.name} is offered with: {', '.join(variants)}.")
    return variants[interval]


def _wrong(name: str, message: str) -> InvalidInput:
    return InvalidInput(f"{name}: {message}", errors=[FieldError(name, message)])
