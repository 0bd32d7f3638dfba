"""What the provider says becomes what a workspace has, in whatever order it is said."""

from datetime import timedelta
from itertools import permutations

import pytest

from billing.models import (
    ChangeKind,
    ChangeRequest,
    ChangeState,
    Checkout,
    Invoice,
    Outcome,
    PlanVariant,
    Status,
    Subscription,
    WorkspacePlan,
)
from billing.services import change_workspace_plan
from billing.subscriptions import AskFirst, apply_invoice, assign_workspace, expire_lapsed
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput
from tests.billing.provider_facts import (
    DAY,
    SAID_AT,
    SECOND,
    VARIANTS,
    facts,
    hear,
    invoice_facts,
    make_checkout,
    new_id,
    sell_plans,
    subscribe,
)
from tests.factories import OperatorFactory, make_workspace
from workspaces.models import AuditEntry

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


@pytest.fixture
def workspace():
    opened = make_workspace("free")
    sell_plans()
    return opened.workspace


def plan_of(workspace):
    return WorkspacePlan.objects.get(workspace=workspace).plan_id


def trail(workspace, *actions):
    return list(AuditEntry.objects.filter(workspace=workspace, action__in=actions).order_by("pk"))


def said(row, **changes):
    """The same subscription a minute after all that was said of it, with `changes`."""
    row.refresh_from_db()
    plan = changes.pop("plan", row.plan_id)
    interval = changes.pop("interval", row.interval)
    changes.setdefault("updated_at", row.provider_updated_at + timedelta(minutes=1))
    changes.setdefault("renews_at", row.renews_at)
    return facts(row.provider_subscription_id, plan, interval, **changes)


# --- Whose it is


def test_what_is_bought_at_a_checkout_of_ours_belongs_to_its_workspace(workspace):
    checkout, bought = make_checkout(workspace), facts(new_id())
    applied = hear(bought, checkout=checkout)
    row = Subscription.objects.get()
    checkout.refresh_from_db()
    assert (applied.outcome, row.workspace, row.plan_id, row.interval) == (Outcome.APPLIED, workspace, "pro", "month")
    assert checkout.subscription == row
    assert plan_of(workspace) == "pro"


@pytest.mark.parametrize("made_up", ["", "nonsense", "8a4c1b9e-3f0d-4a57-9a1c-6f2b7c1d0e3f"])
def test_without_a_checkout_of_ours_it_is_nobodys_until_an_operator_says(workspace, made_up):
    applied = hear(facts(new_id()), checkout=made_up)
    assert applied.outcome == Outcome.UNMATCHED
    assert plan_of(workspace) == "free"
    row, operator = Subscription.objects.get(), OperatorFactory()
    assign_workspace(row, workspace, acting_user=operator)
    assert plan_of(workspace) == "pro"
    (entry,) = trail(workspace, "subscription.assigned")
    assert (entry.actor, entry.data["plan"], entry.data["status"]) == (operator, "pro", "active")


def test_a_known_customer_is_recognised(workspace):
    first = subscribe(workspace, status="expired")
    applied = hear(facts(new_id(), customer_id=first.provider_customer_id))
    assert applied.outcome == Outcome.APPLIED
    assert plan_of(workspace) == "pro"


def test_a_customer_of_two_workspaces_says_nothing(workspace):
    for each in (workspace, make_workspace("free").workspace):
        subscribe(each, customer_id="both")
    assert hear(facts(new_id(), customer_id="both")).outcome == Outcome.UNMATCHED


def test_a_customer_is_no_guess_while_a_checkout_of_another_workspace_may_claim_it(workspace):
    """A payment's message, which names no checkout, comes before the subscription's own."""
    subscribe(workspace, customer_id="agency")
    other = make_workspace("free").workspace
    checkout, bought = make_checkout(other), facts(new_id(), customer_id="agency")
    assert hear(bought).outcome == Outcome.UNMATCHED
    assert hear(bought, checkout=checkout).outcome == Outcome.APPLIED
    assert plan_of(other) == "pro"


