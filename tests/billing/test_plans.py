import importlib
from dataclasses import asdict

import pytest
from django.apps import apps
from django.db import connection

from billing.models import Plan
from billing.plans import DEFAULT_PLANS, NUMBER_RANGES, Overrides, check_numbers, effective_numbers
from billing.services import ensure_plans

COLUMNS = ("monthly_requests", "requests_per_minute", "raw_retention_days", "rollup_retention_days", "members")
CONTRACT = {
    "free": (10_000, 120, 14, 90, 2),
    "starter": (100_000, 300, 30, 180, 5),
    "pro": (1_000_000, 600, 90, 365, 15),
    "team": (5_000_000, 3_000, 180, 730, 50),
    "enterprise": (None, 6_000, 730, 1_095, None),
}
INCLUDED = {
    "has_summaries": {"starter", "pro", "team", "enterprise"},
    "has_immediate_alerts": {"pro", "team", "enterprise"},
    "has_integrations": {"pro", "team", "enterprise"},
    "has_executive_report": {"team", "enterprise"},
    "has_price_overrides": {"enterprise"},
}


def test_the_plans_are_those_of_the_contract():
    assert {plan.tier: tuple(getattr(plan, column) for column in COLUMNS) for plan in DEFAULT_PLANS} == CONTRACT
    for fact, tiers in INCLUDED.items():
        assert {plan.tier for plan in DEFAULT_PLANS if getattr(plan, fact)} == tiers
    assert [plan.rank for plan in DEFAULT_PLANS] == [1, 2, 3, 4, 5]


@pytest.mark.django_db
def test_a_new_installation_gets_the_same_plans_from_its_migration():
    Plan.objects.all().delete()
    with connection.schema_editor() as editor:
        importlib.import_module("billing.migrations.0003_plans").insert_plans(apps, editor)
    stored = list(Plan.objects.order_by("rank").values())
    assert stored == [asdict(plan) for plan in DEFAULT_PLANS]


@pytest.mark.django_db
def test_missing_plans_are_inserted_and_edited_ones_are_left_alone():
    ensure_plans()
    Plan.objects.filter(tier="pro").update(name="Professional", monthly_requests=7)
    Plan.objects.filter(tier="team").delete()
    ensure_plans()
    assert set(Plan.objects.values_list("tier", flat=True)) == set(CONTRACT)
    assert Plan.objects.values_list("name", "monthly_requests").get(tier="pro") == ("Professional", 7)


def plan(**facts):
    return Plan(**{**asdict(DEFAULT_PLANS[2]), **facts})


def test_a_workspaces_own_number_stands_in_for_the_plans():
    numbers = effective_numbers(plan(), Overrides(monthly_requests=5, members=99))
    assert (numbers.monthly_requests, numbers.members) == (5, 99)
    assert (numbers.requests_per_minute, numbers.raw_retention_days, numbers.rollup_retention_days) == (600, 90, 365)


def test_an_own_number_of_nothing_is_a_number():
    assert effective_numbers(plan(), Overrides(monthly_requests=0)).monthly_requests == 0


def test_an_own_number_limits_an_unlimited_plan():
    unlimited = plan(monthly_requests=None)
    assert effective_numbers(unlimited, Overrides()).monthly_requests is None
    assert effective_numbers(unlimited, Overrides(monthly_requests=10)).monthly_requests == 10


def test_sums_are_never_kept_for_less_time_than_raw_rows():
    assert effective_numbers(plan(), Overrides(raw_retention_days=400)).rollup_retention_days == 400


@pytest.mark.parametrize("name", NUMBER_RANGES)
def test_numbers_outside_their_range_are_named(name):
    lowest, highest = NUMBER_RANGES[name]
    assert check_numbers({name: lowest}) == check_numbers({name: highest}) == check_numbers({name: None}) == []
    for number in (lowest - 1, highest + 1):
        assert [error.field for error in check_numbers({name: number})] == [name]
