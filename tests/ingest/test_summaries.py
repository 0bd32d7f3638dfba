import itertools
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.core.management import call_command
from django.db import DatabaseError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest import cleanup, reports, summaries
from ingest.models import (
    Event,
    SpanLevel,
    SummaryProgress,
    SummarySpan,
    UsageSummary,
)
from ingest.selectors import EVERYTHING, Slice
from ingest.summaries import summarise_all, summarise_workspace
from ingest.tasks import summarise
from opsmeter_site.lib.periods import QUARTER_HOUR
from tests.ingest.plain_sums import assert_reports_exact
from tests.ingest.summing import (
    DAY,
    HOUR,
    REAL_PROD,
    UTC_ZONE,
    arrive,
    assert_spans_exact,
    days_of,
    spread,
    stored,
    usable,
)
from tests.killed import run_and_kill
from tests.ledger import NOON, make_workspace, new_event
from tests.together import run_together
from workspaces.models import Workspace

# Timezones with a day that is 23 or 25 hours long, or half an hour off, where they have any.
SCENES = [
    ("UTC", date(2026, 3, 29)),
    ("Asia/Kolkata", date(2026, 3, 29)),
    ("Asia/Kathmandu", date(2026, 3, 29)),
    ("America/Los_Angeles", date(2026, 3, 8)),
    ("America/Los_Angeles", date(2026, 11, 1)),
    ("Australia/Lord_Howe", date(2026, 4, 5)),
    ("Australia/Lord_Howe", date(2026, 10, 4)),
    ("Europe/Berlin", date(2026, 3, 29)),
    ("Europe/Berlin", date(2026, 10, 25)),
]
ZONES = sorted({zone for zone, _ in SCENES})


# --- Any history ------------------------------------------------------------------------------------------------------

_MINUTES_LATE = st.one_of(
    st.integers(-4, 3), st.integers(5, 40), st.integers(40, 60 * 30), st.integers(60 * 30, 60 * 24 * 8)
)
_EVENT = st.fixed_dictionaries(
    {
        "late": _MINUTES_LATE,
        "cost_usd": st.none() | st.decimals("0", "3", places=12),
        "latency_ms": st.none() | st.integers(0, 90_000),
        "output_tokens": st.integers(0, 2_000_000_000),
        "price_id": st.none() | st.integers(1, 3),
        "status": st.sampled_from(["success", "error"]),
        "provider": st.sampled_from(["openai", "google"]),
        "model": st.sampled_from(["small", "large"]),
        "endpoint_tag": st.sampled_from(["chat", "search"]),
        "prompt_version": st.sampled_from(["v1", "v2"]),
        "environment": st.sampled_from(["prod", "prod", "dev"]),
        "data_mode": st.sampled_from(["real", "real", "test", "demo"]),
        "user_id": st.sampled_from(["ann", "bob", "eve"]),
        "tenant_id": st.sampled_from(["acme", "other"]),
        "feature_tag": st.sampled_from(["unknown", "a"]),
    }
)
_STEP = st.one_of(
    st.tuples(st.just("send"), st.lists(_EVENT, min_size=1, max_size=4)),
    st.tuples(st.just("wait"), st.sampled_from([5, 17, 60, 360, 1_440, 3_000, 11_000])),
    st.tuples(st.just("summarise"), st.none()),
    st.tuples(st.just("delete"), st.sampled_from(["demo", "test"])),
    st.tuples(st.just("move"), st.sampled_from(ZONES)),
)


@pytest.mark.django_db(transaction=True)
@given(scene=st.sampled_from(SCENES), steps=st.lists(_STEP, min_size=4, max_size=25))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reports_are_exact_whatever_happened_and_whenever_it_was_summed(
    scene: tuple[str, date], steps: list[tuple[str, Any]], transactional_db: None
) -> None:
    """Late events, deletions, changed timezones, days on which clocks change; summed at any time, or not at all."""
    workspace = make_workspace()
    zone, day = scene
    Workspace.objects.filter(id=workspace.id).update(timezone=zone)
    now = datetime(day.year, day.month, day.day, 9, 7, tzinfo=UTC) - 2 * DAY
    for what, about in steps:
        if what == "send":
            arrive([_event(workspace, now, dict(fields)) for fields in about], now)
        elif what == "wait":
            now += timedelta(minutes=about)
        elif what == "summarise":
            summarise_workspace(workspace.id, now)
        elif what == "delete":
            cleanup.delete_rows(workspace.id, about, created_by_id=None, acting_user=None)
        else:
            zone = about
            Workspace.objects.filter(id=workspace.id).update(timezone=zone)

    assert_spans_exact(workspace)
    events = stored(workspace)
    today = now.astimezone(ZoneInfo(zone)).date()
    for number, where in ((1, EVERYTHING), (2, REAL_PROD), (9, Slice(model=("small",))), (16, EVERYTHING)):
        days = days_of(ZoneInfo(zone), today - timedelta(days=number - 1), number)
        assert_reports_exact(workspace, events, days, days.previous(now), where)


