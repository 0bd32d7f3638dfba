import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F

from ingest import audit as audit_module
from ingest import retention
from ingest.audit import audit_all, repair_ledger
from ingest.models import Event, Hold, LedgerAudit, Meter, Rollup, WorkspacePolicy
from ingest.services import LimitSpec, put_limit
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import QUARTER_HOUR
from tests.ledger import NOON, assert_exact, audit, make_event, make_events, make_workspace, meter_values
from tests.together import run_together
from workspaces.models import Workspace

pytestmark = pytest.mark.django_db(transaction=True)

DAY = timedelta(days=1)
SMALLEST = Decimal("0.000000000001")


@pytest.fixture
def workspace() -> Workspace:
    """Two days of rows: priced, unpriced, failed, test and demo."""
    workspace = make_workspace()
    make_events(workspace, 10, apart=timedelta(hours=3))
    make_event(workspace, cost_usd=None)
    make_event(workspace, status="error", latency_ms=None)
    make_event(workspace, data_mode="test")
    make_event(workspace, data_mode="demo")
    return workspace


class TestAnExactLedger:
    def test_it_has_no_drift_and_the_result_is_stored(self, workspace: Workspace) -> None:
        report = audit(workspace.id)

        assert report.is_exact
        assert (report.events, report.days, report.periods) == (14, 2, 4)
        stored = LedgerAudit.objects.get(workspace=workspace)
        assert (stored.is_exact, stored.events, stored.drift_usd, stored.drift_requests) == (True, 14, 0, 0)
        assert stored.checked_at == report.checked_at
        assert stored.details == report.to_json()

    def test_an_empty_workspace_is_exact(self) -> None:
        assert audit(make_workspace().id).is_exact

    def test_it_stays_exact_when_everything_has_expired(self, workspace: Workspace) -> None:
        for days in (30, 31, 32, 179, 181, 400):
            retention.purge_workspace(workspace.id, NOON + days * DAY)
            assert_exact(workspace)


