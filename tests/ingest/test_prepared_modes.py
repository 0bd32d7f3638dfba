"""What other data modes add up to is worked out before the lock, while the ledger goes on: ever exact."""

from collections.abc import Callable

import pytest
from django.db import connection, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext

from ingest import retention
from ingest.cleanup import delete_rows
from ingest.models import WorkspacePolicy
from ingest.services import prepare_data_modes, set_budget_policy
from tests.ingest.scoped_limits import CENT, DAY, drop, make_spending_workspace, metered_scopes, put
from tests.ledger import NOON, assert_exact, make_event, make_workspace, meter_values, scoped_values
from tests.together import run_together
from workspaces.models import Workspace

pytestmark = pytest.mark.django_db(transaction=True)

# Raw rows are added up, and roll-ups are.
ALL_SUMS = 2


@pytest.fixture
def workspace() -> Workspace:
    """It counts real rows: each tenant's, and those of the small model."""
    workspace = make_spending_workspace()
    put(workspace, "tenant_id", is_each_value=True)
    put(workspace, "model", "small")
    return workspace


def count(workspace: Workspace, *modes: str, meanwhile: Callable[[], object] | None = None) -> int:
    """Count other data modes as budgets do, and do something on another connection before the lock is taken.

    Answers how many times something was added up.
    """
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        prepared = prepare_data_modes(workspace.id, modes)
        if meanwhile is not None:
            run_together(meanwhile)
        set_budget_policy(workspace.id, observe_mode=False, counted_data_modes=modes, prepared=prepared)
    assert WorkspacePolicy.objects.get(workspace=workspace).counted_data_modes == sorted(modes)
    assert_exact(workspace)
    return sum("max(id)" in query["sql"] for query in queries)


def test_meters_count_what_is_to_be_counted_and_no_more(workspace: Workspace) -> None:
    before = scoped_values(workspace, "tenant_id"), scoped_values(workspace, "model"), meter_values(workspace)
    assert count(workspace, "test") == ALL_SUMS
    assert scoped_values(workspace, "tenant_id") == {
        ("acme", "day", "2026-06-15"): (100, 0),
        ("acme", "month", "2026-06-01"): (100, 0),
    }
    assert scoped_values(workspace, "model")["small", "month", "2026-06-01"] == (100, 0)
    assert meter_values(workspace)["usd", "month", "2026-06-01"] == 100
    assert count(workspace, "real") == ALL_SUMS
    assert (scoped_values(workspace, "tenant_id"), scoped_values(workspace, "model"), meter_values(workspace)) == before


@pytest.mark.parametrize("modes", [("real", "test"), ("test",), ("test", "demo")])
def test_rows_that_arrive_in_between_are_counted_once(workspace: Workspace, modes: tuple[str, ...]) -> None:
    def arrive() -> None:
        for mode in ("real", "test", "demo"):
            for name in ("acme", "new"):
                make_event(workspace, tenant_id=name, model="small", data_mode=mode, cost_usd=CENT)
                make_event(workspace, tenant_id=name, data_mode=mode, cost_usd=None, occurred_at=NOON - 20 * DAY)

    assert count(workspace, *modes, meanwhile=arrive) == ALL_SUMS
    assert scoped_values(workspace, "tenant_id")["new", "month", "2026-05-01"] == (0, 150 * len(modes))


def test_late_rows_of_expired_periods_are_left_as_they_were_counted(workspace: Workspace) -> None:
    retention.purge_workspace(workspace.id, NOON + 40 * DAY)
    before = scoped_values(workspace, "tenant_id")

    def arrive() -> None:
        recent = NOON + 41 * DAY
        for mode in ("real", "test"):
            make_event(workspace, tenant_id="acme", data_mode=mode, cost_usd=CENT, occurred_at=recent)

    assert count(workspace, "real", "test", meanwhile=arrive) == ALL_SUMS
    after = scoped_values(workspace, "tenant_id")
    assert before.items() <= after.items()
    assert after["acme", "day", "2026-07-26"] == (2 * CENT, 0)
    assert ("tenant_id", "", True, retention.first_raw_bucket(NOON + 10 * DAY)) in metered_scopes(workspace)


