"""What forecasts are made from: spend of scopes by day and month, and by quarter hour."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from ingest.limit_sets import ScopeKey
from ingest.limits import estimated_usd
from ingest.scopes import ROLLED_UP
from ingest.snapshots import fetch
from opsmeter_site.lib.periods import DAY, Period, Window, day_of

_METERS = """
SELECT scope_kind, scope_value, period, period_start, meter.value, unpriced_tokens
FROM unnest(%(kinds)s::text[], %(values)s::text[]) AS scope (kind, value)
CROSS JOIN unnest(%(starts)s::timestamptz[]) AS start (moment)
JOIN ingest_meter AS meter ON meter.workspace_id = %(workspace)s AND period_start = start.moment
    AND scope_kind = scope.kind AND scope_value = scope.value AND measure = 'usd'
"""
_MATCHES = " ".join(f"WHEN '{kind}' THEN {kind} = scope.value" for kind in sorted(ROLLED_UP))
_QUARTER_HOURS = f"""
WITH counted AS (
    SELECT bucket_start, {", ".join(sorted(ROLLED_UP))}, sum(cost_usd) AS usd, coalesce(sum(
        uncached_input_tokens + cache_read_tokens + cache_write_tokens + output_tokens
    ) FILTER (WHERE NOT is_priced), 0) AS tokens
    FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS stretch (starts_at, ends_at)
    JOIN ingest_rollup ON bucket_start >= starts_at AND bucket_start < ends_at
    WHERE workspace_id = %(workspace)s AND data_mode = ANY(
        (SELECT counted_data_modes FROM ingest_workspacepolicy WHERE workspace_id = %(workspace)s)::text[]
    )
    GROUP BY bucket_start, {", ".join(sorted(ROLLED_UP))}
)
SELECT scope.kind, scope.value, bucket_start, sum(usd), sum(tokens)::bigint
FROM counted JOIN unnest(%(kinds)s::text[], %(values)s::text[]) AS scope (kind, value)
    ON CASE scope.kind WHEN '' THEN TRUE {_MATCHES} END
GROUP BY 1, 2, 3
"""  # noqa: S608 (only the names of the dimensions are put in)


class Spend(NamedTuple):
    """Cost in USD, and the tokens of what has no price."""

    usd: Decimal = Decimal(0)
    unpriced_tokens: int = 0

    def counted(self, estimate_usd_per_1m: Decimal) -> Decimal:
        """What a budget that estimates at that price counts, in USD."""
        if not self.unpriced_tokens or not estimate_usd_per_1m:
            return self.usd
        return self.usd + estimated_usd(self.unpriced_tokens, estimate_usd_per_1m)


NOTHING = Spend()


@dataclass(frozen=True, slots=True)
class SpendFigures:
    """Meters of scopes, and roll-ups of the scopes that have some; what is not in there is nothing."""

    meters: dict[ScopeKey, dict[tuple[str, datetime], Spend]]
    quarter_hours: dict[ScopeKey, dict[datetime, Spend]]

    def meter(self, scope: ScopeKey, period: Period, start: datetime) -> Spend:
        """One meter."""
        return self.meters[scope].get((period.value, start), NOTHING)

    def first_day(self, scope: ScopeKey) -> datetime | None:
        """The first day with a meter."""
        days = [start for period, start in self.meters[scope] if period == Period.DAY]
        return min(days, default=None)


def is_rolled_up(scope: ScopeKey) -> bool:
    """Whether roll-ups tell the scope."""
    return not scope.kind or scope.kind in ROLLED_UP


def read_figures(
    workspace_id: UUID, scopes: Collection[ScopeKey], since: datetime, now: datetime, stretches: Sequence[Window]
) -> SpendFigures:
    """Meters from the day `since` on and quarter hours of the `stretches`, which do not overlap. Two statements."""
    days = [since + n * DAY for n in range((day_of(now).end - since).days)]
    known = SpendFigures({scope: {} for scope in scopes}, {scope: {} for scope in scopes if is_rolled_up(scope)})
    for kind, value, period, start, usd, tokens in fetch(
        _METERS, {"workspace": workspace_id, "starts": days, **_named(scopes)}
    ):
        known.meters[ScopeKey(kind, value)][period, start] = Spend(usd, tokens)
    parameters = {
        "workspace": workspace_id,
        "starts": [stretch.start for stretch in stretches],
        "ends": [stretch.end for stretch in stretches],
    }
    for kind, value, start, usd, tokens in fetch(_QUARTER_HOURS, parameters | _named(known.quarter_hours)):
        known.quarter_hours[ScopeKey(kind, value)][start] = Spend(usd, tokens)
    return known


def _named(scopes: Collection[ScopeKey]) -> dict[str, list[str]]:
    return {"kinds": [scope.kind for scope in scopes], "values": [scope.value for scope in scopes]}
