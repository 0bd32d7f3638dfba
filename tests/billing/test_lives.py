"""Whatever happens to the provider's messages on their way, a workspace ends where the provider says that it is."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from billing.inbox import process_due, receive
from billing.models import BillingEvent, EventState, Invoice, Subscription, WorkspacePlan
from billing.providers import provider
from billing.providers.lemonsqueezy import budget
from billing.reconciliation import reconcile_due
from billing.sandbox.errors import Refused
from billing.sandbox.shop import BAD_CARD, GOOD_CARD, Shop
from billing.variants import map_variant
from ingest.models import WorkspacePolicy
from opsmeter_site.lib.clock import utc_now
from tests.billing.provider_facts import begin_checkout
from tests.billing.sandbox.running import API_KEY, STORE_ID, WEBHOOK_SECRET, running_shop
from tests.factories import make_workspace

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_redis_used")]

VARIANTS = {"101": "starter", "201": "pro", "202": "pro", "301": "team"}
INTERVALS = {"202": "year"}
DAY = timedelta(days=1)
# What was believed and not asked is asked about by then.
SOON = timedelta(minutes=5)

Happens = Callable[[Shop, int], Any]
HAPPENINGS: dict[str, Happens] = {
    "starter": lambda shop, one: shop.change_variant(one, 101),
    "pro": lambda shop, one: shop.change_variant(one, 201),
    "pro for a year": lambda shop, one: shop.change_variant(one, 202),
    "team, charged now": lambda shop, one: shop.change_variant(one, 301, invoice_immediately=True),
    "cancel": lambda shop, one: shop.cancel(one),
    "resume": lambda shop, one: shop.resume(one),
    "pause, void": lambda shop, one: shop.pause(one, "void"),
    "pause, free": lambda shop, one: shop.pause(one, "free"),
    "unpause": lambda shop, one: shop.unpause(one),
    "a bad card": lambda shop, one: shop.update_card(one, BAD_CARD),
    "a good card": lambda shop, one: shop.update_card(one, GOOD_CARD),
    "a refund": lambda shop, one: shop.refund(shop.invoices(subscription_id=str(one))[0].id),
    "a dollar back": lambda shop, one: shop.refund(shop.invoices(subscription_id=str(one))[0].id, 100),
    "a week": lambda shop, one: shop.advance(7 * DAY),
    "five weeks": lambda shop, one: shop.advance(35 * DAY),
}
# What happens, and whether in the same second as what happened before.
LIVES = st.lists(st.tuples(st.sampled_from(sorted(HAPPENINGS)), st.booleans()), max_size=7)
# A smaller life that goes wrong as well is not looked for: that would take minutes.
SLOW = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    max_examples=6,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
)


@pytest.fixture
def new_shop(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[Shop]]:
    """Opens a shop. Every life has its own: what goes on in an older one must not be heard of here."""
    settings.LEMONSQUEEZY_API_KEY = API_KEY
    settings.LEMONSQUEEZY_WEBHOOK_SECRET = WEBHOOK_SECRET
    settings.LEMONSQUEEZY_STORE_ID = STORE_ID
    settings.LEMONSQUEEZY_TEST_MODE = True
    monkeypatch.setattr(budget, "MOST_PER_MINUTE", 1_000_000)
    monkeypatch.setattr(budget, "MOST_WITHOUT_HURRY", 1_000_000)

    @contextmanager
    def opened() -> Iterator[Shop]:
        with running_shop() as (shop, address):
            shop.calls_per_minute = 1_000_000
            settings.LEMONSQUEEZY_API_BASE = f"{address}/v1"
            yield shop

    return opened


class Life:
    """One subscription of a workspace of its own, from its checkout on."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.workspace = make_workspace().workspace
        for variant, tier in VARIANTS.items():
            map_variant(plan_tier=tier, interval=INTERVALS.get(variant, "month"), variant_id=variant)
        checkout = begin_checkout(self.workspace)
        shop.deliveries.take()
        # A life takes place in seconds that it says itself.
        shop.clock.freeze()
        custom = {"workspace_id": str(self.workspace.pk), "checkout_id": str(checkout.pk)}
        bought = shop.create_checkout(201, checkout_data={"email": "buyer@example.com", "custom": custom})
        self.subscription_id = shop.pay(bought.id)
        self.said = shop.deliveries.take()

    def go_on(self, happening: str, *, in_same_second: bool) -> list[Any]:
        """Let it happen, if it can; the messages about it."""
        if not in_same_second:
            self.shop.advance(timedelta(seconds=1))
        with suppress(Refused):
            HAPPENINGS[happening](self.shop, self.subscription_id)
        news = self.shop.deliveries.take()
        self.said += news
        return news

    def state(self) -> dict[str, Any]:
        """What we know of it, and what the workspace may do."""
        row = Subscription.objects.get(provider_subscription_id=str(self.subscription_id))
        assert row.workspace == self.workspace
        plan = WorkspacePlan.objects.get(workspace=self.workspace).plan_id
        assert WorkspacePolicy.objects.get(workspace=self.workspace).plan_tier == plan
        names = ("status", "pause_mode", "variant_id", "renews_at", "ends_at", "trial_ends_at", "card_last_four")
        paid = Invoice.objects.filter(subscription=row)
        return {name: getattr(row, name) for name in names} | {
            "plan": plan,
            "invoices": set(paid.values_list("provider_invoice_id", "status", "is_refunded", "total_text")),
        }

    def provider_state(self) -> dict[str, Any]:
        """The same as the provider tells it, and as the table of its states says that it counts."""
        one = provider().fetch_subscription(str(self.subscription_id))
        kept = self.shop.subscription(self.subscription_id)
        assert (one.status, one.variant_id) == (kept.status, str(kept.variant_id))
        has_plan = one.status in ("active", "on_trial", "past_due", "cancelled") or one.pause_mode == "free"
        return {
            "status": one.status,
            "pause_mode": one.pause_mode,
            "variant_id": one.variant_id,
            "renews_at": one.renews_at,
            "ends_at": one.ends_at,
            "trial_ends_at": one.trial_ends_at,
            "card_last_four": one.card_last_four,
            "plan": VARIANTS[one.variant_id] if has_plan and one.status != "expired" else "free",
            "invoices": {
                (each.invoice_id, each.status, each.is_refunded, each.total_text)
                for each in provider().fetch_invoices(str(self.subscription_id))
            },
        }


