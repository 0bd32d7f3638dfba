"""Whatever a message says, whenever and however often: the state is the provider's, and the outcome is kept."""

from dataclasses import replace
from datetime import timedelta

import pytest
import time_machine
from django.db import OperationalError

from billing import inbox
from billing.inbox import MOST_ATTEMPTS, process_again, process_due
from billing.models import BillingEvent, EventState, Invoice, Outcome, PlanVariant, Subscription
from billing.variants import map_variant
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput
from tests.billing.messages import deliver, message, open_shop, order_message, payment_message
from tests.billing.provider_facts import SAID_AT, SECOND, begin_checkout, facts, invoice_facts, sell_plans
from tests.factories import OperatorFactory, make_workspace
from workspaces.models import AuditEntry

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_redis_used")]


@pytest.fixture
def shop(monkeypatch, settings):
    return open_shop(monkeypatch, settings)


@pytest.fixture
def workspace(shop):
    opened = make_workspace("free")
    sell_plans()
    return opened.workspace


def process():
    process_due(10)


def state_of(event):
    event.refresh_from_db()
    return event.state, event.outcome


def plan_of(workspace):
    workspace.plan.refresh_from_db()
    return workspace.plan.plan_id


def make_due(event):
    BillingEvent.objects.filter(pk=event.pk).update(next_attempt_at=utc_now())


def subscribe(shop, workspace, subscription_id="77", **said):
    """A subscription that its own message has brought to its workspace."""
    told = facts(subscription_id, **said)
    shop.say(told)
    event = deliver(message(told, "subscription_created", checkout=begin_checkout(workspace)))
    process()
    assert state_of(event) == (EventState.DONE, Outcome.APPLIED)
    return Subscription.objects.get(provider_subscription_id=subscription_id)


# --- The way of a message ---------------------------------------------------------------------------------------------


def test_a_purchase_brings_the_plan(shop, workspace):
    checkout = begin_checkout(workspace)
    told = facts("77")
    shop.say(told)
    events = [
        deliver(order_message("5")),
        deliver(message(told, "subscription_created", checkout=checkout)),
        deliver(message(told, "subscription_updated", checkout=checkout)),
        deliver(payment_message(invoice_facts("77"))),
    ]
    assert plan_of(workspace) == "free"
    process()
    assert [state_of(event) for event in events] == [
        (EventState.DONE, Outcome.IGNORED),
        (EventState.DONE, Outcome.APPLIED),
        (EventState.DONE, Outcome.UNCHANGED),
        (EventState.DONE, Outcome.APPLIED),
    ]
    subscription = Subscription.objects.get()
    assert plan_of(workspace) == "pro"
    assert subscription.heard_at == events[-1].received_at
    assert Invoice.objects.get().subscription == subscription
    assert {event.subscription for event in events[1:]} == {subscription}
    assert events[0].subscription is None
    assert all(event.processed_at for event in events)
    assert AuditEntry.objects.filter(action="subscription.started").count() == 1


def test_the_provider_is_believed_and_not_the_message(shop, workspace):
    subscription = subscribe(shop, workspace)
    deliver(message(facts("77", "team", updated_at=SAID_AT + SECOND)))
    process()
    assert plan_of(workspace) == "pro"
    shop.say(facts("77", "team", updated_at=SAID_AT + SECOND))
    deliver(message(facts("77")))  # an old message: a hint like any other
    process()
    assert plan_of(workspace) == "team"
    subscription.refresh_from_db()
    assert subscription.checked_at is not None


def test_a_second_purchase_that_names_no_checkout_may_come_before_the_first(shop, workspace):
    """Whose it is follows from its customer, who is known with the first purchase's own message only."""
    first, second = facts("77", customer_id="5"), facts("78", "team", customer_id="5")
    shop.say(first)
    shop.say(second)
    early = deliver(message(second))
    process()
    assert state_of(early) == (EventState.PARKED, Outcome.UNMATCHED)
    deliver(message(first, checkout=begin_checkout(workspace)))
    process()
    assert state_of(early) == (EventState.DONE, Outcome.APPLIED)
    assert plan_of(workspace) == "team"


