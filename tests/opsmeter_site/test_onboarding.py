"""From nothing to the first priced event."""

import pytest
from django.test import Client

from billing.services import MOST_OWN_WORKSPACES, ensure_plans
from ingest.models import WorkspacePolicy
from tests.conftest import payload
from tests.factories import UserFactory, make_cast
from tests.pages import page
from workspaces.models import ApiKey, AuditEntry, Membership, Workspace

HTMX = {"HX-Request": "true"}


@pytest.fixture
def browser(committed):
    """The browser of somebody who has just signed up."""
    ensure_plans()
    client = Client()
    client.person = UserFactory()
    client.force_login(client.person)
    return client


def create(browser, name="Acme chat", timezone="Europe/Berlin"):
    return browser.post("/workspaces/new/", {"name": name, "timezone": timezone})


def checked(node):
    """The labels of the checklist that are done."""
    return [item.text.removeprefix("Done: ") for item in node.all("li", "done")]


def test_the_start_leads_a_new_person_to_making_a_workspace(browser):
    assert browser.get("/").url == "/workspaces/new/"


def test_a_workspace_is_ready_to_take_telemetry(browser):
    response = create(browser)
    workspace = Workspace.objects.get(memberships__user=browser.person)
    assert response.url == f"/w/{workspace.slug}/start/"
    assert str(workspace.timezone) == "Europe/Berlin"
    assert WorkspacePolicy.objects.get(workspace=workspace).plan_tier == "free"
    assert Membership.objects.get(workspace=workspace).role == "owner"
    assert AuditEntry.objects.filter(workspace=workspace, actor=browser.person, action="workspace.created").exists()
    assert browser.get("/").url == f"/w/{workspace.slug}/"


def test_the_key_is_in_every_snippet_and_works(browser, app):
    start = page(browser.get(create(browser).url))
    key = start.one("code", id="first-key").text
    snippets = [start.one("code", id=f"snippet-{name}").text for name in ("curl", "python", "node", "dotnet")]
    assert all(key in snippet and "http://testserver/v1/ingest/llm-request" in snippet for snippet in snippets)
    assert app.request("POST", "/v1/ingest/llm-request", payload(), {"X-API-Key": key}).status == 200


def test_the_key_is_kept_encrypted_and_for_this_session_only(browser):
    address = create(browser).url
    key = page(browser.get(address)).one("code", id="first-key").text
    assert key not in str(dict(browser.session))
    other = Client()
    other.force_login(browser.person)
    assert key not in other.get(address).content.decode()


def test_the_checklist_ticks_itself_off(browser, app):
    address = create(browser).url
    key = page(browser.get(address)).one("code", id="first-key").text
    assert checked(page(browser.get(address, headers=HTMX))) == ["An API key is ready"]

    bare = payload(endpointTag="unknown", model="nobody-knows")
    app.request("POST", "/v1/ingest/llm-request", bare, {"X-API-Key": key})
    partial = browser.get(address, headers=HTMX)
    done = checked(page(partial))
    assert "The row is visible here" in done
    assert not any("endpointTag" in label or "unknown models" in label for label in done)
    assert b"<html" not in partial.content

    good = payload(endpointTag="chat", promptVersion="v1", tenantId="acme", latencyMs=5)
    for _ in range(100):
        app.request("POST", "/v1/ingest/llm-request", good | {"externalRequestId": ""}, {"X-API-Key": key})
    finished = page(browser.get(address, headers=HTMX))
    assert len(finished.all("li", "done")) == len(finished.all("li")) == 10
    assert "hx-trigger" not in finished.one("section").attributes


def test_bad_input_keeps_what_was_typed(browser):
    response = create(browser, name="Acme", timezone="Mars/Olympus")
    assert response.status_code == 422
    shown = page(response)
    assert shown.one("input", id="id_name").attributes["value"] == "Acme"
    assert shown.one("ul", "errorlist").text
    assert create(browser, name="  ").status_code == 422
    assert not Workspace.objects.filter(memberships__user=browser.person).exists()


def test_sent_twice_makes_one(browser):
    first, second = create(browser), create(browser)
    assert first.url == second.url
    assert Workspace.objects.filter(memberships__user=browser.person).count() == 1
    assert ApiKey.objects.filter(workspace__memberships__user=browser.person).count() == 1


def test_nobody_owns_workspaces_without_end(browser):
    for number in range(MOST_OWN_WORKSPACES):
        assert create(browser, name=f"Number {number}").status_code == 302
    response = create(browser, name="One more")
    assert response.status_code == 422
    assert "already" in page(response).one("div", "notice-bad").text


def test_the_checklist_is_for_members(committed):
    cast = make_cast()
    for person, status in ((cast.viewer, 200), (cast.outsider, 404)):
        client = Client()
        client.force_login(person)
        assert client.get(f"/w/{cast.workspace.slug}/start/").status_code == status