class TestPlantedDrift:
    def test_the_smallest_amount_in_a_rollup_is_found(self, workspace: Workspace) -> None:
        first = Rollup.objects.filter(workspace=workspace, data_mode="real", is_priced=True).order_by("id")[0]
        Rollup.objects.filter(workspace=workspace, id=first.id).update(cost_usd=F("cost_usd") - SMALLEST)

        report = audit(workspace.id)

        (row,) = report.rollups
        assert (row.day, row.cost_usd, row.requests, row.misplaced) == (NOON.replace(hour=0), SMALLEST, 0, 1)
        assert {(meter.period, meter.expected - meter.actual) for meter in report.meters} == {
            ("day", -SMALLEST),
            ("month", -SMALLEST),
        }
        assert report.drift_usd == 3 * SMALLEST
        assert LedgerAudit.objects.get(workspace=workspace).is_exact is False

    def test_the_smallest_amount_in_a_meter_is_found(self, workspace: Workspace) -> None:
        Meter.objects.filter(workspace=workspace, measure="usd", period="month").update(value=F("value") + SMALLEST)

        report = audit(workspace.id)

        (row,) = report.meters
        assert (row.measure, row.period, row.actual - row.expected) == ("usd", "month", SMALLEST)
        assert (report.rollups, report.drift_usd, report.drift_requests) == ([], SMALLEST, 0)

    @pytest.mark.parametrize("column", ["value", "unpriced_tokens"])
    @pytest.mark.parametrize("scope_kind", ["", "model", "tenant_id"])
    def test_a_meter_of_any_scope_is_found(self, workspace: Workspace, scope_kind: str, column: str) -> None:
        for kind in ("model", "tenant_id"):
            _set_limit(workspace, kind)
        assert_exact(workspace)
        months = Meter.objects.filter(workspace=workspace, measure="usd", period="month", scope_kind=scope_kind)
        months.update(**{column: F(column) + 1})

        report = audit(workspace.id)

        (row,) = report.meters
        assert (row.scope_kind, row.period) == (scope_kind, "month")
        assert (row.actual + row.actual_unpriced_tokens) - (row.expected + row.expected_unpriced_tokens) == 1
        assert report.drift_usd == (1 if column == "value" else 0)
        assert not report.is_exact

    def test_a_meter_of_a_scope_that_is_missing_or_invented_is_found(self, workspace: Workspace) -> None:
        _set_limit(workspace, "tenant_id")
        Meter.objects.filter(workspace=workspace, scope_kind="tenant_id", period="month").delete()
        invented = {"measure": "usd", "period": "day", "period_start": NOON - 5 * DAY, "value": 1}
        Meter.objects.create(workspace=workspace, scope_kind="tenant_id", scope_value="unknown", **invented)

        found = {(row.scope_kind, row.scope_value, row.period, row.actual) for row in audit(workspace.id).meters}

        assert found == {("tenant_id", "unknown", "month", 0), ("tenant_id", "unknown", "day", 1)}

    def test_a_meter_that_is_missing_or_invented_is_found(self, workspace: Workspace) -> None:
        Meter.objects.filter(workspace=workspace, measure="requests").delete()
        Meter.objects.create(workspace=workspace, measure="usd", period="day", period_start=NOON - 5 * DAY, value=1)

        report = audit(workspace.id)

        assert {(row.measure, row.expected, row.actual) for row in report.meters} == {
            ("usd", 0, 1),
            ("requests", 13, 0),
        }
        assert (report.drift_usd, report.drift_requests) == (1, 13)

    @pytest.mark.parametrize(
        "column",
        [
            "requests",
            "errors",
            "uncached_input_tokens",
            "cache_read_tokens",
            "cache_write_tokens",
            "output_tokens",
            "reasoning_tokens",
            "latency_ms_sum",
            "latency_count",
            "cost_usd",
        ],
    )
    def test_every_sum_is_compared(self, workspace: Workspace, column: str) -> None:
        first = Rollup.objects.filter(workspace=workspace, data_mode="demo").get()
        Rollup.objects.filter(workspace=workspace, id=first.id).update(**{column: F(column) + 1})
        (row,) = audit(workspace.id).rollups
        assert getattr(row, column) == -1

    def test_a_lost_and_an_invented_rollup_are_found(self, workspace: Workspace) -> None:
        Rollup.objects.filter(workspace=workspace, data_mode="demo").delete()
        Rollup.objects.filter(workspace=workspace, data_mode="test").update(model="another")

        (row,) = audit(workspace.id).rollups

        assert (row.requests, row.misplaced) == (1, 3)

    def test_a_deleted_row_is_found(self, workspace: Workspace) -> None:
        Event.objects.filter(workspace=workspace, data_mode="demo").delete()
        assert audit(workspace.id).drift_requests == 1

    def test_sums_that_cancel_out_within_a_day_are_found(self, workspace: Workspace) -> None:
        moved = Rollup.objects.filter(workspace=workspace, bucket_start=NOON + 3 * timedelta(hours=1))
        assert moved.update(bucket_start=NOON + QUARTER_HOUR) == 1

        (row,) = audit(workspace.id).rollups

        assert (row.requests, row.cost_usd, row.misplaced) == (0, 0, 2)

    def test_a_missing_unique_index_is_found(self, workspace: Workspace, unique_ids_off: None) -> None:
        report = audit(workspace.id)
        assert not report.ids_are_unique
        assert not report.is_exact

    def test_another_workspaces_drift_is_not_ours(self, workspace: Workspace) -> None:
        other = make_workspace()
        make_event(other)
        Rollup.objects.filter(workspace=other).update(requests=9)
        assert_exact(workspace)

    @pytest.fixture
    def unique_ids_off(self) -> Iterator[None]:
        (constraint,) = Event._meta.constraints
        with connection.schema_editor() as editor:
            editor.remove_constraint(Event, constraint)
        yield
        with connection.schema_editor() as editor:
            editor.add_constraint(Event, constraint)


