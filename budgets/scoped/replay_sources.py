"""The SQL behind replays: stored events as one budget counts them, added up, or one after the other.

An item is what is taken at once: an event or, where events are no longer stored one by one, a quarter hour of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from ingest.models import ScopeKind
from ingest.scopes import ROLLED_UP
from ingest.snapshots import fetch
from opsmeter_site.lib.periods import Window

_TOKENS = "(uncached_input_tokens::bigint + cache_read_tokens + cache_write_tokens + output_tokens)"

# Ids grow in the order of commits: a commit gives them out under the workspace's lock.
_EVENTS = """
SELECT id AS place, received_at AS at, occurred_at AS moment, period.starts_at, {value} AS value, 1 AS requests,
    (cost_usd IS NULL)::int AS unpriced, coalesce(cost_usd, {tokens} * %(usd_per_token)s::numeric) AS usd
FROM period JOIN ingest_event ON occurred_at >= period.starts_at AND occurred_at < period.ends_at
WHERE workspace_id = %(workspace)s AND occurred_at >= %(events_from)s AND {matches}
"""
# Before all events: places below zero, in their order.
_QUARTER_HOURS = """
SELECT extract(epoch FROM bucket_start)::bigint - 1000000000000, bucket_start, bucket_start, period.starts_at,
    {value}, sum(requests)::bigint, coalesce(sum(requests) FILTER (WHERE NOT is_priced), 0)::bigint,
    sum(cost_usd + CASE WHEN is_priced THEN 0 ELSE {tokens} * %(usd_per_token)s::numeric END)
FROM period JOIN ingest_rollup ON bucket_start >= period.starts_at AND bucket_start < period.ends_at
WHERE workspace_id = %(workspace)s AND bucket_start < %(quarters_until)s AND {matches}
GROUP BY bucket_start, period.starts_at, {value}
"""
_ITEMS = """
    period AS (
        SELECT * FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS period (starts_at, ends_at)
    ), item (place, at, moment, starts_at, value, requests, unpriced, usd) AS ({items})
"""

_ADDED_UP = """
WITH {items}, summed AS MATERIALIZED (
    SELECT starts_at, value, sum(usd) AS usd, sum(unpriced) AS unpriced,
        sum(requests) FILTER (WHERE moment >= %(shown_from)s) AS shown_requests,
        sum(usd) FILTER (WHERE moment >= %(shown_from)s) AS shown_usd
    FROM item GROUP BY starts_at, value
)
SELECT NULL, NULL, coalesce(sum(shown_requests), 0)::bigint, coalesce(sum(shown_usd), 0) FROM summed
UNION ALL
SELECT starts_at, value, 0, 0 FROM summed WHERE usd >= %(lowest)s OR (%(blocks)s AND unpriced > 0)
"""

# As ingest: refused if what came before is above the limit. That refused items are added here, too, changes nothing:
# they come after the limit was exceeded for good. An item without a price that is blocked adds nothing.
_ONE_BY_ONE = """
WITH {items}, counted AS (
    SELECT item.*, sum(usd) OVER (PARTITION BY starts_at, value ORDER BY place ROWS UNBOUNDED PRECEDING) AS after
    FROM item
    WHERE value = ANY(%(values)s::text[])
), judged AS (
    SELECT *, after - usd AS before,
        CASE WHEN NOT %(refuses)s THEN 0 WHEN after - usd > %(limit)s THEN requests WHEN %(blocks)s THEN unpriced
            ELSE 0 END AS refused,
        CASE WHEN %(refuses)s AND after - usd > %(limit)s THEN usd ELSE 0 END AS refused_usd,
        usd > 0 AND (
            (after > %(limit)s AND after - usd <= %(limit)s)
            OR width_bucket(after - usd, %(levels)s::numeric[]) < width_bucket(after, %(levels)s::numeric[])
        ) AS crosses
    FROM counted
)
SELECT starts_at, value,
    array_agg(at ORDER BY place) FILTER (WHERE crosses),
    array_agg(before ORDER BY place) FILTER (WHERE crosses),
    array_agg(after ORDER BY place) FILTER (WHERE crosses),
    sum(requests)::bigint, sum(usd), sum(refused)::bigint, sum(refused_usd),
    coalesce(sum(refused) FILTER (WHERE moment >= %(shown_from)s), 0)::bigint,
    coalesce(sum(refused_usd) FILTER (WHERE moment >= %(shown_from)s), 0)
