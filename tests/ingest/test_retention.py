from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from django.db import DatabaseError

from ingest import retention
from ingest.models import Event, LedgerCoverage, Refusal, Rollup, WorkspacePolicy
from ingest.retention import Purged, purge_all, purge_workspace, raw_detail_starts_at
from opsmeter_site.lib.periods import QUARTER_HOUR, quarter_hour_of
from tests.killed import run_and_kill
from tests.ledger import NOON, assert_exact, make_event, make_events, make_workspace, meter_values
from tests.together import run_together
from workspaces.models import Workspace

pytestmark = pytest.mark.django_db(transaction=True)

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def test_raw_rows_expire_by_when_they_were_received() -> None:
    workspace = make_workspace(raw_retention_days=30)
    make_event(workspace, external_request_id="expired")
    make_event(workspace, external_request_id="on the edge", received_at=NOON + DAY)
    make_event(workspace, external_request_id="late", occurred_at=NOON - 20 * DAY, received_at=NOON + 2 * DAY)

    assert purge_workspace(workspace.id, NOON + 31 * DAY) == Purged(events=1, rollups=0, refusals=0)

    left = Event.objects.filter(workspace=workspace).values_list("external_request_id", flat=True)
    assert set(left) == {"on the edge", "late"}


def test_rollups_and_refusals_expire_by_when_they_happened() -> None:
    workspace = make_workspace(rollup_retention_days=90)
    for start in (NOON - QUARTER_HOUR, NOON):
        make_event(workspace, occurred_at=start)
        _make_refusal(workspace, start)

    purged = purge_workspace(workspace.id, NOON + 90 * DAY + 14 * timedelta(minutes=1))

    assert (purged.rollups, purged.refusals) == (1, 1)
    assert Rollup.objects.get(workspace=workspace).bucket_start == NOON
    assert Refusal.objects.get(workspace=workspace).bucket_start == NOON


def test_counters_never_change() -> None:
    workspace = make_workspace()
    make_events(workspace, 5, apart=DAY)
    before = meter_values(workspace)

    for days in (31, 33, 200):
        purge_workspace(workspace.id, NOON + days * DAY)
        assert meter_values(workspace) == before
        assert_exact(workspace)

    assert not Event.objects.exists()
    assert not Rollup.objects.exists()


def test_other_workspaces_keep_their_rows() -> None:
    workspace, other = make_workspace(), make_workspace()
    make_event(workspace)
    make_event(other)
    purge_workspace(workspace.id, NOON + 365 * DAY)
    assert Event.objects.get().workspace == other
    assert Rollup.objects.get().workspace == other


def test_what_is_left_of_a_purged_day_is_not_mistaken_for_the_whole() -> None:
    workspace = make_workspace()
    make_events(workspace, 48, apart=timedelta(minutes=30), received_at=NOON)
    _spread_arrivals(workspace)

    purge_workspace(workspace.id, NOON + 30 * DAY + timedelta(hours=7, minutes=8))

    assert 0 < Event.objects.count() < 48
    assert_exact(workspace)


class TestRawDetailStartsAt:
    def test_every_row_from_then_on_is_there(self) -> None:
        """The margin is for senders whose clock is ahead: such a row occurred after it was received."""
        workspace = make_workspace()
        make_event(workspace, occurred_at=NOON + timedelta(minutes=5), received_at=NOON)
        now = NOON + 30 * DAY + SECOND
        purge_workspace(workspace.id, now)
        assert not Event.objects.exists()

        start = raw_detail_starts_at(workspace.policy, now)

        assert start == quarter_hour_of(start)
        assert NOON + timedelta(minutes=5) < start <= NOON + 2 * QUARTER_HOUR

    def test_a_longer_retention_does_not_bring_rows_back(self) -> None:
        workspace = make_workspace(raw_retention_days=30)
        now = NOON + 100 * DAY
        purge_workspace(workspace.id, now)
        purged_start = raw_detail_starts_at(workspace.policy, now)

        policy = _set_retention(workspace, raw_retention_days=90)

        assert raw_detail_starts_at(policy, now) == purged_start
        assert raw_detail_starts_at(policy, now + 90 * DAY) == quarter_hour_of(now) + 2 * QUARTER_HOUR

    def test_a_shorter_retention_counts_at_once(self) -> None:
        workspace = make_workspace(raw_retention_days=90)
        policy = _set_retention(workspace, raw_retention_days=14)
        assert raw_detail_starts_at(policy, NOON) == NOON - 14 * DAY + 2 * QUARTER_HOUR


