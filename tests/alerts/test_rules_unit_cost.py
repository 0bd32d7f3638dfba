from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from alerts.models import Rule, RuleDimension, RuleKind
from alerts.noticing import raise_alerts
from alerts.rules.unit_cost import find
from ingest.models import WorkspacePolicy
from tests.alerts.rolled import roll
from tests.factories import make_workspace

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 10, 12, 7, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def make_rule(workspace, threshold="0.02", *, dimension=RuleDimension.ENDPOINT, value="", **facts):
    return Rule.objects.create(
        workspace=workspace,
        kind=RuleKind.UNIT_COST,
        dimension=dimension,
        value=value,
        threshold_usd=Decimal(threshold),
        **facts,
    )


def found(workspace, now=NOW):
    return find([workspace.pk], now)


def titles(workspace, now=NOW):
    return [finding.title for finding in found(workspace, now)]


def test_nothing_is_watched_until_there_is_a_rule(workspace):
    roll(workspace, NOW, 1_000, requests=20)
    assert found(workspace) == []


@pytest.mark.parametrize(("usd", "is_told"), [("0.4", False), ("0.400000000001", True), ("0.399999999999", False)])
def test_over_means_above_to_the_last_digit(workspace, usd, is_told):
    make_rule(workspace)
    roll(workspace, NOW, usd, requests=20, endpoint_tag="checkout")
    assert bool(found(workspace)) is is_told


@pytest.mark.parametrize(("requests", "is_told"), [(19, False), (20, True)])
def test_fewer_requests_than_the_minimum_say_nothing(workspace, requests, is_told):
    make_rule(workspace)
    roll(workspace, NOW, requests, requests=requests)
    assert bool(found(workspace)) is is_told


def test_unpriced_requests_do_not_count(workspace):
    make_rule(workspace)
    roll(workspace, NOW, 1, requests=20)
    roll(workspace, NOW, 0, requests=1_000, is_priced=False)
    (finding,) = found(workspace)
    assert finding.facts["requests"] == 20


@pytest.mark.parametrize(
    ("moment", "is_told"),
    [
        (datetime(2026, 11, 10, 10, 59, tzinfo=UTC), False),
        (datetime(2026, 11, 10, 11, 0, tzinfo=UTC), True),
        (NOW, True),
    ],
)
def test_the_hour_is_the_running_quarter_and_the_four_before_it(workspace, moment, is_told):
    make_rule(workspace)
    roll(workspace, moment, 1, requests=20)
    assert bool(found(workspace)) is is_told


def test_only_the_data_that_budgets_count_is_watched(workspace):
    make_rule(workspace)
    roll(workspace, NOW, 1, requests=20, data_mode="test")
    assert found(workspace) == []
    WorkspacePolicy.objects.filter(pk=workspace.pk).update(counted_data_modes=["test"])
    assert len(found(workspace)) == 1


def test_the_finding_names_metric_window_threshold_and_value(workspace):
    rule = make_rule(workspace)
    roll(workspace, NOW, "0.3", requests=10, endpoint_tag="checkout")
    roll(workspace, NOW - HOUR, "0.33", requests=20, endpoint_tag="checkout")
    (finding,) = found(workspace)
    assert finding.title == "Endpoint checkout costs $0.0210 a request"
    assert finding.text == (
        "Mean USD a priced request, Tue 10 Nov 2026, 11:00 to 12:07 UTC, by endpoint: "
        "checkout $0.0210 (30 requests). The rule allows $0.02."
    )
    assert finding.severity == "warning"
    assert finding.metric == "usd_per_request"
    assert (finding.window_start, finding.window_end) == (
        datetime(2026, 11, 10, tzinfo=UTC),
        datetime(2026, 11, 11, tzinfo=UTC),
    )
    assert finding.facts["rule"] == rule.pk
    assert finding.facts["drill"] == {"endpoint": "checkout"}


def test_an_hour_across_midnight_names_both_days(workspace):
    make_rule(workspace)
    now = datetime(2026, 11, 10, 0, 7, tzinfo=UTC)
    roll(workspace, now, 1, requests=20)
    assert "Mon 9 Nov 2026, 23:00 to Tue 10 Nov 2026, 00:07 UTC" in found(workspace, now)[0].text


def test_models_are_watched_across_providers(workspace):
    make_rule(workspace, dimension=RuleDimension.MODEL, value="gpt-4o")
    for provider in ("openai", "azure"):
        roll(workspace, NOW, 1, requests=10, provider=provider, model="gpt-4o")
    roll(workspace, NOW, 100, requests=20, model="another")
    assert titles(workspace) == ["Model gpt-4o costs $0.100 a request"]


def test_a_rule_of_its_own_comes_before_the_one_about_each(workspace):
    make_rule(workspace)
    own = make_rule(workspace, "5", value="reports")
    roll(workspace, NOW, 20, requests=20, endpoint_tag="reports")
    assert found(workspace) == []
    Rule.objects.filter(pk=own.pk).update(is_enabled=False)
    assert titles(workspace) == ["Endpoint reports costs $1.00 a request"]


def test_many_endpoints_are_one_finding(workspace):
    make_rule(workspace)
    for number in range(30):
        roll(workspace, NOW, 20 + number, requests=20, endpoint_tag=f"endpoint-{number:02}")
    (finding,) = found(workspace)
    assert finding.title == "30 endpoints cost more than $0.02 a request"
    assert "endpoint-29 $2.45 (20 requests), endpoint-28" in finding.text
    assert "endpoint-10 $1.50 (20 requests) and 10 more." in finding.text
    assert finding.facts["drill"] == {}


def test_each_endpoint_is_told_once_a_day_and_news_waits_for_an_hour(workspace):
    make_rule(workspace)
    roll(workspace, NOW, 1, requests=20, endpoint_tag="first")
    raise_alerts(found(workspace), NOW)
    roll(workspace, NOW, 1, requests=20, endpoint_tag="second")
    assert found(workspace, NOW + MINUTE) == []
    roll(workspace, NOW + HOUR, 1, requests=20, endpoint_tag="second")
    later = found(workspace, NOW + HOUR)
    assert [finding.facts["told"] for finding in later] == [["second"]]
    tomorrow = NOW + timedelta(days=1)
    roll(workspace, tomorrow, 1, requests=20, endpoint_tag="first")
    assert titles(workspace, tomorrow) == ["Endpoint first costs $0.0500 a request"]


def test_another_threshold_is_another_promise(workspace):
    rule = make_rule(workspace)
    roll(workspace, NOW, 2, requests=20)
    raise_alerts(found(workspace), NOW)
    Rule.objects.filter(pk=rule.pk).update(threshold_usd=Decimal("0.05"))
    assert len(found(workspace)) == 1


@pytest.mark.parametrize(("plan", "is_told"), [("free", False), ("starter", False), ("pro", True), ("team", True)])
def test_plans_without_integrations_do_not_evaluate(plan, is_told):
    workspace = make_workspace(plan).workspace
    make_rule(workspace)
    roll(workspace, NOW, 1, requests=20)
    assert bool(found(workspace)) is is_told
