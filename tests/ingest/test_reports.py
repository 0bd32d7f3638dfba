from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from math import ceil
from zoneinfo import ZoneInfo

import pytest
from django.db import InternalError, connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import reports, retention
from ingest.models import Refusal, SummarySpan
from ingest.percentiles import percentile
from ingest.ranges import DayRange, day_range
from ingest.report_rows import OTHER, Figures, RefusedSpell
from ingest.selectors import EVERYTHING, Slice
from ingest.summaries import summarise_workspace
from opsmeter_site.lib.periods import QUARTER_HOUR
from tests.ingest.plain_sums import assert_reports_exact
from tests.ledger import NOON, make_event, make_events, make_workspace, new_event, store_events
from tests.together import run_together
from workspaces.models import Workspace

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
UTC_ZONE, KATHMANDU = ZoneInfo("UTC"), ZoneInfo("Asia/Kathmandu")
TODAY = NOON.date()


def days_to(last: date, number: int, zone: ZoneInfo = UTC_ZONE) -> DayRange:
    """The `number` days up to and with `last`."""
    return day_range(zone, last - timedelta(days=number - 1), last)


@pytest.mark.django_db
class TestSeries:
    def test_a_bar_for_each_local_day_also_without_events(self) -> None:
        workspace = make_workspace()
        make_event(workspace, occurred_at=datetime(2026, 6, 14, 18, 15, tzinfo=UTC))  # midnight in Kathmandu
        series = reports.series(workspace.id, days_to(TODAY, 3, KATHMANDU), EVERYTHING, "model")
        assert [bar.day for bar in series.bars] == [TODAY - 2 * DAY, TODAY - DAY, TODAY]
        assert [bar.figures.requests for bar in series.bars] == [0, 0, 1]

    @pytest.mark.parametrize(
        ("zone", "day", "bars"),
        [
            ("Europe/Berlin", date(2026, 6, 15), 24),
            ("Europe/Berlin", date(2026, 3, 29), 23),
            ("Europe/Berlin", date(2026, 10, 25), 25),
            ("Asia/Kathmandu", date(2026, 6, 15), 24),
            ("Australia/Lord_Howe", date(2026, 10, 4), 24),  # the third hour is half as long
        ],
    )
    def test_hours_of_one_day(self, zone: str, day: date, bars: int) -> None:
        workspace = make_workspace()
        series = reports.series(workspace.id, days_to(day, 1, ZoneInfo(zone)), EVERYTHING, "model")
        assert len(series.bars) == bars
        assert {bar.start.astimezone(ZoneInfo(zone)).minute for bar in series.bars} <= {0, 30}
        assert all(bar.day is None for bar in series.bars)

    def test_two_days_are_shown_by_the_hour_and_three_are_not(self) -> None:
        workspace = make_workspace()
        assert len(reports.series(workspace.id, days_to(TODAY, 2), EVERYTHING, "model").bars) == 48
        assert len(reports.series(workspace.id, days_to(TODAY, 3), EVERYTHING, "model").bars) == 3

    def test_a_cut_range_ends_where_it_is_cut(self) -> None:
        workspace = make_workspace()
        make_events(workspace, 10, apart=HOUR, occurred_at=NOON - 10 * DAY)
        cut = days_to(TODAY - 5 * DAY, 3).previous(NOON)
        assert cut.end == cut.start + 3 * DAY
        running = days_to(TODAY, 5).previous(NOON)
        series = reports.series(workspace.id, running, EVERYTHING, "model")
        assert series.bars[-1].end == running.end == NOON - 5 * DAY

    @pytest.mark.parametrize("dimension", ["endpoint_tag", "user_id"])
    def test_the_costliest_values_by_name_and_the_others_together(self, dimension: str) -> None:
        workspace = make_workspace()
        for n, cost in enumerate((5, 1, 4, 2, 3)):
            make_event(workspace, cost_usd=Decimal(cost), **{dimension: f"value-{n}"})
        series = reports.series(workspace.id, days_to(TODAY, 3), EVERYTHING, dimension, keep=2)
        assert series.values == ["value-0", "value-2", OTHER]
        assert series.bars[-1].parts == {"value-0": Decimal(5), "value-2": Decimal(4), OTHER: Decimal(6)}

    @pytest.mark.parametrize("dimension", ["endpoint_tag", "user_id"])
    def test_a_value_that_is_called_like_the_others(self, dimension: str) -> None:
        workspace = make_workspace()
        make_event(workspace, cost_usd=Decimal(5), **{dimension: OTHER})
        make_event(workspace, cost_usd=Decimal(1), **{dimension: "this"})
        series = reports.series(workspace.id, days_to(TODAY, 3), EVERYTHING, dimension)
        assert series.values == ["this", OTHER]
        assert series.bars[-1].parts == {"this": Decimal(1), OTHER: Decimal(5)}