class TestVoid:
    """What makes it be done again, under the lock."""

    def test_deleted_rows(self, workspace: Workspace) -> None:
        def delete() -> None:
            delete_rows(workspace.id, "test", created_by_id=None, acting_user=None)

        assert count(workspace, "real", "test", meanwhile=delete) == 2 * ALL_SUMS
        assert scoped_values(workspace, "tenant_id")["acme", "month", "2026-06-01"] == (3 * CENT, 0)

    def test_expired_rows(self, workspace: Workspace) -> None:
        def expire() -> None:
            retention.purge_workspace(workspace.id, NOON + 40 * DAY)

        assert count(workspace, "real", "test", meanwhile=expire) == 2 * ALL_SUMS

    def test_a_scope_that_begins(self, workspace: Workspace) -> None:
        assert count(workspace, "test", meanwhile=lambda: put(workspace, "user_id", "ann")) == 2 * ALL_SUMS
        assert scoped_values(workspace, "user_id")["ann", "month", "2026-06-01"] == (100, 0)

    def test_a_scope_that_begins_anew(self, workspace: Workspace) -> None:
        def again() -> None:
            drop(workspace, "tenant_id", "")
            put(workspace, "tenant_id", is_each_value=True)

        assert count(workspace, "test", meanwhile=again) == 2 * ALL_SUMS

    def test_other_modes_that_somebody_else_sets(self, workspace: Workspace) -> None:
        def count_demo() -> None:
            set_budget_policy(workspace.id, observe_mode=False, counted_data_modes=["demo"])

        count(workspace, "real", "test", meanwhile=count_demo)
        assert scoped_values(workspace, "tenant_id")["acme", "month", "2026-06-01"] == (100 + 3 * CENT, 0)

    def test_other_modes_than_those_that_were_prepared(self, workspace: Workspace) -> None:
        with transaction.atomic():
            prepared = prepare_data_modes(workspace.id, ["real", "test"])
            set_budget_policy(workspace.id, observe_mode=False, counted_data_modes=["test"], prepared=prepared)
        assert scoped_values(workspace, "tenant_id")["acme", "month", "2026-06-01"] == (100, 0)
        assert_exact(workspace)


def test_nothing_is_prepared_for_what_is_counted(workspace: Workspace) -> None:
    with transaction.atomic():
        assert prepare_data_modes(workspace.id, ["real"]) is None


def test_it_belongs_to_the_transaction_that_sets_them(workspace: Workspace) -> None:
    with pytest.raises(TransactionManagementError):
        prepare_data_modes(workspace.id, ["test"])


def test_they_may_change_twice_in_a_transaction(workspace: Workspace) -> None:
    with transaction.atomic():
        _set(workspace, "test")
        _set(workspace, "real", "test")
    assert_exact(workspace)


def test_two_who_change_them_follow_one_another(workspace: Workspace) -> None:
    run_together(lambda: _set(workspace, "test"), lambda: _set(workspace, "real", "demo"), lambda: _set(workspace))
    assert_exact(workspace)


def test_it_is_right_while_rows_arrive_and_are_deleted() -> None:
    workspace = make_workspace()
    put(workspace, "tenant_id", is_each_value=True)
    put(workspace, "model", "small")

    def ingest() -> None:
        for n in range(20):
            make_event(workspace, tenant_id=f"t-{n % 3}", model="small", data_mode="test" if n % 2 else "real")

    def change() -> None:
        for n in range(20):
            _set(workspace, *(("real", "test"), ("test",), ("real",))[n % 3])

    def delete() -> None:
        for _ in range(5):
            delete_rows(workspace.id, "test", created_by_id=None, acting_user=None)

    run_together(ingest, change, delete)
    assert_exact(workspace)


@transaction.atomic
def _set(workspace: Workspace, *modes: str) -> None:
    prepared = prepare_data_modes(workspace.id, modes)
    set_budget_policy(workspace.id, observe_mode=False, counted_data_modes=modes, prepared=prepared)