def test_a_payment_before_everything_else_waits_for_who_bought(shop, workspace):
    told = facts("77")
    shop.say(told)
    paid = deliver(payment_message(invoice_facts("77")))
    process()
    assert state_of(paid) == (EventState.WAITING, "")
    assert "whose subscription" in paid.error
    deliver(message(told, "subscription_created", checkout=begin_checkout(workspace)))
    process()
    assert state_of(paid)[0] == EventState.DONE
    assert paid.error == ""
    assert plan_of(workspace) == "pro"
    assert Invoice.objects.count() == 1


def test_a_payment_that_nobody_claims_is_parked_at_last(shop, workspace):
    shop.say(facts("77"))
    paid = deliver(payment_message(invoice_facts("77")))
    for _ in range(4):
        make_due(paid)
        process()
    assert state_of(paid) == (EventState.PARKED, Outcome.UNMATCHED)


def test_what_is_parked_for_want_of_a_workspace_is_settled_once_it_is_known(shop, workspace):
    told = facts("77")
    shop.say(told)
    orphan = deliver(message(told))
    process()
    assert state_of(orphan) == (EventState.PARKED, Outcome.UNMATCHED)
    assert Subscription.objects.get().workspace is None
    deliver(message(told, checkout=begin_checkout(workspace)))
    process()
    assert state_of(orphan) == (EventState.DONE, Outcome.UNCHANGED)


# --- Outcomes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["license_key_created", "affiliate_activated", "moon_landed", "order_refunded"])
def test_what_is_of_no_use_is_ignored(shop, workspace, name):
    event = deliver(message(facts("77"), name))
    process()
    assert state_of(event) == (EventState.DONE, Outcome.IGNORED)
    assert shop.asked == []
    assert not Subscription.objects.exists()


@pytest.mark.parametrize(
    ("said", "outcome"), [({"is_test": False}, Outcome.WRONG_MODE), ({"store_id": "2"}, Outcome.WRONG_STORE)]
)
def test_what_is_not_ours_is_parked_and_nothing_written(shop, workspace, said, outcome):
    foreign = deliver(message(facts("77", **said), checkout=begin_checkout(workspace)))
    process()
    assert state_of(foreign) == (EventState.PARKED, outcome)
    assert shop.asked == []
    shop.say(facts("78", **said))
    answered = deliver(message(facts("78"), checkout=begin_checkout(workspace)))
    process()
    assert state_of(answered) == (EventState.PARKED, outcome)
    assert not Subscription.objects.exists()
    assert plan_of(workspace) == "free"


def test_a_variant_without_a_plan_keeps_the_old_one(shop, workspace):
    subscribe(shop, workspace)
    shop.say(facts("77", variant_id="999", card_last_four="1881", updated_at=SAID_AT + SECOND))
    event = deliver(message(facts("77")))
    process()
    assert state_of(event) == (EventState.PARKED, Outcome.UNKNOWN_VARIANT)
    assert Subscription.objects.get().card_last_four == "1881"
    assert plan_of(workspace) == "pro"
    PlanVariant.objects.create(plan_id="team", variant_id="999", interval="month", is_offered=False)
    process_again(event, acting_user=None)
    process()
    assert state_of(event) == (EventState.DONE, Outcome.APPLIED)
    assert plan_of(workspace) == "team"


def test_once_the_variant_is_mapped_what_was_parked_is_processed(shop, workspace):
    subscribe(shop, workspace)
    shop.say(facts("77", variant_id="999", updated_at=SAID_AT + SECOND))
    still, moved_on = deliver(message(facts("77"))), deliver(message(facts("78"), checkout=begin_checkout(workspace)))
    shop.say(facts("78", variant_id="998"))
    process()
    assert state_of(still) == state_of(moved_on) == (EventState.PARKED, Outcome.UNKNOWN_VARIANT)
    shop.say(facts("78", "starter", updated_at=SAID_AT + SECOND))
    deliver(message(facts("78", "starter")))
    process()
    assert state_of(moved_on) == (EventState.PARKED, Outcome.UNKNOWN_VARIANT)
    map_variant(plan_tier="team", interval="month", variant_id="999", is_offered=False)
    assert plan_of(workspace) == "team"
    process()
    assert state_of(still) == state_of(moved_on) == (EventState.DONE, Outcome.UNCHANGED)


def test_a_status_that_is_not_known_changes_nothing(shop, workspace):
    subscribe(shop, workspace)
    shop.say(facts("77", "team", status="hibernating", updated_at=SAID_AT + SECOND))
    event = deliver(message(facts("77")))
    process()
    assert state_of(event) == (EventState.PARKED, Outcome.UNKNOWN_STATUS)
    assert (Subscription.objects.get().status, plan_of(workspace)) == ("active", "pro")