class TestSnapshot:
    def test_it_is_right_while_rows_arrive_change_and_expire(self) -> None:
        workspace = make_workspace()
        make_events(workspace, 50, apart=timedelta(hours=1))

        def ingest() -> None:
            for n in range(40):
                make_event(workspace, occurred_at=NOON + timedelta(hours=47, minutes=n))

        def expire() -> None:
            for hours in range(30):
                retention.purge_workspace(workspace.id, NOON + 30 * DAY + timedelta(hours=hours))

        def look() -> list[bool]:
            return [audit(workspace.id).is_exact for _ in range(40)]

        *_, exact = run_together(ingest, expire, look)
        assert exact == [True] * 40

    def test_rows_that_arrive_or_expire_after_it_began_are_not_seen(self, workspace: Workspace) -> None:
        changes = []

        def change_the_ledger(execute: Any, sql: str, *rest: Any) -> Any:
            if "WITH raw AS" in sql:
                changes.extend(
                    run_together(
                        lambda: make_event(workspace, occurred_at=NOON + 5 * DAY),
                        lambda: retention.purge_workspace(workspace.id, NOON + 32 * DAY),
                    )
                )
            return execute(sql, *rest)

        with connection.execute_wrapper(change_the_ledger):
            report = audit(workspace.id)

        assert len(changes) == 2
        assert (report.is_exact, report.events, report.since) == (True, 14, None)
        after = audit(workspace.id)
        assert (after.is_exact, after.events) == (True, 1)


class TestAuditAll:
    def test_every_workspace_is_audited_the_one_that_waited_longest_first(self, workspace: Workspace) -> None:
        other, new = make_workspace(), make_workspace()
        audit_module.audit_workspace(workspace.id, NOON + DAY)
        audit_module.audit_workspace(other.id, NOON)

        reports, failed = audit_all(NOON + 2 * DAY)

        assert [report.workspace_id for report in reports] == [new.id, other.id, workspace.id]
        assert failed == 0


class TestRepair:
    def test_rollups_and_meters_are_made_again(self, workspace: Workspace) -> None:
        right = meter_values(workspace)
        Rollup.objects.filter(workspace=workspace, data_mode="real").update(requests=7, cost_usd=3)
        Rollup.objects.filter(workspace=workspace, data_mode="demo").delete()
        invented = Rollup.objects.filter(workspace=workspace).order_by("id")[0]
        invented.id = None
        invented.bucket_start = NOON + 3 * DAY
        invented.save()
        Meter.objects.filter(workspace=workspace).update(value=1)

        repair_ledger(workspace.id)

        assert_exact(workspace)
        assert meter_values(workspace) == right

    def test_what_has_outlived_its_source_is_kept(self, workspace: Workspace) -> None:
        right = meter_values(workspace)
        retention.purge_workspace(workspace.id, NOON + 30 * DAY + timedelta(hours=10))
        kept = Rollup.objects.filter(workspace=workspace, bucket_start__lt=NOON + timedelta(hours=10)).count()

        repair_ledger(workspace.id)

        assert Rollup.objects.filter(workspace=workspace, bucket_start__lt=NOON + timedelta(hours=10)).count() == kept
        assert meter_values(workspace) == right
        assert_exact(workspace)

    def test_rows_that_arrive_meanwhile_are_counted(self, workspace: Workspace) -> None:
        def ingest() -> None:
            for n in range(20):
                make_event(workspace, occurred_at=NOON + timedelta(minutes=n))

        run_together(ingest, lambda: [repair_ledger(workspace.id) for _ in range(10)])
        assert_exact(workspace)

    def test_an_empty_workspace_needs_none(self) -> None:
        empty = make_workspace()
        repair_ledger(empty.id)
        assert_exact(empty)


