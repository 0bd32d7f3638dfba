"""The operators' view of one workspace: found by what a customer names, complete, and recorded."""

import re
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from allauth.mfa.totp.internal.auth import TOTP
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing.models import ChangeRequest
from billing.services import change_workspace_plan
from budgets.scoped.drafts import BudgetDraft
from budgets.scoped.services import create_budget, raise_budget
from budgets.services import update_budget_settings
from ingest.models import Lease, LedgerAudit, Meter, ModelPrice, Refusal
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import quarter_hour_of
from tests.billing.provider_facts import subscribe
from tests.factories import OperatorFactory, make_cast, make_workspace
from tests.ledger import make_event
from workspaces.models import AuditEntry
from workspaces.services import rotate_api_key

database = pytest.mark.django_db
SEARCH = "/admin/support/"
LOOKED = "operator.looked_at_workspace"


@pytest.fixture
def operator():
    return OperatorFactory()


@pytest.fixture
def console(operator):
    browser = Client()
    browser.force_login(operator)
    return browser


def page_of(workspace):
    return reverse("admin:support", args=[workspace.pk])


# --- Finding


@database
def test_a_workspace_is_found_by_whatever_is_known_of_it(console):
    opened = make_workspace("pro", name="Blue Harbour", owner_email="captain@harbour.example")
    make_workspace("pro", name="Something else")
    workspace, key = opened.workspace, opened.api_key
    event = make_event(workspace, external_request_id="req/2026/42")
    before = key.lookup
    rotate_api_key(key, acting_user=opened.owner)
    known = (
        "blue harb",
        workspace.slug,
        str(workspace.pk),
        "CAPTAIN@harbour",
        before,
        f"om_live_{key.lookup}",
        f" om_live_{key.lookup}_… ",
        f"om_pat_{opened.access_token.lookup}",
        event.external_request_id,
    )
    for wanted in known:
        response = console.get(SEARCH, {"q": wanted})
        assert (response.status_code, response.headers.get("Location")) == (302, page_of(workspace)), wanted


@database
def test_several_are_listed_and_none_is_said(console):
    both = [make_workspace("pro", name=f"Harbour {side}").workspace for side in ("east", "west")]
    listed = console.get(SEARCH, {"q": "harbour"})
    assert listed.context["found"] == both
    for nothing in ("", "  ", "\x00", "no such", "%", "x" * 5_000):
        assert console.get(SEARCH, {"q": nothing}).status_code == 200
    assert "Nothing fits" in console.get(SEARCH, {"q": "no such"}).content.decode()


@database
def test_a_whole_secret_that_is_searched_for_is_not_shown_again(console):
    plain = f"om_live_AAAAAAAA_{'B' * 32}"
    page = console.get(SEARCH, {"q": plain}).content.decode()
    assert "B" * 32 not in page
    assert "om_live_AAAAAAAA_…" in page


# --- The page


def fill(people):
    """Something of everything that the page shows."""
    workspace, now = people.workspace, utc_now()
    TOTP.activate(people.owner, "JBSWY3DPEHPK3PXP")
    for number in range(25):
        make_event(workspace, occurred_at=now, external_request_id=f"req-{number:02}")
    make_event(workspace, occurred_at=now, cost_usd=None, model="brand-new")
    update_budget_settings(workspace, acting_user=people.owner, daily_limit_usd=Decimal("0.1"), enforcement="hard")
    tokens = ("uncached_input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    Refusal.objects.create(
        workspace=workspace,
        bucket_start=quarter_hour_of(now),
        reason="budget_exceeded",
        requests=1_234,
        cost_usd=1,
        **dict.fromkeys(tokens, 1),
    )
    ModelPrice.objects.create(
        workspace=workspace,
        provider="acme",
        model="own-price",
        effective_from=now,
        input_usd_per_1m=1,
        source="operator",
        checked_on=now.date(),
    )
    LedgerAudit.objects.create(
        workspace=workspace,
        checked_at=now,
        events=26,
        is_exact=False,
        drift_usd="0.5",
        drift_requests=3,
        details={},
    )


@database
def test_everything_about_a_workspace_is_on_one_page(console):
    people = make_cast("pro")
    fill(people)
    change_workspace_plan(people.workspace, plan_tier="team", acting_user=None)
    console.get(page_of(people.workspace))
    with CaptureQueriesContext(connection) as queries:
        response = console.get(page_of(people.workspace))
    assert len(queries) <= 30
    text = " ".join(response.content.decode().split())
    shown = (
        people.workspace.slug,
        str(people.workspace.pk),
        "<dd> Team </dd>",
        "5,000,000",
        "26 requests, $0.25, 0 errors, 1 without a price",
        "Daily budget",
        "standing-over",
        "Warning at 80.0%; hard stop",
        "Last crossings",
        "$0.50, 3 requests",
        "isBudgetExceeded&quot;: true",
        "1,234",
        "openai/brand-new",
        "acme/own-price",
        str(people.opened.api_key),
        "workspace.created",
        LOOKED,
        *(person.email for person in (people.owner, people.admin, people.member, people.viewer)),
    )
    assert [words for words in shown if words not in text] == []
    assert 19 <= len(re.findall(r">req-\d\d</a>", text)) <= 20
    assert "<td>yes</td>" in text
    assert people.opened.api_key_plain not in text
    assert people.outsider.email not in text


