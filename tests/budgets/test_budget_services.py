from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from budgets.models import Budget
from budgets.scoped.drafts import draft_of
from budgets.scoped.services import (
    MOST_BUDGETS,
    BudgetChanged,
    adjust_budget,
    change_budget,
    delete_budget,
    history,
    raise_budget,
    version_of,
)
from budgets.services import update_budget_settings
from ingest.models import Limit, MeteredScope
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import Conflict, InvalidInput, NotAllowed, NotFound
from tests.budgets.scoped import ACME, EACH, change, create, limit_of, refused_fields, settings_budget
from tests.factories import make_workspace
from workspaces.services import create_api_key, revoke_api_key

pytestmark = pytest.mark.django_db

NAN = Decimal("NaN")


@pytest.fixture
def opened():
    return make_workspace("pro")


# --- Creating ---------------------------------------------------------------------------------------------------------


def test_a_budget_sets_the_limit_that_it_says(opened):
    budget = create(
        opened,
        enforcement="hard",
        thresholds=(Decimal("0.8"), Decimal("0.25")),
        thresholds_usd=(Decimal(45), Decimal("0.5")),
        unpriced="estimate",
        estimate_usd_per_1m=Decimal("2.5"),
    )
    limit = limit_of(budget)
    assert (limit.scope_kind, limit.scope_value, limit.is_each_value) == ("tenant_id", "acme", False)
    assert (limit.measure, limit.period, limit.amount, limit.enforce) == ("usd", "day", 50, True)
    assert limit.thresholds == [Decimal("0.25"), Decimal("0.8"), 1]
    assert limit.thresholds_usd == [Decimal("0.5"), 45]
    assert (limit.unpriced, limit.estimate_usd_per_1m) == ("estimate", Decimal("2.5"))
    assert limit.name == budget.name == "Tenant acme, daily"
    assert MeteredScope.objects.get(workspace=opened.workspace).value == "acme"


def test_a_budget_on_each_value_has_no_value(opened):
    budget = create(opened, EACH)
    assert (budget.name, budget.scope_value) == ("Each user, monthly", "")
    assert limit_of(budget).is_each_value


def test_a_threshold_of_all_is_dropped_because_it_is_always_told(opened):
    budget = create(opened, thresholds=(Decimal(1), Decimal("0.5")))
    assert budget.thresholds == [Decimal("0.5")]
    assert limit_of(budget).thresholds == [Decimal("0.5"), 1]


