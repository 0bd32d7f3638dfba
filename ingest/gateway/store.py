"""The commit's SQL: COPY stores the events, one pipeline adds them up and commits. What it reads first: `openings`.

psycopg directly: Django's cursors never prepare, which doubles the database's processor time on this path.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from ingest.gateway.ledger import Sums, WorkspaceLedger
from ingest.gateway.priced import EVENT_COLUMNS
from ingest.limit_sets import ZERO
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
_HOLD_KEY = {"workspace_id": "uuid", "scope_kind": "text", "scope_value": "text", "expires_at": "timestamptz"}
_HOLD_SUMS = {"usd": "numeric", "unpriced_tokens": "bigint"}
_LEASE_COLUMNS = {
    "workspace_id": "uuid",
    "external_request_id": "text",
    "api_key_id": "bigint",
    "provider": "text",
    "model": "text",
    "endpoint_tag": "text",
    "prompt_version": "text",
    "environment": "text",
    "data_mode": "text",
    "user_id": "text",
    "tenant_id": "text",
    "usd": "numeric",
    "unpriced_tokens": "bigint",
    "created_at": "timestamptz",
    "expires_at": "timestamptz",
    "closed_at": "timestamptz",
    "outcome": "text",
    "settled_usd": "numeric",
}


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
# A hot workspace moves many meters in each commit. They come in lists of those that share all of the key but the value
# of the scope: PostgreSQL reads lists much faster than an object for each.
_ADD_METERS = """
INSERT INTO ingest_meter
  (workspace_id, period_start, period, measure, scope_kind, scope_value, value, unpriced_tokens)
SELECT k.w, k.t, k.p, k.m, k.s, moved.value, moved.amount, moved.tokens
FROM json_to_recordset(%s::json)
  AS k(w uuid, t timestamptz, p text, m text, s text, "values" text[], amounts numeric[], tokens bigint[])
CROSS JOIN LATERAL unnest(k.values, k.amounts, k.tokens) AS moved(value, amount, tokens)
ON CONFLICT (workspace_id, period_start, scope_kind, scope_value, period, measure) DO UPDATE
SET value = ingest_meter.value + excluded.value,
  unpriced_tokens = ingest_meter.unpriced_tokens + excluded.unpriced_tokens
"""
_ADD_HOLDS = _add_statement("ingest_hold", _HOLD_KEY, {}, _HOLD_SUMS)
_PUT_LEASES = (
    f"INSERT INTO ingest_lease ({', '.join(_LEASE_COLUMNS)}) "  # noqa: S608 (names above, no input)
    f"SELECT * FROM json_to_recordset(%s::json) AS r({', '.join(f'{n} {t}' for n, t in _LEASE_COLUMNS.items())}) "
    "ON CONFLICT (workspace_id, external_request_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in list(_LEASE_COLUMNS)[2:])
)
_NOTE_LEASES = """
UPDATE ingest_workspacepolicy AS policy SET leases_until = greatest(policy.leases_until, k.t)
FROM json_to_recordset(%s::json) AS k(w uuid, t timestamptz)
WHERE policy.workspace_id = k.w AND (policy.leases_until IS NULL OR policy.leases_until < k.t)
"""
_ADD_CROSSINGS = """
INSERT INTO ingest_limitcrossing
  (limit_id, period_start, scope_value, threshold, threshold_usd, amount, value, crossed_at)
SELECT limit_id, period_start, scope_value, threshold, threshold_usd, amount, value, crossed_at
FROM json_to_recordset(%s::json) AS r(limit_id uuid, period_start timestamptz, scope_value text, threshold numeric,
  threshold_usd numeric, amount numeric, value numeric, crossed_at timestamptz)
ON CONFLICT DO NOTHING
"""

_encode = msgspec.json.Encoder(decimal_format="string").encode


def connect(conninfo: str) -> psycopg.Connection:
    """A connection set up for the commit path. Raises `psycopg.OperationalError` when the database is away."""
    connection = psycopg.connect(conninfo, autocommit=True, prepare_threshold=0, application_name="opsmeter-ingest")
    connection.execute(_SESSION, prepare=False)
    return connection


def as_json(rows: Sequence[dict[str, Any]]) -> str:
    """`rows` as the one parameter of a statement."""
    return _encode(rows).decode()


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
        _add(connection, _ADD_CROSSINGS, (row for ledger in ledgers for row in _crossing_rows(ledger)))
        _add(connection, _PUT_LEASES, (row for ledger in ledgers for row in _lease_rows(ledger)))
        _add(connection, _ADD_HOLDS, (row for ledger in ledgers for row in _hold_rows(ledger)))
        _add(connection, _NOTE_LEASES, (row for ledger in ledgers for row in _expiry_rows(ledger)))
        connection.execute("COMMIT")


def _add(connection: psycopg.Connection, statement: str, rows: Iterable[dict[str, Any]]) -> None:
    listed = list(rows)
    if listed:
        connection.execute(statement, [as_json(listed)])


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


def _meter_rows(ledger: WorkspaceLedger) -> Iterable[dict[str, Any]]:
    """What this commit adds to meters; see `_ADD_METERS`."""
    lists: dict[tuple[str, str, datetime, str], dict[str, Any]] = {}
    for counter in ledger.accounts.changed():
        key = counter.key
        row = lists.get(key[:4])
        if row is None:
            row = lists[key[:4]] = {
                "w": ledger.workspace_id, "t": key.period_start, "p": key.period, "m": key.measure, "s": key.scope_kind,
                "values": [], "amounts": [], "tokens": [],
            }  # fmt: skip
        row["values"].append(key.scope_value)
        row["amounts"].append(counter.value - (counter.opening or ZERO))
        row["tokens"].append(counter.unpriced - counter.opening_unpriced)
    return lists.values()


def _crossing_rows(ledger: WorkspaceLedger) -> list[dict[str, Any]]:
    return [
        {
            "limit_id": terms.row.id,
            "period_start": counter.key.period_start,
            "scope_value": counter.key.scope_value if terms.row.is_each_value else "",
            "threshold": level.share,
            "threshold_usd": level.usd,
            "amount": terms.amount,
            "value": value,
            "crossed_at": ledger.now,
        }
        for counter in ledger.accounts.changed()
        for terms, level, value in counter.crossed()
    ]


def _lease_rows(ledger: WorkspaceLedger) -> list[dict[str, Any]]:
    return [
        {name: getattr(lease.ask, name) for name in list(_LEASE_COLUMNS)[1:13]}
        | {
            "workspace_id": ledger.workspace_id,
            "created_at": lease.created_at,
            "expires_at": lease.expires_at,
            "closed_at": lease.closed_at,
            "outcome": lease.outcome,
            "settled_usd": lease.settled_usd,
        }
        for lease in ledger.changed_leases.values()
    ]


def _hold_rows(ledger: WorkspaceLedger) -> list[dict[str, Any]]:
    return [
        {
            "workspace_id": ledger.workspace_id,
            "scope_kind": scope.kind,
            "scope_value": scope.value,
            "expires_at": expires_at,
            "usd": usd,
            "unpriced_tokens": tokens,
        }
        for (scope, expires_at), (usd, tokens) in ledger.hold_changes.items()
    ]


def _expiry_rows(ledger: WorkspaceLedger) -> list[dict[str, Any]]:
    ends = [lease.expires_at for lease in ledger.changed_leases.values() if lease.closed_at is None]
    return [{"w": ledger.workspace_id, "t": max(ends)}] if ends else []
