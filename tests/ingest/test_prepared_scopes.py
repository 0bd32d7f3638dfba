"""Meters of a scope are written before the lock, and may be left over after its last limit: ever exact."""

from collections.abc import Callable

import pytest
from django.db import OperationalError, connection, transaction
from django.db.transaction import TransactionManagementError

from ingest import retention, scoped_meters
from ingest.audit import repair_ledger
from ingest.cleanup import delete_rows
from ingest.models import Event, Limit, Meter
from ingest.services import lock_ledger, note_rewrite, prepare_scope, put_limit, set_budget_policy
from tests.ingest.scoped_limits import (
    CENT,
    DAY,
    drop,
    limit_spec,
    make_spending_workspace,
    metered_scopes,
    put,
    put_prepared,
)
from tests.ledger import NOON, assert_exact, make_event, make_workspace, scoped_values
from tests.together import run_together
from workspaces.models import Workspace

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def workspace() -> Workspace:
    return make_spending_workspace()


class TestPrepared:
    """What is written before the lock, and what others do until the lock is held."""

    @pytest.mark.parametrize(("kind", "value"), [("tenant_id", "acme"), ("tenant_id", ""), ("model", "small")])
    def test_rows_that_arrive_in_between_are_counted_once(self, workspace: Workspace, kind: str, value: str) -> None:
        late = NOON - 3 * DAY

        def arrive() -> None:
            for name in ("acme", "new"):
                make_event(workspace, tenant_id=name, model="small", cost_usd=CENT)
                make_event(workspace, tenant_id=name, model="small", cost_usd=None, occurred_at=late)

        sums = put_prepared(workspace, kind, value, meanwhile=arrive)

        assert sums == 1
        assert scoped_values(workspace, kind)[value or "acme", "day", "2026-06-12"][1] > 0
        assert_exact(workspace)

    def test_deleted_rows_make_it_void(self, workspace: Workspace) -> None:
        set_budget_policy(workspace.id, observe_mode=False, counted_data_modes=["real", "test"])

        def delete() -> None:
            delete_rows(workspace.id, "test", created_by_id=None, acting_user=None)

        assert put_prepared(workspace, "tenant_id", "acme", meanwhile=delete) == 2
        assert scoped_values(workspace, "tenant_id")["acme", "month", "2026-06-01"] == (3 * CENT, 0)
        assert_exact(workspace)

    def test_changed_rows_make_it_void(self, workspace: Workspace) -> None:
        def change() -> None:
            with transaction.atomic():
                lock_ledger(workspace.id)
                Event.objects.filter(workspace=workspace, cost_usd=None).update(cost_usd=CENT)
                note_rewrite(workspace.id)
            repair_ledger(workspace.id)

        assert put_prepared(workspace, "tenant_id", "umbrella", meanwhile=change) == 2
        assert scoped_values(workspace, "tenant_id")["umbrella", "month", "2026-06-01"] == (2 * CENT, 0)
        assert_exact(workspace)

    def test_other_data_modes_make_it_void(self, workspace: Workspace) -> None:
        def count_tests() -> None:
            set_budget_policy(workspace.id, observe_mode=False, counted_data_modes=["test"])

        assert put_prepared(workspace, "tenant_id", "acme", meanwhile=count_tests) == 2
        assert scoped_values(workspace, "tenant_id")["acme", "month", "2026-06-01"] == (100, 0)
        assert_exact(workspace)

    def test_expired_rows_make_it_void(self, workspace: Workspace) -> None:
        def expire() -> None:
            retention.purge_workspace(workspace.id, NOON + 40 * DAY)

        assert put_prepared(workspace, "tenant_id", "acme", meanwhile=expire) == 2
        assert_exact(workspace)

    def test_a_value_whose_limit_goes_meanwhile_makes_each_value_void(self, workspace: Workspace) -> None:
        put(workspace, "tenant_id", "acme")

        def drop_acme() -> None:
            drop(workspace, "tenant_id", "acme")

        assert put_prepared(workspace, "tenant_id", meanwhile=drop_acme) == 2
        assert scoped_values(workspace, "tenant_id")["acme", "month", "2026-06-01"] == (3 * CENT, 0)
        assert_exact(workspace)

    def test_it_serves_no_other_scope(self, workspace: Workspace) -> None:
        with transaction.atomic():
            prepared = prepare_scope(workspace.id, "tenant_id", "acme", False)
            put_limit(workspace.id, "budgets", limit_spec("tenant_id", "umbrella"), prepared)
        assert metered_scopes(workspace) == {("tenant_id", "umbrella", False, None)}
        assert scoped_values(workspace, "tenant_id")["umbrella", "month", "2026-06-01"] == (CENT, 150)
        assert_exact(workspace)

    def test_nothing_is_prepared_for_what_is_metered(self, workspace: Workspace) -> None:
        put(workspace, "tenant_id", is_each_value=True)
        with transaction.atomic():
            assert prepare_scope(workspace.id, "tenant_id", "acme", False) is None
            assert prepare_scope(workspace.id, "tenant_id", "", True) is None
            assert prepare_scope(workspace.id, "", "", False) is None

    def test_it_belongs_to_the_transaction_that_sets_the_limit(self, workspace: Workspace) -> None:
        with pytest.raises(TransactionManagementError):
            prepare_scope(workspace.id, "tenant_id", "", True)

    def test_one_that_is_killed_leaves_nothing(self, workspace: Workspace) -> None:
        def die() -> None:
            with transaction.atomic(), connection.cursor() as cursor:
                prepare_scope(workspace.id, "tenant_id", "", True)
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

        with pytest.raises(OperationalError):
            run_together(die)

        assert scoped_values(workspace, "tenant_id") == {}
        assert put_prepared(workspace, "tenant_id") == 1
        assert_exact(workspace)

    def test_a_value_that_is_metered_already_goes_on_meanwhile(self, workspace: Workspace) -> None:
        put(workspace, "tenant_id", "acme")
        put_prepared(workspace, "tenant_id", meanwhile=lambda: make_event(workspace, tenant_id="acme", cost_usd=CENT))
        assert scoped_values(workspace, "tenant_id")["acme", "month", "2026-06-01"] == (4 * CENT, 0)
        assert_exact(workspace)

    def test_two_that_prepare_the_same_scope_follow_one_another(self, workspace: Workspace) -> None:
        sums: list[int] = []

        def put_as(source_id: str) -> Callable[[], None]:
            return lambda: sums.append(put_prepared(workspace, "tenant_id", source_id=source_id))

        run_together(put_as("first"), put_as("second"))

        assert sorted(sums) == [0, 1]
        assert Limit.objects.filter(workspace=workspace, is_each_value=True).count() == 2
        assert metered_scopes(workspace) == {("tenant_id", "", True, None)}
        assert_exact(workspace)

    def test_a_value_that_is_prepared_waits_for_each_value(self, workspace: Workspace) -> None:
        run_together(
            lambda: put_prepared(workspace, "tenant_id"),
            lambda: put_prepared(workspace, "tenant_id", "acme"),
            lambda: put_prepared(workspace, "tenant_id", "umbrella"),
            lambda: put_prepared(workspace, "model", "small"),
        )
        assert len(metered_scopes(workspace)) == 4
        assert_exact(workspace)

    def test_it_is_right_while_rows_arrive_and_are_deleted(self) -> None:
        workspace = make_workspace(counted_data_modes=["real", "test"])

        def ingest() -> None:
            for n in range(30):
                make_event(workspace, tenant_id=f"t-{n % 3}", data_mode="test" if n % 2 else "real")

        def set_limits() -> None:
            for n in range(20):
                kind = ("tenant_id", "model")[n % 2]
                put_prepared(workspace, kind)
                drop(workspace, kind, "")
            put(workspace, "tenant_id", is_each_value=True)

        def delete() -> None:
            for _ in range(10):
                delete_rows(workspace.id, "test", created_by_id=None, acting_user=None)

        run_together(ingest, set_limits, delete)
        assert_exact(workspace)


