from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction

from ingest import meters, retention
from ingest.models import Limit, LimitCrossing, Meter, Rollup
from ingest.services import lock_ledger, set_budget_policy
from tests.ledger import NOON, make_event, make_events, make_workspace, meter_values
from workspaces.models import Workspace

pytestmark = pytest.mark.django_db

CENT = Decimal("0.01")
MAY = datetime(2026, 5, 31, 23, 59, tzinfo=UTC)


class TestRebuild:
    def test_meters_are_the_sums_of_the_utc_day_and_month_in_which_events_occurred(self) -> None:
        workspace = make_workspace()
        make_event(workspace, cost_usd=CENT)
        make_event(workspace, cost_usd=CENT, occurred_at=NOON - timedelta(days=1))
        make_event(workspace, cost_usd=CENT, occurred_at=MAY, received_at=NOON)

        assert meter_values(workspace) == {
            ("usd", "day", "2026-05-31"): CENT,
            ("usd", "day", "2026-06-14"): CENT,
            ("usd", "day", "2026-06-15"): CENT,
            ("usd", "month", "2026-05-01"): CENT,
            ("usd", "month", "2026-06-01"): 2 * CENT,
            ("requests", "month", "2026-05-01"): 1,
            ("requests", "month", "2026-06-01"): 2,
        }

    def test_requests_count_all_but_demo_and_usd_counts_what_the_policy_says(self) -> None:
        workspace = make_workspace(counted_data_modes=["real", "demo"])
        for mode, cost in (("real", "1"), ("test", "10"), ("demo", "100")):
            make_event(workspace, data_mode=mode, cost_usd=Decimal(cost))

        values = meter_values(workspace)

        assert values["requests", "month", "2026-06-01"] == 2
        assert values["usd", "month", "2026-06-01"] == values["usd", "day", "2026-06-15"] == 101

    def test_unpriced_events_are_requests_that_cost_nothing(self) -> None:
        workspace = make_workspace()
        make_event(workspace, cost_usd=None)

        assert Meter.objects.get(workspace=workspace, measure="usd", period="day").value == 0
        assert meter_values(workspace) == {("requests", "month", "2026-06-01"): 1}

    def test_changing_the_counted_modes_moves_the_usd_meters_and_nothing_else(self) -> None:
        workspace = make_workspace()
        make_event(workspace, data_mode="real", cost_usd=Decimal(1))
        make_event(workspace, data_mode="test", cost_usd=Decimal(10), occurred_at=NOON - timedelta(days=1))
        before = meter_values(workspace)

        set_budget_policy(workspace.id, observe_mode=False, counted_data_modes=["test"])

        assert meter_values(workspace) == {
            ("usd", "day", "2026-06-14"): 10,
            ("usd", "month", "2026-06-01"): 10,
            ("requests", "month", "2026-06-01"): 2,
        }
        set_budget_policy(workspace.id, observe_mode=False, counted_data_modes=["real"])
        assert meter_values(workspace) == before

    def test_wrong_and_invented_meters_are_put_right(self) -> None:
        workspace = make_workspace()
        make_event(workspace)
        right = meter_values(workspace)
        Meter.objects.filter(workspace=workspace).update(value=5)
        Meter.objects.create(
            workspace=workspace, measure="usd", period="day", period_start=NOON.replace(hour=0, day=1), value=3
        )

        _rebuild(workspace)

        assert meter_values(workspace) == right

    def test_periods_that_lost_rollups_keep_their_meters(self) -> None:
        """Roll-ups begin an hour before noon on 15 June: 16 June is the only whole day, and no month is whole."""
        workspace = make_workspace(rollup_retention_days=90)
        for days in (-20, -1, 0, 1):
            make_event(workspace, occurred_at=NOON + timedelta(days=days), cost_usd=CENT)
        before = meter_values(workspace)
        retention.purge_workspace(workspace.id, NOON + timedelta(days=90, hours=-1))
        assert Rollup.objects.filter(workspace=workspace).count() == 2
        Rollup.objects.filter(workspace=workspace).update(cost_usd=2 * CENT)

        _rebuild(workspace)

        assert meter_values(workspace) == before | {("usd", "day", "2026-06-16"): 2 * CENT}

    def test_a_longer_retention_does_not_make_purged_periods_whole_again(self) -> None:
        workspace = make_workspace(rollup_retention_days=90)
        make_event(workspace, cost_usd=CENT)
        retention.purge_workspace(workspace.id, NOON + timedelta(days=91))
        policy = workspace.policy
        policy.rollup_retention_days = 365
        policy.save()
        retention.purge_workspace(workspace.id, NOON + timedelta(days=92))

        _rebuild(workspace)

        assert meter_values(workspace)["usd", "month", "2026-06-01"] == CENT

    def test_other_workspaces_are_left_alone(self) -> None:
        workspace, other = make_workspace(), make_workspace()
        make_event(workspace)
        make_event(other)
        Meter.objects.filter(workspace=other).update(value=5)

        _rebuild(workspace)

        assert set(meter_values(other).values()) == {5}


