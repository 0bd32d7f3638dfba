from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from redis import RedisError

from alerts import rules
from alerts.models import Alert, Rule
from alerts.rules import WATCHES, evaluate_all
from alerts.rules.laps import current_lap
from tests.alerts.rolled import roll
from tests.factories import make_workspace
from tests.ledger import new_event, store_events
from tests.races import at_once

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_redis_used")]

NOW = datetime(2026, 11, 10, 12, 20, tzinfo=UTC)
MINUTE, HOUR, WEEK = timedelta(minutes=1), timedelta(hours=1), timedelta(days=7)


def make_busy(plan="pro"):
    """A workspace in which everything is wrong at once."""
    workspace = make_workspace(plan).workspace
    for week in range(1, 5):
        roll(workspace, NOW - HOUR - week * WEEK, 1)
    roll(workspace, NOW - HOUR, 100, requests=50)
    store_events(
        [new_event(workspace, occurred_at=NOW, tenant_id="acme", endpoint_tag="checkout", cost_usd=Decimal(60))]
    )
    roll(workspace, NOW, 0, model="gpt-99", is_priced=False)
    common = {"workspace": workspace, "threshold_usd": Decimal("0.5")}
    Rule.objects.create(kind="unit_cost", dimension="endpoint_tag", minimum_requests=1, **common)
    Rule.objects.create(kind="spender_over", dimension="tenant_id", period="day", **common)
    return workspace


def kinds(workspace):
    return sorted(Alert.objects.filter(workspace=workspace).values_list("kind", flat=True))


ALL = ["spend_spike", "spender_over", "unit_cost", "unpriced_model"]


def test_everything_that_is_found_is_in_the_inbox():
    workspace = make_busy()
    evaluate_all(NOW, 30)
    assert kinds(workspace) == ALL


@pytest.mark.parametrize(("plan", "expected"), [("free", ["spender_over", "unpriced_model"]), ("team", ALL)])
def test_plans_decide_what_is_evaluated(plan, expected):
    workspace = make_busy(plan)
    evaluate_all(NOW, 30)
    assert kinds(workspace) == expected


def test_what_goes_on_is_told_once():
    workspace = make_busy()
    for minute in range(0, 30, 3):
        evaluate_all(NOW + minute * MINUTE, 30)
    assert kinds(workspace) == ALL
    assert set(Alert.objects.values_list("occurrences", flat=True)) == {1}


def test_a_person_who_resolves_it_is_not_asked_again():
    workspace = make_busy()
    evaluate_all(NOW, 30)
    Alert.objects.update(state="resolved", resolved_at=NOW)
    for minute in range(5, 30, 5):
        evaluate_all(NOW + minute * MINUTE, 30)
    assert kinds(workspace) == ALL


class TestFailures:
    @pytest.mark.django_db(transaction=True)
    def test_one_workspace_does_not_stop_the_others(self):
        first, broken, last = sorted((make_busy() for _ in range(3)), key=lambda workspace: workspace.pk)
        # A rule that cannot be understood stands for whatever else may be wrong with one workspace.
        Rule.objects.filter(workspace=broken, kind="spender_over").update(period="aeon")
        evaluate_all(NOW, 30)
        assert kinds(first) == kinds(last) == ALL
        assert kinds(broken) == [kind for kind in ALL if kind != "spender_over"]

    def test_without_redis_a_lap_begins_at_the_beginning(self, monkeypatch):
        workspace = make_busy()

        class Away:
            def __getattr__(self, name):
                raise RedisError("away")

        monkeypatch.setattr("alerts.rules.laps.client", Away)
        evaluate_all(NOW, 30)
        evaluate_all(NOW + MINUTE, 30)
        assert kinds(workspace) == ALL


class TestLaps:
    def test_it_goes_on_where_it_stopped(self, monkeypatch):
        workspaces = sorted((make_busy() for _ in range(3)), key=lambda workspace: workspace.pk)
        watch = next(watch for watch in WATCHES if watch.name == "unit_cost")
        looked_at = []

        def find(workspace_ids, now):
            looked_at.append(list(workspace_ids))
            # The clock of the deadline has moved on meanwhile.
            clock.append(clock[-1] + 10)
            return watch.find(workspace_ids, now)

        clock = [0.0]
        monkeypatch.setattr(rules, "monotonic", lambda: clock[-1])
        slow = rules.Watch("slow", timedelta(0), 1, find)
        monkeypatch.setattr(rules, "WATCHES", (slow,))
        for minute in range(4):
            evaluate_all(NOW + minute * MINUTE, 10)
        assert looked_at == [[workspace.pk] for workspace in workspaces]
        evaluate_all(NOW + 5 * MINUTE, 10)
        assert looked_at[-1] == [workspaces[0].pk]
        assert all("unit_cost" in kinds(workspace) for workspace in workspaces)

    def test_a_lap_that_is_over_is_not_begun_again_too_soon(self):
        every = timedelta(hours=1)
        current_lap("some", every, NOW).ended()
        assert current_lap("some", every, NOW + 59 * MINUTE) is None
        assert current_lap("some", every, NOW + 60 * MINUTE - timedelta(seconds=20)).started_at > NOW


@pytest.mark.django_db(transaction=True)
def test_two_at_once_tell_it_once():
    workspaces = [make_busy() for _ in range(4)]
    failures = [result for result in at_once(*[lambda: evaluate_all(NOW, 30)] * 4) if result is not None]
    assert failures == []
    for workspace in workspaces:
        assert kinds(workspace) == ALL
    assert set(Alert.objects.values_list("occurrences", flat=True)) == {1}