def test_once_bound_it_is_never_bound_again(workspace):
    row, other = subscribe(workspace), make_workspace("free").workspace
    checkout = make_checkout(other)
    hear(said(row), checkout=checkout)
    row.refresh_from_db()
    checkout.refresh_from_db()
    assert (row.workspace, checkout.subscription) == (workspace, None)
    with pytest.raises(InvalidInput) as refusal:
        assign_workspace(row, other, acting_user=None)
    assert refusal.value.errors[0].field == "workspace"
    assert plan_of(other) == "free"


def test_a_checkout_speaks_for_one_subscription(workspace):
    checkout = make_checkout(workspace)
    hear(facts(new_id()), checkout=checkout)
    stranger = hear(facts(new_id(), customer_id="somebody else"), checkout=checkout)
    assert stranger.outcome == Outcome.UNMATCHED


def test_paying_twice_at_one_checkout_shows_as_two_subscriptions_of_the_workspace(workspace):
    checkout = make_checkout(workspace)
    for plan in ("pro", "team"):
        hear(facts(new_id(), plan, customer_id="twice"), checkout=checkout)
    assert Subscription.objects.filter(workspace=workspace).count() == 2
    assert plan_of(workspace) == "team"


def test_a_checkout_ends_although_the_customer_was_recognised_first(workspace):
    first = subscribe(workspace, status="expired")
    checkout, again = make_checkout(workspace), facts(new_id(), customer_id=first.provider_customer_id)
    hear(again)
    hear(again, checkout=checkout)
    assert Checkout.objects.get(pk=checkout.pk).subscription.provider_subscription_id == again.subscription_id


def test_a_late_message_still_says_whose_it_is(workspace):
    """Found by asking first, then told: the message is older than what is known and brings the checkout along."""
    checkout, bought = make_checkout(workspace), facts(new_id(), updated_at=SAID_AT + HOUR)
    assert hear(bought).outcome == Outcome.UNMATCHED
    late = facts(bought.subscription_id, status="on_trial")
    assert hear(late, checkout=checkout, was_asked=False).outcome == Outcome.APPLIED
    assert Subscription.objects.get().status == Status.ACTIVE
    assert plan_of(workspace) == "pro"


# --- What is said


@pytest.mark.parametrize(
    ("status", "more", "plan"),
    [
        ("on_trial", {}, "pro"),
        ("active", {}, "pro"),
        ("past_due", {}, "pro"),
        ("paused", {"pause_mode": "free"}, "pro"),
        ("paused", {"pause_mode": "void"}, "free"),
        ("unpaid", {}, "free"),
        ("cancelled", {"ends_at": SAID_AT + 9_000 * DAY}, "pro"),
        ("cancelled", {"ends_at": SAID_AT}, "free"),
        ("expired", {"ends_at": SAID_AT}, "free"),
    ],
)
def test_the_status_says_whether_the_plan_applies(workspace, status, more, plan):
    hear(said(subscribe(workspace), status=status, **more))
    assert plan_of(workspace) == plan


def test_a_subscription_only_adds_to_what_was_granted(workspace):
    change_workspace_plan(workspace, plan_tier="team", acting_user=None)
    row = subscribe(workspace, "pro")
    assert plan_of(workspace) == "team"
    change_workspace_plan(workspace, plan_tier="free", acting_user=None)
    assert plan_of(workspace) == "pro"
    hear(said(row, status="expired"))
    assert plan_of(workspace) == "free"


def test_older_news_change_nothing_asked_for_or_not(workspace):
    row = subscribe(workspace, "team")
    old = said(row, plan="pro", status="unpaid", updated_at=SAID_AT - SECOND)
    for was_asked in (False, True):
        assert hear(old, was_asked=was_asked).outcome == Outcome.STALE
    row.refresh_from_db()
    assert (row.plan_id, row.status, plan_of(workspace)) == ("team", "active", "team")
    assert row.checked_at is not None


