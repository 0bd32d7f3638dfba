from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine

from budgets.scoped.services import (
    adjust_budget,
    end_raise,
    history,
    raise_budget,
)
from ingest.models import LimitAdjustment, LimitCrossing
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput
from opsmeter_site.lib.periods import day_of
from tests.budgets.scoped import ACME, EACH, NOON, change, create, limit_of, refused_fields
from tests.factories import make_workspace
from workspaces.models import AuditEntry
from workspaces.services import revoke_api_key

pytestmark = pytest.mark.django_db

NAN = Decimal("NaN")


@pytest.fixture
def opened():
    return make_workspace("pro")


# --- Raises -----------------------------------------------------------------------------------------------------------


def test_a_raise_holds_until_the_clock_ends_it(opened):
    with time_machine.travel(NOON, tick=False) as clock:
        budget = create(opened)
        raised = raise_budget(budget, Decimal(75), NOON + timedelta(hours=1), "  Launch ", acting_user=opened.owner)
        limit = limit_of(budget)
        assert (raised.raise_reason, limit.amount_at(utc_now()), limit.amount) == ("Launch", 75, 50)
        clock.move_to(NOON + timedelta(hours=1))
        assert limit.amount_at(utc_now()) == 50
        before = len(history(budget.pk, opened.workspace.pk))
        end_raise(budget, acting_user=opened.owner)
        assert len(history(budget.pk, opened.workspace.pk)) == before


def test_a_second_raise_replaces_the_first_and_it_can_be_ended(opened):
    budget = create(opened)
    for amount in (75, 60):
        raise_budget(budget, Decimal(amount), utc_now() + timedelta(days=1), f"To {amount}", acting_user=opened.owner)
    assert limit_of(budget).raised_amount == 60
    for _ in range(2):
        ended = end_raise(budget, acting_user=opened.owner)
    assert (ended.raised_limit_usd, ended.raised_until, ended.raise_reason) == (None, None, "")
    assert limit_of(budget).raised_amount is None
    newest, previous, *_ = history(budget.pk, opened.workspace.pk)
    assert (newest.action, newest.data["old"]["raised_limit_usd"]) == ("budget.raise_ended", "60")
    assert (previous.action, previous.data["old"]["raised_limit_usd"]) == ("budget.raised", "75")


def test_a_limit_that_reaches_its_raise_ends_it(opened):
    budget = create(opened)
    raise_budget(budget, Decimal(75), utc_now() + timedelta(days=1), "Launch", acting_user=opened.owner)
    assert change(opened, budget, limit_usd=Decimal(70)).raised_limit_usd == 75
    assert change(opened, budget, limit_usd=Decimal(80)).raised_limit_usd is None
    assert limit_of(budget).amount_at(utc_now()) == 80


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("limit_usd", {"limit_usd": Decimal(50)}),
        ("limit_usd", {"limit_usd": NAN}),
        ("limit_usd", {"limit_usd": Decimal(10_000_001)}),
        ("limit_usd", {"limit_usd": Decimal("50.0000000000001")}),
        ("until", {"until": timedelta(0)}),
        ("until", {"until": timedelta(days=-1)}),
        ("until", {"until": timedelta(days=92, seconds=1)}),
        ("reason", {"reason": " "}),
        ("reason", {"reason": "r" * 201}),
    ],
    ids=str,
)
def test_a_raise_that_is_none_is_refused(opened, field, changes):
    with time_machine.travel(NOON, tick=False):
        budget = create(opened)
        wanted = {"limit_usd": Decimal(75), "until": timedelta(days=92), "reason": "Launch", **changes}
        with pytest.raises(InvalidInput) as refusal:
            raise_budget(
                budget, wanted["limit_usd"], NOON + wanted["until"], wanted["reason"], acting_user=opened.owner
            )
    assert refused_fields(refusal) == {field}
    assert limit_of(budget).raised_amount is None


# --- Adjustments ------------------------------------------------------------------------------------------------------


def test_an_adjustment_belongs_to_the_running_period_and_crosses_thresholds(opened):
    with time_machine.travel(NOON, tick=False):
        budget = create(opened)
        row = adjust_budget(budget, Decimal("41.5"), " Bill ", acting_user=opened.owner)
    assert (row.period_start, row.scope_value, row.usd, row.reason, row.created_by) == (
        day_of(NOON).start,
        "",
        Decimal("41.5"),
        "Bill",
        opened.owner,
    )
    crossings = LimitCrossing.objects.filter(limit=limit_of(budget)).order_by("threshold")
    assert [(crossing.threshold, crossing.value) for crossing in crossings] == [
        (Decimal("0.5"), Decimal("41.5")),
        (Decimal("0.8"), Decimal("41.5")),
    ]
    entry = AuditEntry.objects.get(workspace=opened.workspace, action="budget.adjusted")
    assert entry.data["new"]["adjusted_usd"] == "41.5"


def test_a_budget_on_each_value_is_adjusted_for_one(opened):
    budget = create(opened, EACH)
    assert adjust_budget(budget, Decimal(-3), "Refund", acting_user=opened.owner, scope_value=" u/1 ").scope_value == (
        "u/1"
    )


def test_of_a_budget_on_each_key_a_key_of_the_workspace_is_adjusted(opened):
    key = opened.workspace.api_keys.get()
    budget = create(opened, EACH, scope_kind="api_key_id")
    revoke_api_key(key, acting_user=opened.owner)
    row = adjust_budget(budget, Decimal(1), "Bill", acting_user=opened.owner, scope_value=f"0{key.pk}")
    assert row.scope_value == str(key.pk)
    for other in (make_workspace().workspace.api_keys.get().pk, "9" * 150):
        with pytest.raises(InvalidInput, match="of this workspace") as refusal:
            adjust_budget(budget, Decimal(1), "Bill", acting_user=opened.owner, scope_value=str(other))
        assert refused_fields(refusal) == {"scope_value"}


@pytest.mark.parametrize(
    ("draft", "usd", "reason", "value", "field"),
    [
        (ACME, Decimal("1E+9999999"), "Why", "", "usd"),
        (ACME, Decimal("-1E+9999999"), "Why", "", "usd"),
        (ACME, Decimal(0), "Why", "", "usd"),
        (ACME, NAN, "Why", "", "usd"),
        (ACME, Decimal("-Infinity"), "Why", "", "usd"),
        (ACME, Decimal(-10_000_001), "Why", "", "usd"),
        (ACME, Decimal("1E-13"), "Why", "", "usd"),
        (ACME, Decimal(1), "", "", "reason"),
        (ACME, Decimal(1), "Why", "acme", "scope_value"),
        (EACH, Decimal(1), "Why", "", "scope_value"),
    ],
)
def test_an_adjustment_that_is_none_is_refused(opened, draft, usd, reason, value, field):
    budget = create(opened, draft)
    with pytest.raises(InvalidInput) as refusal:
        adjust_budget(budget, usd, reason, acting_user=opened.owner, scope_value=value)
    assert refused_fields(refusal) == {field}
    assert not LimitAdjustment.objects.filter(limit__workspace=opened.workspace).exists()
