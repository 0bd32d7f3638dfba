"""What a provider says, for tests that need no provider: facts in its words, and variants that are on sale."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from django.db import transaction

from billing.models import Checkout, Interval, Plan, PlanVariant, Subscription
from billing.providers.base import CheckoutWish, InvoiceFacts, SubscriptionFacts
from billing.subscriptions import Applied, apply_facts, locked_subscription
from opsmeter_site.lib.clock import utc_now
from workspaces.models import Workspace

PROVIDER = "lemonsqueezy"
VARIANTS = {
    ("starter", "month"): "100",
    ("pro", "month"): "200",
    ("pro", "year"): "201",
    ("team", "month"): "300",
}
# Long enough ago that nothing said by then lies ahead of the clock.
SAID_AT = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
WISH = CheckoutWish(
    checkout_id="6a1f0000-0000-4000-8000-000000000001",
    workspace_id="6a1f0000-0000-4000-8000-000000000002",
    user_id="12",
    variant_id="10",
    email="ada@example.com",
    name="Ada",
    return_url="http://127.0.0.1:8000/billing/return",
)

_numbers = count(70_001)


def sell_plans() -> None:
    """Offer the variants of `VARIANTS`."""
    for (tier, interval), variant_id in VARIANTS.items():
        PlanVariant.objects.get_or_create(
            provider=PROVIDER, variant_id=variant_id, defaults={"plan_id": tier, "interval": interval}
        )


def facts(subscription_id: str, plan: str = "pro", interval: str = "month", **said: Any) -> SubscriptionFacts:
    """An active subscription to `plan` as of `SAID_AT`, with whatever else is `said`."""
    defaults: dict[str, Any] = {
        "subscription_id": subscription_id,
        "customer_id": f"c{subscription_id}",
        "store_id": "1",
        "variant_id": VARIANTS[plan, interval],
        "status": "active",
        "pause_mode": "",
        "renews_at": utc_now() + 20 * DAY,
        "ends_at": None,
        "trial_ends_at": None,
        "card_brand": "visa",
        "card_last_four": "4242",
        "buyer_email": "buyer@example.com",
        "created_at": SAID_AT,
        "updated_at": SAID_AT,
        "is_test": True,
    }
    return SubscriptionFacts(**defaults | said)


def invoice_facts(subscription_id: str, **said: Any) -> InvoiceFacts:
    """A payment of 49 dollars, paid."""
    defaults: dict[str, Any] = {
        "invoice_id": "500",
        "subscription_id": subscription_id,
        "store_id": "1",
        "reason": "initial",
        "status": "paid",
        "is_refunded": False,
        "total_text": "$49.00",
        "refunded_text": "",
        "currency": "USD",
        "card_brand": "visa",
        "card_last_four": "4242",
        "created_at": SAID_AT,
        "updated_at": SAID_AT,
        "is_test": True,
    }
    return InvoiceFacts(**defaults | said)


def hear(
    said: SubscriptionFacts, *, checkout: Checkout | str = "", was_asked: bool = True, now: datetime | None = None
) -> Applied:
    """Apply what the provider said, the way a message's processing does."""
    checkout_id = str(checkout.pk) if isinstance(checkout, Checkout) else checkout
    with transaction.atomic():
        row = locked_subscription(PROVIDER, said.subscription_id)
        return apply_facts(row, said, checkout_id=checkout_id, was_asked=was_asked, now=now or utc_now())


def new_id() -> str:
    """A subscription's id that no other test uses."""
    return str(next(_numbers))


def begin_checkout(workspace: Workspace, plan: str = "pro", interval: str = "month", **wanted: Any) -> Checkout:
    """Somebody of `workspace` was sent to the provider."""
    return Checkout.objects.create(
        workspace=workspace,
        provider=PROVIDER,
        plan=Plan.objects.get(tier=plan),
        interval=Interval(interval),
        variant_id=VARIANTS[plan, interval],
        **{"buyer_email": "buyer@example.com", **wanted},
    )


def make_checkout(workspace: Workspace, plan: str = "pro", interval: str = "month") -> Checkout:
    """The same, of a plan that is on sale."""
    sell_plans()
    return begin_checkout(workspace, plan, interval)


def subscribe(workspace: Workspace, plan: str = "pro", interval: str = "month", **said: Any) -> Subscription:
    """A subscription of `workspace` that the provider has told of."""
    wanted = facts(new_id(), plan, interval, **said)
    hear(wanted, checkout=make_checkout(workspace, plan, interval))
    return Subscription.objects.get(provider=PROVIDER, provider_subscription_id=wanted.subscription_id)