@pytest.mark.django_db
class TestTop:
    days, before = days_to(TODAY, 3), days_to(TODAY - 3 * DAY, 3)

    @pytest.mark.parametrize("dimension", ["prompt_version", "tenant_id"])
    def test_rows_by_cost_with_what_they_were(self, dimension: str) -> None:
        workspace = make_workspace()
        for n, cost in enumerate((1, 3, 2)):
            make_event(workspace, cost_usd=Decimal(cost), **{dimension: f"value-{n}"})
        make_event(workspace, occurred_at=NOON - 4 * DAY, cost_usd=Decimal(9), **{dimension: "value-2"})

        top = reports.top(workspace.id, self.days, self.before, EVERYTHING, dimension, limit=2)

        assert [row.value for row in top.rows] == ["value-1", "value-2"]
        assert [row.share for row in top.rows] == [Decimal("0.5"), Decimal(2) / Decimal(6)]
        assert [row.before.cost_usd for row in top.rows] == [Decimal(0), Decimal(9)]
        assert [row.is_new for row in top.rows] == [True, False]
        assert (top.others.requests, top.others.cost_usd, top.distinct) == (1, Decimal(1), 3)

    @pytest.mark.parametrize("dimension", ["endpoint_tag", "user_id"])
    def test_the_gone_ones_come_last(self, dimension: str) -> None:
        workspace = make_workspace()
        make_event(workspace, cost_usd=Decimal(1), **{dimension: "here"})
        for n in range(3):
            make_event(workspace, occurred_at=NOON - 4 * DAY, cost_usd=Decimal(n + 5), **{dimension: f"gone-{n}"})

        top = reports.top(workspace.id, self.days, self.before, EVERYTHING, dimension, limit=3)

        assert [(row.value, row.is_gone) for row in top.rows] == [("here", False), ("gone-2", True), ("gone-1", True)]
        assert top.distinct == 1
        assert top.others == Figures()

    def test_models_of_one_name_are_told_apart_by_their_provider(self) -> None:
        workspace = make_workspace()
        make_event(workspace, provider="azure", model="gpt-4o", cost_usd=Decimal(2))
        make_event(workspace, provider="openai", model="gpt-4o", cost_usd=Decimal(1))
        top = reports.top(workspace.id, self.days, self.before, EVERYTHING, "model")
        assert [(row.value, row.provider) for row in top.rows] == [("gpt-4o", "azure"), ("gpt-4o", "openai")]

    def test_of_a_slice_users_honour_what_they_are_known_by(self) -> None:
        workspace = make_workspace()
        make_event(workspace, model="a", data_mode="test", user_id="tester")
        make_event(workspace, model="b", user_id="customer")
        where = Slice(data_mode=("real",), model=("a",))
        assert not reports.top(workspace.id, self.days, self.before, where, "endpoint_tag").rows
        top = reports.top(workspace.id, self.days, self.before, where, "user_id")
        assert [row.value for row in top.rows] == ["customer"]

    def test_without_any_cost_nobody_has_a_share(self) -> None:
        workspace = make_workspace()
        make_event(workspace, cost_usd=None)
        (row,) = reports.top(workspace.id, self.days, self.before, EVERYTHING, "model").rows
        assert row.share is None

    def test_nothing_at_all(self) -> None:
        workspace = make_workspace()
        for dimension in reports.DIMENSIONS:
            top = reports.top(workspace.id, self.days, self.before, EVERYTHING, dimension)
            assert (top.rows, top.others, top.distinct, top.known_from) == ([], Figures(), 0, None)
            assert reports.series(workspace.id, self.days, EVERYTHING, dimension).values == []
        assert reports.latency(workspace.id, self.days, EVERYTHING).p95_ms is None
        assert reports.cells(workspace.id, self.days, EVERYTHING) == []
        assert reports.version_stats(workspace.id, self.days, "unknown", EVERYTHING) == []