FROM judged
GROUP BY starts_at, value
HAVING bool_or(crosses) OR sum(refused) > 0
ORDER BY starts_at, value
"""


class Pair(NamedTuple):
    """One period of one scope value, by the period's start."""

    starts_at: datetime
    value: str


class Step(NamedTuple):
    """An item that crosses a threshold: when it was received, and what the budget counted before and after. USD."""

    at: datetime
    before: Decimal
    after: Decimal


class Walked(NamedTuple):
    """What came and was refused in one period of one value, and which items crossed a threshold. USD.

    `shown_…` is of those only that occurred in the days that the replay is about.
    """

    pair: Pair
    steps: list[Step]
    requests: int
    usd: Decimal
    refused: int
    refused_usd: Decimal
    shown_refused: int
    shown_refused_usd: Decimal


@dataclass(frozen=True, slots=True)
class Source:
    """What a budget counts of a workspace, and the `periods` in which to look.

    `events_from` is from when on events are stored one by one; before it quarter hours are taken, where they tell the
    dimension `kind`. `shown_from` is where the days begin that the replay is about. `usd_per_token` is counted for
    tokens without a price. `levels` are the amounts of the thresholds, ascending, without `limit` itself. USD.
    """

    workspace_id: UUID
    kind: str
    value: str
    is_each_value: bool
    counted_data_modes: Sequence[str]
    periods: Sequence[Window]
    shown_from: datetime
    events_from: datetime
    limit: Decimal
    levels: Sequence[Decimal]
    usd_per_token: Decimal
    refuses: bool
    blocks: bool

    @property
    def has_quarter_hours(self) -> bool:
        """Whether roll-ups tell the dimension."""
        return not self.kind or self.kind in ROLLED_UP

    def added_up(self) -> tuple[int, Decimal, list[Pair]]:
        """Requests and USD of the days shown, and the periods (and values) in which anything can happen.

        From quarter hours, where those tell the dimension: they are few, and their sums are exact.
        """
        quarters_until = self.periods[-1].end if self.has_quarter_hours else None
        sql = _ADDED_UP.format(items=self._items(quarters=self.has_quarter_hours, events=not self.has_quarter_hours))
        lowest = min((*self.levels, self.limit))
        (_, _, requests, usd), *rows = fetch(
            sql, self._parameters() | {"quarters_until": quarters_until, "lowest": lowest}
        )
        return requests, usd, [Pair(starts_at, value) for starts_at, value, _, _ in rows]

    def one_by_one(self, pairs: Sequence[Pair]) -> Iterator[Walked]:
        """What would have become of the items in the periods and of the values of `pairs`, where anything would."""
        starts = {pair.starts_at for pair in pairs}
        narrow = replace(self, periods=[period for period in self.periods if period.start in starts])
        sql = _ONE_BY_ONE.format(items=self._items(quarters=self.has_quarter_hours, events=True))
        parameters = narrow._parameters() | {
            "quarters_until": self.events_from,
            "values": sorted({pair.value for pair in pairs}),
        }
        for row in fetch(sql, parameters):
            starts_at, value, moments, before, after, *figures = row
            steps = [Step(*step) for step in zip(moments or (), before or (), after or (), strict=True)]
            yield Walked(Pair(starts_at, value), steps, *figures)

    def _items(self, *, quarters: bool, events: bool) -> str:
        column = "api_key_id::text" if self.kind == ScopeKind.API_KEY_ID else self.kind
        matches = "data_mode = ANY(%(counted)s::text[])"
        if self.kind:
            matches += f" AND {column} IS NOT NULL" if self.is_each_value else f" AND {self.kind} = %(value)s"
        parts = {"value": column or "''::text", "tokens": _TOKENS, "matches": matches}
        branches = [_EVENTS] * events + [_QUARTER_HOURS] * quarters
        return _ITEMS.format(items=" UNION ALL ".join(branches).format(**parts))

    def _parameters(self) -> dict[str, Any]:
        return {
            "workspace": self.workspace_id,
            "value": int(self.value) if self.kind == ScopeKind.API_KEY_ID and self.value else self.value,
            "counted": list(self.counted_data_modes),
            "starts": [period.start for period in self.periods],
            "ends": [period.end for period in self.periods],
            "shown_from": self.shown_from,
            "events_from": self.events_from,
            "limit": self.limit,
            "levels": list(self.levels),
            "usd_per_token": self.usd_per_token,
            "refuses": self.refuses,
            "blocks": self.blocks,
        }
