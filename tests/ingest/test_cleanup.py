from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import transaction

from ingest import cleanup, meters, retention
from ingest.cleanup import delete_rows
from ingest.models import Event, Rollup
from ingest.services import lock_ledger
from tests.killed import run_and_kill
from tests.ledger import (
    NOON,
    assert_exact,
    make_event,
    make_events,
    make_key,
    make_user,
    make_workspace,
    meter_values,
)
from tests.together import run_together
from workspaces.models import AuditEntry, User, Workspace

pytestmark = pytest.mark.django_db(transaction=True)

DAY = timedelta(days=1)
JUNE_REQUESTS = ("requests", "month", "2026-06-01")
JUNE_USD = ("usd", "month", "2026-06-01")


@pytest.fixture
def person() -> User:
    return make_user()


@pytest.mark.parametrize("mode", ["demo", "test"])
def test_rows_of_the_mode_go_and_rollups_and_meters_follow(mode: str, person: User) -> None:
    workspace = make_workspace(counted_data_modes=["real", "demo", "test"])
    make_events(workspace, 3, data_mode="real", cost_usd=Decimal(1))
    before = meter_values(workspace)
    make_events(workspace, 5, apart=timedelta(hours=7), data_mode=mode, cost_usd=Decimal("0.000000000001"))
    make_event(workspace, data_mode=mode, cost_usd=None)

    assert _delete(workspace, mode, person) == 6

    assert set(Event.objects.filter(workspace=workspace).values_list("data_mode", flat=True)) == {"real"}
    assert set(Rollup.objects.filter(workspace=workspace).values_list("data_mode", flat=True)) == {"real"}
    assert meter_values(workspace) == before
    assert_exact(workspace)


def test_other_modes_and_other_workspaces_stay(person: User) -> None:
    workspace, other = make_workspace(), make_workspace()
    for place in (workspace, other):
        for mode in ("real", "demo", "test"):
            make_events(place, 2, data_mode=mode)

    assert _delete(workspace, "test", person) == 2

    assert Event.objects.filter(workspace=workspace).count() == 4
    assert Event.objects.filter(workspace=other).count() == 6
    assert meter_values(workspace)[JUNE_REQUESTS] == 2
    assert_exact(workspace)
    assert_exact(other)


def test_meters_lose_only_what_they_counted(person: User) -> None:
    """Test rows count as requests but, here, not as spend; demo rows the other way round."""
    workspace = make_workspace(counted_data_modes=["real", "demo"])
    for mode, cost in (("real", 1), ("test", 10), ("demo", 100)):
        make_event(workspace, data_mode=mode, cost_usd=Decimal(cost))
    assert (meter_values(workspace)[JUNE_REQUESTS], meter_values(workspace)[JUNE_USD]) == (2, 101)

    _delete(workspace, "test", person)
    assert (meter_values(workspace)[JUNE_REQUESTS], meter_values(workspace)[JUNE_USD]) == (1, 101)

    _delete(workspace, "demo", person)
    assert (meter_values(workspace)[JUNE_REQUESTS], meter_values(workspace)[JUNE_USD]) == (1, 1)
    assert_exact(workspace)


def test_real_rows_are_never_deleted(person: User) -> None:
    workspace = make_workspace()
    make_event(workspace)
    with pytest.raises(ValueError, match="never deleted"):
        _delete(workspace, "real", person)
    assert Event.objects.count() == 1


class TestScopeMine:
    def test_only_rows_sent_with_the_persons_own_keys_go(self, person: User) -> None:
        workspace, elsewhere, somebody = make_workspace(), make_workspace(), make_user()
        mine, also_mine, theirs = (make_key(workspace, who) for who in (person, person, somebody))
        my_key_elsewhere = make_key(elsewhere, person)
        for key in (mine, also_mine, theirs):
            make_event(workspace, data_mode="test", api_key_id=key.id)
        make_event(workspace, data_mode="test", api_key_id=None)
        make_event(workspace, data_mode="real", api_key_id=mine.id)
        make_event(elsewhere, data_mode="test", api_key_id=my_key_elsewhere.id)

        assert delete_rows(workspace.id, "test", created_by_id=person.id, acting_user=person) == 2

        left = Event.objects.filter(workspace=workspace, data_mode="test").values_list("api_key_id", flat=True)
        assert set(left) == {theirs.id, None}
        assert Event.objects.filter(workspace=elsewhere).count() == 1
        assert_exact(workspace)

    def test_a_person_without_keys_deletes_nothing(self, person: User) -> None:
        workspace = make_workspace()
        make_event(workspace, data_mode="test", api_key_id=None)
        assert delete_rows(workspace.id, "test", created_by_id=person.id, acting_user=person) == 0

    def test_rollups_that_outlived_their_rows_belong_to_nobody_and_stay(self, person: User) -> None:
        workspace = _with_outlived_test_rows(person)
        assert delete_rows(workspace.id, "test", created_by_id=person.id, acting_user=person) == 1
        assert Rollup.objects.get(workspace=workspace).requests == 2
        assert meter_values(workspace)[JUNE_REQUESTS] == 2


class TestRollupsThatOutlivedTheirRows:
    def test_they_go_with_scope_workspace_and_the_meters_follow(self, person: User) -> None:
        workspace = _with_outlived_test_rows(person)

        assert _delete(workspace, "test", person) == 1

        assert not Rollup.objects.filter(workspace=workspace).exists()
        assert meter_values(workspace) == {}
        assert_exact(workspace)

    def test_rows_that_outlived_their_rollups_go_too(self, person: User) -> None:
        """A late row is kept by its arrival, its roll-up by its occurrence."""
        workspace = make_workspace(raw_retention_days=90, rollup_retention_days=90)
        make_event(workspace, data_mode="test", cost_usd=Decimal(1), received_at=NOON + 30 * DAY)
        make_event(workspace, data_mode="real", cost_usd=Decimal(1), received_at=NOON + 30 * DAY)
        retention.purge_workspace(workspace.id, NOON + 100 * DAY)
        assert not Rollup.objects.filter(workspace=workspace).exists()

        assert _delete(workspace, "test", person) == 1

        assert Event.objects.get(workspace=workspace).data_mode == "real"
        assert meter_values(workspace)[JUNE_REQUESTS] == 1