@database
def test_limits_on_scopes_and_live_leases_are_shown(console):
    opened = make_workspace("pro")
    draft = BudgetDraft("tenant_id", Decimal(50), scope_value="acme")
    budget = create_budget(opened.workspace, draft, acting_user=None)
    raise_budget(budget, Decimal(75), utc_now() + timedelta(hours=1), "Launch", acting_user=None)
    for minutes, closed_at in ((5, None), (9, None), (5, utc_now()), (-1, None)):
        make_lease(opened, expires_at=utc_now() + timedelta(minutes=minutes), closed_at=closed_at)
    text = " ".join(console.get(page_of(opened.workspace)).content.decode().split())
    shown = ("Tenant acme, daily", "Tenant acme</span>", "$75.00", "1 on scopes", "2 live leases")
    assert [words for words in shown if words not in text] == []


def make_lease(opened, **changes):
    fields = dict.fromkeys(
        ("provider", "model", "endpoint_tag", "prompt_version", "environment", "data_mode", "user_id", "tenant_id"), "x"
    )
    return Lease.objects.create(
        **fields | changes,
        workspace=opened.workspace,
        external_request_id=str(uuid4()),
        api_key_id=opened.api_key.pk,
        usd=1,
        unpriced_tokens=0,
    )


@database
def test_what_a_workspace_pays_for_is_shown(console):
    workspace = make_workspace("free").workspace
    assert "<dd> none </dd>" in " ".join(console.get(page_of(workspace)).content.decode().split())
    first = subscribe(workspace, "pro")
    subscribe(workspace, "starter")
    ChangeRequest.objects.create(subscription=first, kind="cancel", requested_at=utc_now() - timedelta(minutes=5))
    change_workspace_plan(workspace, plan_tier="enterprise", acting_user=None)
    change_workspace_plan(workspace, plan_tier="starter", acting_user=None)
    text = " ".join(console.get(page_of(workspace)).content.decode().split())
    shown = (
        "<dd> Starter </dd>",
        f'/change/">{first.provider_subscription_id}</a>: Pro, active',
        "and 1 more: paid twice",
        "cancel, Starter",
        "(overdue)",
        "Kept for now",
    )
    assert [words for words in shown if words not in text] == []


@database
def test_the_costs_of_the_page_do_not_grow_with_the_workspace(console):
    people = make_cast("pro")
    console.get(page_of(people.workspace))
    with CaptureQueriesContext(connection) as few:
        console.get(page_of(people.workspace))
    fill(people)
    with CaptureQueriesContext(connection) as many:
        console.get(page_of(people.workspace))
    assert len(many) == len(few)


@database
def test_a_new_workspace_and_an_unknown_one(console):
    fresh = make_workspace("free").workspace
    page = console.get(page_of(fresh)).content.decode()
    for said in ("Nothing has arrived yet", "not audited yet", "the beginning", "Everything had a price"):
        assert said in page
    assert console.get("/admin/support/00000000-0000-0000-0000-000000000000/").status_code == 404
    assert console.get("/admin/support/nonsense/").status_code == 404


@database
def test_looking_is_recorded_once_an_hour_for_each_operator(console, operator):
    workspace = make_workspace("pro").workspace
    looks = AuditEntry.objects.filter(action=LOOKED, workspace=workspace)
    for _ in range(3):
        console.get(page_of(workspace))
    assert [look.actor for look in looks] == [operator]
    looks.update(created_at=utc_now() - timedelta(minutes=61))
    console.get(page_of(workspace))
    assert looks.count() == 2
    other = Client()
    other.force_login(OperatorFactory())
    other.get(page_of(workspace))
    assert looks.count() == 3


@database
def test_the_workspaces_own_page_leads_here(console):
    workspace = make_workspace("pro").workspace
    page = console.get(reverse("admin:workspaces_workspace_change", args=[workspace.pk]))
    assert page_of(workspace) in page.content.decode()


# --- Audit now


def audit_path(workspace):
    return reverse("admin:support-audit", args=[workspace.pk])


@pytest.mark.django_db(transaction=True)
def test_a_ledger_is_audited_now(console):
    workspace = make_workspace("pro").workspace
    make_event(workspace, occurred_at=utc_now())
    response = console.post(audit_path(workspace), follow=True)
    assert "The ledger is exact: 1 raw rows were compared" in response.content.decode()
    assert LedgerAudit.objects.get().is_exact
    Meter.objects.filter(workspace=workspace, measure="requests").update(value=2)
    response = console.post(audit_path(workspace), follow=True)
    assert "The ledger drifts by $0.00 and 1 requests" in response.content.decode()


@database
def test_only_a_post_by_who_may_starts_an_audit(console):
    workspace = make_workspace("pro").workspace
    assert console.get(audit_path(workspace)).status_code == 405
    assert console.post(reverse("admin:support-audit", args=[uuid4()])).status_code == 404
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(OperatorFactory())
    assert strict.post(audit_path(workspace)).status_code == 403
    assert not LedgerAudit.objects.exists()
