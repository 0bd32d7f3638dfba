"""What no message told is found by asking: changes, requests that were never confirmed, purchases."""

from datetime import timedelta

import pytest
import time_machine

from billing import reconciliation
from billing.inbox import process_again, process_due
from billing.models import BillingEvent, ChangeRequest, ChangeState, EventState, Outcome, Subscription
from billing.reconciliation import reconcile_due
from billing.tasks import keep_time, process, reconcile
from opsmeter_site.lib.clock import utc_now
from tests.billing.messages import deliver, message, open_shop
from tests.billing.provider_facts import PROVIDER, SAID_AT, SECOND, begin_checkout, facts, sell_plans
from tests.factories import make_workspace
from workspaces.models import AuditEntry

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_redis_used")]

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def shop(monkeypatch, settings):
    return open_shop(monkeypatch, settings)


@pytest.fixture
def workspace(shop):
    opened = make_workspace("free")
    sell_plans()
    return opened.workspace


def run():
    return reconcile_due(20)


def plan_of(workspace):
    workspace.plan.refresh_from_db()
    return workspace.plan.plan_id


def subscribed(shop, workspace, subscription_id="77", *, due=timedelta(0), **said):
    """A subscription that the provider knows, and when it is to be checked, from now."""
    shop.say(facts(subscription_id, **said))
    return Subscription.objects.create(
        provider=PROVIDER,
        provider_subscription_id=subscription_id,
        workspace=workspace,
        is_test=True,
        next_check_at=utc_now() + due,
        heard_at=utc_now(),
    )


# --- Subscriptions ----------------------------------------------------------------------------------------------------


def test_a_change_that_no_message_told_is_found(shop, workspace):
    subscription = subscribed(shop, workspace)
    assert run() == 1
    assert plan_of(workspace) == "pro"
    assert BillingEvent.objects.get().outcome == Outcome.APPLIED
    subscription.refresh_from_db()
    assert subscription.next_check_at > utc_now() + 23 * HOUR
    assert run() == 0


def test_who_is_most_overdue_is_asked_about_first_and_who_is_not_due_not_at_all(shop, workspace):
    subscribed(shop, workspace, "1", due=-MINUTE)
    subscribed(shop, workspace, "2", due=-HOUR)
    subscribed(shop, workspace, "3", due=MINUTE)
    assert run() == 2
    assert shop.asked == ["2", "invoices of 2", "1", "invoices of 1"]


def test_while_the_provider_is_away_one_question_is_enough(shop, workspace):
    for number in range(5):
        subscribed(shop, workspace, str(number))
    shop.is_away = True
    assert run() == 0
    assert len(shop.asked) == 1
    shop.is_away = False
    assert run() == 4  # the fifth is asked about in five minutes


def test_trouble_with_one_leaves_the_others_their_turn(shop, workspace, monkeypatch):
    bad = subscribed(shop, workspace, "1", due=-HOUR)
    subscribed(shop, workspace, "2")
    real = reconciliation.check_subscription

    def fail(subscription, *arguments, **wanted):
        if subscription.pk == bad.pk:
            raise RuntimeError
        return real(subscription, *arguments, **wanted)

    monkeypatch.setattr(reconciliation, "check_subscription", fail)
    assert run() == 2
    assert plan_of(workspace) == "pro"
    bad.refresh_from_db()
    assert bad.next_check_at > utc_now() + 59 * MINUTE


@pytest.mark.parametrize("said", [{"status": "hibernating"}, {"variant_id": "999"}, {"is_test": False}])
def test_trouble_is_parked_once_and_not_asked_about_without_end(shop, workspace, said):
    subscription = subscribed(shop, workspace, **said)
    for _ in range(3):
        assert run() == 1
        Subscription.objects.filter(pk=subscription.pk).update(next_check_at=utc_now())
    assert BillingEvent.objects.get().state == EventState.PARKED


def test_a_found_event_can_be_processed_again(shop, workspace):
    subscribed(shop, workspace, variant_id="999")
    run()
    event = BillingEvent.objects.get()
    shop.say(facts("77", "team", updated_at=SAID_AT + SECOND))
    process_again(event, acting_user=None)
    process_due(5)
    event.refresh_from_db()
    assert (event.state, event.outcome) == (EventState.DONE, Outcome.APPLIED)
    assert plan_of(workspace) == "team"


def test_without_billing_nobody_is_asked(shop, workspace, settings):
    subscribed(shop, workspace)
    settings.LEMONSQUEEZY_API_KEY = ""
    assert run() == 0
    assert shop.asked == []


def test_the_tasks_run(shop, workspace):
    subscribed(shop, workspace)
    for task in (process, reconcile, keep_time):
        task()
    assert plan_of(workspace) == "pro"


# --- Requests ---------------------------------------------------------------------------------------------------------


def ask_for_team(subscription, age, **wanted):
    return ChangeRequest.objects.create(
        subscription=subscription,
        kind="change_plan",
        plan_id="team",
        interval="month",
        variant_id="300",
        requested_at=utc_now() - age,
        **wanted,
    )