class TestCurrentMeters:
    def test_it_answers_the_day_and_the_month_of_now(self) -> None:
        workspace = make_workspace()
        make_event(workspace, cost_usd=CENT)
        make_event(workspace, cost_usd=CENT, occurred_at=NOON - timedelta(days=1))

        assert meters.current_meters(workspace.id, NOON) == {
            ("usd", "day"): CENT,
            ("usd", "month"): 2 * CENT,
            ("requests", "month"): 2,
        }
        assert meters.current_meters(workspace.id, NOON + timedelta(days=1)) == {
            ("usd", "month"): 2 * CENT,
            ("requests", "month"): 2,
        }
        assert meters.current_meters(workspace.id, NOON + timedelta(days=30)) == {}


class TestRecordCrossings:
    def test_usd_crosses_a_share_when_it_is_reached_and_the_limit_when_it_is_exceeded(self) -> None:
        workspace = make_workspace()
        make_event(workspace, cost_usd=Decimal(10))
        limit = _limit(workspace, amount=10, thresholds=["0.5", "0.8", "1"])

        meters.record_crossings(workspace.id, NOON)
        assert _crossed(limit) == [Decimal("0.5"), Decimal("0.8")]

        make_event(workspace, cost_usd=Decimal("0.000000000001"))
        meters.record_crossings(workspace.id, NOON)
        assert _crossed(limit) == [Decimal("0.5"), Decimal("0.8"), Decimal(1)]

        last = LimitCrossing.objects.get(limit=limit, threshold=1)
        assert (last.amount, last.value) == (10, Decimal("10.000000000001"))
        assert (last.period_start, last.crossed_at) == (datetime(2026, 6, 15, tzinfo=UTC), NOON)

    def test_requests_are_over_once_the_included_number_is_used(self) -> None:
        workspace = make_workspace()
        make_events(workspace, 4)
        limit = _limit(workspace, measure="requests", period="month", amount=4, thresholds=["0.8", "1"])

        meters.record_crossings(workspace.id, NOON)

        assert _crossed(limit) == [Decimal("0.8"), Decimal(1)]

    def test_a_crossing_is_stored_once_a_period_and_amount(self) -> None:
        workspace = make_workspace()
        make_event(workspace, cost_usd=Decimal(10))
        make_event(workspace, cost_usd=Decimal(10), occurred_at=NOON + timedelta(days=1))
        limit = _limit(workspace, amount=10, thresholds=["0.5"])

        for _ in range(2):
            meters.record_crossings(workspace.id, NOON)
        assert LimitCrossing.objects.count() == 1

        meters.record_crossings(workspace.id, NOON + timedelta(days=1))
        assert LimitCrossing.objects.count() == 2

        limit.amount = 5
        limit.save()
        meters.record_crossings(workspace.id, NOON)
        assert LimitCrossing.objects.count() == 3

    def test_nothing_is_crossed_without_usage_or_in_another_workspace(self) -> None:
        workspace, other = make_workspace(), make_workspace()
        make_event(other, cost_usd=Decimal(100))
        _limit(workspace, amount=10, thresholds=["0.5", "1"])
        _limit(workspace, amount=10, thresholds=["0.5", "1"], period="month", source_id="month")

        meters.record_crossings(workspace.id, NOON)

        assert not LimitCrossing.objects.exists()


def _rebuild(workspace: Workspace) -> None:
    with transaction.atomic():
        meters.rebuild(workspace.id, lock_ledger(workspace.id))


def _limit(workspace: Workspace, *, amount: int, thresholds: list[str], **fields: Any) -> Limit:
    defaults: dict[str, Any] = {
        "name": "Daily budget",
        "measure": "usd",
        "period": "day",
        "enforce": False,
        "source": "budgets",
        "source_id": "day",
    }
    shares = [Decimal(share) for share in thresholds]
    return Limit.objects.create(workspace=workspace, amount=amount, thresholds=shares, **defaults | fields)


def _crossed(limit: Limit) -> list[Decimal]:
    return list(LimitCrossing.objects.filter(limit=limit).order_by("threshold").values_list("threshold", flat=True))