def test_what_the_provider_does_not_know_is_parked(shop, workspace):
    event = deliver(message(facts("77"), checkout=begin_checkout(workspace)))
    process()
    assert state_of(event) == (EventState.PARKED, Outcome.NOT_FOUND)
    assert not Subscription.objects.exists()


def test_somebody_elses_workspace_in_the_message_is_not_believed(shop, workspace):
    told = facts("77")
    shop.say(told)
    event = deliver(message(told, checkout=workspace.pk, custom_data={"workspace_id": str(workspace.pk)}))
    process()
    assert state_of(event) == (EventState.PARKED, Outcome.UNMATCHED)
    assert plan_of(workspace) == "free"


def test_operators_are_told_once_and_without_what_it_says(shop, workspace, capsys, caplog):
    event = deliver(message(facts("77", is_test=False)))
    process()
    process()
    lines = [record for record in caplog.records if "billing_event_parked" in str(record.msg)]
    assert len(lines) == 1
    assert f"'billing_event': {event.pk}" in str(lines[0].msg)
    assert "wrong_mode" in str(lines[0].msg)
    assert "buyer@example.com" not in str(lines[0].msg)


# --- Without the provider's answer ------------------------------------------------------------------------------------


def test_while_the_provider_is_away_messages_are_believed_and_it_is_asked_once(shop, workspace):
    shop.is_away = True
    checkout = begin_checkout(workspace)
    for number in range(20):
        deliver(message(facts("77", updated_at=SAID_AT + number * SECOND), checkout=checkout))
    deliver(message(facts("77", "team", updated_at=SAID_AT + 20 * SECOND), checkout=checkout))
    stale = deliver(message(facts("77", "starter"), checkout=checkout))
    process()
    assert plan_of(workspace) == "team"
    assert state_of(stale) == (EventState.DONE, Outcome.STALE)
    assert shop.asked == ["77"]
    assert not BillingEvent.objects.filter(state=EventState.WAITING).exists()
    subscription = Subscription.objects.get()
    assert subscription.checked_at is None
    assert subscription.next_check_at <= utc_now() + timedelta(minutes=5)


def test_two_states_of_one_second_wait_for_the_provider(shop, workspace):
    subscribe(shop, workspace)
    shop.is_away = True
    event = deliver(message(facts("77", status="cancelled", ends_at=utc_now() + timedelta(days=9))))
    for _ in range(MOST_ATTEMPTS + 3):
        make_due(event)
        process()
        assert state_of(event) == (EventState.WAITING, "")
    assert Subscription.objects.get().status == "active"
    shop.is_away = False
    make_due(event)
    process()
    assert state_of(event) == (EventState.DONE, Outcome.UNCHANGED)


def test_a_payment_is_kept_while_the_provider_is_away(shop, workspace):
    shop.is_away = True
    paid = deliver(payment_message(invoice_facts("77")))
    process()
    assert state_of(paid) == (EventState.DONE, Outcome.APPLIED)
    assert Invoice.objects.get().total_text == "$49.00"
    assert Subscription.objects.get().next_check_at <= utc_now() + timedelta(minutes=5)


def test_no_message_tells_that_an_open_payment_is_given_up_so_it_is_asked_about(shop, workspace):
    subscribe(shop, workspace)
    failed = invoice_facts("77", status="pending")
    shop.invoices["77"] = [failed]
    deliver(payment_message(failed, "subscription_payment_failed"))
    process()
    over = facts("77", status="expired", ends_at=SAID_AT + SECOND, updated_at=SAID_AT + SECOND)
    shop.say(over)
    shop.invoices["77"] = [replace(failed, status="void", updated_at=SAID_AT + SECOND)]
    deliver(message(over, "subscription_expired"))
    process()
    assert Invoice.objects.get().status == "void"
    shop.asked.clear()
    deliver(message(over))
    process()
    assert shop.asked == ["77"]


def test_an_open_payment_that_is_heard_of_late_is_as_the_provider_says_now(shop, workspace):
    failed = invoice_facts("77", status="pending")
    over = facts("77", status="expired", ends_at=SAID_AT + SECOND, updated_at=SAID_AT + SECOND)
    subscribe(shop, workspace)
    shop.say(over)
    shop.invoices["77"] = [replace(failed, status="void", updated_at=SAID_AT + SECOND)]
    deliver(message(over, "subscription_expired"))
    process()
    deliver(payment_message(failed, "subscription_payment_failed"))
    process()
    assert Invoice.objects.get().status == "void"


