from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest import reports, retention
from ingest.models import Rollup
from ingest.ranges import day_range
from ingest.report_rows import Figures
from ingest.rollups import dimensions_key
from ingest.selectors import EVERYTHING, Slice, Sums, range_sums
from opsmeter_site.lib.periods import QUARTER_HOUR, day_start
from tests.ledger import NOON, make_event, make_events, make_workspace
from workspaces.models import Workspace

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
# Each with a first day and two clock changes after it, where the zone has any.
ZONES = {
    "UTC": date(2026, 3, 1),
    "Asia/Kolkata": date(2026, 3, 1),
    "Asia/Kathmandu": date(2026, 3, 1),
    "America/Los_Angeles": date(2026, 3, 1),
    "Australia/Lord_Howe": date(2026, 3, 25),
    "Africa/Cairo": date(2026, 4, 20),  # clocks skip midnight
    "America/Havana": date(2026, 3, 1),  # midnight comes twice
}


@dataclass(frozen=True)
class Day:
    day: date
    start: datetime
    end: datetime
    sums: Sums


def daily_sums(workspace_id: UUID, zone: ZoneInfo, first: date, last: date, where: Slice = EVERYTHING) -> list[Day]:
    """The local days as reports add them up; a chart of one or two days has hours."""
    if (last - first).days < 2:
        days = [day_range(zone, each, each) for each in (first, last)[: (last - first).days + 1]]
        return [Day(each.first_day, each.start, each.end, reports.totals(workspace_id, each, where)) for each in days]
    bars = reports.series(workspace_id, day_range(zone, first, last), where, "model").bars
    return [Day(bar.day, bar.start, bar.end, bar.figures) for bar in bars]


class TestDailySums:
    @pytest.mark.parametrize(
        ("zone", "day", "hours"),
        [
            ("UTC", date(2026, 3, 8), 24),
            ("Asia/Kolkata", date(2026, 3, 8), 24),
            ("Asia/Kathmandu", date(2026, 3, 8), 24),
            ("America/Los_Angeles", date(2026, 3, 8), 23),
            ("America/Los_Angeles", date(2026, 11, 1), 25),
            ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
            ("Australia/Lord_Howe", date(2026, 10, 4), 23.5),
        ],
    )
    def test_a_local_day_holds_all_of_its_quarter_hours_and_no_other(self, zone: str, day: date, hours: float) -> None:
        workspace = make_workspace()
        start = day_start(ZoneInfo(zone), day)
        _fill(workspace, start - HOUR, int((hours + 2) * 4))

        before, of_the_day, after = daily_sums(
            workspace.id, ZoneInfo(zone), day - timedelta(days=1), day + timedelta(days=1)
        )

        assert of_the_day.end - of_the_day.start == hours * HOUR
        assert [before.sums.requests, of_the_day.sums.requests, after.sums.requests] == [4, hours * 4, 4]
        assert (of_the_day.day, of_the_day.start) == (day, start)

    @pytest.mark.parametrize(("zone", "first_day"), ZONES.items())
    def test_days_across_both_clock_changes_add_up_to_the_range(self, zone: str, first_day: date) -> None:
        workspace = make_workspace()
        start = day_start(ZoneInfo(zone), first_day)
        _fill(workspace, start, 240 * 24, apart=HOUR - QUARTER_HOUR, cost=Decimal("0.010000000007"))

        days = daily_sums(workspace.id, ZoneInfo(zone), first_day, first_day + timedelta(days=259))

        total = range_sums(workspace.id, days[0].start, days[-1].end)
        assert sum(day.sums.requests for day in days) == total.requests == 240 * 24
        assert (
            sum((day.sums.cost_usd for day in days), Decimal(0))
            == total.cost_usd
            == 240 * 24 * Decimal("0.010000000007")
        )
        lengths = {day.end - day.start for day in days}
        assert len(lengths) == (1 if zone.startswith(("UTC", "Asia")) else 3)

    def test_days_without_events_are_there(self) -> None:
        workspace = make_workspace()
        days = daily_sums(workspace.id, ZoneInfo("UTC"), date(2026, 6, 1), date(2026, 6, 30))
        assert [day.day.day for day in days] == list(range(1, 31))
        assert {day.sums for day in days} == {Figures()}

    def test_no_days_have_no_sums(self) -> None:
        assert daily_sums(make_workspace().id, ZoneInfo("UTC"), date(2026, 6, 2), date(2026, 6, 1)) == []

    def test_a_day_that_a_zone_left_out_is_empty(self) -> None:
        """Samoa went from 29 to 31 December 2011."""
        workspace = make_workspace()
        zone = ZoneInfo("Pacific/Apia")
        _fill(workspace, day_start(zone, date(2011, 12, 29)), 48 * 4)
        days = daily_sums(workspace.id, zone, date(2011, 12, 29), date(2011, 12, 31))
        assert [day.sums.requests for day in days] == [96, 0, 96]

    def test_other_workspaces_do_not_count(self) -> None:
        workspace, other = make_workspace(), make_workspace()
        make_event(other)
        assert range_sums(workspace.id, NOON, NOON + HOUR) == Sums()

    def test_sums_survive_the_raw_rows(self) -> None:
        workspace = make_workspace()
        make_events(workspace, 3)
        before = range_sums(workspace.id, NOON, NOON + HOUR)
        retention.purge_workspace(workspace.id, NOON + timedelta(days=31))
        assert range_sums(workspace.id, NOON, NOON + HOUR) == before


