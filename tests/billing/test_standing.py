"""Where a workspace stands: what it pays for, what is on its way, what came to nothing, what is on offer."""

from datetime import timedelta

import pytest

from billing.models import ChangeKind, ChangeRequest, ChangeState, Plan, PlanVariant, Subscription, WorkspacePlan
from billing.selectors import CHECKOUT, offers, standing
from billing.services import change_workspace_plan
from opsmeter_site.lib.clock import utc_now
from tests.billing.provider_facts import DAY, make_checkout, sell_plans, subscribe
from tests.factories import make_cast, make_workspace

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_redis_used")]

MINUTE = timedelta(minutes=1)


@pytest.fixture
def workspace():
    return make_workspace("free").workspace


def stands(workspace, now=None):
    return standing(workspace.pk, now or utc_now())


def ask_for(subscription, kind=ChangeKind.CHANGE_PLAN, plan="team", **facts):
    """Somebody has asked for a change."""
    wanted = Plan.objects.get(tier=plan) if kind == ChangeKind.CHANGE_PLAN else None
    return ChangeRequest.objects.create(subscription=subscription, kind=kind, plan=wanted, **facts)


def come_back(workspace, ago, plan="pro"):
    """A buyer has come back from a checkout."""
    checkout = make_checkout(workspace, plan)
    checkout.returned_at = utc_now() - ago
    checkout.save()
    return checkout


# --- The subscription -------------------------------------------------------------------------------------------------


def test_a_workspace_that_never_bought_anything(workspace):
    found = stands(workspace)
    assert (found.plan.tier, found.granted.tier, found.subscription) == ("free", "free", None)
    assert (found.pending, found.last_failure, found.other_live) == (None, None, 0)
    assert not found.is_billing_on
    assert not found.is_subscribed


def test_what_was_granted_and_what_applies_are_told_apart(workspace):
    subscribe(workspace, "pro")
    change_workspace_plan(workspace, plan_tier="starter", acting_user=None)
    found = stands(workspace)
    assert (found.plan.tier, found.granted.tier) == ("pro", "starter")


def test_billing_is_on_with_a_key(workspace, settings):
    settings.LEMONSQUEEZY_API_KEY = "key"
    assert stands(workspace).is_billing_on


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("shown", "other", "further"),
    [
        # Both renew: the higher plan, or the newer one.
        (("team", {}), ("pro", {}), 1),
        (("pro", {"created_at": utc_now()}), ("pro", {"created_at": utc_now() - DAY}), 1),
        # What renews is what can still be charged, so it is what people must be able to end.
        (("starter", {}), ("team", {"status": "cancelled", "ends_at": utc_now() + DAY}), 0),
        (("starter", {"status": "unpaid"}), ("team", {"status": "expired"}), 0),
        (
            ("starter", {"status": "cancelled", "ends_at": utc_now() + DAY}),
            ("team", {"status": "cancelled", "ends_at": utc_now() - DAY}),
            0,
        ),
    ],
    ids=["higher", "newer", "renewing", "live", "not over yet"],
)
def test_of_several_subscriptions_the_one_that_matters_most_is_shown(workspace, shown, other, further, reverse):
    made = {}
    for name, (plan, said) in sorted({"shown": shown, "other": other}.items(), reverse=reverse):
        made[name] = subscribe(workspace, plan, **said)
    found = stands(workspace)
    assert found.subscription == made["shown"]
    assert found.other_live == further


def test_an_ended_subscription_is_shown_and_is_none(workspace):
    ended = subscribe(workspace, "pro", status="expired", ends_at=utc_now() - DAY)
    found = stands(workspace)
    assert (found.subscription, found.is_subscribed) == (ended, False)


def test_a_subscription_that_is_only_a_name_yet_is_not_shown(workspace):
    Subscription.objects.create(provider="lemonsqueezy", provider_subscription_id="1", workspace=workspace)
    assert stands(workspace).subscription is None


def test_a_cancelled_one_counts_until_the_minute_of_its_end(workspace):
    ends_at = utc_now() + DAY
    subscribe(workspace, "pro", status="cancelled", ends_at=ends_at)
    assert stands(workspace, ends_at - MINUTE).is_subscribed
    assert not stands(workspace, ends_at).is_subscribed