def test_a_message_that_cannot_be_read_in_full_is_a_hint_to_ask(shop, workspace):
    shop.is_away = True
    told = facts("77")
    broken = message(told, checkout=begin_checkout(workspace)).replace(b'"status":"active",', b"")
    event = deliver(broken)
    process()
    assert state_of(event) == (EventState.WAITING, "")
    shop.is_away = False
    shop.say(told)
    make_due(event)
    process()
    assert state_of(event) == (EventState.DONE, Outcome.APPLIED)
    assert plan_of(workspace) == "pro"


# --- When something goes wrong ----------------------------------------------------------------------------------------


def break_down(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(inbox, "locked_subscription", fail)


def test_a_failure_is_tried_again_with_growing_pauses_and_then_given_up(shop, workspace, monkeypatch):
    break_down(monkeypatch, RuntimeError("https://secret.example/?signature=abc"))
    event = deliver(message(facts("77")))
    pauses = []
    with time_machine.travel(utc_now(), tick=False):
        for _ in range(MOST_ATTEMPTS):
            assert state_of(event)[0] == EventState.WAITING
            make_due(event)
            process()
            event.refresh_from_db()
            pauses.append((event.next_attempt_at - utc_now()).total_seconds())
    assert pauses[:6] == [5, 25, 125, 625, 3_125, 3_600]
    assert set(pauses[6:]) == {3_600}
    assert state_of(event) == (EventState.FAILED, Outcome.ERROR)
    assert (event.attempts_made, event.error) == (MOST_ATTEMPTS, "RuntimeError")
    process()
    assert event.attempts_made == MOST_ATTEMPTS


def test_one_bad_event_does_not_hold_up_the_others(shop, workspace, monkeypatch):
    shop.say(facts("78"))
    real = inbox.locked_subscription

    def fail(provider, subscription_id):
        if subscription_id == "77":
            raise RuntimeError
        return real(provider, subscription_id)

    monkeypatch.setattr(inbox, "locked_subscription", fail)
    bad = deliver(message(facts("77")))
    good = deliver(message(facts("78"), checkout=begin_checkout(workspace)))
    process()
    assert (state_of(bad)[0], state_of(good)[0]) == (EventState.WAITING, EventState.DONE)


def test_the_databases_absence_is_no_attempt(shop, workspace, monkeypatch):
    break_down(monkeypatch, OperationalError("gone"))
    event = deliver(message(facts("77")))
    with pytest.raises(OperationalError):
        process()
    assert state_of(event) == (EventState.WAITING, "")
    assert event.attempts_made == 0


def test_a_body_sealed_under_a_lost_key_is_tried_again(shop, workspace):
    event = deliver(message(facts("77")))
    BillingEvent.objects.filter(pk=event.pk).update(sealed_body="lost")
    process()
    assert state_of(event) == (EventState.WAITING, "")
    assert event.error == "Unreadable"


def test_without_billing_nothing_is_processed(shop, workspace, settings):
    event = deliver(message(facts("77")))
    settings.LEMONSQUEEZY_API_KEY = ""
    process()
    assert state_of(event) == (EventState.WAITING, "")


# --- Process again ----------------------------------------------------------------------------------------------------


def test_processing_again_is_audited_and_does_no_harm(shop, workspace):
    subscription = subscribe(shop, workspace)
    event = subscription.events.get()
    operator = OperatorFactory()
    process_again(event, acting_user=operator)
    assert state_of(event) == (EventState.WAITING, "")
    entry = AuditEntry.objects.get(action="billing_event.retried")
    assert (entry.actor, entry.workspace) == (operator, workspace)
    assert entry.data == {"event": event.pk, "state_before": "done", "outcome_before": "applied"}
    before = AuditEntry.objects.count()
    process()
    assert state_of(event) == (EventState.DONE, Outcome.UNCHANGED)
    assert AuditEntry.objects.count() == before


def test_one_that_waits_is_not_asked_for_again(shop, workspace):
    event = deliver(message(facts("77")))
    with pytest.raises(InvalidInput):
        process_again(event, acting_user=None)