@pytest.mark.parametrize(
    ("age", "is_unsure", "state"),
    [
        (4 * MINUTE, False, ChangeState.LAPSED),
        (2 * MINUTE, False, ChangeState.PENDING),
        (15 * SECOND, True, ChangeState.LAPSED),
        (14 * SECOND, True, ChangeState.PENDING),
    ],
)
def test_a_request_that_the_provider_does_not_show_lapses_in_time(shop, workspace, age, is_unsure, state):
    with time_machine.travel(utc_now(), tick=False):
        subscription = subscribed(shop, workspace)
        request = ask_for_team(subscription, age, is_unsure=is_unsure)
        run()
    request.refresh_from_db()
    assert request.state == state
    assert bool(request.note) == (request.resolved_at is not None) == (state == ChangeState.LAPSED)
    assert AuditEntry.objects.filter(action="subscription.change_lapsed").exists() == (state == ChangeState.LAPSED)


def test_a_request_whose_message_was_lost_is_confirmed(shop, workspace):
    subscription = subscribed(shop, workspace, plan="team")
    request = ask_for_team(subscription, 4 * MINUTE)
    run()
    request.refresh_from_db()
    assert request.state == ChangeState.CONFIRMED
    assert plan_of(workspace) == "team"


def test_nothing_lapses_unasked_and_the_provider_is_asked_again_within_the_minute(shop, workspace):
    subscription = subscribed(shop, workspace)
    request = ask_for_team(subscription, HOUR)
    shop.is_away = True
    run()
    request.refresh_from_db()
    assert request.state == ChangeState.PENDING
    subscription.refresh_from_db()
    assert subscription.next_check_at <= utc_now() + MINUTE


# --- Checkouts --------------------------------------------------------------------------------------------------------


def bought(shop, subscription_id="77", **said):
    now = utc_now().replace(microsecond=0)
    shop.say(facts(subscription_id, **{"created_at": now, "updated_at": now, **said}))


def returned(workspace, **wanted):
    return begin_checkout(workspace, returned_at=utc_now(), **wanted)


def test_a_purchase_that_no_message_told_is_found(shop, workspace):
    checkout = returned(workspace)
    bought(shop)
    assert run() == 1
    checkout.refresh_from_db()
    assert checkout.subscription.provider_subscription_id == "77"
    assert plan_of(workspace) == "pro"
    assert BillingEvent.objects.get().outcome == Outcome.APPLIED


def test_one_that_a_message_brought_without_its_checkout_is_bound_and_settled(shop, workspace):
    checkout = returned(workspace)
    bought(shop)
    orphan = deliver(message(shop.subscriptions["77"]))
    process_due(5)
    orphan.refresh_from_db()
    assert orphan.outcome == Outcome.UNMATCHED
    run()
    process_due(5)
    orphan.refresh_from_db()
    assert orphan.state == EventState.DONE
    assert plan_of(workspace) == "pro"
    checkout.refresh_from_db()
    assert checkout.subscription is not None


@pytest.mark.parametrize(
    "said",
    [
        {"buyer_email": "somebody@example.com"},
        {"variant_id": "300"},
        {"created_at": SAID_AT},
        {"store_id": "2"},
    ],
)
def test_what_does_not_fit_is_not_bound(shop, workspace, said):
    returned(workspace)
    bought(shop, **said)
    run()
    assert plan_of(workspace) == "free"


def test_two_purchases_for_one_checkout_are_left_to_an_operator(shop, workspace):
    returned(workspace)
    bought(shop, "77")
    bought(shop, "78")
    run()
    assert plan_of(workspace) == "free"


def test_a_purchase_that_may_be_another_workspaces_is_left_to_an_operator(shop, workspace):
    other = make_workspace("free").workspace
    returned(workspace)
    begin_checkout(other)
    bought(shop)
    run()
    assert {plan_of(workspace), plan_of(other)} == {"free"}


def test_a_second_click_on_the_same_plan_is_no_obstacle(shop, workspace):
    begin_checkout(workspace)
    returned(workspace)
    bought(shop)
    run()
    assert plan_of(workspace) == "pro"


def test_a_purchase_that_another_workspace_has_is_not_taken_from_it(shop, workspace):
    other = make_workspace("free").workspace
    bought(shop)
    subscribed(shop, other, due=HOUR, created_at=utc_now())
    returned(workspace)
    run()
    assert plan_of(workspace) == "free"
    assert Subscription.objects.get().workspace == other


@pytest.mark.parametrize(
    ("age", "is_looked_for"),
    [(MINUTE, False), (4 * MINUTE, True), (23 * HOUR, True), (25 * HOUR, False)],
)
def test_a_buyer_who_does_not_return_is_waited_for_and_forgotten_in_time(shop, workspace, age, is_looked_for):
    begin_checkout(workspace, created_at=utc_now() - age)
    run()
    assert (shop.asked == ["buyer@example.com"]) == is_looked_for


def test_an_open_checkout_is_asked_about_once_a_minute_and_ever_more_seldom(shop, workspace):
    returned(workspace)
    begin_checkout(workspace, created_at=utc_now() - 10 * HOUR)
    run()
    run()
    assert len(shop.asked) == 2
    pauses = sorted(
        reconciliation.client().ttl(key) for key in reconciliation.client().scan_iter("*billing:checkout-asked:*")
    )
    assert pauses[0] <= 60
    assert 4 * 3_600 < pauses[1] <= 5 * 3_600
