"""Meters of scopes are the sums of their rows: from the first limit on a scope until the last one is gone."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from ingest import meters, retention, scoped_meters
from ingest.audit import repair_ledger
from ingest.cleanup import delete_rows
from ingest.meters import MeterPlace
from ingest.models import (
    Hold,
    Lease,
    LimitAdjustment,
    LimitCrossing,
    Meter,
    Rollup,
    ScopeKind,
    WorkspacePolicy,
)
from ingest.services import (
    drop_limit,
    end_all_raises,
    lock_ledger,
    replace_limits,
    set_budget_policy,
)
from opsmeter_site.lib.clock import utc_now
from tests.ingest.scoped_limits import (
    CENT,
    DAY,
    ROWS_OF_KIND,
    drop,
    limit_spec,
    make_spending_workspace,
    metered_scopes,
    put,
)
from tests.ledger import NOON, assert_exact, audit, make_event, make_workspace, scoped_values
from workspaces.models import Workspace

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def workspace() -> Workspace:
    return make_spending_workspace()


class TestALimitBegins:
    @pytest.mark.parametrize("kind", ScopeKind.values)
    def test_its_scope_counts_what_is_stored_already(self, workspace: Workspace, kind: str) -> None:
        first, second = ROWS_OF_KIND[kind]

        put(workspace, kind, first)

        assert scoped_values(workspace, kind) == {
            (first, "day", "2026-06-14"): (2 * CENT, 0),
            (first, "day", "2026-06-15"): (CENT, 0),
            (first, "month", "2026-06-01"): (3 * CENT, 0),
        }
        put(workspace, kind, second)
        assert scoped_values(workspace, kind)[second, "month", "2026-06-01"] == (CENT, 150)
        assert metered_scopes(workspace) == {(kind, first, False, None), (kind, second, False, None)}
        assert_exact(workspace)

    @pytest.mark.parametrize("kind", ScopeKind.values)
    def test_on_each_value_every_value_counts(self, workspace: Workspace, kind: str) -> None:
        first, second = ROWS_OF_KIND[kind]

        put(workspace, kind, is_each_value=True)

        months = {place: sums for place, sums in scoped_values(workspace, kind).items() if place[1] == "month"}
        assert months == {
            (first, "month", "2026-06-01"): (3 * CENT, 0),
            (second, "month", "2026-06-01"): (CENT, 150),
        }
        assert_exact(workspace)

    def test_a_value_that_nobody_has_sent_yet_has_no_meter(self, workspace: Workspace) -> None:
        put(workspace, "tenant_id", "new")
        assert scoped_values(workspace, "tenant_id") == {}
        make_event(workspace, tenant_id="new", cost_usd=CENT)
        assert scoped_values(workspace, "tenant_id")["new", "month", "2026-06-01"] == (CENT, 0)

    def test_it_is_told_what_its_meter_has_crossed_already(self, workspace: Workspace) -> None:
        now = utc_now()
        make_event(workspace, tenant_id="acme", cost_usd=Decimal(9), occurred_at=now)
        limit = put(workspace, "tenant_id", "acme", amount=Decimal(10))
        assert [(c.threshold, c.value) for c in LimitCrossing.objects.filter(limit=limit)] == [(Decimal("0.5"), 9)]

    def test_of_each_value_those_are_told_that_have_crossed(self, workspace: Workspace) -> None:
        now = utc_now()
        for tenant, usd in (("low", 4), ("high", 6), ("over", 11), ("helped", 6)):
            make_event(workspace, tenant_id=tenant, cost_usd=Decimal(usd), occurred_at=now)
        limit = put(workspace, "tenant_id", is_each_value=True, amount=Decimal(1_000))
        LimitAdjustment.objects.create(
            limit=limit, period_start=_month(now), scope_value="helped", usd=Decimal(-3), reason="Credit"
        )

        put(workspace, "tenant_id", is_each_value=True, amount=Decimal(10))

        crossed = LimitCrossing.objects.filter(limit=limit).values_list("scope_value", "threshold")
        assert set(crossed) == {("high", Decimal("0.5")), ("over", Decimal("0.5")), ("over", 1)}

    def test_other_workspaces_are_not_looked_at(self, workspace: Workspace) -> None:
        other = make_workspace()
        make_event(other, tenant_id="acme", cost_usd=Decimal(5))
        put(workspace, "tenant_id", "acme")
        put(other, "tenant_id", is_each_value=True)
        assert scoped_values(workspace, "tenant_id")["acme", "month", "2026-06-01"] == (3 * CENT, 0)
        assert scoped_values(other, "tenant_id")["acme", "month", "2026-06-01"] == (5, 0)


class TestWhatIsNoLongerStored:
    def test_a_scope_counts_from_when_its_source_is_complete(self, workspace: Workspace) -> None:
        """Raw rows have expired; roll-ups have not: models are known, tenants are not."""
        retention.purge_workspace(workspace.id, NOON + 40 * DAY)

        put(workspace, "tenant_id", "acme")
        put(workspace, "model", "small")

        assert scoped_values(workspace, "tenant_id") == {}
        assert scoped_values(workspace, "model")["small", "month", "2026-06-01"] == (3 * CENT, 0)
        assert metered_scopes(workspace) == {
            ("tenant_id", "acme", False, retention.first_raw_bucket(NOON + 10 * DAY)),
            ("model", "small", False, NOON - 140 * DAY),
        }
        assert_exact(workspace)

    def test_a_meter_keeps_what_has_expired_and_a_second_limit_finds_it(self, workspace: Workspace) -> None:
        put(workspace, "tenant_id", "acme")
        before = scoped_values(workspace, "tenant_id")
        retention.purge_workspace(workspace.id, NOON + 40 * DAY)

        put(workspace, "tenant_id", is_each_value=True)
        assert scoped_values(workspace, "tenant_id") == before
        drop(workspace, "tenant_id", "acme")
        put(workspace, "tenant_id", "acme")
        assert scoped_values(workspace, "tenant_id") == before
        assert_exact(workspace)

    def test_changed_data_modes_leave_expired_periods_alone_and_say_so(self, workspace: Workspace) -> None:
        put(workspace, "tenant_id", "acme")
        before = scoped_values(workspace, "tenant_id")
        retention.purge_workspace(workspace.id, NOON + 40 * DAY)
        make_event(workspace, tenant_id="acme", data_mode="test", cost_usd=CENT, occurred_at=NOON + 41 * DAY)

        set_budget_policy(workspace.id, observe_mode=False, counted_data_modes=["real", "test"])

        assert before.items() <= scoped_values(workspace, "tenant_id").items()
        assert metered_scopes(workspace) == {("tenant_id", "acme", False, retention.first_raw_bucket(NOON + 10 * DAY))}
        assert_exact(workspace)

    def test_meters_go_when_roll_ups_do(self, workspace: Workspace) -> None:
        put(workspace, "tenant_id", is_each_value=True)
        kept = {("usd", ""), ("usd", "tenant_id"), ("requests", "")}

        retention.purge_workspace(workspace.id, NOON.replace(hour=0) + 180 * DAY)
        assert {start for *_, start in scoped_values(workspace, "tenant_id")} == {"2026-06-01", "2026-06-15"}
        assert set(Meter.objects.filter(workspace=workspace).values_list("measure", "scope_kind")) == kept

        purged = retention.purge_workspace(workspace.id, datetime(2026, 7, 1, tzinfo=UTC) + 180 * DAY)
        assert purged.scoped_meters == 4
        assert scoped_values(workspace, "tenant_id") == {}
        assert Meter.objects.filter(workspace=workspace, scope_kind="").count() == 4
        assert_exact(workspace)


class TestOverlaps:
    def test_a_value_and_each_value_share_meters_in_any_order(self, workspace: Workspace) -> None:
        put(workspace, "tenant_id", is_each_value=True)
        everything = scoped_values(workspace, "tenant_id")
        put(workspace, "tenant_id", "acme")
        assert scoped_values(workspace, "tenant_id") == everything

        drop(workspace, "tenant_id", "")
        of_acme = {place: sums for place, sums in everything.items() if place[0] == "acme"}
        assert scoped_values(workspace, "tenant_id") == of_acme

        put(workspace, "tenant_id", is_each_value=True)
        assert scoped_values(workspace, "tenant_id") == everything

        drop(workspace, "tenant_id", "acme")
        assert scoped_values(workspace, "tenant_id") == everything
        assert_exact(workspace)

    def test_the_last_limit_takes_the_meters_along(self, workspace: Workspace) -> None:
        put(workspace, "tenant_id", "acme")
        put(workspace, "tenant_id", "acme", source_id="second")
        put(workspace, "model", "small")

        drop(workspace, "tenant_id", "acme")
        assert scoped_values(workspace, "tenant_id")
        drop_limit(workspace.id, "budgets", "second")
        assert scoped_values(workspace, "tenant_id") == {}
        assert scoped_values(workspace, "model")
        assert_exact(workspace)

    def test_all_limits_may_change_at_once(self, workspace: Workspace) -> None:
        replace_limits(
            workspace.id, "budgets", [limit_spec("tenant_id", is_each_value=True), limit_spec("model", "small")]
        )
        replace_limits(workspace.id, "budgets", [limit_spec("tenant_id", "acme"), limit_spec("user_id", "ann")])
        assert {kind for kind, *_ in metered_scopes(workspace)} == {"tenant_id", "user_id"}
        assert_exact(workspace)

    def test_a_new_name_or_amount_reads_no_events(self, workspace: Workspace) -> None:
        put(workspace, "tenant_id", is_each_value=True)
        with CaptureQueriesContext(connection) as queries:
            put(workspace, "tenant_id", is_each_value=True, name="Another", amount=Decimal(7))
        assert not [
            query["sql"] for query in queries if "ingest_event" in query["sql"] or "ingest_rollup" in query["sql"]
        ]

    def test_whatever_happens_the_ledger_is_exact(self) -> None:
        workspace = make_workspace()
        choice = random.Random(11)
        for _ in range(60):
            kind = choice.choice(["tenant_id", "model"])
            value = choice.choice(["", *ROWS_OF_KIND[kind]])
            match choice.randrange(5):
                case 0 | 1:
                    put(workspace, kind, value, is_each_value=not value)
                case 2:
                    drop(workspace, kind, value)
                case 3:
                    set_budget_policy(
                        workspace.id,
                        observe_mode=False,
                        counted_data_modes=choice.choice([["real"], ["test"], ["real", "test"]]),
                    )
                case 4:
                    make_event(
                        workspace,
                        data_mode=choice.choice(["real", "test"]),
                        cost_usd=choice.choice([None, CENT]),
                        occurred_at=NOON - choice.randrange(40) * DAY,
                        **{kind: choice.choice(ROWS_OF_KIND[kind])},
                    )
            assert_exact(workspace)


class TestRewrites:
    def test_deleted_rows_leave_all_their_meters(self, workspace: Workspace) -> None:
        set_budget_policy(workspace.id, observe_mode=False, counted_data_modes=["real", "test"])
        for kind, (first, _second) in ROWS_OF_KIND.items():
            put(workspace, kind, first)
        put(workspace, "user_id", is_each_value=True)
        kept = _all_values(workspace)
        make_event(workspace, data_mode="test", cost_usd=None, tenant_id="acme", user_id="ann", model="small")
        rewrites = _rewrites(workspace)

        delete_rows(workspace.id, "test", created_by_id=None, acting_user=None)

        after = _all_values(workspace)
        assert after["tenant_id", "acme", "month"] == (3 * CENT, 0)
        assert after["", "", "month"] == (kept["", "", "month"][0] - 100, 150)
        assert _rewrites(workspace) > rewrites
        assert_exact(workspace)

    def test_roll_ups_that_outlived_their_rows_leave_the_meters_that_know_of_them(self, workspace: Workspace) -> None:
        set_budget_policy(workspace.id, observe_mode=False, counted_data_modes=["real", "test"])
        put(workspace, "model", "small")
        retention.purge_workspace(workspace.id, NOON + 40 * DAY)

        delete_rows(workspace.id, "test", created_by_id=None, acting_user=None)

        assert _all_values(workspace)["model", "small", "month"] == (3 * CENT, 0)
        assert_exact(workspace)

    def test_changed_data_modes_make_all_meters_again(self, workspace: Workspace) -> None:
        put(workspace, "tenant_id", is_each_value=True)
        put(workspace, "model", "small")
        set_budget_policy(workspace.id, observe_mode=False, counted_data_modes=["test"])
        assert _all_values(workspace)["tenant_id", "acme", "month"] == (100, 0)
        assert _all_values(workspace)["model", "small", "month"] == (100, 0)
        assert ("tenant_id", "umbrella", "month") not in _all_values(workspace)
        assert_exact(workspace)

    def test_deltas_go_to_kept_meters_only(self, workspace: Workspace) -> None:
        put(workspace, "tenant_id", "acme")
        june = datetime(2026, 6, 1, tzinfo=UTC)
        places = [MeterPlace("", "", "month", june), MeterPlace("tenant_id", "acme", "month", june)]
        places += [MeterPlace("tenant_id", "umbrella", "month", june), MeterPlace("model", "small", "month", june)]
        before = _all_values(workspace)

        with transaction.atomic():
            lock_ledger(workspace.id)
            meters.add_to_meters(workspace.id, dict.fromkeys(places, (-CENT, 5)))

        assert _all_values(workspace) == before | {
            ("", "", "month"): (before["", "", "month"][0] - CENT, 155),
            ("tenant_id", "acme", "month"): (2 * CENT, 5),
        }

    def test_repair_makes_them_again(self, workspace: Workspace) -> None:
        put(workspace, "tenant_id", is_each_value=True)
        put(workspace, "model", "small")
        right = _all_values(workspace)
        Rollup.objects.filter(workspace=workspace).update(cost_usd=3)
        Meter.objects.filter(workspace=workspace, scope_value="acme").delete()
        Meter.objects.filter(workspace=workspace).update(value=7, unpriced_tokens=9)

        repair_ledger(workspace.id)

        assert _all_values(workspace) == right
        assert_exact(workspace)


class TestHolds:
    @pytest.fixture
    def leased(self, workspace: Workspace) -> Workspace:
        """Two live leases of acme in one second, one of a tenant besides; a closed, an expired and a test one."""
        soon = utc_now().replace(microsecond=0) + timedelta(minutes=5)
        for usd, more in (
            ("1", {}),
            ("2", {"unpriced_tokens": 40}),
            ("4", {"tenant_id": "umbrella"}),
            ("8", {"closed_at": utc_now()}),
            ("16", {"expires_at": utc_now() - timedelta(minutes=10)}),
            ("32", {"data_mode": "test"}),
        ):
            _lease(workspace, usd=Decimal(usd), **{"expires_at": soon} | more)
        WorkspacePolicy.objects.filter(workspace=workspace).update(leases_until=soon)
        return workspace

    def test_a_scope_that_begins_holds_its_live_leases(self, leased: Workspace) -> None:
        put(leased, "tenant_id", "acme")
        assert _held(leased) == {("", ""): (7, 40), ("tenant_id", "acme"): (3, 40)}
        put(leased, "tenant_id", is_each_value=True)
        assert _held(leased)["tenant_id", "umbrella"] == (4, 0)
        assert_exact(leased)

    def test_a_scope_that_ends_holds_nothing(self, leased: Workspace) -> None:
        put(leased, "tenant_id", "acme")
        put(leased, "api_key_id", "7")
        drop(leased, "tenant_id", "acme")
        assert _held(leased) == {("", ""): (7, 40), ("api_key_id", "7"): (7, 40)}
        assert_exact(leased)

    def test_other_data_modes_hold_other_leases(self, leased: Workspace) -> None:
        put(leased, "tenant_id", "acme")
        set_budget_policy(leased.id, observe_mode=False, counted_data_modes=["test"])
        assert _held(leased) == {("", ""): (32, 0), ("tenant_id", "acme"): (32, 0)}
        assert_exact(leased)

    def test_wrong_holds_are_found_and_repaired(self, leased: Workspace) -> None:
        put(leased, "tenant_id", "acme")
        Hold.objects.filter(workspace=leased, scope_kind="tenant_id").update(usd=5)

        (row,) = audit(leased.id).holds
        assert (row.scope_kind, row.scope_value, row.expected, row.actual) == ("tenant_id", "acme", 3, 5)
        assert audit(leased.id).drift_usd == 2

        repair_ledger(leased.id)
        assert _held(leased)["tenant_id", "acme"] == (3, 40)
        assert_exact(leased)

    def test_they_are_kept_for_a_day(self, leased: Workspace) -> None:
        put(leased, "tenant_id", "acme")
        now = utc_now()
        assert retention.purge_workspace(leased.id, now + timedelta(hours=23)).leases == 0
        purged = retention.purge_workspace(leased.id, now + timedelta(hours=25))
        assert (purged.leases, purged.holds) == (6, 2)
        assert not Lease.objects.filter(workspace=leased).exists()


class TestRaisesThatEnd:
    def test_a_limit_that_is_over_without_its_raise_is_told_once(self, workspace: Workspace) -> None:
        make_event(workspace, cost_usd=Decimal(15), occurred_at=NOON)
        until = NOON + timedelta(hours=1)
        limit = put(workspace, "", amount=Decimal(10), raised_amount=Decimal(100), raised_until=until)
        version = WorkspacePolicy.objects.get(workspace=workspace).limits_version

        assert end_all_raises(until - timedelta(seconds=1)) == 0
        assert not LimitCrossing.objects.filter(limit=limit).exists()
        assert end_all_raises(until) == 0
        assert end_all_raises(until) == 0

        crossed = LimitCrossing.objects.filter(limit=limit).values_list("threshold", "amount")
        assert set(crossed) == {(Decimal("0.5"), 10), (1, 10)}
        limit.refresh_from_db()
        assert (limit.raised_amount, limit.raised_until) == (None, None)
        assert WorkspacePolicy.objects.get(workspace=workspace).limits_version == version + 1


class TestLimitSet:
    def test_it_says_what_the_stored_limits_say(self, workspace: Workspace) -> None:
        limit = put(workspace, "tenant_id", is_each_value=True, thresholds_usd=(CENT,))
        for usd in (1, 2):
            LimitAdjustment.objects.create(
                limit=limit, period_start=NOON, scope_value="acme", usd=Decimal(usd), reason="Credit"
            )

        found = scoped_meters.limit_set_of(workspace.id)

        (row,) = found.rows("tenant_id", "anybody")
        assert (row.id, row.thresholds, row.thresholds_usd) == (limit.id, (Decimal("0.5"), 1), (CENT,))
        assert row.adjustments == {(NOON, "acme"): 3}
        assert found.version == WorkspacePolicy.objects.get(workspace=workspace).limits_version
        assert found.rows("model", "small") == ()


def _all_values(workspace: Workspace) -> dict[tuple[str, str, str], tuple[Decimal, int]]:
    """The USD meters of June and of the 15th, by scope and period."""
    rows = Meter.objects.filter(workspace=workspace, measure="usd").exclude(period_start=NOON.replace(hour=0) - DAY)
    return {(row.scope_kind, row.scope_value, row.period): (row.value, row.unpriced_tokens) for row in rows}


def _rewrites(workspace: Workspace) -> int:
    return WorkspacePolicy.objects.get(workspace=workspace).rewrites


def _held(workspace: Workspace) -> dict[tuple[str, str], tuple[Decimal, int]]:
    rows = Hold.objects.filter(workspace=workspace)
    return {(row.scope_kind, row.scope_value): (row.usd, row.unpriced_tokens) for row in rows}


def _lease(workspace: Workspace, **fields: Any) -> Lease:
    defaults: dict[str, Any] = {kind: values[0] for kind, values in ROWS_OF_KIND.items()} | {
        "api_key_id": 7,
        "data_mode": "real",
        "unpriced_tokens": 0,
        "external_request_id": f"lease-{Lease.objects.count()}",
    }
    return Lease.objects.create(workspace=workspace, **defaults | fields)


def _month(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
