"""What a change of plan reaches: ingest, alerts and people, all of it or nothing, for the very next request."""

import pytest
from django.core.wsgi import get_wsgi_application

from billing import entitlements, services
from billing.models import Checkout, Subscription, WorkspacePlan
from billing.plans import Overrides
from billing.selectors import plan_features
from ingest.gateway.app import Gateway
from ingest.models import Limit, Measure, Meter, WorkspacePolicy
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.database import conninfo
from opsmeter_site.lib.errors import InvalidInput
from opsmeter_site.lib.periods import Period, month_of
from tests.billing.provider_facts import DAY, SAID_AT, facts, hear, make_checkout, new_id, sell_plans, subscribe
from tests.conftest import Client
from tests.factories import UserFactory, make_cast, make_workspace
from tests.wire import InProcess
from workspaces.invitations import invite_member
from workspaces.models import AuditEntry, Membership, Role, Workspace
from workspaces.services import add_member


def pushed(workspace):
    """What holds: tier, rate, retention, the month's limit and people."""
    policy = WorkspacePolicy.objects.get(workspace=workspace)
    limit = Limit.objects.filter(workspace=workspace, source="billing").first()
    return (
        policy.plan_tier,
        policy.requests_per_minute,
        policy.raw_retention_days,
        policy.rollup_retention_days,
        limit and limit.amount,
        Workspace.objects.get(pk=workspace.pk).member_limit,
    )


FREE = ("free", 120, 14, 90, 10_000, 2)
PRO = ("pro", 600, 90, 365, 1_000_000, 15)


# --- The very next request


@pytest.fixture
def another_process(committed):
    """A second gateway with caches of its own, as another server process has them."""
    gateway = Gateway(conninfo(), get_wsgi_application())
    yield InProcess(gateway)
    gateway.close()


def use_up(workspace_id, requests):
    Meter.objects.create(
        workspace_id=workspace_id,
        measure=Measure.REQUESTS,
        period=Period.MONTH,
        period_start=month_of(utc_now()).start,
        value=requests,
    )


def test_an_upgrade_lifts_a_pause_for_the_next_request_in_every_process(client_of, another_process):
    meter = client_of("free")
    elsewhere = Client(another_process, meter.opened)
    use_up(meter.workspace_id, 10_000)
    assert [meter.send().status, elsewhere.send().status] == [402, 402]
    subscribe(meter.opened.workspace, "pro")
    assert [meter.send().status, elsewhere.send().status] == [200, 200]


def test_a_downgrade_by_the_providers_word_pauses_the_next_request(client_of, another_process):
    meter = client_of("free")
    elsewhere = Client(another_process, meter.opened)
    row = subscribe(meter.opened.workspace, "pro")
    use_up(meter.workspace_id, 10_000)
    assert [meter.send().status, elsewhere.send().status] == [200, 200]
    hear(facts(row.provider_subscription_id, status="expired", updated_at=SAID_AT + DAY))
    assert [meter.send().status, elsewhere.send().status] == [402, 402]


# --- All of it or nothing


@pytest.mark.django_db
def test_a_subscription_reaches_limits_rate_retention_people_and_features():
    workspace = make_workspace("free").workspace
    assert (pushed(workspace), plan_features(workspace.pk).has_integrations) == (FREE, False)
    subscribe(workspace, "pro")
    assert (pushed(workspace), plan_features(workspace.pk).has_integrations) == (PRO, True)


@pytest.mark.django_db
def test_a_downgrade_holds_at_once_but_keeps_rows_and_people():
    cast = make_cast("free")
    workspace = cast.workspace
    row = subscribe(workspace, "pro")
    add_member(workspace, UserFactory(), Role.VIEWER, acting_user=cast.owner)
    hear(facts(row.provider_subscription_id, status="expired", updated_at=SAID_AT + DAY))
    assert pushed(workspace) == (*FREE[:2], *PRO[2:4], *FREE[4:])
    assert not plan_features(workspace.pk).has_integrations
    assert Membership.objects.filter(workspace=workspace).count() == 5
    with pytest.raises(InvalidInput):
        invite_member(workspace, email="new@example.com", role=Role.VIEWER, acting_user=cast.owner)


@pytest.mark.django_db
def test_own_numbers_stay_whatever_is_paid_for():
    workspace = make_workspace("free", monthly_requests=5).workspace
    row = subscribe(workspace, "pro")
    assert pushed(workspace)[4] == 5
    hear(facts(row.provider_subscription_id, status="expired", updated_at=SAID_AT + DAY))
    assert pushed(workspace)[4] == 5


@pytest.mark.django_db
@pytest.mark.parametrize("broken", ["set_member_limit", "record_audit"])
def test_if_anything_fails_on_the_way_nothing_of_it_is_visible(broken, monkeypatch):
    workspace = make_workspace("free").workspace
    checkout, entries = make_checkout(workspace), AuditEntry.objects.count()

    def fail(*_args, **_facts):
        raise ConnectionError

    monkeypatch.setattr(entitlements.workspace_services, broken, fail)
    with pytest.raises(ConnectionError):
        hear(facts(new_id()), checkout=checkout)
    assert pushed(workspace) == FREE
    assert WorkspacePlan.objects.get(workspace=workspace).plan_id == "free"
    assert not Subscription.objects.exists()
    assert Checkout.objects.get().subscription is None
    assert AuditEntry.objects.count() == entries


# --- What an operator does


@pytest.mark.django_db
def test_an_operators_grant_counts_from_where_the_subscription_ends():
    workspace = make_workspace("free").workspace
    subscribe(workspace, "pro")
    holding = services.change_workspace_plan(workspace, plan_tier="starter", acting_user=None)
    assert (holding.plan_id, holding.granted_id, pushed(workspace)[0]) == ("pro", "starter", "pro")
    granted = AuditEntry.objects.get(workspace=workspace, action="workspace_plan.granted")
    assert (granted.data["granted_before"], granted.data["granted"], granted.data["plan"]) == ("free", "starter", "pro")
    assert AuditEntry.objects.filter(workspace=workspace, action="workspace_plan.changed").count() == 1


@pytest.mark.django_db
def test_bringing_a_workspace_to_its_plan_twice_changes_nothing():
    workspace = make_workspace("free").workspace
    subscribe(workspace, "pro")
    before = pushed(workspace), AuditEntry.objects.count()
    entitlements.apply_plan(workspace.pk)
    assert (pushed(workspace), AuditEntry.objects.count()) == before


@pytest.mark.django_db
def test_an_edited_plan_reaches_who_pays_for_it(django_capture_on_commit_callbacks):
    workspace = make_workspace("free").workspace
    sell_plans()
    row = subscribe(workspace, "pro")
    with django_capture_on_commit_callbacks(execute=True):
        services.update_plan(row.plan, requests_per_minute=700, acting_user=None)
    assert pushed(workspace)[1] == 700


@pytest.mark.django_db
def test_more_of_everything_needs_no_notice():
    workspace = make_workspace("free").workspace
    services.change_workspace_plan(
        workspace, plan_tier="free", overrides=Overrides(raw_retention_days=40), acting_user=None
    )
    assert pushed(workspace)[2] == 40
    assert WorkspacePlan.objects.get(workspace=workspace).kept_until is None
