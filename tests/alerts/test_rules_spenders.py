from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from alerts.models import Rule, RuleDimension, RuleKind, RulePeriod
from alerts.noticing import raise_alerts
from alerts.rules.spenders import find
from alerts.rules.told import MOST_TOLD
from tests.factories import make_workspace
from tests.ledger import make_event, new_event, store_events

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 10, 12, 7, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def make_rule(workspace, threshold=50, *, dimension=RuleDimension.TENANT, period=RulePeriod.DAY, **facts):
    return Rule.objects.create(
        workspace=workspace,
        kind=RuleKind.SPENDER_OVER,
        dimension=dimension,
        period=period,
        threshold_usd=Decimal(threshold),
        **facts,
    )


def spend(workspace, moment=NOW, **tenants):
    store_events(
        [
            new_event(workspace, occurred_at=moment, tenant_id=tenant, cost_usd=Decimal(usd))
            for tenant, usd in tenants.items()
        ]
    )


def found(workspace, now=NOW):
    return find([workspace.pk], now)


def told(workspace, now=NOW):
    return [finding.facts["told"] for finding in found(workspace, now)]


@pytest.mark.parametrize(("usd", "is_told"), [("50", False), ("50.000000000001", True)])
def test_over_means_above_to_the_last_digit(workspace, usd, is_told):
    make_rule(workspace)
    spend(workspace, acme=usd)
    assert bool(found(workspace)) is is_told


def test_the_finding_lists_who_and_how_much(workspace):
    rule = make_rule(workspace)
    spend(workspace, acme="62.1", globex="51", initech="3")
    (finding,) = found(workspace)
    assert finding.title == "2 tenants are over $50.00 this day"
    assert finding.text == "USD by tenant in the UTC day 10 Nov 2026, above $50.00: acme $62.10, globex $51.00."
    assert (finding.window_start, finding.window_end) == (
        datetime(2026, 11, 10, tzinfo=UTC),
        datetime(2026, 11, 11, tzinfo=UTC),
    )
    assert finding.metric == "usd.day"
    assert finding.severity == "warning"
    assert finding.facts["rule"] == rule.pk
    assert finding.facts["highest_usd"] == "62.100000000000"


def test_one_alone_is_called_by_name(workspace):
    make_rule(workspace, dimension=RuleDimension.USER)
    make_event(workspace, occurred_at=NOW, user_id="u-1", cost_usd=Decimal(60))
    assert [finding.title for finding in found(workspace)] == ["User u-1 is over $50.00 this day"]


def test_requests_without_a_tenant_are_no_tenant(workspace):
    make_rule(workspace)
    spend(workspace, unknown=500)
    assert found(workspace) == []


def test_only_the_utc_day_counts(workspace):
    make_rule(workspace)
    spend(workspace, NOW - DAY, acme=500)
    spend(workspace, acme=10)
    assert found(workspace) == []


def test_a_month_is_the_utc_month(workspace):
    make_rule(workspace, period=RulePeriod.MONTH)
    for day in range(12):
        spend(workspace, NOW - day * DAY, acme=5)
    # Two of the twelve days are October's.
    assert found(workspace) == []
    spend(workspace, acme="0.01")
    (finding,) = found(workspace)
    assert finding.title == "Tenant acme is over $50.00 this month"
    assert finding.text == "USD by tenant in the UTC month Nov 2026, above $50.00: acme $50.01."


def test_other_data_than_budgets_count_is_left_out(workspace):
    make_rule(workspace)
    make_event(workspace, occurred_at=NOW, tenant_id="acme", data_mode="test", cost_usd=Decimal(500))
    assert found(workspace) == []


def test_a_rule_that_is_off_says_nothing(workspace):
    make_rule(workspace, is_enabled=False)
    spend(workspace, acme=500)
    assert found(workspace) == []


@pytest.mark.parametrize("plan", ["free", "starter", "pro", "team", "enterprise"])
def test_every_plan_has_them(plan):
    workspace = make_workspace(plan).workspace
    make_rule(workspace)
    spend(workspace, acme=500)
    assert len(found(workspace)) == 1


class TestOnce:
    def test_a_thousand_are_one_message(self, workspace):
        make_rule(workspace)
        spend(workspace, **{f"tenant-{number:04}": 51 + number for number in range(1_005)})
        (finding,) = found(workspace)
        assert finding.title == "1,000 tenants are over $50.00 this day"
        assert finding.text.startswith(
            "USD by tenant in the UTC day 10 Nov 2026, above $50.00: tenant-1004 $1,055.00, "
        )
        assert "tenant-0985 $1,036.00 and 980 more." in finding.text
        assert "this rule says no more about this day" in finding.text
        assert len(finding.facts["told"]) == MOST_TOLD
        raise_alerts([finding], NOW)
        assert found(workspace, NOW + 2 * HOUR) == []

    def test_each_is_told_once_and_news_waits_for_an_hour(self, workspace):
        make_rule(workspace)
        spend(workspace, acme=60)
        raise_alerts(found(workspace), NOW)
        spend(workspace, acme=60, globex=70)
        spend(workspace, initech=80)
        assert found(workspace, NOW + HOUR - timedelta(seconds=1)) == []
        (later,) = found(workspace, NOW + HOUR)
        assert later.facts["told"] == ["initech", "globex"]
        assert later.text.endswith("initech $80.00, globex $70.00. 1 was told before.")
        raise_alerts([later], NOW + HOUR)
        assert found(workspace, NOW + 3 * HOUR) == []

    def test_a_new_day_begins_anew(self, workspace):
        make_rule(workspace)
        spend(workspace, acme=60)
        raise_alerts(found(workspace), NOW)
        spend(workspace, NOW + DAY, acme=60)
        assert told(workspace, NOW + DAY) == [["acme"]]

    def test_resolving_it_does_not_bring_it_back(self, workspace):
        make_rule(workspace)
        spend(workspace, acme=60)
        (alert,) = raise_alerts(found(workspace), NOW)
        alert.state, alert.resolved_at = "resolved", NOW
        alert.save()
        assert found(workspace, NOW + 2 * HOUR) == []

    def test_what_came_last_in_a_period_is_told_after_it(self, workspace):
        make_rule(workspace)
        midnight = datetime(2026, 11, 11, tzinfo=UTC)
        spend(workspace, midnight - timedelta(minutes=1), acme=60)
        (finding,) = found(workspace, midnight + HOUR)
        assert "UTC day 10 Nov 2026" in finding.text
        assert finding.window_end == midnight
        raise_alerts([finding], midnight + HOUR)
        assert found(workspace, midnight + 2 * HOUR) == []

    def test_another_threshold_is_another_promise(self, workspace):
        rule = make_rule(workspace)
        spend(workspace, acme=60, globex=40)
        raise_alerts(found(workspace), NOW)
        Rule.objects.filter(pk=rule.pk).update(threshold_usd=Decimal(30))
        assert told(workspace) == [["acme", "globex"]]

    def test_rules_do_not_share_what_was_told(self, workspace):
        make_rule(workspace)
        make_rule(workspace, period=RulePeriod.MONTH)
        make_rule(workspace, dimension=RuleDimension.USER)
        make_event(workspace, occurred_at=NOW, tenant_id="acme", user_id="u-1", cost_usd=Decimal(60))
        assert sorted(told(workspace)) == [["acme"], ["acme"], ["u-1"]]
        assert len(raise_alerts(found(workspace), NOW)) == 3
        assert found(workspace, NOW + 2 * HOUR) == []