class TestCommands:
    def test_an_exact_ledger_ends_well(self, workspace: Workspace) -> None:
        output = _run("audit_ledger")
        assert workspace.slug in output
        assert "drift: 0.000000000000 USD, 0 requests" in output

    def test_drift_is_printed_to_the_last_digit_and_exits_with_1(self, workspace: Workspace) -> None:
        Meter.objects.filter(workspace=workspace, measure="usd", period="month").update(value=F("value") + SMALLEST)
        Rollup.objects.filter(workspace=workspace, data_mode="demo").update(errors=1)
        output = StringIO()
        with pytest.raises(SystemExit) as exit_info:
            call_command("audit_ledger", stdout=output)
        assert exit_info.value.code == 1
        assert "-0.000000000001" in output.getvalue()
        assert "drift: 0.000000000001 USD, 0 requests — NOT EXACT" in output.getvalue()

    def test_json_is_for_machines(self, workspace: Workspace) -> None:
        Meter.objects.filter(workspace=workspace, measure="usd", period="month").update(value=F("value") + SMALLEST)
        output = StringIO()
        with pytest.raises(SystemExit):
            call_command("audit_ledger", "--json", stdout=output)
        (report,) = json.loads(output.getvalue())
        assert (report["workspaceSlug"], report["isExact"], report["driftUsd"]) == (
            workspace.slug,
            False,
            "0.000000000001",
        )
        assert report["meters"][0]["periodStart"] == "2026-06-01T00:00:00Z"

    def test_the_scope_of_a_wrong_meter_or_hold_is_printed(self, workspace: Workspace) -> None:
        _set_limit(workspace, "tenant_id")
        Meter.objects.filter(workspace=workspace, scope_kind="tenant_id", period="month").update(unpriced_tokens=0)
        until = utc_now().replace(microsecond=0) + DAY
        WorkspacePolicy.objects.filter(workspace=workspace).update(leases_until=until)
        Hold.objects.create(
            workspace=workspace, scope_kind="model", scope_value="gpt", expires_at=until, usd=3, unpriced_tokens=0
        )
        output = StringIO()
        with pytest.raises(SystemExit):
            call_command("audit_ledger", stdout=output)
        assert "usd a month, 2026-06-01  tenantId unknown" in output.getvalue()
        assert "model gpt" in output.getvalue()
        assert "-3.000000000000" in output.getvalue()
        assert "drift: 3.000000000000 USD, 0 requests — NOT EXACT" in output.getvalue()

    @pytest.mark.parametrize("by", ["slug", "id"])
    def test_one_workspace_is_named_by_slug_or_id(self, workspace: Workspace, by: str) -> None:
        other = make_workspace()
        output = _run("audit_ledger", "--workspace", str(getattr(workspace, by)))
        assert workspace.slug in output
        assert other.slug not in output

    @pytest.mark.parametrize("name", ["nobody", "7d9cf2a4-9a3a-4a9a-8a43-0cbd0f3ce4a1"])
    def test_an_unknown_workspace_is_said_to_be_unknown(self, name: str) -> None:
        with pytest.raises(CommandError, match="No workspace has the slug or id"):
            call_command("audit_ledger", "--workspace", name)

    def test_repair_asks_first(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        Rollup.objects.filter(workspace=workspace).update(errors=9)
        monkeypatch.setattr("builtins.input", lambda _question: "n")
        with pytest.raises(CommandError, match="Nothing was changed"):
            call_command("rebuild_rollups", "--workspace", workspace.slug)
        assert not audit(workspace.id).is_exact

        monkeypatch.setattr("builtins.input", lambda _question: "y")
        _run("rebuild_rollups", "--workspace", workspace.slug)
        assert_exact(workspace)

    def test_repair_with_yes_does_not_ask(self, workspace: Workspace) -> None:
        Rollup.objects.filter(workspace=workspace).update(errors=9)
        _run("rebuild_rollups", "--workspace", workspace.slug, "--yes")
        assert_exact(workspace)


def _set_limit(workspace: Workspace, kind: str) -> None:
    """Have the meters of each value of a dimension kept."""
    spec = LimitSpec(kind, "Budget", "usd", "month", Decimal(9), (Decimal(1),), False, kind, is_each_value=True)
    put_limit(workspace.id, "budgets", spec)


def _run(*command: Any) -> str:
    output = StringIO()
    call_command(*command, stdout=output)
    return output.getvalue()
