from datetime import timedelta
from decimal import Decimal

import pytest
from django.urls import reverse

from budgets.models import Budget, BudgetSettings
from budgets.scoped.drafts import BudgetDraft
from budgets.scoped.services import create_budget, raise_budget
from budgets.selectors import BudgetValues, budget_values
from budgets.services import update_budget_settings
from ingest.models import Limit
from opsmeter_site.lib.clock import utc_now
from tests.factories import OperatorFactory, make_workspace
from workspaces.models import AuditEntry

pytestmark = pytest.mark.django_db


@pytest.fixture
def opened():
    return make_workspace()


@pytest.fixture
def operator():
    return OperatorFactory()


@pytest.fixture
def console(client, operator):
    client.force_login(operator)
    return client


def url(model, name="changelist", *args):
    return reverse(f"admin:budgets_{model}_{name}", args=args)


FORM = {
    "daily_limit_usd": "50.5",
    "monthly_limit_usd": "",
    "warning_threshold_ratio": "0.75",
    "enforcement": "hard",
    "observe_mode": "on",
    "counted_data_modes": ["real", "test"],
}


def test_an_operator_sets_a_workspaces_budgets(console, operator, opened):
    response = console.post(url("budgetsettings", "add"), {**FORM, "workspace": opened.workspace.pk})
    assert response.status_code == 302, response.context["errors"]
    assert budget_values(opened.workspace.pk) == BudgetValues(
        daily_limit_usd=Decimal("50.5"),
        warning_threshold_ratio=Decimal("0.75"),
        enforcement="hard",
        observe_mode=True,
        counted_data_modes=("real", "test"),
    )
    assert Limit.objects.get(workspace=opened.workspace, source="budgets").enforce is True
    assert AuditEntry.objects.get(action="budgets.changed", workspace=opened.workspace).actor == operator


def test_the_page_shows_what_is_set_and_changes_it(console, opened):
    update_budget_settings(
        opened.workspace, acting_user=None, daily_limit_usd=Decimal(40), counted_data_modes=["demo"], observe_mode=True
    )
    before = Budget.objects.get(workspace=opened.workspace).pk
    page = console.get(url("budgetsettings", "change", opened.workspace.pk))
    shown = page.context["adminform"].form.initial
    assert (shown["daily_limit_usd"], shown["counted_data_modes"], shown["observe_mode"]) == (40, ["demo"], True)
    response = console.post(url("budgetsettings", "change", opened.workspace.pk), {**FORM, "daily_limit_usd": "41"})
    assert response.status_code == 302
    assert budget_values(opened.workspace.pk).daily_limit_usd == 41
    assert Budget.objects.get(workspace=opened.workspace).pk == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("daily_limit_usd", "-1"),
        ("daily_limit_usd", "0.0000000000001"),
        ("daily_limit_usd", "NaN"),
        ("warning_threshold_ratio", "1.5"),
        ("enforcement", "firm"),
        ("counted_data_modes", []),
    ],
)
def test_bad_values_are_shown_and_not_stored(console, opened, field, value):
    response = console.post(url("budgetsettings", "add"), {**FORM, "workspace": opened.workspace.pk, field: value})
    assert response.status_code == 200
    assert response.context["errors"]
    assert budget_values(opened.workspace.pk) == BudgetValues()


def test_what_only_the_service_refuses_becomes_a_message(console, opened):
    body = {**FORM, "workspace": opened.workspace.pk, "daily_limit_usd": "0"}
    response = console.post(url("budgetsettings", "add"), body, follow=True)
    assert "daily_limit_usd" in next(str(message) for message in response.context["messages"])
    assert budget_values(opened.workspace.pk) == BudgetValues()


def test_defaults_are_not_stored_but_said(console, opened):
    defaults = {
        "workspace": opened.workspace.pk,
        "warning_threshold_ratio": "0.8",
        "enforcement": "soft",
        "counted_data_modes": "real",
    }
    response = console.post(url("budgetsettings", "add"), defaults, follow=True)
    assert response.status_code == 200
    assert not BudgetSettings.objects.filter(workspace=opened.workspace).exists()


def test_the_lists(console, opened, django_assert_max_num_queries):
    for each in (opened, make_workspace(), make_workspace()):
        update_budget_settings(
            each.workspace, acting_user=None, daily_limit_usd=Decimal(1234), monthly_limit_usd=Decimal("0.125")
        )
    with django_assert_max_num_queries(14):
        settings = console.get(url("budgetsettings"))
    assert settings.content.count(b"1,234.00 USD a day, 0.125 USD a month") == 3
    with django_assert_max_num_queries(12):
        budgets = console.get(url("budget"), {"q": opened.workspace.name})
    assert b"1,234.00" in budgets.content


def test_budgets_are_only_looked_at(console, opened):
    update_budget_settings(opened.workspace, acting_user=None, daily_limit_usd=Decimal(5))
    budget = Budget.objects.get(workspace=opened.workspace)
    assert console.get(url("budget", "change", budget.pk)).status_code == 200
    assert console.post(url("budget", "change", budget.pk), {"limit_usd": "6"}).status_code == 403
    assert console.get(url("budget", "add")).status_code == 403
    assert console.post(url("budget", "delete", budget.pk), {"post": "yes"}).status_code == 403
    assert console.post(url("budgetsettings", "delete", opened.workspace.pk), {"post": "yes"}).status_code == 403
    assert Budget.objects.get(workspace=opened.workspace).limit_usd == 5


def test_everything_about_scoped_budgets_is_shown(console, opened, django_assert_max_num_queries):
    update_budget_settings(opened.workspace, acting_user=None, daily_limit_usd=Decimal(5), enforcement="hard")
    one = create_budget(
        opened.workspace,
        BudgetDraft("tenant_id", Decimal(50), scope_value="acme", thresholds_usd=(Decimal(20),)),
        acting_user=None,
    )
    create_budget(opened.workspace, BudgetDraft("model", Decimal(7), is_each_value=True), acting_user=None)
    raise_budget(one, Decimal(80), utc_now() + timedelta(hours=1), "Launch", acting_user=None)
    with django_assert_max_num_queries(12):
        page = console.get(url("budget"), {"q": str(opened.workspace.pk)}).content.decode()
    for shown in ("Tenant acme", "Each model", "50%, 80%, 20.00 USD", "80.00 until"):
        assert shown in page
    raised = console.get(url("budget"), {"q": str(opened.workspace.pk), "raised": "yes"})
    assert list(raised.context["cl"].result_list) == [one]
    form = console.get(url("budget", "change", one.pk)).content.decode()
    assert all(label in form for label in ("Scope kind", "Thresholds usd", "Raised limit usd", "Unpriced", "Launch"))
    settings = console.get(url("budgetsettings"), {"q": str(opened.workspace.pk)})
    assert "5.00 USD a day; 2 on scopes" in settings.content.decode()
