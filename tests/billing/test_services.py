from datetime import timedelta
from decimal import Decimal

import pytest

from billing import services
from billing.models import Plan, WorkspacePlan
from billing.plans import Overrides
from ingest.models import Limit, LimitCrossing, Measure, Meter, WorkspacePolicy
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput
from opsmeter_site.lib.periods import Period, month_of
from opsmeter_site.lib.redis import client, epoch_key
from tests.factories import PASSWORD, UserFactory, make_workspace
from workspaces.keys import authenticate_api_key
from workspaces.models import AuditEntry, Membership, Role, User, Workspace

pytestmark = pytest.mark.django_db


def pushed(workspace):
    """What ingest has been told: tier, name, rate, retention and the plan's limit."""
    policy = WorkspacePolicy.objects.get(workspace=workspace)
    limit = Limit.objects.filter(workspace=workspace, source="billing").first()
    facts = (policy.plan_tier, policy.plan_name, policy.requests_per_minute)
    return (*facts, policy.raw_retention_days, policy.rollup_retention_days, limit and limit.amount)


def test_an_opened_workspace_is_ready_to_take_telemetry():
    opened = make_workspace("pro", name="Acme", timezone="Europe/Berlin")
    assert opened.workspace.slug == "acme"
    assert Membership.objects.get(workspace=opened.workspace).role == Role.OWNER
    assert authenticate_api_key(opened.api_key_plain).workspace_id == opened.workspace.pk
    assert (opened.api_key.name, opened.api_key.created_by) == ("Default", opened.owner)
    assert opened.access_token.scopes == ["read", "write"]
    assert pushed(opened.workspace) == ("pro", "Pro", 600, 90, 365, 1_000_000)


def test_the_plans_limit_is_enforced_and_warns_at_eighty_per_cent():
    limit = Limit.objects.get(workspace=make_workspace("starter").workspace)
    assert (limit.source, limit.source_id, limit.name) == ("billing", "plan", "Plan limit")
    assert (limit.measure, limit.period, limit.enforce) == (Measure.REQUESTS, Period.MONTH, True)
    assert limit.thresholds == [Decimal("0.8"), Decimal(1)]


def test_a_plan_without_a_number_sets_no_limit():
    assert pushed(make_workspace("enterprise").workspace) == ("enterprise", "Enterprise", 6_000, 730, 1_095, None)


def test_own_numbers_are_pushed_in_place_of_the_plans():
    opened = make_workspace("enterprise", monthly_requests=0, requests_per_minute=7)
    assert pushed(opened.workspace) == ("enterprise", "Enterprise", 7, 730, 1_095, 0)


def test_an_existing_owner_is_reused_with_their_password():
    owner = UserFactory(email="here@example.com")
    opened = make_workspace(owner_email=" HERE@example.com ", owner_password="something-else-1")
    assert (opened.owner, opened.owner_password) == (owner, None)
    owner.refresh_from_db()
    assert owner.check_password(PASSWORD)


def test_a_new_owner_without_a_password_gets_a_generated_one():
    opened = make_workspace(owner_password=None)
    assert len(opened.owner_password) >= 16
    assert opened.owner.check_password(opened.owner_password)


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"plan": "platinum"}, "plan"),
        ({"plan": ""}, "plan"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"owner_email": "nobody"}, "email"),
        ({"owner_email": ""}, "email"),
        ({"owner_password": "short"}, "password"),
        ({"name": " "}, "name"),
        ({"monthly_requests": -1}, "monthly_requests"),
        ({"monthly_requests": 10**12}, "monthly_requests"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
    ],
)
def test_a_bad_wish_is_named_and_nothing_is_stored(wanted, field):
    with pytest.raises(InvalidInput) as refusal:
        make_workspace(**wanted)
    assert [error.field for error in refusal.value.errors] == [field]
    assert not User.objects.exists()
    assert not Workspace.objects.exists()
    assert not AuditEntry.objects.exists()


def test_a_deactivated_person_opens_nothing():
    UserFactory(email="gone@example.com", is_active=False)
    with pytest.raises(InvalidInput) as refusal:
        make_workspace(owner_email="gone@example.com")
    assert refusal.value.errors[0].field == "email"


def test_nothing_that_is_printed_or_audited_holds_a_secret():
    opened = make_workspace(owner_password="a-password-nobody-sees")
    said = repr(opened) + str(list(AuditEntry.objects.values()))
    for secret in (opened.api_key_plain, opened.access_token_plain, "a-password-nobody-sees"):
        assert secret not in said


# --- Changing the plan of one workspace


def test_another_plan_holds_at_once_and_is_announced(django_capture_on_commit_callbacks):
    opened = make_workspace("free")
    epoch = epoch_key(opened.workspace.pk)
    client().set(epoch, 1)
    with django_capture_on_commit_callbacks(execute=True):
        services.change_workspace_plan(opened.workspace, plan_tier="pro", acting_user=opened.owner)
    assert int(client().get(epoch)) > 1
    client().delete(epoch)
    assert pushed(opened.workspace) == ("pro", "Pro", 600, 90, 365, 1_000_000)
    entry = AuditEntry.objects.get(action="workspace_plan.changed")
    assert (entry.actor, entry.data["plan_before"], entry.data["plan"]) == (opened.owner, "free", "pro")


