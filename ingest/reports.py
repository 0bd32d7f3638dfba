"""Every figure of a page, for ranges of local days: exact sums of the raw rows, read from their summaries.

All functions read one state of the database inside `snapshot`, and nothing twice; outside, each call reads for itself.
A page that calls `top` first, with both of its ranges, spares reading them one by one.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

from ingest import report_sources as sources
from ingest.covers import Cover, Window, cover
from ingest.models import AttributionKind, Event, Refusal, Rollup
from ingest.percentiles import percentiles
from ingest.profiles import SUMS_SQL, Value, attribution, changed_most, figures_of, profiles
from ingest.ranges import DayRange
from ingest.report_details import cells, version_stats
from ingest.report_rows import OTHER, Bar, Figures, Movers, Percentiles, RefusedSpell, Series, Top, TopRow
from ingest.selectors import EVERYTHING, Slice
from ingest.snapshots import fetch, snapshot
from ingest.spans import local_hours
from opsmeter_site.lib.periods import QUARTER_HOUR, day_start

__all__ = [
    "ATTRIBUTION",
    "DIMENSIONS",
    "cells",
    "endpoints_of",
    "has_events",
    "latency",
    "movers",
    "refused",
    "series",
    "snapshot",
    "top",
    "totals",
    "version_stats",
]

DIMENSIONS = {
    "endpoint_tag": "Endpoint",
    "model": "Model",
    "provider": "Provider",
    "prompt_version": "Prompt version",
    "environment": "Environment",
    "user_id": "User",
    "tenant_id": "Tenant",
    "feature_tag": "Feature",
}
# Known of raw rows only, or from when they were summed.
ATTRIBUTION = frozenset(AttributionKind.values)

_DAY = timedelta(days=1)
# Ranges of so many days are shown by the hour.
_MOST_DAYS_BY_HOUR = 2


def has_events(workspace_id: UUID) -> bool:
    """Whether the workspace has any event, of whatever data mode, that has not expired."""
    return any(table.objects.filter(workspace_id=workspace_id).exists() for table in (Rollup, Event))


def totals(workspace_id: UUID, days: DayRange, where: Slice) -> Figures:
    """What the range adds up to."""
    (profile,) = profiles(workspace_id, [_window(days)], where)
    return profile.whole


def latency(workspace_id: UUID, days: DayRange, where: Slice) -> Percentiles:
    """The latency of the requests that reported one; provider and model in `where` are ignored."""
    covered = cover(workspace_id, [_window(days)])
    by_version = bool(where.endpoint_tag or where.prompt_version)
    source = sources.latency_bins(covered, {}, replace(where, provider=(), model=()), by_version=by_version)
    rows = fetch(f"SELECT bin, sum(requests)::bigint FROM ({source.sql}) AS bins GROUP BY bin", source.parameters)  # noqa: S608
    return percentiles(dict(rows), is_complete=covered.lost_until() is None)


def series(workspace_id: UUID, days: DayRange, where: Slice, dimension: str, keep: int = 6) -> Series:
    """Cost by day, or by local hour for one or two days, stacked by the `keep` costliest values of `dimension`.

    By user, tenant or feature, only the data mode and environment of `where` count.
    """
    bars = _bars(days)
    covered = cover(workspace_id, [Window(start, end) for start, end, _ in bars])
    if dimension in ATTRIBUTION:
        where = _attributable(where)
        figures, _ = _by_bar(sources.usage(covered, {"value": "NULL::text"}, where), 0)
        parts = _attributed_costs(workspace_id, days, where, dimension, keep, covered)
    else:
        figures, parts = _by_bar(sources.usage(covered, {"value": dimension}, where), keep)
    costs: dict[str, Decimal] = defaultdict(Decimal)
    for place, whole in figures.items():
        rest = whole.cost_usd - sum(parts[place].values(), Decimal(0))
        if rest:
            parts[place][OTHER] = rest
        for value, cost in parts[place].items():
            costs[value] += cost
    return Series(
        [Bar(*bar, parts[place], figures.get(place, Figures())) for place, bar in enumerate(bars)],
        sorted(costs, key=lambda value: (value == OTHER, -costs[value], value)),
        _known_from(covered, days.zone, days.first_day) if dimension in ATTRIBUTION else None,
    )


def top(workspace_id: UUID, days: DayRange, before: DayRange, where: Slice, dimension: str, limit: int = 8) -> Top:
    """The `limit` values of `dimension` with the highest cost in `days`; after all of these, the ones that are gone.

    Users, tenants and features: of `where`, only the data mode and environment count.
    """
    windows = [_window(days), _window(before)]
    if dimension not in ATTRIBUTION:
        profile, earlier = profiles(workspace_id, windows, where)
        return _top_of(profile.whole, profile.by[dimension], earlier.by[dimension], limit)
    where = _attributable(where)
    found = attribution(workspace_id, windows, where, limit)[dimension]
    now, then = found.windows
    top = _top_of(profiles(workspace_id, windows, where)[0].whole, now, then, limit)
    return replace(
        top,
        others=found.whole - Figures.total(now.values()),
        distinct=found.distinct,
        known_from=_known_from(cover(workspace_id, windows), days.zone, before.first_day),
    )


def movers(
    workspace_id: UUID, days: DayRange, before: DayRange, where: Slice, dimension: str, limit: int = 50
) -> Movers:
    """The `limit` values of `dimension` whose cost differs most between the ranges; `where` as for `top`."""
    windows = (_window(days), _window(before))
    if dimension in ATTRIBUTION:
        where = _attributable(where)
        changed = changed_most(workspace_id, windows, where, limit)[dimension]
        now, then, new, gone = changed.now, changed.then, changed.new, changed.gone
    else:
        now, then = (profile.by[dimension] for profile in profiles(workspace_id, windows, where))
        new, gone = len(now.keys() - then.keys()), len(then.keys() - now.keys())
    rows = _rows(profiles(workspace_id, windows, where)[0].whole, now, then)
    rows.sort(key=lambda row: (-abs(row.difference), row.value, row.provider))
    return Movers(rows[:limit], new, gone)


def _top_of(whole: Figures, now: Mapping[Value, Figures], then: Mapping[Value, Figures], limit: int) -> Top:
    rows = _rows(whole, now, then)
    rows.sort(key=lambda row: (-row.now.cost_usd, -row.now.requests, -row.before.cost_usd, row.value, row.provider))
    return Top(rows[:limit], Figures.total([row.now for row in rows[limit:]]), len(now), None)


def _rows(whole: Figures, now: Mapping[Value, Figures], then: Mapping[Value, Figures]) -> list[TopRow]:
    nothing = Figures()
    return [
        TopRow(*value, now.get(value, nothing), then.get(value, nothing), _share(now.get(value), whole))
        for value in {**now, **then}
    ]


def _share(part: Figures | None, whole: Figures) -> Decimal | None:
    if not whole.cost_usd:
        return None
    return part.cost_usd / whole.cost_usd if part else Decimal(0)


def refused(workspace_id: UUID, days: DayRange) -> list[RefusedSpell]:
    """When events were refused, in order of time; neighbouring quarter hours of one reason are one spell."""
    spells: list[RefusedSpell] = []
    last: dict[str, int] = {}
    found = Refusal.objects.filter(
        workspace_id=workspace_id, bucket_start__gte=days.start, bucket_start__lt=days.end
    ).order_by("bucket_start", "reason")
    for row in found:
        tokens = row.uncached_input_tokens + row.cache_read_tokens + row.cache_write_tokens + row.output_tokens
        end = row.bucket_start + QUARTER_HOUR
        spell = RefusedSpell(row.bucket_start, end, row.reason, row.requests, tokens, row.cost_usd)
        place = last.get(row.reason)
        if place is not None and spells[place].end == spell.start:
            spells[place] = spells[place].followed_by(spell)
        else:
            last[row.reason] = len(spells)
            spells.append(spell)
    return spells


def endpoints_of(workspace_id: UUID, days: DayRange) -> list[tuple[str, int]]:
    """The endpoints that were used, with their requests, most first."""
    (profile,) = profiles(workspace_id, [_window(days)], EVERYTHING)
    requests = [(value.value, figures.requests) for value, figures in profile.by["endpoint_tag"].items()]
    return sorted(requests, key=lambda item: (-item[1], item[0]))


def _window(days: DayRange) -> Window:
    return Window(days.start, days.end)


def _bars(days: DayRange) -> list[tuple[datetime, datetime, date | None]]:
    if days.days <= _MOST_DAYS_BY_HOUR:
        return [(start, end, None) for start, end in local_hours(days.zone, days.start, days.end)]
    dates = [days.first_day + n * _DAY for n in range(days.days)]
    starts = [min(day_start(days.zone, day), days.end) for day in dates]
    return list(zip(starts, [*starts[1:], days.end], dates, strict=True))


def _attributable(where: Slice) -> Slice:
    """What of `where` can be told apart by user, tenant and feature."""
    return Slice(data_mode=where.data_mode, environment=where.environment)


def _known_from(covered: Cover, zone: ZoneInfo, first_day: date) -> date | None:
    until = covered.lost_until()
    if until is None:
        return None
    day = until.astimezone(zone).date()
    known = day if day_start(zone, day) == until else day + _DAY
    return known if known > first_day else None


def _by_bar(source: sources.Source, keep: int) -> tuple[dict[int, Figures], dict[int, dict[str, Decimal]]]:
    """By place: the figures of everything, and the cost of the `keep` values that cost most in all places."""
    rows = fetch(
        f"""
        WITH valued AS MATERIALIZED (
            SELECT place, value, {SUMS_SQL} FROM ({source.sql}) AS usage GROUP BY place, value
        ), kept AS (
            SELECT value FROM valued WHERE value <> '{OTHER}'
            GROUP BY value ORDER BY sum(cost_usd) DESC, sum(requests) DESC, value LIMIT %(keep)s
        )
        SELECT place, kept.value, {SUMS_SQL} FROM valued LEFT JOIN kept USING (value) GROUP BY 1, 2
        """,  # noqa: S608 (only names of this project's modules are put in)
        {**source.parameters, "keep": keep},
    )
    figures: dict[int, Figures] = defaultdict(Figures)
    parts: dict[int, dict[str, Decimal]] = defaultdict(dict)
    for place, value, *sums in rows:
        of_value = figures_of(sums)
        figures[place] = Figures.total([figures[place], of_value])
        if value is not None:
            parts[place][value] = of_value.cost_usd
    return figures, parts


def _attributed_costs(
    workspace_id: UUID, days: DayRange, where: Slice, kind: str, keep: int, covered: Cover
) -> dict[int, dict[str, Decimal]]:
    """By place: the cost of the `keep` values of `kind` that cost most in all of the range."""
    (kept,) = attribution(workspace_id, [_window(days)], where, keep)[kind].windows
    values = [value.value for value in kept if value.value != OTHER]
    source = sources.attribution_of(covered, {kind: values}, where)
    rows = fetch(
        f"SELECT place, value, sum(cost_usd) FROM ({source.sql}) AS usage GROUP BY place, value",  # noqa: S608
        source.parameters,
    )
    parts: dict[int, dict[str, Decimal]] = defaultdict(dict)
    for place, value, cost in rows:
        parts[place][value] = cost
    return parts
