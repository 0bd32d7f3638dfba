from dataclasses import replace
from decimal import Decimal

import pytest

from alerts.models import AlertSettings, Rule
from alerts.rule_services import (
    MOST_RULES,
    RuleValues,
    create_rule,
    delete_rule,
    set_spikes,
    update_rule,
    values_of,
)
from alerts.rules.spikes import SpikeRule, spike_rules
from opsmeter_site.lib.errors import InvalidInput, NotFound
from tests.factories import make_workspace
from tests.races import at_once
from workspaces.audit_words import deed
from workspaces.models import AuditEntry

pytestmark = pytest.mark.django_db

UNIT_COST = RuleValues(kind="unit_cost", dimension="endpoint_tag", value="checkout", threshold_usd=Decimal("0.02"))
SPENDER = RuleValues(kind="spender_over", dimension="tenant_id", threshold_usd=Decimal(50), period="day")


def create(opened, values=UNIT_COST, **changes):
    return create_rule(opened.workspace, replace(values, **changes), acting_user=opened.owner)


def fields_at_fault(call, *args, **kwargs):
    with pytest.raises(InvalidInput) as refused:
        call(*args, **kwargs)
    return [error.field for error in refused.value.errors]


def entries(opened):
    made = AuditEntry.objects.filter(workspace=opened.workspace, action__regex="^(alert_rule|spend_spikes)")
    return made.order_by("pk")


@pytest.mark.parametrize("values", [UNIT_COST, SPENDER])
def test_a_rule_is_stored_as_it_was_said(opened, values):
    rule = create(opened, values)
    rule.refresh_from_db()
    assert values_of(rule) == values
    assert rule.created_by == opened.owner