@pytest.mark.django_db(transaction=True)
class TestWhatIsNoLongerKnown:
    def test_users_are_known_from_when_raw_rows_begin(self) -> None:
        workspace = make_workspace(raw_retention_days=5)
        make_events(workspace, 10, apart=DAY, occurred_at=NOON - 9 * DAY, user_id="ann")
        retention.purge_workspace(workspace.id, NOON)
        days, before = days_to(TODAY, 5), days_to(TODAY - 5 * DAY, 5)

        top = reports.top(workspace.id, days, before, EVERYTHING, "user_id")
        assert top.known_from == TODAY - 4 * DAY
        assert [(row.now.requests, row.before.requests) for row in top.rows] == [(5, 0)]
        assert reports.totals(workspace.id, before, EVERYTHING).requests == 5
        assert reports.latency(workspace.id, days, EVERYTHING).is_complete
        assert not reports.latency(workspace.id, before, EVERYTHING).is_complete
        (cell,) = reports.cells(workspace.id, before, EVERYTHING)
        assert (cell.price_id, cell.figures.requests) == (None, 5)
        (version,) = reports.version_stats(workspace.id, before, "unknown", EVERYTHING)
        assert (version.requests, version.cost_usd.count, version.percentiles.is_complete) == (5, 0, False)

    def test_a_workspace_younger_than_the_range_has_lost_nothing(self) -> None:
        workspace = make_workspace(raw_retention_days=5)
        make_event(workspace)
        retention.purge_workspace(workspace.id, NOON + HOUR)
        days, before = days_to(TODAY, 30), days_to(TODAY - 30 * DAY, 30)
        assert reports.top(workspace.id, days, before, EVERYTHING, "user_id").known_from is None
        assert reports.latency(workspace.id, days, EVERYTHING).is_complete


@pytest.mark.django_db
class TestRefused:
    def test_neighbouring_quarter_hours_of_one_reason_are_one_spell(self) -> None:
        workspace = make_workspace()
        for n, reason in (
            (0, "budget_exceeded"),
            (1, "budget_exceeded"),
            (1, "plan_limit_reached"),
            (3, "budget_exceeded"),
        ):
            _refuse(workspace, NOON + n * QUARTER_HOUR, reason)

        assert reports.refused(workspace.id, days_to(TODAY, 1)) == [
            RefusedSpell(NOON, NOON + 2 * QUARTER_HOUR, "budget_exceeded", 4, 20, Decimal("0.2")),
            RefusedSpell(NOON + QUARTER_HOUR, NOON + 2 * QUARTER_HOUR, "plan_limit_reached", 2, 10, Decimal("0.1")),
            RefusedSpell(NOON + 3 * QUARTER_HOUR, NOON + 4 * QUARTER_HOUR, "budget_exceeded", 2, 10, Decimal("0.1")),
        ]

    def test_only_those_of_the_range(self) -> None:
        workspace = make_workspace()
        _refuse(workspace, NOON, "budget_exceeded")
        assert reports.refused(workspace.id, days_to(TODAY - DAY, 7)) == []


def _refuse(workspace: Workspace, bucket_start: datetime, reason: str) -> None:
    Refusal.objects.create(
        workspace=workspace,
        bucket_start=bucket_start,
        reason=reason,
        requests=2,
        uncached_input_tokens=1,
        cache_read_tokens=2,
        cache_write_tokens=3,
        output_tokens=4,
        reasoning_tokens=1,
        cost_usd=Decimal("0.1"),
    )


@pytest.mark.django_db
class TestChoices:
    def test_endpoints_by_use(self) -> None:
        workspace = make_workspace()
        make_events(workspace, 2, endpoint_tag="chat", prompt_version="v1")
        make_events(workspace, 3, endpoint_tag="chat", prompt_version="v2")
        make_event(workspace, endpoint_tag="search", prompt_version="v9")
        days = days_to(TODAY, 7)
        assert reports.endpoints_of(workspace.id, days) == [("chat", 5), ("search", 1)]

    def test_whether_there_are_any_events(self) -> None:
        workspace, other = make_workspace(), make_workspace()
        make_event(other)
        assert not reports.has_events(workspace.id)
        assert reports.has_events(other.id)