class TestChunks:
    @pytest.fixture(autouse=True)
    def small_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cleanup, "CHUNK_ROWS", 4)
        monkeypatch.setattr(cleanup, "CHUNK_READS", 10)
        monkeypatch.setattr(cleanup, "CHUNK_BUCKETS", 2)

    def test_many_short_transactions_delete_everything(self, person: User) -> None:
        workspace = _with_mixed_rows()
        assert _delete(workspace, "demo", person) == 30
        assert Event.objects.filter(workspace=workspace).count() == 30
        assert_exact(workspace)

    def test_a_failure_in_the_middle_leaves_an_exact_ledger_and_the_next_run_finishes(
        self, person: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workspace = _with_mixed_rows()
        real_subtract, calls = meters.subtract, iter(range(100))

        def fail_the_fifth_time(*args: object) -> None:
            if next(calls) == 4:
                raise RuntimeError
            real_subtract(*args)

        monkeypatch.setattr(meters, "subtract", fail_the_fifth_time)
        with pytest.raises(RuntimeError):
            _delete(workspace, "demo", person)
        monkeypatch.undo()
        left = Event.objects.filter(workspace=workspace, data_mode="demo").count()
        assert 0 < left < 30
        assert_exact(workspace)

        assert _delete(workspace, "demo", person) == left
        assert not Rollup.objects.filter(workspace=workspace, data_mode="demo").exists()
        assert_exact(workspace)

    def test_two_at_once_share_the_work(self, person: User) -> None:
        workspace = _with_mixed_rows()
        counts = run_together(*[lambda: _delete(workspace, "demo", person)] * 2)
        assert sum(counts) == 30
        assert_exact(workspace)

    def test_rows_that_arrive_meanwhile_are_counted_or_deleted_but_never_lost(self, person: User) -> None:
        workspace = _with_mixed_rows()

        def ingest() -> None:
            for n in range(20):
                make_event(workspace, data_mode="demo", occurred_at=NOON + timedelta(minutes=7 * n))

        run_together(ingest, lambda: [_delete(workspace, "demo", person) for _ in range(5)])
        assert_exact(workspace)

    def test_retention_at_the_same_time_does_no_harm(self, person: User) -> None:
        workspace = _with_mixed_rows()
        now = NOON + 30 * DAY + timedelta(minutes=100)
        run_together(
            lambda: _delete(workspace, "demo", person),
            lambda: retention.purge_workspace(workspace.id, now),
        )
        assert not Rollup.objects.filter(workspace=workspace, data_mode="demo").exists()
        assert meter_values(workspace)[JUNE_REQUESTS] == 30
        assert_exact(workspace)


def test_a_killed_process_leaves_an_exact_ledger_and_the_next_run_finishes(person: User) -> None:
    workspace = make_workspace()
    make_events(workspace, 1_500, apart=timedelta(seconds=10), data_mode="test")
    make_events(workspace, 100, apart=timedelta(minutes=2))
    rows = Event.objects.filter(workspace=workspace, data_mode="test")

    run_and_kill(
        "from uuid import UUID\nfrom ingest import cleanup\ncleanup.CHUNK_ROWS = 2\n"
        f"cleanup.delete_rows(UUID('{workspace.id}'), 'test', created_by_id=None, acting_user=None)",
        lambda: rows.count() < 1_300,
    )

    left = rows.count()
    assert 0 < left < 1_300
    assert_exact(workspace)
    assert _delete(workspace, "test", person) == left
    assert meter_values(workspace)[JUNE_REQUESTS] == 100
    assert_exact(workspace)


def test_it_is_audited_once(person: User) -> None:
    workspace = make_workspace()
    make_events(workspace, 2, data_mode="demo")

    _delete(workspace, "demo", person)

    entry = AuditEntry.objects.get(workspace=workspace)
    assert (entry.actor, entry.action, entry.target) == (person, "ledger.rows_deleted", "demo data")
    assert entry.data == {"deleted": 2, "scope": "workspace"}


def _delete(workspace: Workspace, mode: str, person: User) -> int:
    return delete_rows(workspace.id, mode, created_by_id=None, acting_user=person)


def _with_mixed_rows() -> Workspace:
    """30 demo rows and 30 test rows side by side, over five hours, in quarter hours of various sizes."""
    workspace = make_workspace()
    for mode in ("demo", "test"):
        make_events(workspace, 15, apart=timedelta(minutes=20), data_mode=mode)
        make_events(workspace, 15, apart=timedelta(minutes=1), data_mode=mode, status="error")
    return workspace


def _with_outlived_test_rows(person: User) -> Workspace:
    """One quarter hour with three test rows, two of which have expired; the third arrived late."""
    workspace = make_workspace(counted_data_modes=["real", "test"])
    key = make_key(workspace, person)
    make_events(workspace, 2, data_mode="test", api_key_id=key.id)
    make_event(workspace, data_mode="test", api_key_id=key.id, received_at=NOON + DAY)
    retention.purge_workspace(workspace.id, NOON + timedelta(days=30, hours=1))
    with transaction.atomic():
        meters.rebuild(workspace.id, lock_ledger(workspace.id))
    assert Event.objects.filter(workspace=workspace).count() == 1
    return workspace
