"""What the provider sells, mapped to plans."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from billing.models import PlanVariant, Status, Subscription, WorkspacePlan
from billing.services import ensure_plans
from billing.variants import delete_variant, map_variant
from ingest.models import WorkspacePolicy
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput
from tests.factories import OperatorFactory, make_workspace
from tests.races import at_once
from workspaces.models import AuditEntry

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _plans():
    ensure_plans()


def mapped(variant_id, plan="pro", interval="month", **wanted):
    return map_variant(plan_tier=plan, interval=interval, variant_id=variant_id, **wanted)


def facts_of(variant_id):
    found = PlanVariant.objects.get(variant_id=variant_id)
    return (found.plan.tier, found.interval, found.is_offered, found.price_text)


def subscribed(variant_id, workspace=None, **facts):
    return Subscription.objects.create(
        **{
            "provider": "lemonsqueezy",
            "provider_subscription_id": f"9{Subscription.objects.count()}",
            "workspace": workspace,
            "variant_id": variant_id,
            "status": Status.ACTIVE,
            "next_check_at": None,
            **facts,
        }
    )


def entries():
    return list(AuditEntry.objects.filter(action="plan_variant.mapped").order_by("pk"))


def command(*args):
    out = StringIO()
    call_command("map_variant", *args, stdout=out)
    return out.getvalue()


def test_a_variant_means_a_plan_and_an_interval():
    operator = OperatorFactory()
    variant = mapped(" 101 ", price_text=" $49 a month ", acting_user=operator)
    assert (variant.provider, variant.variant_id) == ("lemonsqueezy", "101")
    assert facts_of("101") == ("pro", "month", True, "$49 a month")
    [entry] = entries()
    assert (entry.actor, entry.workspace) == (operator, None)
    assert entry.data["variant"] == "101"
    assert (entry.data["plan"], entry.data["interval"], entry.data["before"]) == ("pro", "month", None)


def test_mapping_it_again_changes_nothing():
    first = mapped("101", price_text="$49")
    assert mapped("101", price_text="$49").pk == first.pk
    assert len(entries()) == 1


def test_a_mapping_can_be_corrected():
    mapped("101", "pro", price_text="$49")
    mapped("101", "team", "year", price_text="$499")
    assert facts_of("101") == ("team", "year", True, "$499")
    assert entries()[-1].data["before"]["plan"] == "pro"


def test_offering_another_variant_withdraws_the_first():
    mapped("101")
    mapped("102", "pro", "year")
    mapped("103")
    assert [facts_of(each)[2] for each in ("101", "102", "103")] == [False, True, True]
    assert entries()[-1].data["withdrawn"] == ["101"]
    # And back.
    mapped("101")
    assert [facts_of(each)[2] for each in ("101", "103")] == [True, False]


def test_one_that_is_not_offered_withdraws_nothing():
    mapped("101")
    mapped("102", is_offered=False)
    assert [facts_of(each)[2] for each in ("101", "102")] == [True, False]


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"plan_tier": "gold"}, "plan"),
        ({"plan_tier": ""}, "plan"),
        ({"plan_tier": "free"}, "plan"),
        ({"interval": "week"}, "interval"),
        ({"variant_id": ""}, "variant_id"),
        ({"variant_id": "0101"}, "variant_id"),
        ({"variant_id": "-1"}, "variant_id"),
        ({"variant_id": "1 01"}, "variant_id"),
        ({"variant_id": "\u0661\u0662"}, "variant_id"),
        ({"variant_id": "9" * 19}, "variant_id"),
        ({"price_text": "x" * 61}, "price_text"),
        ({"price_text": "a\x00b"}, "price_text"),
    ],
)
def test_bad_input_is_refused_by_its_name(wanted, field):
    with pytest.raises(InvalidInput) as caught:
        map_variant(**{"plan_tier": "pro", "interval": "month", "variant_id": "101", **wanted})
    assert [error.field for error in caught.value.errors] == [field]
    assert not PlanVariant.objects.exists()
    assert not entries()


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(InvalidInput) as caught:
        map_variant(plan_tier="gold", interval="week", variant_id="x", price_text="y" * 99)
    assert [error.field for error in caught.value.errors] == ["plan", "interval", "variant_id", "price_text"]


def test_who_has_paid_for_an_unknown_variant_gets_the_plan_as_soon_as_it_is_mapped():
    workspace = make_workspace().workspace
    waiting = subscribed("101", workspace)
    others = subscribed("102", make_workspace().workspace)
    before = utc_now()
    mapped("101", "team", "year")
    waiting.refresh_from_db()
    assert (waiting.plan.tier, waiting.interval) == ("team", "year")
    assert before <= waiting.next_check_at <= utc_now()
    assert WorkspacePlan.objects.get(workspace=workspace).plan.tier == "team"
    assert WorkspacePolicy.objects.get(workspace=workspace).plan_tier == "team"
    entry = AuditEntry.objects.get(action="workspace_plan.changed", workspace=workspace)
    assert entry.data["subscription"] == waiting.provider_subscription_id
    others.refresh_from_db()
    assert (others.plan, others.next_check_at) == (None, None)


def test_a_corrected_mapping_moves_those_who_are_on_it():
    workspace = make_workspace().workspace
    subscribed("101", workspace)
    mapped("101", "pro")
    assert WorkspacePlan.objects.get(workspace=workspace).plan.tier == "pro"
    mapped("101", "starter")
    assert WorkspacePlan.objects.get(workspace=workspace).plan.tier == "starter"


def test_nobody_gets_a_plan_from_a_subscription_that_is_over():
    workspace = make_workspace().workspace
    subscribed("101", workspace, status=Status.EXPIRED)
    mapped("101", "team")
    assert WorkspacePlan.objects.get(workspace=workspace).plan.tier == "free"


def test_a_subscription_of_nobody_is_mapped_all_the_same():
    unmatched = subscribed("101")
    mapped("101", "pro")
    unmatched.refresh_from_db()
    assert unmatched.plan.tier == "pro"


def test_those_who_have_the_plan_already_are_left_alone():
    workspace = make_workspace().workspace
    subscription = subscribed("101", workspace)
    mapped("101")
    Subscription.objects.update(next_check_at=None)
    mapped("101", price_text="$59")
    subscription.refresh_from_db()
    assert subscription.next_check_at is None


def test_a_withdrawn_variant_keeps_those_who_are_on_it():
    workspace = make_workspace().workspace
    subscribed("101", workspace)
    mapped("101")
    mapped("103")
    assert WorkspacePlan.objects.get(workspace=workspace).plan.tier == "pro"


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_did_and_may_be_repeated():
    subscribed("101")
    said = command("101", "--plan", "pro", "--price", "$49 a month")
    assert said == (
        "Variant 101 means Pro, paid by the month; on offer, shown as “$49 a month”.\nSubscriptions on it: 1.\n"
    )
    assert command("101", "--plan", "pro") == said
    assert len(entries()) == 1
    assert "Variant 101 is no longer on offer" in command("103", "--plan", "pro")
    assert "not on offer." in command("103", "--plan", "pro", "--withdrawn")


def test_the_command_names_its_own_options():
    with pytest.raises(CommandError) as caught:
        command("x", "--plan", "gold", "--interval", "week")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["--plan", "--interval", "variant"]


@pytest.mark.django_db(transaction=True)
def test_two_operators_at_once_leave_one_variant_on_offer():
    ensure_plans()
    results = at_once(lambda: mapped("101"), lambda: mapped("102"), lambda: mapped("103"))
    assert all(isinstance(each, PlanVariant) for each in results)
    assert PlanVariant.objects.filter(is_offered=True).count() == 1
    assert len(entries()) == 3


def test_a_variant_that_somebody_was_ever_on_is_not_deleted():
    used = map_variant(plan_tier="pro", interval="month", variant_id="77", is_offered=False)
    Subscription.objects.create(provider=used.provider, provider_subscription_id="1", variant_id="77", status="expired")
    with pytest.raises(InvalidInput, match="Withdraw it instead"):
        delete_variant(used, acting_user=None)
    assert PlanVariant.objects.filter(pk=used.pk).exists()