@pytest.mark.django_db(transaction=True)
class TestSnapshot:
    def test_everything_inside_is_of_one_moment(self) -> None:
        workspace = make_workspace()
        make_event(workspace)
        days = days_to(TODAY, 7)

        with reports.snapshot():
            before = reports.totals(workspace.id, days, EVERYTHING)
            run_together(lambda: make_events(workspace, 3))
            assert sum(cell.figures.requests for cell in reports.cells(workspace.id, days, EVERYTHING)) == 1
            assert reports.totals(workspace.id, days, EVERYTHING) == before

        assert reports.totals(workspace.id, days, EVERYTHING).requests == 4

    def test_nothing_can_be_written(self) -> None:
        with pytest.raises(InternalError), reports.snapshot():
            make_workspace()

    def test_a_page_is_a_dozen_statements(self) -> None:
        """Also the ones that begin and end the snapshot."""
        workspace = make_workspace()
        make_events(workspace, 200, apart=-HOUR, user_id="ann")
        summarise_workspace(workspace.id, NOON + HOUR)
        days, where = days_to(TODAY, 7), Slice(data_mode=("real",))
        before = days.previous(NOON)

        with (
            CaptureQueriesContext(
                connection,
            ) as queries,
            reports.snapshot(),
        ):
            for dimension in ("endpoint_tag", "model", "prompt_version", "user_id", "tenant_id", "feature_tag"):
                reports.top(workspace.id, days, before, where, dimension)
            for each in (days, before):
                reports.totals(workspace.id, each, where)
                reports.latency(workspace.id, each, where)
            reports.series(workspace.id, days, where, "model")
            reports.refused(workspace.id, days)

        assert len(queries) <= 15


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_summed", [False, True])
@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "America/Los_Angeles"])
def test_ranges_of_every_length(zone: str, is_summed: bool) -> None:
    """A busy month, whose days and weeks are read from sums, and the same without any."""
    workspace = make_workspace()
    Workspace.objects.filter(id=workspace.id).update(timezone=zone)
    events = store_events(
        new_event(
            workspace,
            occurred_at=NOON - n * timedelta(minutes=173),
            cost_usd=None if n % 11 == 0 else Decimal(n * n * 7).scaleb(-12),
            latency_ms=n * 37 % 4_000,
            price_id=n % 3 or None,
            model=f"model-{n % 4}",
            endpoint_tag=f"endpoint-{n % 3}",
            prompt_version=f"v{n % 2}",
            environment=("prod", "prod", "staging")[n % 3],
            data_mode=("real", "real", "real", "test")[n % 4],
            user_id=f"user-{n % 7}",
        )
        for n in range(300)
    )
    if is_summed:
        assert summarise_workspace(workspace.id, NOON + HOUR) > 100
    today = NOON.astimezone(ZoneInfo(zone)).date()
    for number in (1, 4, 15, 40):
        days = days_to(today, number, ZoneInfo(zone))
        assert_reports_exact(workspace, events, days, days.previous(NOON), Slice(data_mode=("real",)))
    assert SummarySpan.objects.exists() == is_summed


latencies = st.lists(st.integers(0, 86_400_000) | st.integers(0, 3_000), min_size=1, max_size=60)


@settings(deadline=None)
@given(latencies=latencies, share=st.floats(0.01, 0.99))
def test_a_percentile_is_at_most_five_percent_off(latencies: list[int], share: float) -> None:
    bins: dict[int, int] = {}
    for latency in latencies:
        number = next(n for n in range(-1, 400) if latency < 1.05 ** (n + 1)) if latency else -1
        bins[number] = bins.get(number, 0) + 1
    exact = sorted(latencies)[max(0, ceil(share * len(latencies) - 1e-9) - 1)]
    estimate = percentile(bins, share)
    assert estimate is not None
    assert exact / 1.0500001 <= estimate <= exact * 1.0500001


def test_no_requests_have_no_percentile() -> None:
    assert percentile({}, 0.5) is None
