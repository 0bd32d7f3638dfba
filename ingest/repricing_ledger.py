"""What a piece of a re-pricing does to the ledger: everything is worked out first, so that the lock is held shortly."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection

from ingest.limit_sets import ZERO
from ingest.models import Outcome, Repricing
from ingest.repricing_pieces import Change, StoredEvent
from ingest.rollups import DIMENSIONS_SQL, SUMS_SQL, dimensions_key
from ingest.staleness import mark_stale_sql
from opsmeter_site.lib.periods import day_of, quarter_hour_of

# An event that has been changed or deleted since it was read is not found, and the piece is begun anew.
_CHANGE_EVENTS = """
UPDATE ingest_event AS event SET
    charged_cost_usd = CASE WHEN event.repricing_id IS NULL THEN event.cost_usd ELSE event.charged_cost_usd END,
    charged_price_id = CASE WHEN event.repricing_id IS NULL THEN event.price_id ELSE event.charged_price_id END,
    cost_usd = change.cost_usd, price_id = change.price_id, repricing_id = %(job)s
FROM json_to_recordset(%(events)s::json) AS change (
    id bigint, cost_usd numeric, price_id bigint, old_cost_usd numeric, old_price_id bigint
)
WHERE event.workspace_id = %(workspace)s AND event.id = change.id
    AND event.cost_usd IS NOT DISTINCT FROM change.old_cost_usd
    AND event.price_id IS NOT DISTINCT FROM change.old_price_id
"""

_LABELS = tuple(DIMENSIONS_SQL.split(", "))
_SUMS = tuple(SUMS_SQL.split(", "))
_MOVED = (
    "json_to_recordset(%(rollups)s::json) AS moved (bucket_start timestamptz, dimensions_key uuid, {labels}, {sums})"
)
_MOVED = _MOVED.format(
    labels=", ".join(f"{name} {'boolean' if name == 'is_priced' else 'text'}" for name in _LABELS),
    sums=", ".join(f"{name} numeric" for name in _SUMS),
)
_ADDITIONS = ", ".join(f"{name} = ingest_rollup.{name} + excluded.{name}" for name in _SUMS)

# Roll-ups that have expired are not made again; one that nothing is left of goes.
_MOVE_SUMS = f"""
INSERT INTO ingest_rollup (workspace_id, bucket_start, dimensions_key, {DIMENSIONS_SQL}, {SUMS_SQL})
SELECT %(workspace)s, bucket_start, dimensions_key, {DIMENSIONS_SQL}, {SUMS_SQL}
FROM {_MOVED}
WHERE bucket_start >= coalesce(
    (SELECT rollups_purged_before FROM ingest_ledgercoverage WHERE workspace_id = %(workspace)s), '-infinity'
)
ON CONFLICT (workspace_id, bucket_start, dimensions_key) DO UPDATE SET {_ADDITIONS};

DELETE FROM ingest_rollup AS rollup USING {_MOVED}
WHERE rollup.workspace_id = %(workspace)s AND rollup.bucket_start = moved.bucket_start
    AND rollup.dimensions_key = moved.dimensions_key AND rollup.requests <= 0;

{
    mark_stale_sql(
        "(SELECT %(workspace)s::uuid AS workspace_id, bucket_start AS moment"
        " FROM unnest(%(buckets)s::timestamptz[]) AS bucket (bucket_start))"
    )
};

UPDATE ingest_workspacepolicy SET rewrites = rewrites + 1 WHERE workspace_id = %(workspace)s
"""  # noqa: S608 (only constants are put in)

_ADD_DAYS = """
INSERT INTO ingest_repricingday (repricing_id, is_preview, day, rows, newly_priced, before_usd, after_usd)
SELECT %(job)s, %(is_preview)s, day, rows, newly_priced, before_usd, after_usd
FROM json_to_recordset(%(days)s::json) AS changed (
    day timestamptz, rows bigint, newly_priced bigint, before_usd numeric, after_usd numeric
)
ON CONFLICT (repricing_id, is_preview, day) DO UPDATE SET
    rows = ingest_repricingday.rows + excluded.rows,
    newly_priced = ingest_repricingday.newly_priced + excluded.newly_priced,
    before_usd = ingest_repricingday.before_usd + excluded.before_usd,
    after_usd = ingest_repricingday.after_usd + excluded.after_usd
