"""Reports that need more than sums of roll-ups: which price each cost came from, and how single requests are spread."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal, localcontext
from uuid import UUID

from ingest import report_sources as sources
from ingest.covers import Cover, Window, cover
from ingest.percentiles import percentiles
from ingest.profiles import SUMS_SQL, figures_of
from ingest.ranges import DayRange
from ingest.report_rows import FIGURE_COLUMNS, Moments, UsageCell, VersionStats
from ingest.selectors import Slice
from ingest.snapshots import fetch

_CELL = ("provider", "model", "endpoint_tag", "prompt_version")
# Enough digits for a sum of squares of every amount that the ledger can hold.
_PRECISION = 80


def cells(workspace_id: UUID, days: DayRange, where: Slice) -> list[UsageCell]:
    """The range's exact sums by everything that decides a cost; costliest first."""
    covered = cover(workspace_id, [Window(days.start, days.end)])
    source = sources.detail(covered, {name: name for name in _CELL}, where)
    keys = ", ".join((*_CELL, "price_id"))
    rows = fetch(
        f"SELECT {keys}, {SUMS_SQL} FROM ({source.sql}) AS usage GROUP BY {keys} ORDER BY sum(cost_usd) DESC, {keys}",  # noqa: S608
        source.parameters,
    )
    return [
        UsageCell(provider, model, endpoint_tag, prompt_version, price_id or None, figures_of(sums))
        for provider, model, endpoint_tag, prompt_version, price_id, *sums in rows
    ]


def version_stats(workspace_id: UUID, days: DayRange, endpoint_tag: str, where: Slice) -> list[VersionStats]:
    """The prompt versions of one endpoint, most requests first."""
    where = replace(where, endpoint_tag=(endpoint_tag,))
    covered = cover(workspace_id, [Window(days.start, days.end)])
    source = sources.detail(covered, {"prompt_version": "prompt_version"}, where)
    columns = (*FIGURE_COLUMNS, *sources.SQUARES)
    known = ", ".join(f"sum({name}) FILTER (WHERE token_squares IS NOT NULL)" for name in columns)
    rows = fetch(
        f"""
        SELECT prompt_version, sum(requests)::bigint, sum(errors)::bigint, {known}
        FROM ({source.sql}) AS usage GROUP BY prompt_version ORDER BY 2 DESC, 1
        """,  # noqa: S608 (only names of this project's modules are put in)
        source.parameters,
    )
    bins = _bins_by_version(covered, replace(where, provider=(), model=()))
    is_complete = covered.lost_until() is None
    return [
        VersionStats(
            version,
            requests,
            errors,
            *_moments({name: value or Decimal(0) for name, value in zip(columns, sums, strict=True)}),
            percentiles(bins[version], is_complete=is_complete),
        )
        for version, requests, errors, *sums in rows
    ]


def _bins_by_version(covered: Cover, where: Slice) -> dict[str, dict[int, int]]:
    source = sources.latency_bins(covered, {"prompt_version": "prompt_version"}, where, by_version=True)
    rows = fetch(
        f"SELECT prompt_version, bin, sum(requests)::bigint FROM ({source.sql}) AS bins GROUP BY 1, 2",  # noqa: S608
        source.parameters,
    )
    bins: dict[str, dict[int, int]] = defaultdict(dict)
    for version, number, requests in rows:
        bins[version][number] = requests
    return bins


def _moments(sums: Mapping[str, Decimal]) -> tuple[Moments, Moments, Moments]:
    """Of cost, tokens and latency."""
    tokens = (
        sums["uncached_input_tokens"] + sums["cache_read_tokens"] + sums["cache_write_tokens"] + sums["output_tokens"]
    )
    return (
        _moment(sums["requests"] - sums["unpriced_requests"], sums["cost_usd"], sums["cost_squares"]),
        _moment(sums["requests"], tokens, sums["token_squares"]),
        _moment(sums["latency_count"], sums["latency_ms_sum"], sums["latency_squares"]),
    )


def _moment(count: Decimal, total: Decimal, squares: Decimal) -> Moments:
    if not count:
        return Moments(0, None, None)
    with localcontext(prec=_PRECISION):
        variance = (squares - total * total / count) / (count - 1) if count > 1 else None
        return Moments(int(count), total / count, variance)