def _event(workspace: Workspace, now: datetime, fields: dict[str, Any]) -> Event:
    occurred_at = now - timedelta(minutes=fields.pop("late"), seconds=11)
    return new_event(workspace, occurred_at=occurred_at, received_at=now, **fields)


# --- What is built, and when ------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
class TestBuilding:
    def test_only_what_is_over_for_ten_minutes(self) -> None:
        workspace = make_workspace()
        arrive([new_event(workspace, occurred_at=NOON + 5 * QUARTER_HOUR)], NOON)
        ended = NOON + 2 * HOUR

        assert summarise_workspace(workspace.id, ended + timedelta(minutes=9, seconds=59)) == 0
        assert summarise_workspace(workspace.id, ended + timedelta(minutes=10)) == 1

        assert usable(workspace) == [(NOON + HOUR, ended)]

    def test_days_and_weeks_by_the_workspaces_clocks(self) -> None:
        workspace = make_workspace()
        Workspace.objects.filter(id=workspace.id).update(timezone="Asia/Kathmandu")
        spread(workspace, 24 * 9)

        summarise_workspace(workspace.id, NOON + DAY)

        zone = ZoneInfo("Asia/Kathmandu")
        midnight = datetime(2026, 6, 15, tzinfo=zone)
        assert usable(workspace, SpanLevel.DAY)[-1] == (midnight, midnight + DAY)
        assert usable(workspace, SpanLevel.WEEK)[-1] == (midnight - 7 * DAY, midnight)  # the 15th is a Monday

    def test_again_only_what_has_changed(self) -> None:
        workspace = make_workspace()
        spread(workspace, 48)
        now = NOON + DAY
        assert summarise_workspace(workspace.id, now) > 0
        assert summarise_workspace(workspace.id, now) == 0

        arrive([new_event(workspace, occurred_at=NOON - 30 * HOUR)], now)

        assert summarise_workspace(workspace.id, now) == 4  # the hour, six hours, day and week around it
        assert_spans_exact(workspace)

    def test_hours_are_kept_for_some_days_only(self) -> None:
        workspace = make_workspace()
        spread(workspace, 24)
        summarise_workspace(workspace.id, NOON + HOUR)
        assert usable(workspace, SpanLevel.HOUR)

        arrive([new_event(workspace, occurred_at=NOON + 5 * DAY)], NOON + 5 * DAY)
        summarise_workspace(workspace.id, NOON + 5 * DAY + 2 * HOUR)

        assert usable(workspace, SpanLevel.HOUR) == [(NOON + 5 * DAY, NOON + 5 * DAY + HOUR)]
        assert len(usable(workspace, SpanLevel.DAY)) == 2
        assert not UsageSummary.objects.exclude(span_id__in=SummarySpan.objects.values("id")).exists()

    def test_a_quiet_day_that_gets_an_event_late_is_built(self) -> None:
        workspace = make_workspace()
        arrive([new_event(workspace, occurred_at=NOON)], NOON)
        summarise_workspace(workspace.id, NOON + 10 * DAY)

        arrive([new_event(workspace, occurred_at=NOON + 5 * DAY)], NOON + 10 * DAY)
        summarise_workspace(workspace.id, NOON + 10 * DAY)

        midnight = NOON - 12 * HOUR
        assert (midnight + 5 * DAY, midnight + 6 * DAY) in usable(workspace, SpanLevel.DAY)

    def test_reports_read_what_is_built_and_nothing_else(self) -> None:
        """Rows that are changed behind everybody's back are not seen where sums are used, and seen where none are."""
        workspace = make_workspace()
        spread(workspace, 48)
        now = NOON + DAY
        summarise_workspace(workspace.id, now)
        Event.objects.filter(workspace=workspace).update(user_id="somebody else")
        days = days_of(UTC_ZONE, NOON.date() - DAY, 2)

        def users() -> set[str]:
            top = reports.top(workspace.id, days, days.previous(now), EVERYTHING, "user_id")
            return {row.value for row in top.rows}

        assert users() == {"user-0", "user-1", "user-2"}
        SummarySpan.objects.update(is_stale=True)
        assert users() == {"somebody else"}