"""


class OutpacedError(Exception):
    """Some events, or what is to be done with them, have changed since they were read: read them again."""


class Rewrite:
    """The new costs of some events, ready to be written."""

    def __init__(self, job: Repricing, changes: Sequence[Change]) -> None:
        """Work out everything that needs no lock."""
        self._number = len(changes)
        self._parameters: dict[str, Any] = {
            "job": job.pk,
            "workspace": job.workspace_id,
            "events": _as_json(_event_row(change) for change in changes),
            "rollups": _as_json(_rollup_rows(changes)),
            "buckets": sorted({quarter_hour_of(change.event.occurred_at) for change in changes}),
        }

    def write(self) -> None:
        """Change the events and roll-ups, in the caller's transaction, under the ledger lock; meters are the caller's.

        Raises `OutpacedError`, and then the transaction must be rolled back.
        """
        with connection.cursor() as cursor:
            cursor.execute(_CHANGE_EVENTS, self._parameters)
            if cursor.rowcount != self._number:
                raise OutpacedError
            cursor.execute(_MOVE_SUMS, self._parameters)


def add_days(job: Repricing, changes: Iterable[Change], *, is_preview: bool) -> None:
    """Count changes in the job's `RepricingDay` rows, in the caller's transaction."""
    days: dict[datetime, dict[str, Any]] = {}
    for change in changes:
        day = day_of(change.event.occurred_at).start
        sums = days.setdefault(day, {"day": day, "rows": 0, "newly_priced": 0, "before_usd": ZERO, "after_usd": ZERO})
        sums["rows"] += 1
        sums["newly_priced"] += change.is_newly_priced
        sums["before_usd"] += change.before_usd
        sums["after_usd"] += change.cost_usd
    if days:
        parameters: dict[str, Any] = {"job": job.pk, "is_preview": is_preview, "days": _as_json(days.values())}
        with connection.cursor() as cursor:
            cursor.execute(_ADD_DAYS, parameters)


def _event_row(change: Change) -> dict[str, Any]:
    return {
        "id": change.event.id,
        "cost_usd": change.cost_usd,
        "price_id": change.price_id,
        "old_cost_usd": change.event.cost_usd,
        "old_price_id": change.event.price_id,
    }


def _rollup_rows(changes: Iterable[Change]) -> Iterable[dict[str, Any]]:
    """What is added to which roll-up: only money, or, of events that get a price, all of what they add up to."""
    rows: dict[tuple[datetime, UUID], dict[str, Any]] = {}
    for change in changes:
        event = change.event
        if change.is_newly_priced:
            _add(rows, event, False, _sums(event, -1, ZERO))
            _add(rows, event, True, _sums(event, 1, change.cost_usd))
        else:
            _add(rows, event, True, {"cost_usd": change.added_usd})
    return rows.values()


def _add(
    rows: dict[tuple[datetime, UUID], dict[str, Any]], event: StoredEvent, is_priced: bool, sums: dict[str, Any]
) -> None:
    labels = (*(getattr(event, name) for name in _LABELS[:-1]), is_priced)
    slot = (quarter_hour_of(event.occurred_at), dimensions_key(*labels))
    row = rows.get(slot)
    if row is None:
        names = dict(zip(_LABELS, labels, strict=True))
        row = rows[slot] = {"bucket_start": slot[0], "dimensions_key": slot[1], **names, **dict.fromkeys(_SUMS, 0)}
    for name, value in sums.items():
        row[name] += value


def _sums(event: StoredEvent, times: int, cost_usd: Decimal) -> dict[str, Any]:
    """What one event adds to a roll-up (`times` 1), or takes out of it (-1)."""
    return {
        "requests": times,
        "errors": times * (event.status == Outcome.ERROR),
        "uncached_input_tokens": times * event.uncached_input_tokens,
        "cache_read_tokens": times * event.cache_read_tokens,
        "cache_write_tokens": times * event.cache_write_tokens,
        "output_tokens": times * event.output_tokens,
        "reasoning_tokens": times * event.reasoning_tokens,
        "latency_ms_sum": times * (event.latency_ms or 0),
        "latency_count": times * (event.latency_ms is not None),
        "cost_usd": cost_usd,
    }


def _as_json(rows: Iterable[dict[str, Any]]) -> str:
    """`rows` as one parameter; amounts, times and keys as texts, so that no digit is lost."""
    return json.dumps(list(rows), default=str)