@contextmanager
def undone() -> Iterator[None]:
    """What happens inside leaves no trace in the database."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def deliver(*messages: Any) -> None:
    for _, body, headers in messages:
        receive(body, headers["X-Signature"])
    process_due(60)


def process_what_waited() -> None:
    """As later sweeps do, once pauses are over."""
    for _ in range(3):
        BillingEvent.objects.filter(state=EventState.WAITING).update(next_attempt_at=utc_now())
        process_due(60)


def trouble() -> list[str]:
    return [str(event) for event in BillingEvent.objects.exclude(state=EventState.DONE)]


def check_what_is_in_doubt() -> None:
    """As the sweeps of the next minutes do."""
    Subscription.objects.filter(next_check_at__lte=utc_now() + SOON).update(next_check_at=utc_now())
    reconcile_due(60)


def without_given_up(state: dict[str, Any]) -> dict[str, Any]:
    """A state but for the payments that are not made. No message tells that the provider has given one up."""
    made = {invoice for invoice in state["invoices"] if invoice[1] not in ("pending", "void")}
    return state | {"invoices": made}


# Nobody pays any more: the payment that was begun is given up at the end.
UNPAID_TO_THE_END = [("a bad card", False), ("five weeks", False), ("five weeks", False)]


@SLOW
@example(life=UNPAID_TO_THE_END, seed=0, away=set())
@example(life=UNPAID_TO_THE_END, seed=0, away={1, 2})
@given(life=LIVES, seed=st.integers(0, 2**32), away=st.sets(st.integers(0, 6)))
def test_late_shuffled_and_repeated_messages_end_where_ordered_ones_do(new_shop, life, seed, away):
    chance = random.Random(seed)
    with undone(), new_shop() as shop:
        one = Life(shop)
        with undone():
            on_the_way = list(one.said)
            for step, (happening, in_same_second) in enumerate(life):
                shop.set_faults(api_trouble="500" if step in away else "")
                on_the_way += one.go_on(happening, in_same_second=in_same_second)
                on_the_way += chance.sample(on_the_way, k=min(2, len(on_the_way)))
                chance.shuffle(on_the_way)
                arrived = chance.randint(0, len(on_the_way))
                deliver(*on_the_way[:arrived])
                del on_the_way[:arrived]
            deliver(*on_the_way)
            shop.set_faults(api_trouble="")
            process_what_waited()
            assert trouble() == []
            unchecked = one.state()
            check_what_is_in_doubt()
            disordered = one.state()

        assert without_given_up(unchecked) == without_given_up(disordered)
        deliver(*one.said)
        assert disordered == one.state() == one.provider_state()
        assert trouble() == []


@SLOW
@given(life=LIVES, seed=st.integers(0, 2**32))
def test_whichever_message_is_lost_reconciliation_gets_there(new_shop, life, seed):
    chance = random.Random(seed)
    with undone(), new_shop() as shop:
        one = Life(shop)
        lost = chance.randrange(len(one.said) + 3 * len(life))
        deliver(*(each for place, each in enumerate(one.said) if place != lost))
        for happening, in_same_second in life:
            heard = len(one.said)
            news = one.go_on(happening, in_same_second=in_same_second)
            deliver(*(each for place, each in enumerate(news, heard) if place != lost))

        due = Subscription.objects.get(provider_subscription_id=str(one.subscription_id)).next_check_at
        if due is not None:
            assert due <= utc_now() + DAY
            Subscription.objects.update(next_check_at=utc_now())
        reconcile_due(60)
        process_what_waited()
        assert one.state() == one.provider_state()
