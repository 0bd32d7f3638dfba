"""Asking the provider about one subscription: what is found is applied, and kept if nobody had told it."""

import json
from datetime import timedelta

import pytest

from billing.checking import check_subscription
from billing.models import BillingEvent, EventSource, EventState, Invoice, Outcome, Subscription
from billing.providers.base import ProviderUnavailable
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.sealed import unseal
from tests.billing.messages import open_shop
from tests.billing.provider_facts import PROVIDER, SAID_AT, SECOND, facts, invoice_facts, sell_plans
from tests.factories import make_workspace

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_redis_used")]


@pytest.fixture
def shop(monkeypatch, settings):
    return open_shop(monkeypatch, settings)


@pytest.fixture
def subscription(shop):
    opened = make_workspace("free")
    sell_plans()
    made = Subscription.objects.create(
        provider=PROVIDER, provider_subscription_id="77", workspace=opened.workspace, is_test=True
    )
    shop.say(facts("77"))
    check(made)
    BillingEvent.objects.all().delete()
    return made


def check(subscription, **wanted):
    applied = check_subscription(subscription, utc_now(), **{"urgent": False, "with_invoices": False, **wanted})
    subscription.refresh_from_db()
    return applied


def test_what_nobody_had_told_is_kept_as_an_event(shop, subscription):
    shop.say(facts("77", "team", updated_at=SAID_AT + SECOND))
    applied = check(subscription)
    assert applied.outcome == Outcome.APPLIED
    assert applied.changes["plan"] == ("pro", "team")
    event = BillingEvent.objects.get()
    assert (event.source, event.name, event.state) == (EventSource.RECONCILE, "reconciled", EventState.DONE)
    assert (event.outcome, event.subscription) == (Outcome.APPLIED, subscription)
    assert json.loads(unseal(event.sealed_body))["changes"]["plan"] == ["pro", "team"]
    assert subscription.workspace.plan.plan_id == "team"


def test_what_is_known_leaves_no_trace(shop, subscription):
    before = subscription.checked_at
    assert check(subscription).outcome == Outcome.UNCHANGED
    assert not BillingEvent.objects.exists()
    assert subscription.checked_at > before


def test_payments_are_fetched_if_wanted(shop, subscription):
    shop.invoices["77"] = [invoice_facts("77", invoice_id="500"), invoice_facts("77", invoice_id="501")]
    check(subscription)
    assert not Invoice.objects.exists()
    assert check(subscription, with_invoices=True).outcome == Outcome.APPLIED
    assert Invoice.objects.count() == 2
    assert "payment 500: status" in json.loads(unseal(BillingEvent.objects.get().sealed_body))["changes"]
    assert check(subscription, with_invoices=True).outcome == Outcome.UNCHANGED
    assert BillingEvent.objects.count() == 1


def test_one_that_the_provider_has_lost_is_parked_once(shop, subscription):
    del shop.subscriptions["77"]
    for _ in range(3):
        assert check(subscription).outcome == Outcome.NOT_FOUND
    event = BillingEvent.objects.get()
    assert (event.state, event.outcome) == (EventState.PARKED, Outcome.NOT_FOUND)
    assert subscription.next_check_at > utc_now() + timedelta(hours=23)
    assert subscription.status == "active"


@pytest.mark.parametrize(
    ("said", "outcome"), [({"is_test": False}, Outcome.WRONG_MODE), ({"store_id": "2"}, Outcome.WRONG_STORE)]
)
def test_an_answer_that_is_not_ours_changes_nothing(shop, subscription, said, outcome):
    shop.say(facts("77", "team", updated_at=SAID_AT + SECOND, **said))
    assert check(subscription).outcome == outcome
    assert subscription.plan_id == "pro"
    assert BillingEvent.objects.get().outcome == outcome


def test_a_provider_that_is_away_is_asked_again_soon(shop, subscription):
    shop.is_away = True
    with pytest.raises(ProviderUnavailable):
        check(subscription)
    subscription.refresh_from_db()
    assert timedelta(minutes=4) < subscription.next_check_at - utc_now() <= timedelta(minutes=5)
    assert not BillingEvent.objects.exists()