class TestLeftOvers:
    """Meters of a scope whose last limit is gone, when they were too many to go with it."""

    @pytest.fixture
    def left(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
        """Every tenant and model had a limit; all meters but one of each are still there."""
        monkeypatch.setattr(scoped_meters, "FEW_METERS", 1)
        for kind in ("tenant_id", "model"):
            put(workspace, kind, is_each_value=True)
            number = len(scoped_values(workspace, kind))
            drop(workspace, kind, "")
            assert len(scoped_values(workspace, kind)) == number - 1
        return workspace

    def test_nobody_counts_them(self, left: Workspace) -> None:
        make_event(left, tenant_id="acme", model="small", cost_usd=None)
        assert_exact(left)
        repair_ledger(left.id)
        delete_rows(left.id, "test", created_by_id=None, acting_user=None)
        set_budget_policy(left.id, observe_mode=False, counted_data_modes=["real", "test"])
        assert_exact(left)

    @pytest.mark.parametrize("is_prepared", [True, False])
    @pytest.mark.parametrize("value", ["acme", ""])
    def test_a_scope_that_begins_again_counts_anew(self, left: Workspace, value: str, is_prepared: bool) -> None:
        make_event(left, tenant_id="acme", cost_usd=CENT)

        if is_prepared:
            put_prepared(left, "tenant_id", value)
        else:
            put(left, "tenant_id", value, is_each_value=not value)

        assert scoped_values(left, "tenant_id")["acme", "month", "2026-06-01"] == (4 * CENT, 0)
        assert_exact(left)

    def test_the_purge_takes_them_and_no_others(self, left: Workspace) -> None:
        put(left, "tenant_id", "acme")
        kept = {place: sums for place, sums in scoped_values(left, "tenant_id").items() if place[0] == "acme"}

        others = Meter.objects.filter(workspace=left).exclude(scope_kind="").count() - len(kept)

        assert retention.purge_workspace(left.id, NOON).scoped_meters == others
        assert scoped_values(left, "tenant_id") == kept
        assert scoped_values(left, "model") == {}
        assert Meter.objects.filter(workspace=left, scope_kind="").exists()
        assert_exact(left)

    def test_the_purge_leaves_to_a_preparation_what_that_is_about_to_delete(self, left: Workspace) -> None:
        with transaction.atomic():
            prepared = prepare_scope(left.id, "tenant_id", "", True)
            run_together(lambda: retention.purge_workspace(left.id, NOON))
            put_limit(left.id, "budgets", limit_spec("tenant_id", is_each_value=True), prepared)
        assert_exact(left)