def test_no_thresholds_leave_the_limit_itself(opened):
    assert limit_of(create(opened, thresholds=())).thresholds == [1]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("limit_usd", {"limit_usd": Decimal(0)}),
        ("limit_usd", {"limit_usd": Decimal(-1)}),
        ("limit_usd", {"limit_usd": NAN}),
        ("limit_usd", {"limit_usd": Decimal("Infinity")}),
        ("limit_usd", {"limit_usd": Decimal("10000000.01")}),
        ("limit_usd", {"limit_usd": Decimal("1E+400")}),
        ("limit_usd", {"limit_usd": Decimal("1E-13")}),
        ("scope_kind", {"scope_kind": ""}),
        ("scope_kind", {"scope_kind": "feature_tag"}),
        ("scope_value", {"scope_value": "  "}),
        ("scope_value", {"scope_value": "x" * 201}),
        ("scope_value", {"scope_value": "a\x00b"}),
        ("scope_value", {"is_each_value": True}),
        ("scope_value", {"scope_kind": "environment", "scope_value": "moon"}),
        ("scope_value", {"scope_kind": "provider", "scope_value": "p" * 101}),
        ("scope_value", {"scope_kind": "api_key_id", "scope_value": "acme"}),
        ("scope_value", {"scope_kind": "api_key_id", "scope_value": "9" * 30}),
        ("period", {"period": "daily"}),
        ("enforcement", {"enforcement": "firm"}),
        ("thresholds", {"thresholds": (Decimal(0),)}),
        ("thresholds", {"thresholds": (Decimal("1.01"),)}),
        ("thresholds", {"thresholds": (NAN, Decimal("0.5"))}),
        ("thresholds", {"thresholds": (Decimal("0.80001"),)}),
        ("thresholds", {"thresholds": (Decimal("0.5"), Decimal("0.50"))}),
        ("thresholds", {"thresholds": tuple(Decimal(n) / 100 for n in range(1, 12))}),
        ("thresholds_usd", {"thresholds_usd": (Decimal(50),)}),
        ("thresholds_usd", {"thresholds_usd": (Decimal(0),)}),
        ("thresholds_usd", {"thresholds_usd": (Decimal(-5),)}),
        ("thresholds_usd", {"thresholds_usd": (NAN,)}),
        ("thresholds_usd", {"thresholds_usd": (Decimal("1E-13"),)}),
        ("thresholds_usd", {"thresholds_usd": (Decimal(5), Decimal("5.0"))}),
        ("unpriced", {"unpriced": "guess"}),
        ("unpriced", {"unpriced": "block"}),
        ("estimate_usd_per_1m", {"unpriced": "estimate"}),
        ("estimate_usd_per_1m", {"unpriced": "estimate", "estimate_usd_per_1m": Decimal(0)}),
        ("estimate_usd_per_1m", {"unpriced": "estimate", "estimate_usd_per_1m": Decimal(100_001)}),
        ("estimate_usd_per_1m", {"unpriced": "estimate", "estimate_usd_per_1m": Decimal("1E-7")}),
        ("estimate_usd_per_1m", {"estimate_usd_per_1m": Decimal(3)}),
        ("name", {"name": "n" * 101}),
        ("name", {"name": "two\nlines"}),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_bad_value_is_refused_by_name(opened, field, changes):
    with pytest.raises(InvalidInput) as refusal:
        create(opened, **changes)
    assert refused_fields(refusal) == {field}
    assert all(error.message for error in refusal.value.errors)
    assert not Budget.objects.filter(workspace=opened.workspace).exists()


def test_every_bad_value_is_named_at_once(opened):
    with pytest.raises(InvalidInput) as refusal:
        create(opened, scope_value="", limit_usd=NAN, period="week", enforcement="", thresholds=(NAN,))
    assert refused_fields(refusal) == {"scope_value", "limit_usd", "period", "enforcement", "thresholds"}


def test_ten_thresholds_besides_the_limit_itself_are_fine(opened):
    shares = tuple(Decimal(n) / 100 for n in range(1, 9))
    budget = create(opened, thresholds=(*shares, Decimal(1)), thresholds_usd=(Decimal(7), Decimal(6)))
    assert len(budget.thresholds) + len(budget.thresholds_usd) == 10


@pytest.mark.parametrize(
    "value", ["a/b/c", 'O\'Neil "&" <b>', "🦊 und Füchse", "שלום עולם", "50%_off", "a\\b", "x" * 200]
)
def test_any_text_can_be_a_value(opened, value):
    budget = create(opened, scope_value=f"  {value} ")
    assert (budget.scope_value, limit_of(budget).scope_value) == (value, value)
    assert len(budget.name) <= 100
    assert budget.name.endswith(", daily")


def test_values_are_written_as_events_carry_them(opened):
    assert create(opened, scope_kind="provider", scope_value="OpenAI").scope_value == "openai"
    assert create(opened, scope_kind="environment", scope_value="PROD").scope_value == "prod"


def test_a_key_is_named_and_must_be_the_workspaces_own_and_live(opened):
    def make(name):
        return create_api_key(opened.workspace, name=name, created_by=opened.owner, acting_user=opened.owner)[0]

    key, revoked = make("Checkout"), make("Old")
    revoke_api_key(revoked, acting_user=opened.owner)
    foreign = make_workspace().workspace.api_keys.get()
    budget = create(opened, scope_kind="api_key_id", scope_value=f"0{key.pk}")
    assert (budget.name, budget.scope_value) == ("API key Checkout, daily", str(key.pk))
    for other, words in ((revoked, "revoked"), (foreign, "of this workspace")):
        with pytest.raises(InvalidInput, match=words):
            create(opened, scope_kind="api_key_id", scope_value=str(other.pk))


