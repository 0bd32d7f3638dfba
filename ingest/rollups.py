"""Sums per quarter hour: what names one, and how they are made again from raw rows."""

import json
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from uuid import UUID

from django.db import connection

from ingest.models import LedgerCoverage
from opsmeter_site.lib.periods import quarter_hour_of

_SEPARATOR = "\x1f"
_DIMENSIONS = 7

# Fragments that every statement over raw rows shares, so that "what a roll-up is" is written once.
BUCKET_SQL = "date_bin('15 minutes', occurred_at, TIMESTAMPTZ '2000-01-01 00:00:00+00')"
DIMENSIONS_SQL = "provider, model, endpoint_tag, prompt_version, environment, data_mode, is_priced"
SUMS_SQL = (
    "requests, errors, uncached_input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, "
    "latency_ms_sum, latency_count, cost_usd"
)
AGGREGATES_SQL = """
    count(*) AS requests,
    count(*) FILTER (WHERE status = 'error') AS errors,
    sum(uncached_input_tokens) AS uncached_input_tokens,
    sum(cache_read_tokens) AS cache_read_tokens,
    sum(cache_write_tokens) AS cache_write_tokens,
    sum(output_tokens) AS output_tokens,
    sum(reasoning_tokens) AS reasoning_tokens,
    coalesce(sum(latency_ms), 0) AS latency_ms_sum,
    count(latency_ms) AS latency_count,
    coalesce(sum(cost_usd), 0) AS cost_usd"""

_FIND_DIMENSIONS = """
SELECT DISTINCT provider, model, endpoint_tag, prompt_version, environment, data_mode, cost_usd IS NOT NULL AS is_priced
FROM ingest_event
WHERE workspace_id = %(workspace)s AND occurred_at >= %(start)s AND occurred_at < %(end)s
"""

_DELETE = """
DELETE FROM ingest_rollup
WHERE workspace_id = %(workspace)s AND bucket_start >= %(start)s AND bucket_start < %(end)s
"""

# The keys come from Python, because PostgreSQL has no blake2b; everything else stays in the database.
_INSERT = f"""
WITH named AS (
    SELECT * FROM unnest(
        %(keys)s::uuid[], %(provider)s::text[], %(model)s::text[], %(endpoint_tag)s::text[], %(prompt_version)s::text[],
        %(environment)s::text[], %(data_mode)s::text[], %(is_priced)s::boolean[]
    ) AS named (dimensions_key, {DIMENSIONS_SQL})
), summed AS (
    SELECT {BUCKET_SQL} AS bucket_start, provider, model, endpoint_tag, prompt_version, environment, data_mode,
        cost_usd IS NOT NULL AS is_priced, {AGGREGATES_SQL}
    FROM ingest_event
    WHERE workspace_id = %(workspace)s AND occurred_at >= %(start)s AND occurred_at < %(end)s
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
)
INSERT INTO ingest_rollup (workspace_id, bucket_start, dimensions_key, {DIMENSIONS_SQL}, {SUMS_SQL})
SELECT %(workspace)s, bucket_start, dimensions_key, {DIMENSIONS_SQL}, {SUMS_SQL}
FROM summed JOIN named USING ({DIMENSIONS_SQL})
"""  # noqa: S608 (only the constants above are put in)


@lru_cache(maxsize=16_384)
def dimensions_key(
    provider: str,
    model: str,
    endpoint_tag: str,
    prompt_version: str,
    environment: str,
    data_mode: str,
    is_priced: bool,
) -> UUID:
    """The key of a roll-up's dimensions, which together are too long for an index."""
    parts = (provider, model, endpoint_tag, prompt_version, environment, data_mode, "1" if is_priced else "0")
    text = _SEPARATOR.join(parts)
    if text.count(_SEPARATOR) != _DIMENSIONS - 1:
        # A value with a separator in it could be cut in two ways. JSON escapes it, and cannot equal a plain text.
        text = json.dumps(parts)
    return UUID(bytes=blake2b(text.encode(), digest_size=16).digest())


def rebuild_rollups(workspace_id: UUID, start: datetime, end: datetime) -> None:
    """Make the roll-ups of the quarter hours in `[start, end)` again from raw rows; meters are the caller's.

    Quarter hours whose raw rows have partly expired keep their roll-ups. Runs in the caller's transaction, which holds
    the ledger lock. Raises ValueError for a start or end inside a quarter hour.
    """
    if quarter_hour_of(start) != start or quarter_hour_of(end) != end:
        raise ValueError("Roll-ups are rebuilt by whole quarter hours.")
    complete_from = LedgerCoverage.of(workspace_id).complete_from or start
    where: dict[str, Any] = {"workspace": workspace_id, "start": max(start, complete_from), "end": end}
    with connection.cursor() as cursor:
        cursor.execute(_FIND_DIMENSIONS, where)
        named = _named(cursor.fetchall())
        cursor.execute(_DELETE, where)
        cursor.execute(_INSERT, where | named)


def _named(dimensions: Iterable[tuple[str, str, str, str, str, str, bool]]) -> dict[str, list[Any]]:
    """`dimensions` and their keys as one array a column."""
    columns: dict[str, list[Any]] = {"keys": []}
    names = DIMENSIONS_SQL.split(", ")
    columns |= {name: [] for name in names}
    for values in dimensions:
        columns["keys"].append(dimensions_key(*values))
        for name, value in zip(names, values, strict=True):
            columns[name].append(value)
    return columns