class TestSums:
    def test_every_column_is_summed(self) -> None:
        workspace = make_workspace()
        make_events(workspace, 2, cost_usd=Decimal("0.1"), latency_ms=100)
        make_event(workspace, cost_usd=None, status="error", latency_ms=None, occurred_at=NOON + QUARTER_HOUR)

        assert range_sums(workspace.id, NOON, NOON + HOUR) == Sums(
            requests=3,
            unpriced_requests=1,
            errors=1,
            uncached_input_tokens=210,
            cache_read_tokens=60,
            cache_write_tokens=30,
            output_tokens=150,
            reasoning_tokens=15,
            latency_ms_sum=200,
            latency_count=2,
            cost_usd=Decimal("0.2"),
        )

    @pytest.mark.parametrize(
        ("fields", "requests"),
        [
            ({}, 3),
            ({"model": ("gpt-4o",)}, 1),
            ({"model": ("gpt-4o", "gpt-4o-mini")}, 3),
            ({"data_mode": ("real",), "environment": ("prod",)}, 1),
            ({"provider": ("nobody",)}, 0),
        ],
    )
    def test_a_slice_narrows_ranges_and_days_alike(self, fields: dict[str, Any], requests: int) -> None:
        workspace = make_workspace()
        make_event(workspace, model="gpt-4o", data_mode="test")
        make_event(workspace, environment="staging")
        make_event(workspace)

        where = Slice(**fields)

        assert range_sums(workspace.id, NOON, NOON + HOUR, where).requests == requests
        (day,) = daily_sums(workspace.id, ZoneInfo("UTC"), NOON.date(), NOON.date(), where)
        assert day.sums.requests == requests


@given(
    zone=st.sampled_from(sorted(ZONES)),
    first_day=st.dates(date(2024, 1, 1), date(2027, 12, 31)),
    length=st.integers(1, 45),
    rows=st.lists(
        st.tuples(st.integers(-100, 45 * 96 + 100), st.decimals("0", "1000", places=12), st.integers(1, 10**9)),
        max_size=30,
        unique_by=lambda row: row[0],
    ),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_local_days_add_up_to_their_range(
    zone: str, first_day: date, length: int, rows: list[tuple[int, Decimal, int]], db: None
) -> None:
    """For every zone, row and range: nothing is lost or counted twice at a boundary, to the last digit."""
    workspace = make_workspace()
    start = day_start(ZoneInfo(zone), first_day)
    Rollup.objects.bulk_create(
        _rollup(workspace, start + place * QUARTER_HOUR, cost=cost, requests=requests) for place, cost, requests in rows
    )

    days = daily_sums(workspace.id, ZoneInfo(zone), first_day, first_day + timedelta(days=length - 1))

    assert len(days) == length
    assert all(earlier.end == later.start for earlier, later in pairwise(days))
    inside = [row for row in rows if days[0].start <= start + row[0] * QUARTER_HOUR < days[-1].end]
    total = range_sums(workspace.id, days[0].start, days[-1].end)
    assert sum(day.sums.requests for day in days) == total.requests == sum(row[2] for row in inside)
    assert sum((day.sums.cost_usd for day in days), Decimal(0)) == total.cost_usd == sum(row[1] for row in inside)
    for day in days:
        local = [row for row in inside if _local_date(zone, start + row[0] * QUARTER_HOUR) == day.day]
        assert day.sums.requests == sum(row[2] for row in local)


def _local_date(zone: str, moment: datetime) -> date:
    return moment.astimezone(ZoneInfo(zone)).date()


def _fill(
    workspace: Workspace,
    start: datetime,
    number: int,
    *,
    apart: timedelta = QUARTER_HOUR,
    cost: Decimal = Decimal("0.01"),
) -> None:
    """One request in each of `number` quarter hours."""
    Rollup.objects.bulk_create(_rollup(workspace, start + n * apart, cost=cost, requests=1) for n in range(number))


def _rollup(workspace: Workspace, bucket_start: datetime, *, cost: Decimal, requests: int) -> Rollup:
    dimensions = ("openai", "gpt-4o-mini", "unknown", "unknown", "prod", "real", True)
    names = ("provider", "model", "endpoint_tag", "prompt_version", "environment", "data_mode", "is_priced")
    return Rollup(
        workspace=workspace,
        bucket_start=bucket_start.astimezone(UTC),
        dimensions_key=dimensions_key(*dimensions),
        requests=requests,
        errors=0,
        uncached_input_tokens=0,
        cache_read_tokens=0,
        cache_write_tokens=0,
        output_tokens=0,
        reasoning_tokens=0,
        latency_ms_sum=0,
        latency_count=0,
        cost_usd=cost,
        **dict(zip(names, dimensions, strict=True)),
    )
