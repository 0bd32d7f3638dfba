"""`manage.py setup_demo`: a first look with data, and credentials again after an interrupted run."""

import json
from uuid import UUID, uuid4

import pytest
import time_machine
from django.contrib.auth import authenticate
from django.core.management import call_command

from alerts.models import Report
from budgets.models import Budget
from budgets.scoped.selectors import standings
from budgets.selectors import budget_values
from ingest.models import Event
from opsmeter_site.lib.clock import utc_now
from workspaces.keys import identify_api_key
from workspaces.models import User
from workspaces.services import update_user

pytestmark = pytest.mark.usefixtures("_no_demo_yet")


def run(capsys):
    call_command("setup_demo", "--json")
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def _no_demo_yet(committed):
    for person in User.objects.filter(email="demo@example.com"):
        update_user(person, email=f"former-{uuid4()}@example.com", acting_user=None)


def test_the_first_run_makes_a_month_of_demo_data_and_working_credentials(capsys):
    made = run(capsys)

    events = Event.objects.filter(workspace_id=made["workspaceId"])
    days = set(events.values_list("occurred_at__date", flat=True))
    assert set(events.values_list("data_mode", flat=True)) == {"demo"}
    assert len(days) > 20
    assert str(identify_api_key(made["apiKey"]).workspace_id) == made["workspaceId"]
    assert authenticate(username=made["email"], password=made["password"]).is_staff
    assert made["bearerToken"].startswith("om_pat_")


def test_the_demo_workspace_has_a_budget_that_counts_its_data(capsys):
    made = run(capsys)

    budgets = budget_values(UUID(made["workspaceId"]))
    assert "demo" in budgets.counted_data_modes
    assert budgets.monthly_limit_usd >= 1


def test_the_demo_workspace_has_believable_budgets_on_scopes_that_refuse_nothing(capsys):
    # In the evening: at night the day has hardly any data yet.
    with time_machine.travel(utc_now().replace(hour=18)):
        workspace_id = UUID(run(capsys)["workspaceId"])
        scoped = list(Budget.objects.filter(workspace=workspace_id).exclude(scope_kind="").order_by("name"))
        found = standings(workspace_id, scoped, utc_now())

    assert [budget.name for budget in scoped] == [
        "Each tenant, daily",
        "Model claude-sonnet-4-5, monthly",
        "Tenant acme, monthly",
    ]
    assert found[0].values
    assert [standing.is_exceeded for standing in found if standing.is_enforced] == [False]


def test_the_demo_workspace_has_a_summary_to_read(capsys):
    made = run(capsys)

    report = Report.objects.get(workspace_id=made["workspaceId"])
    assert report.title.startswith("Demo")
    assert list(report.deliveries.values_list("recipient", flat=True)) == [made["email"]]


def test_a_later_run_gives_new_credentials_for_the_same_workspace_and_data(capsys):
    first = run(capsys)
    count = Event.objects.filter(workspace_id=first["workspaceId"]).count()
    second = run(capsys)

    assert second["workspaceId"] == first["workspaceId"]
    assert Event.objects.filter(workspace_id=first["workspaceId"]).count() == count
    assert authenticate(username=second["email"], password=second["password"]) is not None
    assert identify_api_key(second["apiKey"]) is not None
    assert identify_api_key(first["apiKey"]) is not None