def test_the_same_said_again_is_known_already(workspace):
    row = subscribe(workspace)
    again = said(row, updated_at=SAID_AT)
    assert hear(again, was_asked=False).outcome == Outcome.UNCHANGED
    assert hear(again).outcome == Outcome.UNCHANGED
    assert len(trail(workspace, "subscription.started", "subscription.changed")) == 1


def test_something_else_in_the_same_second_is_decided_by_the_provider_alone(workspace):
    row = subscribe(workspace)
    other = said(row, status="cancelled", ends_at=utc_now() + DAY, updated_at=SAID_AT)
    with pytest.raises(AskFirst):
        hear(other, was_asked=False)
    row.refresh_from_db()
    assert row.status == Status.ACTIVE
    assert hear(other).outcome == Outcome.APPLIED
    row.refresh_from_db()
    assert row.status == Status.CANCELLED


def test_any_order_of_messages_ends_in_the_same_state(workspace):
    life = [
        ("on_trial", "pro", {"trial_ends_at": SAID_AT + DAY}),
        ("active", "pro", {}),
        ("active", "team", {}),
        ("cancelled", "team", {"ends_at": utc_now() + 9 * DAY}),
    ]
    for order in permutations(range(len(life))):
        owner, number = make_workspace("free").workspace, new_id()
        checkout = make_checkout(owner)
        for step in order:
            status, plan, more = life[step]
            told = facts(number, plan, status=status, updated_at=SAID_AT + step * SECOND, **more)
            hear(told, checkout=checkout, was_asked=False)
        row = Subscription.objects.get(provider_subscription_id=number)
        assert (row.status, row.plan_id, row.trial_ends_at, plan_of(owner)) == ("cancelled", "team", None, "team")


@pytest.mark.parametrize("was_asked", [True, False])
def test_a_status_that_nobody_knows_changes_nothing(workspace, was_asked):
    row = subscribe(workspace)
    applied = hear(said(row, plan="team", status="dreaming"), was_asked=was_asked)
    row.refresh_from_db()
    assert (applied.outcome, applied.changes) == (Outcome.UNKNOWN_STATUS, {})
    assert (row.status, row.plan_id, row.provider_updated_at) == ("active", "pro", SAID_AT)


def test_a_variant_that_nobody_knows_keeps_the_plan_and_everything_else_holds(workspace):
    row = subscribe(workspace)
    end = utc_now() + 3 * DAY
    strange = said(row, variant_id="999", status="cancelled", ends_at=end)
    assert hear(strange).outcome == Outcome.UNKNOWN_VARIANT
    row.refresh_from_db()
    assert (row.variant_id, row.plan_id, row.status, row.ends_at) == ("999", "pro", "cancelled", end)
    assert plan_of(workspace) == "pro"

    PlanVariant.objects.create(variant_id="999", plan_id="team", is_offered=False)
    assert hear(strange, was_asked=False).outcome == Outcome.APPLIED
    assert plan_of(workspace) == "team"


def test_a_first_subscription_of_an_unknown_variant_gives_nothing_yet(workspace):
    applied = hear(facts(new_id(), variant_id="999"), checkout=make_checkout(workspace))
    assert applied.outcome == Outcome.UNKNOWN_VARIANT
    assert (Subscription.objects.get().workspace, plan_of(workspace)) == (workspace, "free")


def test_the_changes_are_named_with_both_values(workspace):
    row = subscribe(workspace)
    applied = hear(said(row, plan="team", card_last_four="1111"))
    assert applied.changes == {
        "variant_id": ("200", "300"),
        "plan": ("pro", "team"),
        "card_last_four": ("4242", "1111"),
    }


def test_words_that_are_longer_than_expected_are_cut(workspace):
    row = subscribe(workspace, card_brand="b" * 99)
    assert hear(said(row, card_brand="b" * 99, updated_at=SAID_AT), was_asked=False).outcome == Outcome.UNCHANGED


# --- The trail


