"""Plans, grants and subscriptions that change at the same moment: whoever commits first, in the end it is right."""

import pytest
from django.db import connection

from billing.models import Checkout, Plan, Subscription, WorkspacePlan
from billing.selectors import standing
from billing.services import change_workspace_plan, update_plan
from billing.subscriptions import expire_lapsed
from ingest.models import WorkspacePolicy
from opsmeter_site.lib.clock import utc_now
from tests.billing.provider_facts import DAY, SAID_AT, SECOND, facts, hear, make_checkout, new_id, sell_plans, subscribe
from tests.factories import make_workspace
from tests.races import at_once, while_uncommitted
from tests.together import run_together

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("_redis_used")]

both_orders = pytest.mark.parametrize("is_reversed", [False, True])


@pytest.fixture
def workspace():
    opened = make_workspace("free")
    sell_plans()
    return opened.workspace


@pytest.fixture
def move(workspace):
    return lambda: change_workspace_plan(workspace, plan_tier="pro", acting_user=None)


@pytest.fixture
def edit(workspace):
    pro = Plan.objects.get(tier="pro")
    return lambda: update_plan(pro, requests_per_minute=700, acting_user=None)


def in_turn(first, second, *, is_reversed):
    calls = (second, first) if is_reversed else (first, second)
    return while_uncommitted(*calls)


def holds(workspace):
    """The plan that applies, as billing and as ingest have it."""
    return WorkspacePlan.objects.get(workspace=workspace).plan_id, WorkspacePolicy.objects.get(
        workspace=workspace
    ).plan_tier


def test_an_edit_reaches_a_workspace_that_is_just_moving_onto_the_plan(workspace, move, edit):
    while_uncommitted(move, edit)
    assert WorkspacePolicy.objects.get(workspace=workspace).requests_per_minute == 700


def test_a_workspace_that_moves_onto_a_plan_under_edit_gets_the_new_facts(workspace, move, edit):
    while_uncommitted(edit, move)
    assert WorkspacePolicy.objects.get(workspace=workspace).requests_per_minute == 700


@both_orders
def test_an_edit_of_a_plan_and_a_subscription_to_it(workspace, edit, is_reversed):
    bought, checkout = facts(new_id()), make_checkout(workspace)
    in_turn(lambda: hear(bought, checkout=checkout), edit, is_reversed=is_reversed)
    assert WorkspacePolicy.objects.get(workspace=workspace).requests_per_minute == 700


@both_orders
@pytest.mark.parametrize(("granted", "plan"), [("starter", "pro"), ("team", "team")])
def test_a_grant_and_a_subscription(workspace, granted, plan, is_reversed):
    bought, checkout = facts(new_id()), make_checkout(workspace)
    in_turn(
        lambda: hear(bought, checkout=checkout),
        lambda: change_workspace_plan(workspace, plan_tier=granted, acting_user=None),
        is_reversed=is_reversed,
    )
    assert holds(workspace) == (plan, plan)
    assert WorkspacePlan.objects.get(workspace=workspace).granted_id == granted


@both_orders
def test_two_messages_about_one_subscription(workspace, is_reversed):
    row = subscribe(workspace)
    number = row.provider_subscription_id
    newer = facts(number, "team", updated_at=SAID_AT + 2 * SECOND)
    older = facts(number, status="expired", updated_at=SAID_AT + SECOND)
    in_turn(
        lambda: hear(older, was_asked=False),
        lambda: hear(newer, was_asked=False),
        is_reversed=is_reversed,
    )
    assert holds(workspace) == ("team", "team")


def test_the_first_two_messages_about_a_subscription(workspace):
    bought, checkout = facts(new_id()), make_checkout(workspace)
    at_once(*[lambda: hear(bought, checkout=checkout, was_asked=False)] * 4)
    assert Subscription.objects.get().workspace == workspace
    assert holds(workspace) == ("pro", "pro")


def test_two_subscriptions_of_one_workspace_that_end_together(workspace):
    rows = [subscribe(workspace, plan) for plan in ("pro", "team")]
    gone = [facts(row.provider_subscription_id, status="expired", updated_at=SAID_AT + SECOND) for row in rows]
    while_uncommitted(lambda: hear(gone[0]), lambda: hear(gone[1]))
    assert holds(workspace) == ("free", "free")


def test_two_strangers_who_name_one_checkout(workspace):
    checkout = make_checkout(workspace)
    first, second = facts(new_id()), facts(new_id())
    while_uncommitted(lambda: hear(first, checkout=checkout), lambda: hear(second, checkout=checkout))
    bound = Subscription.objects.get(workspace=workspace)
    assert bound.provider_subscription_id == first.subscription_id
    assert Checkout.objects.get().subscription == bound


@both_orders
def test_an_end_by_the_clock_and_a_resumption(workspace, is_reversed):
    now = utc_now()
    row = subscribe(workspace, status="cancelled", ends_at=now - DAY)
    resumed = facts(row.provider_subscription_id, updated_at=SAID_AT + SECOND)
    in_turn(lambda: expire_lapsed(now), lambda: hear(resumed), is_reversed=is_reversed)
    row.refresh_from_db()
    assert (row.lapsed_at, holds(workspace)) == (None, ("pro", "pro"))


def test_the_clock_looked_at_twice(workspace):
    now = utc_now()
    subscribe(workspace, status="cancelled", ends_at=now + DAY)
    assert sum(at_once(*[lambda: expire_lapsed(now + DAY)] * 3)) == 1
    assert holds(workspace) == ("free", "free")


def test_one_that_cannot_be_ended_holds_up_no_other(workspace):
    now, broken = utc_now(), make_workspace("free").workspace
    for each in (broken, workspace):
        subscribe(each, status="cancelled", ends_at=now + DAY)
    WorkspacePlan.objects.filter(workspace=broken).delete()
    assert expire_lapsed(now + DAY) == 1
    assert holds(workspace) == ("free", "free")


def test_a_plan_and_its_subscription_are_shown_as_of_one_moment(workspace):
    bought = subscribe(workspace, "team")
    ended = facts(bought.provider_subscription_id, "team", status="expired", updated_at=SAID_AT + SECOND)
    ends = [lambda: hear(ended)]

    def end_it_meanwhile(execute, sql, *rest):
        if 'FROM "billing_subscription"' in sql and ends:
            run_together(ends.pop())
        return execute(sql, *rest)

    with connection.execute_wrapper(end_it_meanwhile):
        before = standing(workspace.pk, utc_now())
    after = standing(workspace.pk, utc_now())
    assert (before.plan.tier, before.subscription.status) == ("team", "active")
    assert (after.plan.tier, after.subscription.status) == ("free", "expired")
