import re

import pytest
from django.urls import reverse

from billing.models import Plan, WorkspacePlan
from ingest.models import Limit, WorkspacePolicy
from tests.factories import OperatorFactory, make_workspace
from workspaces.keys import authenticate_api_key
from workspaces.models import AuditEntry, User, Workspace

pytestmark = pytest.mark.django_db


@pytest.fixture
def opened():
    return make_workspace("pro")


@pytest.fixture
def console(client):
    client.force_login(OperatorFactory(email="operator@example.com"))
    return client


def page(model, name="changelist", *args):
    return reverse(f"admin:billing_{model}_{name}", args=args)


def all_pages(opened):
    return [
        page("plan"),
        page("plan", "change", "pro"),
        page("workspaceplan"),
        page("workspaceplan", "add"),
        page("workspaceplan", "change", opened.workspace.pk),
    ]


def test_every_page_answers_an_operator(console, opened):
    for path in all_pages(opened):
        assert console.get(path).status_code == 200, path


def test_every_page_sends_everybody_else_to_the_sign_in(client, opened):
    client.force_login(opened.owner)
    for path in all_pages(opened):
        assert client.get(path).headers["Location"].startswith(reverse("admin:login")), path


def plan_data(**changes):
    facts = Plan.objects.values().get(tier="pro")
    data = {name: "on" if value is True else value for name, value in facts.items() if value not in (None, False)}
    return {**data, **changes}


def test_saving_a_plan_reaches_the_workspaces_on_it(console, opened, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        response = console.post(page("plan", "change", "pro"), plan_data(requests_per_minute=700, monthly_requests=""))
    assert response.status_code == 302
    assert WorkspacePolicy.objects.get().requests_per_minute == 700
    assert not Limit.objects.exists()
    assert AuditEntry.objects.get(action="plan.changed").actor.email == "operator@example.com"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"requests_per_minute": 0}, "Between 1 and"),
        ({"monthly_requests": 10**15}, "Between 0 and"),
        ({"raw_retention_days": 400}, "Sums are kept at least as long as raw rows."),
        ({"raw_retention_days": ""}, "This field is required."),
        ({"name": "Team"}, "already exists"),
        ({"name": "nul\x00"}, "Null characters are not allowed."),
    ],
)
def test_facts_that_make_no_sense_are_explained_on_the_form(console, opened, changes, complaint):
    response = console.post(page("plan", "change", "pro"), plan_data(**changes))
    assert response.status_code == 200
    assert complaint in response.content.decode()


def test_plans_are_neither_added_nor_deleted_here(console, opened):
    assert console.get(page("plan", "add")).status_code == 403
    assert console.get(page("plan", "delete", "pro")).status_code == 403


def test_changing_a_workspaces_plan_and_numbers_goes_through_the_service(console, opened):
    path = page("workspaceplan", "change", opened.workspace.pk)
    data = {"granted": "team", "monthly_requests_override": "0", "raw_retention_days_override": "3"}
    assert console.post(path, data).status_code == 302
    policy = WorkspacePolicy.objects.get()
    # Fewer days than before are announced first.
    assert (policy.plan_tier, policy.raw_retention_days, Limit.objects.get().amount) == ("team", 90, 0)
    entry = AuditEntry.objects.get(action="workspace_plan.changed")
    assert (entry.actor.email, entry.data["plan_before"]) == ("operator@example.com", "pro")
    shown = console.get(path).content.decode()
    assert "0 requests a month, 3,000 a minute; raw rows 3 days, sums 730 days; members: 50" in shown
    assert "UTC: raw rows 90 days, sums 730 days" in shown
    assert "Team: granted by an operator" in shown


def test_a_bad_own_number_is_explained_on_the_form(console, opened):
    path = page("workspaceplan", "change", opened.workspace.pk)
    response = console.post(path, {"granted": "team", "requests_per_minute_override": "0"})
    assert response.status_code == 200
    assert "Between 1 and" in response.content.decode()
    assert WorkspacePlan.objects.get().plan_id == "pro"


def test_an_operator_opens_a_workspace_and_sees_its_secrets_once(console, opened):
    data = {"name": "Acme", "owner_email": "New@example.com", "timezone": "UTC", "granted": "free"}
    response = console.post(page("workspaceplan", "add"), data, follow=True)
    text = response.content.decode()
    (plain,) = set(re.findall(r"om_live_\w{8}_\w{32}", text))
    workspace = Workspace.objects.get(name="Acme")
    assert authenticate_api_key(plain).workspace_id == workspace.pk
    (password,) = re.findall(r"password of new@example.com: ([\w-]+)", text)
    assert User.objects.get(email="new@example.com").check_password(password)
    assert plain not in console.get(page("workspaceplan")).content.decode()
    assert AuditEntry.objects.get(workspace=workspace, action="workspace.created").actor.email == "operator@example.com"


def test_a_bad_new_workspace_is_explained_on_the_form(console, opened):
    response = console.post(
        page("workspaceplan", "add"), {"name": "", "owner_email": "x", "timezone": "Mars", "granted": ""}
    )
    assert response.status_code == 200
    assert set(response.context["adminform"].form.errors) == {"name", "owner_email", "timezone", "granted"}


def test_a_workspace_is_not_left_without_a_plan(console, opened):
    assert console.get(page("workspaceplan", "delete", opened.workspace.pk)).status_code == 403