def test_the_trail_tells_what_people_can_see_and_no_card(workspace):
    row = subscribe(workspace, buyer_email="secret@example.com")
    end = utc_now() + 3 * DAY
    hear(said(row, status="cancelled", ends_at=end, card_last_four="9876"))
    started, changed = trail(workspace, "subscription.started", "subscription.changed")
    assert (started.actor, started.data["plan"], started.data["interval"]) == (None, "pro", "month")
    assert changed.data == {"status": ["active", "cancelled"], "ends_at": ["", end.isoformat()]}
    everything = str([started.data, started.target, changed.data, changed.target])
    for secret in ("4242", "9876", "visa", "secret@example.com"):
        assert secret not in everything


def test_a_renewal_or_another_card_is_not_worth_a_line(workspace):
    row = subscribe(workspace)
    applied = hear(said(row, renews_at=row.renews_at + 30 * DAY, card_last_four="1111"))
    assert applied.outcome == Outcome.APPLIED
    assert trail(workspace, "subscription.changed") == []


def test_a_change_of_plan_says_what_it_came_from(workspace):
    row = subscribe(workspace, "team")
    (entry,) = trail(workspace, "workspace_plan.changed")
    assert (entry.data["plan_before"], entry.data["plan"]) == ("free", "team")
    assert entry.data["subscription"] == row.provider_subscription_id


# --- Requests


def wish(row, kind, **more):
    return ChangeRequest.objects.create(subscription=row, kind=kind, **more)


def test_a_change_of_plan_is_confirmed_by_its_variant(workspace):
    row = subscribe(workspace)
    asked = wish(row, ChangeKind.CHANGE_PLAN, plan_id="team", variant_id=VARIANTS["team", "month"])
    hear(said(row, card_last_four="1111"))
    asked.refresh_from_db()
    assert asked.state == ChangeState.PENDING
    now = utc_now()
    hear(said(row, plan="team", updated_at=SAID_AT + HOUR), now=now)
    asked.refresh_from_db()
    assert (asked.state, asked.resolved_at) == (ChangeState.CONFIRMED, now)


@pytest.mark.parametrize(
    ("kind", "before", "no", "yes"),
    [
        (ChangeKind.CANCEL, "active", "past_due", "cancelled"),
        (ChangeKind.CANCEL, "active", "active", "expired"),
        (ChangeKind.RESUME, "cancelled", "cancelled", "active"),
        (ChangeKind.RESUME, "cancelled", "expired", "past_due"),
    ],
)
def test_an_end_and_its_withdrawal_are_confirmed_by_the_status(workspace, kind, before, no, yes):
    end = utc_now() + 9 * DAY
    row = subscribe(workspace, status=before, ends_at=end)
    asked = wish(row, kind)
    for status, state in ((no, ChangeState.PENDING), (yes, ChangeState.CONFIRMED)):
        hear(said(row, status=status, ends_at=end))
        asked.refresh_from_db()
        assert asked.state == state


def test_old_news_confirm_nothing(workspace):
    row = subscribe(workspace)
    asked = wish(row, ChangeKind.CANCEL)
    hear(said(row, status="cancelled", updated_at=SAID_AT - SECOND), was_asked=False)
    asked.refresh_from_db()
    assert asked.state == ChangeState.PENDING


# --- When the provider is asked again


@pytest.mark.parametrize(
    ("more", "pause"),
    [
        ({}, DAY),
        ({"status": "past_due"}, HOUR),
        ({"status": "unpaid"}, HOUR),
        ({"status": "cancelled", "ends_at": 5 * DAY}, DAY),
        ({"status": "cancelled", "ends_at": DAY / 2}, HOUR),
        ({"renews_at": -HOUR}, HOUR),
        ({"status": "on_trial", "trial_ends_at": -HOUR}, HOUR),
        ({"status": "on_trial", "trial_ends_at": 5 * DAY}, DAY),
        ({"status": "expired", "updated_at": -HOUR}, DAY),
        ({"status": "expired", "updated_at": -25 * HOUR}, None),
    ],
)
def test_what_is_in_doubt_is_checked_hourly_and_everything_daily(workspace, more, pause):
    now = utc_now()
    moments = {name: now + each if isinstance(each, timedelta) else each for name, each in more.items()}
    hear(facts(new_id(), **moments), checkout=make_checkout(workspace), now=now)
    assert Subscription.objects.get().next_check_at == (None if pause is None else now + pause)