def test_a_budget_of_a_key_that_was_revoked_since_can_still_be_changed(opened):
    key = opened.workspace.api_keys.get()
    budget = create(opened, scope_kind="api_key_id", scope_value=str(key.pk))
    revoke_api_key(key, acting_user=opened.owner)
    assert change(opened, budget, limit_usd=Decimal(60)).limit_usd == 60


def test_names_are_unique_in_a_workspace_whatever_their_case(opened):
    create(opened, name="Acme")
    for name in ("acme", " ACME ", "Daily budget"):
        with pytest.raises(Conflict) as refusal:
            create(opened, name=name)
        assert refused_fields(refusal) == {"name"}
    assert create(make_workspace("pro"), name="Acme").name == "Acme"


def test_names_that_nobody_chose_never_collide(opened):
    assert [create(opened).name for _ in range(3)] == [
        "Tenant acme, daily",
        "Tenant acme, daily (2)",
        "Tenant acme, daily (3)",
    ]


@pytest.mark.parametrize("value", ["acme\nSubject: x", "a\tb", "\x7f", "\x01"])
def test_a_name_that_nobody_chose_stays_on_one_line_and_the_budget_can_be_changed(opened, value):
    budget = create(opened, scope_value=f"v{value}w")
    assert budget.scope_value == f"v{value}w"
    assert budget.name.isprintable()
    assert change(opened, budget, limit_usd=Decimal(60)).limit_usd == 60


def test_there_is_an_end_to_the_number_of_budgets(opened):
    settings_budget(opened)
    Budget.objects.bulk_create(
        Budget(
            workspace=opened.workspace,
            name=f"Tenant {n}",
            scope_kind="tenant_id",
            scope_value=str(n),
            period="day",
            limit_usd=1,
        )
        for n in range(MOST_BUDGETS - 1)
    )
    create(opened)
    with pytest.raises(NotAllowed, match="1,000"):
        create(opened)


# --- Changing and deleting --------------------------------------------------------------------------------------------


def test_a_change_reaches_the_limit_and_the_audit(opened):
    budget = create(opened)
    changed = change(opened, budget, limit_usd=Decimal("60.5"), enforcement="hard", name="Acme", thresholds=())
    limit = limit_of(budget)
    assert (limit.amount, limit.enforce, limit.name, limit.thresholds) == (Decimal("60.5"), True, "Acme", [1])
    newest, oldest = history(budget.pk, opened.workspace.pk)
    assert (oldest.action, oldest.data["old"], oldest.data["new"]["limit_usd"]) == ("budget.created", {}, "50")
    assert (newest.action, newest.actor, newest.target) == ("budget.changed", opened.owner, "Acme")
    assert (newest.data["old"]["limit_usd"], newest.data["new"]["limit_usd"]) == ("50", "60.5")
    assert draft_of(changed) == draft_of(Budget.objects.get(pk=budget.pk))


def test_no_change_writes_nothing(opened):
    budget = create(opened)
    again = change(opened, budget, limit_usd=Decimal("50.00"), thresholds=(Decimal("0.80"), Decimal("0.5")))
    assert again.updated_at == Budget.objects.get(pk=budget.pk).updated_at == budget.updated_at
    assert len(history(budget.pk, opened.workspace.pk)) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("scope_kind", "user_id"), ("scope_value", "other"), ("is_each_value", True), ("period", "month")],
)
def test_scope_and_period_stay(opened, field, value):
    budget = create(opened)
    with pytest.raises(InvalidInput) as refusal:
        change(opened, budget, **{field: value})
    assert refused_fields(refusal) == {field}


def test_only_what_the_person_has_seen_is_changed(opened):
    budget = create(opened)
    seen = version_of(budget)
    change(opened, budget, limit_usd=Decimal(60))
    with pytest.raises(BudgetChanged) as refusal:
        change_budget(budget, draft_of(budget), acting_user=opened.owner, seen=seen)
    assert refusal.value.now.limit_usd == 60
    assert change_budget(
        budget, replace(ACME, name="New"), acting_user=opened.owner, seen=version_of(refusal.value.now)
    ).name == ("New")