@pytest.mark.parametrize(
    ("values", "changes", "field"),
    [
        (UNIT_COST, {"kind": "weather"}, "kind"),
        (UNIT_COST, {"dimension": "tenant_id"}, "dimension"),
        (SPENDER, {"dimension": "model"}, "dimension"),
        (SPENDER, {"period": ""}, "period"),
        (SPENDER, {"period": "week"}, "period"),
        (UNIT_COST, {"threshold_usd": Decimal(0)}, "threshold_usd"),
        (UNIT_COST, {"threshold_usd": Decimal(-1)}, "threshold_usd"),
        (UNIT_COST, {"threshold_usd": Decimal("NaN")}, "threshold_usd"),
        (UNIT_COST, {"threshold_usd": Decimal("Infinity")}, "threshold_usd"),
        (SPENDER, {"threshold_usd": Decimal("10000000.01")}, "threshold_usd"),
        (UNIT_COST, {"threshold_usd": Decimal("1e-13")}, "threshold_usd"),
        (UNIT_COST, {"minimum_requests": 0}, "minimum_requests"),
        (UNIT_COST, {"minimum_requests": 1_000_001}, "minimum_requests"),
        (UNIT_COST, {"value": "x" * 201}, "value"),
        (UNIT_COST, {"value": "a\x00b"}, "value"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_field(opened, values, changes, field):
    assert fields_at_fault(create, opened, values, **changes) == [field]
    assert not Rule.objects.exists()


@pytest.mark.parametrize("threshold", [Decimal("1e-12"), Decimal(10_000_000)])
def test_the_ends_of_what_is_allowed_are_allowed(opened, threshold):
    assert create(opened, threshold_usd=threshold).threshold_usd == threshold


def test_what_is_of_the_other_kind_is_left_out(opened):
    assert create(opened, SPENDER, value="acme", minimum_requests=5).value == ""
    assert create(opened, UNIT_COST, period="day").period == ""


def test_an_endpoint_that_nobody_has_seen_is_allowed(opened):
    assert create(opened, value="to-come").value == "to-come"


def test_two_rules_about_the_same_are_refused(opened):
    create(opened)
    assert fields_at_fault(create, opened, threshold_usd=Decimal(5)) == ["dimension"]
    other = create(opened, value="reports")
    assert fields_at_fault(update_rule, other, UNIT_COST, acting_user=opened.owner) == ["dimension"]
    # What differs in any of these is another rule; another workspace has its own.
    create(opened, dimension="model")
    create(make_workspace("pro"))


def test_a_workspace_has_at_most_fifty(opened):
    for number in range(MOST_RULES):
        create(opened, value=f"endpoint-{number}")
    with pytest.raises(InvalidInput, match="at most 50 rules"):
        create(opened, value="one-more")


@pytest.mark.django_db(transaction=True)
def test_two_at_once_do_not_pass_the_limit_together():
    opened = make_workspace("pro")
    for number in range(MOST_RULES - 1):
        create(opened, value=f"endpoint-{number}")
    results = at_once(*[lambda value=value: create(opened, value=value) for value in ("a", "b", "c")])
    assert sum(isinstance(result, Rule) for result in results) == 1
    assert Rule.objects.count() == MOST_RULES


def test_a_change_keeps_the_kind(opened):
    rule = create(opened)
    assert update_rule(rule, replace(UNIT_COST, kind="spender_over", minimum_requests=7), acting_user=opened.owner)
    rule.refresh_from_db()
    assert (rule.kind, rule.minimum_requests) == ("unit_cost", 7)
    assert not update_rule(rule, values_of(rule), acting_user=opened.owner)


def test_a_deleted_rule_cannot_be_changed_and_is_deleted_once(opened):
    rule = create(opened)
    stale = Rule.objects.get(pk=rule.pk)
    delete_rule(rule, acting_user=opened.owner)
    delete_rule(stale, acting_user=opened.owner)
    with pytest.raises(NotFound):
        update_rule(stale, UNIT_COST, acting_user=opened.owner)
    assert [entry.action for entry in entries(opened)][-1:] == ["alert_rule.deleted"]
    assert entries(opened).filter(action="alert_rule.deleted").count() == 1


def test_the_trail_says_what_was_done(opened):
    rule = create(opened)
    update_rule(rule, replace(UNIT_COST, threshold_usd=Decimal(1)), acting_user=opened.owner)
    delete_rule(Rule.objects.get(), acting_user=opened.owner)
    set_spikes(opened.workspace, SpikeRule(False, Decimal(3), Decimal(5)), acting_user=opened.owner)
    added, changed, deleted, spikes = entries(opened)
    assert deed(added).startswith("added the alert rule Unit cost over a threshold: Endpoint")
    assert deed(changed).startswith("changed the alert rule")
    assert (changed.data["old"]["threshold_usd"], changed.data["new"]["threshold_usd"]) == ("0.020000000000", "1")
    assert deed(deleted).startswith("deleted the alert rule")
    assert deed(spikes) == "changed the watch for spend spikes"


class TestSpikes:
    USUAL = SpikeRule(True, Decimal(3), Decimal(5))

    def test_it_is_on_until_somebody_says_otherwise(self, opened):
        assert spike_rules([opened.workspace.pk])[opened.workspace.pk] == self.USUAL
        assert not set_spikes(opened.workspace, self.USUAL, acting_user=opened.owner)
        assert not AlertSettings.objects.exists()

    def test_other_settings_stay(self, opened):
        AlertSettings.objects.create(workspace=opened.workspace, cooldown_seconds=60)
        wanted = SpikeRule(False, Decimal("1.5"), Decimal("0.01"))
        assert set_spikes(opened.workspace, wanted, acting_user=opened.owner)
        assert spike_rules([opened.workspace.pk])[opened.workspace.pk] == wanted
        assert AlertSettings.objects.get().cooldown_seconds == 60

    @pytest.mark.parametrize(
        ("factor", "minimum", "fields"),
        [
            (1, 5, ["factor"]),
            ("1000.01", 5, ["factor"]),
            ("1.001", 5, ["factor"]),
            (3, 0, ["minimum_usd"]),
            ("NaN", "Infinity", ["factor", "minimum_usd"]),
        ],
    )
    def test_what_makes_no_sense_is_refused_with_its_field(self, opened, factor, minimum, fields):
        wanted = SpikeRule(True, Decimal(factor), Decimal(minimum))
        assert fields_at_fault(set_spikes, opened.workspace, wanted, acting_user=opened.owner) == fields