class TestChunks:
    @pytest.fixture(autouse=True)
    def small_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retention, "CHUNK_ROWS", 3)

    def test_many_short_transactions_remove_everything(self) -> None:
        workspace = make_workspace()
        make_events(workspace, 20, apart=timedelta(hours=1))
        for n in range(10):
            _make_refusal(workspace, NOON + n * QUARTER_HOUR)

        purged = purge_workspace(workspace.id, NOON + 200 * DAY)

        assert purged == Purged(events=20, rollups=20, refusals=10)

    def test_rows_that_stay_do_not_stop_the_search(self) -> None:
        workspace = make_workspace()
        for n in range(12):
            make_event(workspace, received_at=NOON + (0 if n % 3 == 0 else 5) * DAY)
        assert purge_workspace(workspace.id, NOON + 31 * DAY).events == 4
        assert Event.objects.count() == 8

    def test_two_at_once_share_the_work(self) -> None:
        workspace = make_workspace()
        make_events(workspace, 30, apart=timedelta(hours=1))
        purged = run_together(*[lambda: purge_workspace(workspace.id, NOON + 200 * DAY)] * 2)
        assert sum(result.events for result in purged) == 30
        assert sum(result.rollups for result in purged) == 30


def test_a_killed_process_leaves_an_exact_ledger_and_the_next_run_finishes() -> None:
    workspace = make_workspace()
    make_events(workspace, 1_500, apart=timedelta(minutes=1))
    before = meter_values(workspace)
    now = NOON + 31 * DAY

    run_and_kill(
        "from datetime import datetime\nfrom uuid import UUID\nfrom ingest import retention\nretention.CHUNK_ROWS = 2\n"
        f"retention.purge_workspace(UUID('{workspace.id}'), datetime.fromisoformat('{now.isoformat()}'))",
        lambda: Event.objects.count() < 1_300,
    )

    left = Event.objects.count()
    assert 60 < left < 1_300
    assert_exact(workspace)
    assert purge_workspace(workspace.id, now).events == left - 60  # the last hour arrived within the 30 days
    assert meter_values(workspace) == before
    assert_exact(workspace)


class TestPurgeAll:
    def test_every_workspace_is_purged_under_its_own_policy(self) -> None:
        short, long = make_workspace(raw_retention_days=14), make_workspace(raw_retention_days=30)
        make_event(short)
        make_event(long)

        assert purge_all(NOON + 20 * DAY) == 0

        assert Event.objects.get().workspace == long

    def test_one_failure_does_not_stop_the_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        broken, fine = make_workspace(), make_workspace()
        purge = retention.purge_workspace

        def fail_for_one(workspace_id: object, now: datetime) -> Purged:
            if workspace_id == broken.id:
                raise DatabaseError
            return purge(fine.id, now)

        monkeypatch.setattr(retention, "purge_workspace", fail_for_one)
        make_event(fine)

        assert purge_all(NOON + 40 * DAY) == 1

        assert not Event.objects.exists()

    def test_who_waited_longest_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first, second, new = make_workspace(), make_workspace(), make_workspace()
        purge_workspace(first.id, NOON)
        purge_workspace(second.id, NOON + DAY)
        order: list[object] = []
        monkeypatch.setattr(retention, "purge_workspace", lambda workspace_id, _now: order.append(workspace_id))

        purge_all(NOON + 2 * DAY)

        assert order == [new.id, first.id, second.id]


def test_for_ever_may_be_any_number() -> None:
    workspace = make_workspace(raw_retention_days=2**31 - 1, rollup_retention_days=2**31 - 1)
    make_event(workspace)
    assert purge_workspace(workspace.id, NOON + 3_650 * DAY) == Purged(events=0, rollups=0, refusals=0)
    assert raw_detail_starts_at(workspace.policy, NOON) < NOON
    assert_exact(workspace)


def test_marks_never_go_back() -> None:
    workspace = make_workspace()
    purge_workspace(workspace.id, NOON)
    marks = LedgerCoverage.of(workspace.id)
    purge_workspace(workspace.id, NOON - DAY)
    again = LedgerCoverage.of(workspace.id)
    assert (again.events_purged_before, again.rollups_purged_before) == (
        marks.events_purged_before,
        marks.rollups_purged_before,
    )


def _set_retention(workspace: Workspace, **days: int) -> WorkspacePolicy:
    WorkspacePolicy.objects.filter(workspace=workspace).update(**days)
    return WorkspacePolicy.objects.get(workspace=workspace)


def _spread_arrivals(workspace: Workspace) -> None:
    """Let every row arrive when it occurred, but every fifth five minutes earlier, by a clock that is ahead."""
    for place, event in enumerate(Event.objects.filter(workspace=workspace).order_by("id")):
        ahead = timedelta(minutes=5) if place % 5 == 0 else timedelta(0)
        Event.objects.filter(workspace=workspace, id=event.id).update(received_at=event.occurred_at - ahead)


def _make_refusal(workspace: Workspace, bucket_start: datetime) -> None:
    Refusal.objects.create(
        workspace=workspace,
        bucket_start=bucket_start,
        reason="plan_limit_reached",
        requests=1,
        uncached_input_tokens=1,
        cache_read_tokens=0,
        cache_write_tokens=0,
        output_tokens=1,
        reasoning_tokens=0,
        cost_usd=Decimal("0.01"),
    )