# --- What is on its way -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "plan"), [(ChangeKind.CHANGE_PLAN, "team"), (ChangeKind.CANCEL, "free"), (ChangeKind.RESUME, "pro")]
)
def test_a_request_is_pending_with_the_plan_that_follows(workspace, kind, plan):
    people = make_cast("free")
    request = ask_for(subscribe(workspace, "pro"), kind, requested_by=people.owner)
    pending = stands(workspace).pending
    assert (pending.action, pending.plan.tier) == (kind, plan)
    assert (pending.requested_at, pending.requested_by) == (request.requested_at, people.owner)
    assert not pending.is_unsure


@pytest.mark.parametrize(("minutes", "is_overdue"), [(2, False), (3, False), (4, True)])
def test_a_request_is_overdue_after_three_minutes(workspace, minutes, is_overdue):
    now = utc_now()
    ask_for(subscribe(workspace, "pro"), requested_at=now - minutes * MINUTE, is_unsure=True)
    pending = stands(workspace, now).pending
    assert (pending.is_overdue, pending.is_unsure) == (is_overdue, True)


def test_a_request_for_any_of_the_subscriptions_is_pending(workspace):
    subscribe(workspace, "team")
    ask_for(subscribe(workspace, "starter"), ChangeKind.CANCEL)
    assert stands(workspace).pending.action == ChangeKind.CANCEL


@pytest.mark.parametrize(
    ("ago", "is_pending", "is_overdue"),
    [(MINUTE, True, False), (4 * MINUTE, True, True), (DAY - MINUTE, True, True), (DAY + MINUTE, False, None)],
)
def test_a_return_from_a_checkout_is_waited_for_during_a_day(workspace, ago, is_pending, is_overdue):
    come_back(workspace, 5 * DAY, "starter")
    checkout = come_back(workspace, ago)
    pending = stands(workspace).pending
    assert (pending is not None) is is_pending
    if pending is not None:
        assert (pending.action, pending.plan.tier, pending.is_overdue) == (CHECKOUT, "pro", is_overdue)
        assert pending.requested_at == checkout.returned_at


def test_a_checkout_that_nobody_came_back_from_is_not_pending(workspace):
    make_checkout(workspace)
    assert stands(workspace).pending is None


def test_a_checkout_is_over_once_there_is_a_subscription(workspace):
    come_back(workspace, MINUTE)
    subscribe(workspace, "pro")
    assert stands(workspace).pending is None


def test_somebody_who_subscribes_again_is_waited_for(workspace):
    subscribe(workspace, "pro", status="expired")
    come_back(workspace, MINUTE, "team")
    assert stands(workspace).pending.plan.tier == "team"


# --- What came to nothing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [ChangeState.REFUSED, ChangeState.LAPSED])
def test_a_failure_is_shown_for_a_day(workspace, state):
    now = utc_now()
    request = ask_for(
        subscribe(workspace, "pro"), state=state, requested_at=now - 2 * DAY, resolved_at=now - DAY + MINUTE
    )
    assert stands(workspace, now).last_failure == request
    assert stands(workspace, now + 2 * MINUTE).last_failure is None


def test_a_failure_is_over_with_the_next_request(workspace):
    subscription = subscribe(workspace, "pro")
    now = utc_now()
    ask_for(subscription, state=ChangeState.REFUSED, requested_at=now - 2 * MINUTE, resolved_at=now - 2 * MINUTE)
    ask_for(subscription, state=ChangeState.CONFIRMED, requested_at=now - MINUTE, resolved_at=now)
    assert stands(workspace).last_failure is None


# --- The rest ---------------------------------------------------------------------------------------------------------


def test_a_retention_notice_is_passed_on(workspace):
    until = utc_now() + 7 * DAY
    WorkspacePlan.objects.filter(workspace=workspace).update(
        kept_until=until, kept_raw_days=90, kept_rollup_days=365, announced_raw_days=14, announced_rollup_days=90
    )
    found = stands(workspace)
    assert (found.kept_until, found.announced_raw_days, found.announced_rollup_days) == (until, 14, 90)


def test_the_number_of_queries_does_not_grow(workspace, django_assert_max_num_queries):
    for plan in ("starter", "pro", "team"):
        ask_for(subscribe(workspace, plan))
        come_back(workspace, MINUTE)
    with django_assert_max_num_queries(5):
        found = stands(workspace)
        assert found.pending.plan.name
        assert found.subscription.plan.name


def test_offers_are_plans_with_something_on_sale(workspace):
    assert offers() == []
    sell_plans()
    PlanVariant.objects.filter(plan_id="team").update(is_offered=False)
    found = offers()
    assert [(each.plan.tier, sorted(each.variants)) for each in found] == [
        ("starter", ["month"]),
        ("pro", ["month", "year"]),
    ]
    assert found[1].variants["year"].variant_id == "201"