def test_what_was_only_heard_is_checked_within_the_hour(workspace):
    row, now = subscribe(workspace), utc_now()
    hear(said(row), was_asked=False, now=now)
    row.refresh_from_db()
    assert row.next_check_at == now + HOUR


@pytest.mark.parametrize(
    ("is_unsure", "after", "next_after"),
    [
        (False, timedelta(0), timedelta(minutes=3)),
        (True, timedelta(0), timedelta(seconds=15)),
        (True, timedelta(seconds=20), timedelta(minutes=3)),
        (False, timedelta(minutes=5), timedelta(minutes=6)),
    ],
)
def test_a_pending_wish_is_checked_when_it_is_due(workspace, is_unsure, after, next_after):
    row, now = subscribe(workspace), utc_now()
    wish(row, ChangeKind.CANCEL, is_unsure=is_unsure, requested_at=now)
    hear(said(row), now=now + after)
    row.refresh_from_db()
    assert row.next_check_at == now + next_after


# --- Expiry by the clock


def test_a_cancelled_subscription_ends_although_nobody_says_so(workspace):
    now = utc_now()
    row = subscribe(workspace, status="cancelled", ends_at=now + HOUR)
    assert expire_lapsed(now) == 0
    assert plan_of(workspace) == "pro"
    assert expire_lapsed(now + HOUR) == 1
    assert plan_of(workspace) == "free"
    assert expire_lapsed(now + 2 * HOUR) == 0
    row.refresh_from_db()
    assert (row.lapsed_at, row.status) == (now + HOUR, "cancelled")
    (entry,) = [entry for entry in trail(workspace, "workspace_plan.changed") if entry.data["plan"] == "free"]
    assert (entry.data["subscription"], entry.actor) == (row.provider_subscription_id, None)


def test_a_resumption_heard_of_late_gives_the_plan_back(workspace):
    now = utc_now()
    row = subscribe(workspace, status="cancelled", ends_at=now - SECOND)
    expire_lapsed(now)
    hear(said(row, status="active"))
    row.refresh_from_db()
    assert (row.lapsed_at, plan_of(workspace)) == (None, "pro")


def test_one_of_nobody_ends_as_well():
    make_workspace("free")
    sell_plans()
    hear(facts(new_id(), status="cancelled", ends_at=SAID_AT))
    assert expire_lapsed(utc_now()) == 1


# --- Payments


def test_a_payment_is_stored_once_and_follows_newer_news(workspace):
    row = subscribe(workspace)
    assert apply_invoice(row, invoice_facts("1", status="pending")).outcome == Outcome.APPLIED
    assert apply_invoice(row, invoice_facts("1", status="pending")).outcome == Outcome.UNCHANGED
    paid = invoice_facts("1", updated_at=SAID_AT + SECOND)
    assert apply_invoice(row, paid).changes["status"] == ("pending", "paid")
    assert apply_invoice(row, invoice_facts("1", status="pending")).outcome == Outcome.STALE
    invoice = Invoice.objects.get()
    assert (invoice.status, invoice.total_text, invoice.subscription) == ("paid", "$49.00", row)


def test_of_two_messages_about_a_payment_in_one_second_the_one_further_on_counts(workspace):
    row = subscribe(workspace)
    life = [
        invoice_facts("1", status="pending"),
        invoice_facts("1"),
        invoice_facts("1", status="partial_refund", refunded_text="$1.00"),
        invoice_facts("1", status="refunded", is_refunded=True, refunded_text="$49.00"),
    ]
    for heard_of in range(1, len(life) + 1):
        for order in permutations(life[:heard_of]):
            Invoice.objects.all().delete()
            for each in order:
                apply_invoice(row, each)
            assert Invoice.objects.get().status == life[heard_of - 1].status
    asked = apply_invoice(row, invoice_facts("1"), was_asked=True)
    assert asked.changes["status"] == ("refunded", "paid")
