"""What reports must say, from the raw rows alone, in plain Python: no SQL, no roll-ups, no summaries."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any
from zoneinfo import ZoneInfo

from ingest import reports
from ingest.models import Event
from ingest.ranges import DayRange
from ingest.report_rows import OTHER, Figures, Moments, Percentiles
from ingest.selectors import Slice
from workspaces.models import Workspace


def figures(events: Iterable[Event]) -> Figures:
    """The sums of `events`."""
    rows = list(events)
    return Figures(
        requests=len(rows),
        unpriced_requests=sum(row.cost_usd is None for row in rows),
        errors=sum(row.status == "error" for row in rows),
        uncached_input_tokens=sum(row.uncached_input_tokens for row in rows),
        cache_read_tokens=sum(row.cache_read_tokens for row in rows),
        cache_write_tokens=sum(row.cache_write_tokens for row in rows),
        output_tokens=sum(row.output_tokens for row in rows),
        reasoning_tokens=sum(row.reasoning_tokens for row in rows),
        latency_ms_sum=sum(row.latency_ms or 0 for row in rows),
        latency_count=sum(row.latency_ms is not None for row in rows),
        cost_usd=sum((row.cost_usd or Decimal(0) for row in rows), Decimal(0)),
    )


def inside(events: Iterable[Event], days: DayRange, where: Slice) -> list[Event]:
    """The events whose local day is in the range, which `where` asks for."""
    return [event for event in events if _is_in(event, days) and _matches(event, where)]


def by(events: Iterable[Event], key: Callable[[Event], Any]) -> dict[Any, list[Event]]:
    """`events` in groups."""
    groups: dict[Any, list[Event]] = defaultdict(list)
    for event in events:
        groups[key(event)].append(event)
    return dict(groups)


def local_day(event: Event, zone: ZoneInfo) -> date:
    return event.occurred_at.astimezone(zone).date()


def _is_in(event: Event, days: DayRange) -> bool:
    return days.first_day <= local_day(event, days.zone) <= days.last_day and event.occurred_at < days.end


def _matches(event: Event, where: Slice) -> bool:
    names = ("data_mode", "provider", "model", "endpoint_tag", "prompt_version", "environment")
    return all(not getattr(where, name) or getattr(event, name) in getattr(where, name) for name in names)


def assert_reports_exact(
    workspace: Workspace, events: Sequence[Event], days: DayRange, before: DayRange, where: Slice
) -> None:
    """Every report says what `events` say, to the last digit (percentiles: to within 5 %)."""
    now, then = inside(events, days, where), inside(events, before, where)
    with reports.snapshot():
        assert reports.totals(workspace.id, days, where) == figures(now)
        assert reports.totals(workspace.id, before, where) == figures(then)
        for dimension in reports.DIMENSIONS:
            narrowed = where
            if dimension in reports.ATTRIBUTION:
                narrowed = Slice(data_mode=where.data_mode, environment=where.environment)
            _check_series(workspace, events, days, narrowed, dimension)
            _check_top(workspace, events, days, before, narrowed, dimension)
            _check_movers(workspace, events, days, before, narrowed, dimension)
        _check_latency(reports.latency(workspace.id, days, where), now if not where.model else None)
        _check_cells(workspace, now, days, where)
        _check_versions(workspace, now, days, where)


def _check_series(
    workspace: Workspace, events: Sequence[Event], days: DayRange, where: Slice, dimension: str, keep: int = 2
) -> None:
    series = reports.series(workspace.id, days, where, dimension, keep)
    now = inside(events, days, where)
    assert Figures.total(bar.figures for bar in series.bars) == figures(now)
    costs = {value: figures(rows).cost_usd for value, rows in by(now, lambda event: getattr(event, dimension)).items()}
    kept = [value for value in series.values if value != OTHER]
    named = (cost for value, cost in costs.items() if value != OTHER)
    assert [costs[value] for value in kept] == sorted(named, reverse=True)[: len(kept)]
    assert len(kept) == min(keep, len(costs.keys() - {OTHER}))
    for bar in series.bars:
        rows = [event for event in now if bar.start <= event.occurred_at < bar.end]
        assert bar.figures == figures(rows)
        assert sum(bar.parts.values(), Decimal(0)) == bar.figures.cost_usd
        for value in kept:
            of_value = figures(row for row in rows if getattr(row, dimension) == value)
            assert bar.parts.get(value, Decimal(0)) == of_value.cost_usd
        if bar.day is not None:
            assert {local_day(event, days.zone) for event in rows} <= {bar.day}
        else:
            assert len({event.occurred_at.astimezone(days.zone).strftime("%d %H %z") for event in rows}) <= 1


def _check_movers(
    workspace: Workspace, events: Sequence[Event], days: DayRange, before: DayRange, where: Slice, dimension: str
) -> None:
    now, then = (by(inside(events, window, where), _value_of(dimension)) for window in (days, before))
    changes = {
        value: abs(figures(now.get(value, [])).cost_usd - figures(then.get(value, [])).cost_usd)
        for value in now.keys() | then.keys()
    }
    for limit in (1, 50):
        movers = reports.movers(workspace.id, days, before, where, dimension, limit)
        assert (movers.new, movers.gone) == (len(now.keys() - then.keys()), len(then.keys() - now.keys()))
        found = [changes[row.value, row.provider] for row in movers.rows]
        assert found == sorted(changes.values(), reverse=True)[:limit]
        for row in movers.rows:
            value = (row.value, row.provider)
            assert (row.now, row.before) == (figures(now.get(value, [])), figures(then.get(value, [])))


def _value_of(dimension: str) -> Callable[[Event], tuple[str, str]]:
    return lambda event: (getattr(event, dimension), event.provider if dimension == "model" else "")


def _check_top(
    workspace: Workspace, events: Sequence[Event], days: DayRange, before: DayRange, where: Slice, dimension: str
) -> None:
    now, then = (by(inside(events, window, where), _value_of(dimension)) for window in (days, before))
    whole = figures(inside(events, days, where))
    for limit in (2, 50):
        top = reports.top(workspace.id, days, before, where, dimension, limit)
        expected = {
            value: (figures(now.get(value, [])), figures(then.get(value, []))) for value in now.keys() | then.keys()
        }
        assert {(row.value, row.provider): (row.now, row.before) for row in top.rows}.items() <= expected.items()
        costs = [row.now.cost_usd for row in top.rows]
        assert costs == sorted((pair[0].cost_usd for pair in expected.values()), reverse=True)[:limit]
        assert top.others == whole - Figures.total(row.now for row in top.rows)
        assert top.distinct == len(now)
        assert top.known_from is None
        assert all(row.share == (row.now.cost_usd / whole.cost_usd if whole.cost_usd else None) for row in top.rows)


def _check_latency(found: Percentiles, events: Sequence[Event] | None) -> None:
    if events is None:  # narrowed by what latency is not known by
        return
    latencies = sorted(event.latency_ms for event in events if event.latency_ms is not None)
    assert found.samples == len(latencies)
    assert found.is_complete
    for share, estimate in ((0.5, found.p50_ms), (0.95, found.p95_ms)):
        if not latencies:
            assert estimate is None
            continue
        exact = latencies[max(0, ceil(share * len(latencies)) - 1)]
        assert estimate is not None
        assert exact / 1.05 - 1e-6 <= estimate <= exact * 1.05 + 1e-6


def _check_cells(workspace: Workspace, now: Sequence[Event], days: DayRange, where: Slice) -> None:
    expected = by(
        now,
        lambda event: (event.provider, event.model, event.endpoint_tag, event.prompt_version, event.price_id),
    )
    cells = reports.cells(workspace.id, days, where)
    found = {
        (cell.provider, cell.model, cell.endpoint_tag, cell.prompt_version, cell.price_id): cell.figures
        for cell in cells
    }
    assert len(found) == len(cells)
    assert found == {key: figures(rows) for key, rows in expected.items()}


def _check_versions(workspace: Workspace, now: Sequence[Event], days: DayRange, where: Slice) -> None:
    for endpoint, of_endpoint in by(now, lambda event: event.endpoint_tag).items():
        expected = by(of_endpoint, lambda event: event.prompt_version)
        stats = {one.prompt_version: one for one in reports.version_stats(workspace.id, days, endpoint, where)}
        assert stats.keys() == expected.keys()
        for version, rows in expected.items():
            found = stats[version]
            assert (found.requests, found.errors) == (len(rows), sum(row.status == "error" for row in rows))
            _check_moments(found.cost_usd, [row.cost_usd for row in rows if row.cost_usd is not None])
            _check_moments(found.tokens, [Decimal(figures([row]).tokens) for row in rows])
            _check_moments(found.latency_ms, [Decimal(row.latency_ms) for row in rows if row.latency_ms is not None])
            _check_latency(found.percentiles, rows if not where.model else None)


def _check_moments(found: Moments, values: Sequence[Decimal]) -> None:
    """Exact but for the last of very many digits."""
    assert found.count == len(values)
    if not values:
        assert (found.mean, found.variance) == (None, None)
        return
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    assert found.mean is not None
    assert abs(Fraction(found.mean) - mean) < Fraction(1, 10**40)
    if len(values) == 1:
        assert found.variance is None
        return
    variance = sum((value - mean) ** 2 for value in exact) / (len(exact) - 1)
    assert found.variance is not None
    assert abs(Fraction(found.variance) - variance) < Fraction(1, 10**30)
