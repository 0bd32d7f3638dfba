"""The commit's SQL: one pipeline reads under the lock, COPY stores the events, one pipeline adds them up and commits.

psycopg directly: Django's cursors never prepare, which doubles the database's processor time on this path.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from ingest.gateway.ledger import (
    ZERO,
    KnownEvent,
    LimitRow,
    MeterKey,
    Submission,
    Sums,
    WorkspaceLedger,
    meter_keys,
)
from ingest.gateway.priced import EVENT_COLUMNS
from ingest.staleness import MARK_LATE, late_from

# One plan for every group, always by index: a plan made while a table was small must not survive its growth.
_SESSION = """
SET TIME ZONE 'UTC';
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_sort = off;
SET jit = off;
SET lock_timeout = '5s';
SET statement_timeout = '8s';
SET idle_in_transaction_session_timeout = '15s'
"""

_LOCK = """
SELECT workspace_id, plan_tier, plan_name, observe_mode, counted_data_modes, limits_version FROM ingest_workspacepolicy
WHERE workspace_id = ANY(%s) ORDER BY workspace_id FOR NO KEY UPDATE
"""
# One row of three JSON lists: fewer statements and no row-by-row conversion.
# Limits: only those of workspaces whose version has moved on since this process last read them.
# Known events: the range and the order say "equal" in a way that only the index on the id can serve. On a table without
# statistics the planner may otherwise take any index that begins with the workspace, and read all of its rows.
_READ = """
SELECT (
  SELECT json_agg(json_build_array(l.workspace_id, l.id, l.source_id, l.name, l.measure, l.period, l.amount::text,
    l.thresholds::text[], l.enforce))
  FROM json_to_recordset(%s::json) AS k(w uuid, v bigint)
  JOIN ingest_workspacepolicy p ON p.workspace_id = k.w AND p.limits_version <> k.v
  JOIN ingest_limit l ON l.workspace_id = k.w
)::text, (
  SELECT json_agg(json_build_array(m.workspace_id, m.measure, m.period, m.period_start, m.value::text))
  FROM json_to_recordset(%s::json) AS k(w uuid, t timestamptz)
  JOIN ingest_meter m ON m.workspace_id = k.w AND m.period_start = k.t
)::text, (
  SELECT json_agg(json_build_array(k.w, k.i, e.cost_usd::text, e.fingerprint))
  FROM json_to_recordset(%s::json) AS k(w uuid, i text)
  CROSS JOIN LATERAL (
    SELECT cost_usd, fingerprint FROM ingest_event
    WHERE workspace_id = k.w AND external_request_id >= k.i AND external_request_id <= k.i
    ORDER BY external_request_id LIMIT 1
  ) e
)::text
"""
_read_limits = msgspec.json.Decoder(
    list[tuple[UUID, UUID, str, str, str, str, Decimal, tuple[Decimal, ...], bool]]
).decode
_read_meters = msgspec.json.Decoder(list[tuple[UUID, str, str, datetime, Decimal]]).decode
_read_known = msgspec.json.Decoder(list[tuple[UUID, str, Decimal | None, int]]).decode

_COPY_EVENTS = f"COPY ingest_event ({EVENT_COLUMNS}) FROM STDIN"

_SUMS = {
    "requests": "bigint",
    "uncached_input_tokens": "bigint",
    "cache_read_tokens": "bigint",
    "cache_write_tokens": "bigint",
    "output_tokens": "bigint",
    "reasoning_tokens": "bigint",
    "cost_usd": "numeric",
}
_ROLLUP_SUMS = _SUMS | {"errors": "bigint", "latency_ms_sum": "bigint", "latency_count": "bigint"}
_ROLLUP_KEY = {"workspace_id": "uuid", "bucket_start": "timestamptz", "dimensions_key": "uuid"}
_ROLLUP_LABELS = {
    "provider": "text",
    "model": "text",
    "endpoint_tag": "text",
    "prompt_version": "text",
    "environment": "text",
    "data_mode": "text",
    "is_priced": "boolean",
}
_REFUSAL_KEY = {"workspace_id": "uuid", "bucket_start": "timestamptz", "reason": "text"}
_METER_KEY = {"workspace_id": "uuid", "period_start": "timestamptz", "period": "text", "measure": "text"}


def _add_statement(table: str, key: dict[str, str], labels: dict[str, str], sums: dict[str, str]) -> str:
    """INSERT … ON CONFLICT that adds `sums` to the row under `key`, from one JSON parameter with a list of rows."""
    columns = key | labels | sums
    names = ", ".join(columns)
    typed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    additions = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in sums)
    return (
        f"INSERT INTO {table} ({names}) SELECT {names} FROM json_to_recordset(%s::json) AS r({typed}) "  # noqa: S608
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {additions}"  # (names above, no input)
    )


_ADD_ROLLUPS = _add_statement("ingest_rollup", _ROLLUP_KEY, _ROLLUP_LABELS, _ROLLUP_SUMS)
_ADD_REFUSALS = _add_statement("ingest_refusal", _REFUSAL_KEY, {}, _SUMS)
_ADD_METERS = _add_statement("ingest_meter", _METER_KEY, {}, {"value": "numeric"})
_ADD_CROSSINGS = """
INSERT INTO ingest_limitcrossing (limit_id, period_start, threshold, amount, value, crossed_at)
SELECT limit_id, period_start, threshold, amount, value, crossed_at FROM json_to_recordset(%s::json)
AS r(limit_id uuid, period_start timestamptz, threshold numeric, amount numeric, value numeric, crossed_at timestamptz)
ON CONFLICT DO NOTHING
"""

_MAX_CACHED_WORKSPACES = 50_000
_encode = msgspec.json.Encoder(decimal_format="string").encode


def connect(conninfo: str) -> psycopg.Connection:
    """A connection set up for the commit path. Raises `psycopg.OperationalError` when the database is away."""
    connection = psycopg.connect(conninfo, autocommit=True, prepare_threshold=0, application_name="opsmeter-ingest")
    connection.execute(_SESSION, prepare=False)
    return connection


class LimitCache:
    """The limits of each workspace as this process last read them, with the version that they had."""

    def __init__(self) -> None:
        self._limits: dict[UUID, tuple[int, list[LimitRow]]] = {}

    def version(self, workspace_id: UUID) -> int:
        """The version held, -1 if none."""
        return self._limits[workspace_id][0] if workspace_id in self._limits else -1

    def refresh(self, workspace_id: UUID, version: int, changed: list[LimitRow]) -> list[LimitRow]:
        """The limits at `version`; `changed` are the rows that were read because the held version is another one."""
        if self.version(workspace_id) != version:
            if len(self._limits) >= _MAX_CACHED_WORKSPACES:
                self._limits.clear()
            # A fixed order, so that of several budgets in excess the same one is always named first.
            self._limits[workspace_id] = (version, sorted(changed, key=lambda row: (row.period, row.source_id)))
        return self._limits[workspace_id][1]


def open_ledgers(
    connection: psycopg.Connection, limits: LimitCache, group: Sequence[Submission], now: datetime
) -> dict[UUID, WorkspaceLedger]:
    """Begin the transaction, lock the group's workspaces and read what deciding needs.

    The lock is a statement of its own: the ones after it see everything that its former holder committed.
    A workspace that no longer exists has no ledger in the answer.
    """
    workspace_ids = sorted({submission.workspace_id for submission in group})
    versions = [{"w": one, "v": limits.version(one)} for one in workspace_ids]
    with connection.pipeline():
        connection.execute("BEGIN")
        policies = connection.execute(_LOCK, [workspace_ids])
        read = connection.execute(_READ, [_json(versions), _json(_period_keys(group, now)), _json(_event_keys(group))])
    changed, meters, known = (text or "[]" for text in read.fetchall()[0])
    changed_rows = defaultdict(list)
    for row in _read_limits(changed):
        changed_rows[row[0]].append(LimitRow(*row[1:]))
    ledgers = {}
    for workspace_id, tier, name, observes, modes, version in policies.fetchall():
        rows = limits.refresh(workspace_id, version, changed_rows[workspace_id])
        ledgers[workspace_id] = WorkspaceLedger(workspace_id, tier, name, observes, frozenset(modes), rows)
    for workspace_id, measure, period, start, value in _read_meters(meters):
        key = MeterKey(measure, period, start)
        ledgers[workspace_id].opening[key] = ledgers[workspace_id].meters[key] = value
    for workspace_id, external_id, cost, fingerprint in _read_known(known):
        ledgers[workspace_id].known[external_id] = KnownEvent(cost, fingerprint)
    return ledgers


def _period_keys(group: Sequence[Submission], now: datetime) -> list[dict[str, Any]]:
    keys = set()
    for submission in group:
        moments = {priced.event.occurred_at for priced in submission.events} | {now}
        starts = {key.period_start for moment in moments for key in meter_keys(moment).values()}
        keys |= {(submission.workspace_id, start) for start in starts}
    return [{"w": workspace_id, "t": start} for workspace_id, start in keys]


def _event_keys(group: Sequence[Submission]) -> list[dict[str, Any]]:
    return [
        {"w": submission.workspace_id, "i": priced.event.external_request_id}
        for submission in group
        for priced in submission.events
    ]


def write(connection: psycopg.Connection, ledgers: Collection[WorkspaceLedger], now: datetime) -> None:
    """Write what the walk decided, and commit."""
    lines = [priced.line for ledger in ledgers for priced in ledger.accepted]
    if lines:
        with connection.cursor().copy(_COPY_EVENTS) as copy:
            copy.write("".join(lines))
    with connection.pipeline():
        _add(
            connection,
            _ADD_ROLLUPS,
            (_rollup_row(ledger, *item) for ledger in ledgers for item in ledger.rollups.items()),
        )
        _add(connection, MARK_LATE, _late_rows(ledgers, now))
        _add(connection, _ADD_METERS, (row for ledger in ledgers for row in _meter_rows(ledger)))
        _add(
            connection,
            _ADD_REFUSALS,
            (_refusal_row(ledger, *item) for ledger in ledgers for item in ledger.refusals.items()),
        )
        _add(connection, _ADD_CROSSINGS, (row for ledger in ledgers for row in _crossing_rows(ledger, now)))
        connection.execute("COMMIT")


def _add(connection: psycopg.Connection, statement: str, rows: Iterable[dict[str, Any]]) -> None:
    listed = list(rows)
    if listed:
        connection.execute(statement, [_json(listed)])


def _json(rows: list[dict[str, Any]]) -> str:
    return _encode(rows).decode()


def _sums_row(ledger: WorkspaceLedger, bucket: datetime, sums: Sums) -> dict[str, Any]:
    return {
        "workspace_id": ledger.workspace_id,
        "bucket_start": bucket,
        "requests": sums.requests,
        "uncached_input_tokens": sums.uncached_input_tokens,
        "cache_read_tokens": sums.cache_read_tokens,
        "cache_write_tokens": sums.cache_write_tokens,
        "output_tokens": sums.output_tokens,
        "reasoning_tokens": sums.reasoning_tokens,
        "cost_usd": sums.cost_usd,
    }


def _rollup_row(ledger: WorkspaceLedger, slot: tuple[datetime, UUID], sums: Sums) -> dict[str, Any]:
    event = sums.first.event
    return _sums_row(ledger, slot[0], sums) | {
        "dimensions_key": slot[1],
        "provider": event.provider,
        "model": event.model,
        "endpoint_tag": event.endpoint_tag,
        "prompt_version": event.prompt_version,
        "environment": event.environment,
        "data_mode": event.data_mode,
        "is_priced": sums.first.quote.cost_usd is not None,
        "errors": sums.errors,
        "latency_ms_sum": sums.latency_ms_sum,
        "latency_count": sums.latency_count,
    }


def _refusal_row(ledger: WorkspaceLedger, slot: tuple[datetime, str], sums: Sums) -> dict[str, Any]:
    return _sums_row(ledger, slot[0], sums) | {"reason": slot[1]}


def _late_rows(ledgers: Collection[WorkspaceLedger], now: datetime) -> list[dict[str, Any]]:
    """The quarter hours that got events after they may have been summed; of live traffic, none."""
    newest = late_from(now)
    slots = {(ledger.workspace_id, bucket) for ledger in ledgers for bucket, _ in ledger.rollups}
    return [{"w": workspace_id, "t": bucket} for workspace_id, bucket in slots if bucket <= newest]


def _meter_rows(ledger: WorkspaceLedger) -> list[dict[str, Any]]:
    return [
        {
            "workspace_id": ledger.workspace_id,
            "period_start": key.period_start,
            "period": key.period,
            "measure": key.measure,
            "value": value - ledger.opening.get(key, ZERO),
        }
        for key, value in ledger.changed_meters()
    ]


def _crossing_rows(ledger: WorkspaceLedger, now: datetime) -> list[dict[str, Any]]:
    return [
        {
            "limit_id": row.id,
            "period_start": key.period_start,
            "threshold": threshold,
            "amount": row.amount,
            "value": ledger.meters[key],
            "crossed_at": now,
        }
        for row, key, threshold in ledger.crossings()
    ]
