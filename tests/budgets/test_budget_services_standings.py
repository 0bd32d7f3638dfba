"""Budgets against the ledger as it really is: events and leases through the gateway."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext

from budgets.limit_specs import SOURCE, limit_spec
from budgets.models import Budget
from budgets.scoped.drafts import BudgetDraft
from budgets.scoped.selectors import live_holds, standings
from budgets.scoped.services import adjust_budget, create_budget, end_raise, raise_budget
from budgets.services import update_budget_settings
from ingest.meters import counted
from ingest.models import Lease, Limit, MeteredScope, WorkspacePolicy
from ingest.scoped_meters import rebuild_holds
from ingest.services import note_limits_changed
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import day_of, month_of
from tests.ledger import assert_exact

COST = Decimal("0.000045")
TINY = Decimal("0.0001")
ACME = BudgetDraft("tenant_id", TINY, scope_value="acme", enforcement="hard")


def create(meter, draft=ACME, **changes):
    return create_budget(meter.opened.workspace, replace(draft, **changes), acting_user=meter.opened.owner)


def standing_of(budget):
    return standings(budget.workspace_id, [budget], utc_now())[0]


def lease(meter, **changes):
    """A live lease, as the gateway would have stored it."""
    now = utc_now()
    fields = {
        "workspace": meter.opened.workspace,
        "external_request_id": f"lease-{Lease.objects.count()}",
        "api_key_id": meter.opened.workspace.api_keys.get().pk,
        "provider": "testhost",
        "model": "model-one",
        "endpoint_tag": "unknown",
        "prompt_version": "unknown",
        "environment": "prod",
        "data_mode": "real",
        "user_id": "unknown",
        "tenant_id": "acme",
        "usd": Decimal("0.00002"),
        "unpriced_tokens": 0,
        "expires_at": (now + timedelta(minutes=5)).replace(microsecond=0),
    }
    Lease.objects.create(**fields | changes)
    WorkspacePolicy.objects.filter(workspace=meter.workspace_id).update(leases_until=now + timedelta(minutes=6))
    rebuild_holds(meter.workspace_id, WorkspacePolicy.objects.get(workspace=meter.workspace_id))


def test_a_budget_made_in_mid_period_counts_what_was_spent(meter):
    for tenant in ("acme", "acme", "other"):
        meter.send(tenantId=tenant)
    day, month = create(meter), create(meter, period="month")
    for budget, window in ((day, day_of(utc_now())), (month, month_of(utc_now()))):
        standing = standing_of(budget)
        assert (standing.spend_usd, standing.limit_usd, standing.window) == (2 * COST, TINY, window)
        assert standing.remaining_usd == TINY - 2 * COST
        assert standing.utilization_ratio == Decimal("0.9")
        assert (standing.is_warning, standing.is_exceeded, standing.is_enforced) == (True, False, True)
        assert (standing.last_seen, standing.counts_from) == (day_of(utc_now()).start, None)
    assert_exact(meter.opened.workspace)


def test_a_budget_that_no_traffic_matches_says_so(meter):
    meter.send(tenantId="other")
    standing = standing_of(create(meter))
    assert (standing.last_seen, standing.spend_usd, standing.values) == (None, 0, ())


def test_traffic_of_earlier_days_is_seen_for_thirty_days(meter):
    now = utc_now()
    meter.send(tenantId="acme", createdAt=(now - timedelta(days=9)).isoformat())
    budget, each = create(meter), create(meter, scope_value="", is_each_value=True)
    for one in (budget, each):
        assert standing_of(one).last_seen == day_of(now - timedelta(days=9)).start
        (later,) = standings(meter.workspace_id, [one], now + timedelta(days=31))
        assert later.last_seen is None


def test_each_value_stands_by_itself(meter):
    budget = create(meter, scope_value="", is_each_value=True)
    for number in range(12):
        for _ in range(1 + (number == 3) + 2 * (number == 5)):
            meter.send(tenantId=f"t/{number:02}")
    standing = standing_of(budget)
    assert [(value.scope_value, value.spend_usd) for value in standing.values[:3]] == [
        ("t/05", 3 * COST),
        ("t/03", 2 * COST),
        ("t/00", COST),
    ]
    assert (len(standing.values), standing.seen_values) == (10, 12)
    assert (standing.warning_values, standing.exceeded_values) == (2, 1)
    assert (standing.spend_usd, standing.is_exceeded) == (3 * COST, True)
    assert [value.is_exceeded for value in standing.values[:3]] == [True, False, False]


def test_estimates_adjustments_and_leases_are_in_the_figures(meter):
    estimate = {"unpriced": "estimate", "estimate_usd_per_1m": Decimal("0.123457")}
    budget = create(meter, limit_usd=Decimal(1), **estimate)
    each = create(meter, scope_kind="user_id", scope_value="", is_each_value=True, limit_usd=Decimal(1), **estimate)
    meter.send(tenantId="acme", userId="ann")
    meter.send(tenantId="acme", userId="ann", model="nobody-knows", inputTokens=7, outputTokens=4)
    adjust_budget(budget, Decimal("0.5"), "Bill", acting_user=None)
    adjust_budget(each, Decimal("0.25"), "Bill", acting_user=None, scope_value="ann")
    adjust_budget(each, Decimal("0.125"), "Bill", acting_user=None, scope_value="bob")
    lease(meter, user_id="ann", usd=Decimal("0.01"))
    lease(meter, user_id="ann", usd=Decimal(0), unpriced_tokens=1_000_000)
    lease(meter, user_id="ann", expires_at=utc_now() - timedelta(seconds=2))
    unpriced = Decimal("0.000001358027")
    standing = standing_of(budget)
    assert standing.spend_usd == COST + unpriced + Decimal("0.5")
    assert (standing.held_usd, standing.adjusted_usd, standing.unpriced_tokens) == (
        Decimal("0.133457"),
        Decimal("0.5"),
        11,
    )
    first, second = standing_of(each).values
    assert (first.scope_value, first.spend_usd, first.held_usd) == (
        "ann",
        COST + unpriced + Decimal("0.25"),
        Decimal("0.133457"),
    )
    assert (second.scope_value, second.spend_usd, second.held_usd) == ("bob", Decimal("0.125"), 0)
    for one in (budget, each):
        limit = Limit.objects.get(source_id=str(one.pk))
        stand = standing_of(one)
        expected = counted(limit, utc_now())
        shown = {value.scope_value: value.spend_usd for value in stand.values} or {"acme": stand.spend_usd}
        assert shown == expected
    held = live_holds(budget, utc_now())
    assert (held.count, held.usd) == (2, Decimal("0.133457"))


def test_an_adjustment_opens_and_closes_a_hard_stop(meter):
    budget = create(meter, limit_usd=Decimal(1))
    assert meter.send(tenantId="acme").status == 200
    adjust_budget(budget, Decimal(1), "Bill of the provider", acting_user=meter.opened.owner)
    refused = meter.send(tenantId="acme")
    assert (refused.status, refused.json["reason"], refused.json["budget"]["id"]) == (
        402,
        "budget_exceeded",
        str(budget.pk),
    )
    assert meter.send(tenantId="other").status == 200
    adjust_budget(budget, Decimal("-0.5"), "Refunded", acting_user=meter.opened.owner)
    assert meter.send(tenantId="acme").status == 200
    assert standing_of(budget).adjusted_usd == Decimal("0.5")
    assert_exact(meter.opened.workspace)


def test_a_raise_opens_a_hard_stop_until_the_clock_ends_it(meter):
    with time_machine.travel(datetime(2026, 3, 10, 12, tzinfo=UTC), tick=False) as clock:
        budget = create(meter, limit_usd=COST / 2)
        meter.send(tenantId="acme")
        assert meter.send(tenantId="acme").status == 402
        raise_budget(budget, Decimal(1), utc_now() + timedelta(hours=1), "Launch", acting_user=meter.opened.owner)
        assert meter.send(tenantId="acme").status == 200
        standing = standing_of(budget)
        assert (standing.is_raised, standing.limit_usd, standing.is_exceeded) == (True, 1, False)
        clock.shift(timedelta(hours=1))
        assert meter.send(tenantId="acme").status == 402
        standing = standing_of(budget)
        assert (standing.is_raised, standing.limit_usd, standing.is_exceeded) == (False, COST / 2, True)


def test_a_raise_can_end_early(meter):
    budget = create(meter, limit_usd=COST / 2)
    raise_budget(budget, Decimal(1), utc_now() + timedelta(hours=1), "Launch", acting_user=meter.opened.owner)
    for _ in range(2):
        assert meter.send(tenantId="acme").status == 200
    end_raise(budget, acting_user=meter.opened.owner)
    assert meter.send(tenantId="acme").status == 402


def test_observe_mode_enforces_nothing(meter):
    budget = create(meter, limit_usd=COST / 2)
    update_budget_settings(meter.opened.workspace, acting_user=None, observe_mode=True)
    for _ in range(2):
        assert meter.send(tenantId="acme").status == 200
    standing = standing_of(budget)
    assert (standing.is_exceeded, standing.is_enforced) == (True, False)


def test_where_events_are_gone_it_is_said_from_when_on_they_count(meter):
    budget = create(meter, period="month")
    start = month_of(utc_now()).start
    for since, shown in ((start, None), (start + timedelta(hours=1), start + timedelta(hours=1))):
        MeteredScope.objects.filter(workspace=meter.workspace_id).update(counts_from=since)
        assert standing_of(budget).counts_from == shown


@pytest.fixture
def thousand(meter):
    """A client with 1,000 budgets; every tenth on each value of something."""
    workspace = meter.opened.workspace
    budgets = [
        Budget(
            workspace=workspace,
            name=f"Budget {n}",
            scope_kind="tenant_id" if n % 2 else "user_id",
            scope_value="" if n % 10 == 0 else f"value {n}",
            is_each_value=n % 10 == 0,
            period="day" if n % 3 else "month",
            limit_usd=Decimal(n + 1),
        )
        for n in range(1_000)
    ]
    Budget.objects.bulk_create(budgets)
    specs = [(budget, limit_spec(budget)) for budget in budgets]
    Limit.objects.bulk_create(
        Limit(
            workspace=workspace,
            source=SOURCE,
            source_id=spec.source_id,
            name=spec.name,
            measure=spec.measure,
            period=spec.period,
            amount=spec.amount,
            thresholds=list(spec.thresholds),
            enforce=spec.enforce,
            scope_kind=spec.scope_kind,
            scope_value=spec.scope_value,
            is_each_value=spec.is_each_value,
        )
        for _, spec in specs
    )
    # Nothing was sent yet, so there is nothing to add up.
    scopes = {(budget.scope_kind, budget.scope_value, budget.is_each_value) for budget in budgets}
    MeteredScope.objects.bulk_create(
        MeteredScope(workspace=workspace, kind=kind, value=value, is_each_value=is_each)
        for kind, value, is_each in scopes
    )
    note_limits_changed(workspace.pk)
    meter.budgets = budgets
    return meter


def test_a_thousand_budgets_are_listed_in_as_many_statements_as_two(thousand):
    for number in range(5):
        assert thousand.send(tenantId=f"value {number}", userId=f"value {number + 1}").status == 200
    with CaptureQueriesContext(connection) as queries:
        found = standings(thousand.workspace_id, thousand.budgets, utc_now())
    spent = [standing for standing in found if standing.spend_usd]
    assert len(found) == 1_000
    # 100 on each user; those of one tenant or user that something was sent for.
    assert {standing.budget.scope_value for standing in spent} == {"", "value 1", "value 2", "value 3", "value 4"}
    with CaptureQueriesContext(connection) as few:
        standings(thousand.workspace_id, thousand.budgets[:2], utc_now())
    assert len(queries) == len(few)