def test_versions_tell_contents_apart_and_nothing_else(opened):
    budget = create(opened)
    before = version_of(budget)
    budget.limit_usd = Decimal("50.000000000000")
    assert version_of(budget) == before == version_of(Budget.objects.get(pk=budget.pk))
    budget.raise_reason = "Launch"
    assert version_of(budget) != before


def test_deleting_takes_limit_and_meters_and_keeps_the_history(opened):
    budget = create(opened)
    delete_budget(budget, acting_user=opened.owner)
    assert not Limit.objects.filter(workspace=opened.workspace, source="budgets").exists()
    assert not MeteredScope.objects.filter(workspace=opened.workspace).exists()
    assert [entry.action for entry in history(budget.pk, opened.workspace.pk)] == ["budget.deleted", "budget.created"]
    for late in (
        lambda: delete_budget(budget, acting_user=opened.owner),
        lambda: change(opened, budget),
        lambda: adjust_budget(budget, Decimal(1), "Late", acting_user=opened.owner),
    ):
        with pytest.raises(NotFound):
            late()


def test_the_history_of_another_workspace_is_empty(opened):
    budget = create(opened)
    assert history(budget.pk, make_workspace().workspace.pk) == []


# --- The two budgets of the whole workspace ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("limit_usd", Decimal(1)),
        ("name", "Mine"),
        ("enforcement", "soft"),
        ("thresholds", (Decimal("0.1"),)),
        ("thresholds_usd", (Decimal(1),)),
    ],
)
def test_what_the_settings_rule_is_refused_here(opened, field, value):
    budget = settings_budget(opened)
    with pytest.raises(Conflict, match="/v1/settings/budgets"):
        change(opened, budget, **{field: value})
    with pytest.raises(Conflict, match="/v1/settings/budgets"):
        delete_budget(budget, acting_user=opened.owner)


def test_settings_keep_raises_adjustments_and_what_is_made_of_unpriced_requests(opened):
    budget = settings_budget(opened)
    change(opened, budget, unpriced="estimate", estimate_usd_per_1m=Decimal(3))
    until = utc_now() + timedelta(days=2)
    raise_budget(budget, Decimal(500), until, "Launch", acting_user=opened.owner)
    adjust_budget(budget, Decimal(7), "Refund", acting_user=opened.owner)
    settings_budget(opened, daily_limit_usd=Decimal(120), warning_threshold_ratio=Decimal("0.6"))
    limit = limit_of(budget)
    assert (limit.amount, limit.raised_amount, limit.raised_until) == (120, 500, until)
    assert (limit.unpriced, limit.estimate_usd_per_1m) == ("estimate", 3)
    assert limit.adjustments.get().usd == 7
    assert limit.thresholds == [Decimal("0.6"), 1]
    raise_budget(budget, Decimal(600), until, "More", acting_user=opened.owner)
    limit.refresh_from_db()
    assert (limit.thresholds, limit.enforce, limit.raised_amount) == ([Decimal("0.6"), 1], True, 600)


def test_their_history_has_the_changes_of_the_settings(opened):
    budget = settings_budget(opened)
    raise_budget(budget, Decimal(500), utc_now() + timedelta(days=2), "Launch", acting_user=opened.owner)
    assert [entry.action for entry in history(budget.pk, opened.workspace.pk)] == ["budget.raised", "budgets.changed"]


def test_settings_leave_budgets_on_scopes_alone(opened):
    budget = create(opened, enforcement="hard")
    settings_budget(opened, enforcement="soft")
    settings_budget(opened, daily_limit_usd=Decimal(5))
    update_budget_settings(opened.workspace, acting_user=opened.owner, daily_limit_usd=None)
    assert Budget.objects.get(workspace=opened.workspace) == budget
    assert limit_of(budget).enforce is True
