"""Which budgets apply to a request, and why."""

from dataclasses import dataclass, field, replace
from decimal import Decimal

import pytest

from budgets.scoped.drafts import BudgetDraft
from budgets.scoped.selectors import explain
from budgets.scoped.services import create_budget
from budgets.services import update_budget_settings
from opsmeter_site.lib.clock import utc_now

COST = Decimal("0.000045")


@dataclass(frozen=True)
class Request:
    """What a person says of a request."""

    values: dict[str, str] = field(default_factory=dict)

    def scope_value(self, kind):
        return self.values.get(kind, "unknown")


@pytest.fixture
def asked(meter):
    """Makes budgets and explains a request."""
    workspace = meter.opened.workspace

    def make(**changes):
        draft = replace(BudgetDraft("tenant_id", Decimal(1)), **changes)
        return create_budget(workspace, draft, acting_user=meter.opened.owner)

    def why(data_mode="real", **values):
        found = explain(workspace.pk, Request(values), utc_now(), data_mode=data_mode)
        return [(applied.budget.name, applied.applies, applied.why) for applied in found]

    meter.make, meter.why = make, why
    return meter


def test_each_budget_says_whether_it_applies_and_why_the_tightest_first(asked):
    update_budget_settings(asked.opened.workspace, acting_user=None, daily_limit_usd=Decimal(3))
    asked.make(scope_value="acme", limit_usd=Decimal(2))
    asked.make(scope_kind="user_id", is_each_value=True, period="month")
    asked.make(scope_kind="endpoint_tag", scope_value="checkout")
    assert asked.why(tenant_id="acme", user_id="ann", endpoint_tag="search") == [
        ("Each user, monthly", True, "Each user by itself; this one is ann: applies"),
        ("Tenant acme, daily", True, "Tenant is acme: applies"),
        ("Daily budget", True, "Whole workspace: applies"),
        ("Endpoint checkout, daily", False, "Only for endpoint checkout; this request has search"),
    ]


def test_standings_are_those_of_the_requests_own_values(asked):
    each = asked.make(scope_value="", is_each_value=True)
    for tenant in ("acme", "acme", "other"):
        asked.send(tenantId=tenant)
    (applied,) = explain(asked.workspace_id, Request({"tenant_id": "other"}), utc_now(), data_mode="real")
    assert applied.budget == each
    assert (applied.standing.spend_usd, applied.standing.values) == (COST, ())


def test_rows_that_do_not_count_are_told(asked):
    asked.make(scope_value="acme")
    assert asked.why("test", tenant_id="acme") == [
        ("Tenant acme, daily", False, "Counts real rows only; this one is test")
    ]
    update_budget_settings(asked.opened.workspace, acting_user=None, counted_data_modes=["real", "test"])
    assert asked.why("test", tenant_id="acme")[0][1] is True
    assert asked.why("demo")[0][2] == "Counts real and test rows only; this one is demo"


def test_keys_are_called_by_their_names(asked):
    key = asked.opened.workspace.api_keys.get()
    asked.make(scope_kind="api_key_id", scope_value=str(key.pk))
    assert asked.why(api_key_id=str(key.pk))[0][2] == f"API key is {key.name}: applies"
    assert asked.why(api_key_id="")[0][2] == f"Only for API key {key.name}; this request has none"
    assert asked.why(api_key_id="0")[0][2] == f"Only for API key {key.name}; this request has no. 0"


def test_observe_mode_is_noted_where_it_matters(asked):
    asked.make(scope_value="acme", enforcement="hard", limit_usd=Decimal("0.5"))
    asked.make(scope_value="acme")
    update_budget_settings(asked.opened.workspace, acting_user=None, observe_mode=True)
    assert [why for _, _, why in asked.why(tenant_id="acme")] == [
        "Tenant is acme: applies; observe mode, so nothing is enforced",
        "Tenant is acme: applies",
    ]


def test_values_with_any_characters_are_told_as_they_are(asked):
    value = "a/b \"c\" 'd' 🦊 שלום"
    asked.make(scope_value=value)
    assert asked.why(tenant_id=value)[0][2] == f"Tenant is {value}: applies"