@pytest.mark.django_db(transaction=True)
class TestAtOnce:
    def test_two_builders_share_the_work_or_leave_it_to_one(self) -> None:
        workspace = make_workspace()
        spread(workspace, 24 * 8)
        now = NOON + DAY

        built = run_together(*[lambda: summarise_workspace(workspace.id, now)] * 3)
        left = summarise_workspace(workspace.id, now)

        assert sum(built) + left == SummarySpan.objects.filter(built_at__isnull=False, is_stale=False).count()
        assert_spans_exact(workspace)

    def test_events_that_arrive_while_their_time_is_summed(self) -> None:
        workspace = make_workspace()
        spread(workspace, 24 * 4)
        now = NOON + DAY

        def send() -> None:
            for n in range(60):
                arrive([new_event(workspace, occurred_at=NOON - (n * 7 % 90) * HOUR)], now)

        def build() -> None:
            for _ in range(6):
                summarise_workspace(workspace.id, now)

        run_together(send, build, build)

        assert_spans_exact(workspace)
        days = days_of(UTC_ZONE, NOON.date() - 5 * DAY, 6)
        assert_reports_exact(workspace, stored(workspace), days, days.previous(now), EVERYTHING)
        summarise_workspace(workspace.id, now)
        assert not SummarySpan.objects.filter(is_stale=True, ends_at__lte=now - HOUR).exists()
        assert_spans_exact(workspace)

    def test_a_killed_builder_leaves_nothing_wrong_and_the_next_run_finishes(self) -> None:
        workspace = make_workspace()
        spread(workspace, 24 * 20)
        now = NOON + DAY

        run_and_kill(
            "from datetime import datetime\nfrom uuid import UUID\nfrom ingest import summaries\n"
            f"summaries.summarise_workspace(UUID('{workspace.id}'), datetime.fromisoformat('{now.isoformat()}'))",
            lambda: SummarySpan.objects.filter(built_at__isnull=False).count() > 12,
        )

        assert 12 < len(usable(workspace)) < SummarySpan.objects.filter(ends_at__lte=NOON).count()
        assert_spans_exact(workspace)
        days = days_of(UTC_ZONE, NOON.date() - 9 * DAY, 10)
        assert_reports_exact(workspace, stored(workspace), days, days.previous(now), EVERYTHING)
        assert summarise_workspace(workspace.id, now) > 0
        assert not SummarySpan.objects.filter(built_at=None, ends_at__lte=NOON).exists()
        assert_spans_exact(workspace)


# --- Who gets a turn --------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
class TestTurns:
    def test_every_workspace_with_something_new(self) -> None:
        first, second, idle = make_workspace(), make_workspace(), make_workspace()
        for workspace in (first, second):
            spread(workspace, 5)

        assert summarise_all(NOON + DAY) == 0

        assert usable(first)
        assert usable(second)
        assert set(SummaryProgress.objects.values_list("workspace_id", flat=True)) == {first.id, second.id}
        assert not usable(idle)

    def test_a_workspace_without_news_is_left_alone(self) -> None:
        busy, idle = make_workspace(), make_workspace()
        for workspace in (busy, idle):
            spread(workspace, 5)
        summarise_all(NOON + 8 * DAY)

        arrive([new_event(busy, occurred_at=NOON)], NOON + 9 * DAY)
        summarise_all(NOON + 9 * DAY)

        looked_at = dict(SummaryProgress.objects.values_list("workspace_id", "looked_at"))
        assert looked_at == {busy.id: NOON + 9 * DAY, idle.id: NOON + 8 * DAY}

    def test_who_waited_longest_comes_first_and_the_newest_days_before_all(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waiting, new = make_workspace(), make_workspace()
        spread(waiting, 5)
        summarise_all(NOON + DAY)
        built = usable(waiting)
        arrive([new_event(waiting, occurred_at=NOON + DAY)], NOON + DAY)
        spread(new, 4 * 120, apart=6 * HOUR)

        # It ticks whenever somebody looks at it: time is up after some days, however fast the machine is.
        monkeypatch.setattr(summaries, "monotonic", itertools.count().__next__)
        summarise_all(NOON + 3 * DAY, seconds=60)

        assert usable(waiting) == built
        days = usable(new, SpanLevel.DAY)
        assert 0 < len(days) < 120
        assert days[-1] == (NOON - 12 * HOUR, NOON + 12 * HOUR)
        assert days[-1][1] - days[0][0] == len(days) * DAY

    def test_one_failure_does_not_stop_the_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        broken, fine = make_workspace(), make_workspace()
        for workspace in (broken, fine):
            spread(workspace, 5)

        def fail_for_one(workspace_id: UUID, now: datetime, **options: float) -> int:
            if workspace_id == broken.id:
                raise DatabaseError
            return summarise_workspace(workspace_id, now, **options)

        monkeypatch.setattr(summaries, "summarise_workspace", fail_for_one)

        assert summarise_all(NOON + DAY) == 1

        assert usable(fine)
        assert not usable(broken)

    def test_another_timezone_is_news(self) -> None:
        workspace = make_workspace()
        spread(workspace, 24 * 3)
        now = NOON + DAY
        summarise_all(now)
        Workspace.objects.filter(id=workspace.id).update(timezone="Asia/Kolkata")

        summarise_all(now)

        midnight = datetime(2026, 6, 14, tzinfo=ZoneInfo("Asia/Kolkata"))
        assert (midnight, midnight + DAY) in usable(workspace, SpanLevel.DAY)
        assert_spans_exact(workspace)


@pytest.mark.django_db(transaction=True)
def test_the_worker_and_the_command_do_the_same() -> None:
    first, second, third = make_workspace(), make_workspace(), make_workspace()
    for workspace in (first, second, third):
        spread(workspace, 30)

    call_command("summarise", workspace=first.slug, stdout=StringIO())
    assert usable(first)
    assert not usable(second)
    call_command("summarise", stdout=StringIO())
    assert usable(second) == usable(third) == usable(first)

    SummarySpan.objects.update(is_stale=True)
    summarise()
    assert usable(second) == usable(third) == usable(first)