def test_own_numbers_stay_unless_new_ones_are_given():
    opened = make_workspace("free", monthly_requests=5)
    services.change_workspace_plan(opened.workspace, plan_tier="pro", acting_user=None)
    assert pushed(opened.workspace)[-1] == 5
    services.change_workspace_plan(
        opened.workspace, plan_tier="pro", overrides=Overrides(raw_retention_days=100), acting_user=None
    )
    assert pushed(opened.workspace) == ("pro", "Pro", 600, 100, 365, 1_000_000)


def test_from_unlimited_to_limited_and_back():
    opened = make_workspace("enterprise")
    services.change_workspace_plan(opened.workspace, plan_tier="free", acting_user=None)
    assert pushed(opened.workspace)[-1] == 10_000
    services.change_workspace_plan(opened.workspace, plan_tier="enterprise", acting_user=None)
    assert pushed(opened.workspace)[-1] is None


def test_an_unknown_plan_or_a_bad_number_changes_nothing():
    opened = make_workspace("free")
    before = pushed(opened.workspace)
    for wanted in ({"plan_tier": "platinum"}, {"plan_tier": "pro", "overrides": Overrides(requests_per_minute=0)}):
        with pytest.raises(InvalidInput):
            services.change_workspace_plan(opened.workspace, acting_user=None, **wanted)
    assert pushed(opened.workspace) == before


def test_a_plan_that_is_used_up_already_says_so_at_once():
    opened = make_workspace("free")
    Meter.objects.create(
        workspace=opened.workspace,
        measure=Measure.REQUESTS,
        period=Period.MONTH,
        period_start=month_of(utc_now()).start,
        value=90,
    )
    services.change_workspace_plan(
        opened.workspace, plan_tier="free", overrides=Overrides(monthly_requests=100), acting_user=None
    )
    assert [crossing.threshold for crossing in LimitCrossing.objects.all()] == [Decimal("0.8")]


def test_applying_a_plan_again_changes_nothing():
    opened = make_workspace("pro")
    before = pushed(opened.workspace), Limit.objects.get().pk
    services.apply_plan(opened.workspace.pk)
    assert (pushed(opened.workspace), Limit.objects.get().pk) == before


# --- Editing a plan


def test_an_edited_plan_reaches_every_workspace_on_it_and_no_other(django_capture_on_commit_callbacks):
    plain, own, other = make_workspace("pro"), make_workspace("pro", monthly_requests=5), make_workspace("team")
    operator = UserFactory()
    with django_capture_on_commit_callbacks(execute=True):
        services.update_plan(
            Plan.objects.get(tier="pro"), name="Professional", monthly_requests=2_000_000, acting_user=operator
        )
    assert pushed(plain.workspace) == ("pro", "Professional", 600, 90, 365, 2_000_000)
    assert pushed(own.workspace) == ("pro", "Professional", 600, 90, 365, 5)
    assert pushed(other.workspace)[-1] == 5_000_000
    entry = AuditEntry.objects.get(action="plan.changed")
    assert entry.actor == operator
    assert entry.data == {"name": ["Pro", "Professional"], "monthly_requests": [1_000_000, 2_000_000]}


def test_saving_a_plan_again_reaches_workspaces_that_were_missed(django_capture_on_commit_callbacks):
    opened = make_workspace("pro")
    Plan.objects.filter(tier="pro").update(requests_per_minute=601)
    with django_capture_on_commit_callbacks(execute=True):
        services.update_plan(Plan.objects.get(tier="pro"), acting_user=None)
    assert pushed(opened.workspace)[2] == 601


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "Team"}, "name"),
        ({"monthly_requests": -1}, "monthly_requests"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"requests_per_minute": None}, "requests_per_minute"),
        ({"raw_retention_days": 0}, "raw_retention_days"),
        ({"raw_retention_days": 366}, "rollup_retention_days"),
        ({"rollup_retention_days": timedelta.max.days}, "rollup_retention_days"),
        ({"members": 0}, "members"),
    ],
)
def test_facts_that_make_no_sense_are_named_and_not_stored(changes, field):
    make_workspace("pro")
    before = Plan.objects.values().get(tier="pro")
    with pytest.raises(InvalidInput) as refusal:
        services.update_plan(Plan.objects.get(tier="pro"), acting_user=None, **changes)
    assert [error.field for error in refusal.value.errors] == [field]
    assert Plan.objects.values().get(tier="pro") == before


def test_the_stored_overrides_are_the_wanted_ones():
    opened = make_workspace("free", monthly_requests=5, requests_per_minute=6)
    stored = WorkspacePlan.objects.get(workspace=opened.workspace)
    assert (stored.monthly_requests_override, stored.requests_per_minute_override) == (5, 6)
    assert (stored.raw_retention_days_override, stored.members_override) == (None, None)
