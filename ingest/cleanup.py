"""Deleting a workspace's demo or test rows on request; every counter follows. Real rows are never deleted here.

The work is cut into short transactions under the ledger lock, each of which leaves the ledger exact: a run that was
killed is finished by the next one, and two runs at once share the work.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from ingest import meters
from ingest.models import DataMode, LedgerCoverage, ScopeKind, WorkspacePolicy
from ingest.rollups import AGGREGATES_SQL, BUCKET_SQL
from ingest.scope_sums import TOKENS_SQL, is_metered_sql, scopes_sql
from ingest.scopes import ROLLED_UP
from ingest.services import lock_ledger, note_rewrite
from ingest.staleness import mark_stale_sql
from workspaces.models import ApiKey, User, Workspace
from workspaces.services import record_audit

# Per transaction: rows deleted, rows read to find them (of every data mode), and quarter hours.
CHUNK_ROWS = 5_000
CHUNK_READS = 20_000
CHUNK_BUCKETS = 1_000

DELETABLE = frozenset({DataMode.DEMO, DataMode.TEST})

# Roll-ups say where rows of a data mode are, so that the whole history of raw rows need not be searched.
_FIND_BUCKETS = """
SELECT bucket_start, sum(requests)
FROM ingest_rollup
WHERE workspace_id = %(workspace)s
GROUP BY bucket_start
HAVING bool_or(data_mode = %(mode)s)
ORDER BY bucket_start
"""

# Rows that were reported late can outlive their roll-ups.
_FIND_BUCKETS_WITHOUT_ROLLUPS = f"""
SELECT {BUCKET_SQL} AS bucket_start, count(*)
FROM ingest_event
WHERE workspace_id = %(workspace)s AND occurred_at < %(rollups_from)s
GROUP BY 1
HAVING bool_or(data_mode = %(mode)s)
ORDER BY 1
"""  # noqa: S608 (only a constant is put in)

_MARK_STALE = mark_stale_sql(
    "(SELECT DISTINCT %(workspace)s::uuid AS workspace_id, bucket_start AS moment FROM {relation})"
)

_HAS_METERS = f"(scope.kind = '' OR {is_metered_sql('scope.kind', 'scope.value')})"

# Deletes rows and takes exactly these out of the roll-ups, some of which may have expired. The inner LIMIT keeps the
# planner from joining all of the workspace's rows: each quarter hour is one look-up in the index.
_DELETE_EVENTS = f"""
WITH gone AS (
    DELETE FROM ingest_event
    WHERE workspace_id = %(workspace)s AND id = ANY(ARRAY(
        SELECT event.id
        FROM unnest(%(buckets)s::timestamptz[]) AS bucket (start)
        CROSS JOIN LATERAL (
            SELECT id
            FROM ingest_event
            WHERE workspace_id = %(workspace)s AND data_mode = %(mode)s
                AND occurred_at >= bucket.start AND occurred_at < bucket.start + INTERVAL '15 minutes'
                AND (NOT %(only_keys)s OR api_key_id = ANY(%(keys)s::bigint[]))
            LIMIT %(limit)s
        ) AS event
        LIMIT %(limit)s
    ))
    RETURNING *
), summed AS (
    SELECT {BUCKET_SQL} AS bucket_start, provider, model, endpoint_tag, prompt_version, environment, data_mode,
        cost_usd IS NOT NULL AS is_priced, {AGGREGATES_SQL}
    FROM gone
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
), taken AS (
    UPDATE ingest_rollup AS rollup SET
        requests = rollup.requests - summed.requests,
        errors = rollup.errors - summed.errors,
        uncached_input_tokens = rollup.uncached_input_tokens - summed.uncached_input_tokens,
        cache_read_tokens = rollup.cache_read_tokens - summed.cache_read_tokens,
        cache_write_tokens = rollup.cache_write_tokens - summed.cache_write_tokens,
        output_tokens = rollup.output_tokens - summed.output_tokens,
        reasoning_tokens = rollup.reasoning_tokens - summed.reasoning_tokens,
        latency_ms_sum = rollup.latency_ms_sum - summed.latency_ms_sum,
        latency_count = rollup.latency_count - summed.latency_count,
        cost_usd = rollup.cost_usd - summed.cost_usd
    FROM summed
    WHERE rollup.workspace_id = %(workspace)s AND rollup.bucket_start = summed.bucket_start
        AND rollup.provider = summed.provider AND rollup.model = summed.model
        AND rollup.endpoint_tag = summed.endpoint_tag AND rollup.prompt_version = summed.prompt_version
        AND rollup.environment = summed.environment AND rollup.data_mode = summed.data_mode
        AND rollup.is_priced = summed.is_priced
), marked AS (
    {_MARK_STALE.format(relation="summed")}
)
SELECT scope.kind, scope.value, date_trunc('day', occurred_at, 'UTC'), count(*), coalesce(sum(cost_usd), 0),
    coalesce(sum({TOKENS_SQL}) FILTER (WHERE cost_usd IS NULL), 0)::bigint
FROM gone CROSS JOIN LATERAL {scopes_sql(ScopeKind.values)}
WHERE {_HAS_METERS}
GROUP BY 1, 2, 3
"""  # noqa: S608 (only constants are put in)

_DELETE_EMPTY_ROLLUPS = """
DELETE FROM ingest_rollup
WHERE workspace_id = %(workspace)s AND bucket_start = ANY(%(buckets)s::timestamptz[]) AND data_mode = %(mode)s
    AND requests <= 0
"""

# Their users, tenants and keys are not known any more: meters of these keep what they say of such periods.
_DELETE_OUTLIVED_ROLLUPS = f"""
WITH gone AS (
    DELETE FROM ingest_rollup
    WHERE workspace_id = %(workspace)s AND bucket_start = ANY(%(buckets)s::timestamptz[]) AND data_mode = %(mode)s
    RETURNING *
), marked AS (
    {_MARK_STALE.format(relation="gone")}
)
SELECT scope.kind, scope.value, date_trunc('day', bucket_start, 'UTC'), sum(requests)::bigint, sum(cost_usd),
    coalesce(sum({TOKENS_SQL}) FILTER (WHERE NOT is_priced), 0)::bigint
FROM gone CROSS JOIN LATERAL {scopes_sql(ROLLED_UP)}
WHERE {_HAS_METERS}
GROUP BY 1, 2, 3
"""  # noqa: S608 (only constants are put in)


def delete_rows(workspace_id: UUID, data_mode: str, *, created_by_id: int | None, acting_user: User | None) -> int:
    """Delete the workspace's rows of one data mode ("demo" or "test"); answers how many raw rows went.

    With `created_by_id`, only rows sent with that person's own API keys; without, also the roll-ups of rows that have
    already expired. May be called again after a failure. Raises ValueError for any other data mode.
    """
    if data_mode not in DELETABLE:
        raise ValueError(f"Rows of data mode {data_mode!r} are never deleted on request.")
    keys = None if created_by_id is None else _keys_of(workspace_id, created_by_id)
    deleted = 0
    for buckets in _chunks(workspace_id, data_mode):
        chunk_deleted = CHUNK_ROWS
        while chunk_deleted == CHUNK_ROWS:
            chunk_deleted = _delete_chunk(workspace_id, data_mode, keys, buckets)
            deleted += chunk_deleted
    record_audit(
        "ledger.rows_deleted",
        acting_user=acting_user,
        workspace=Workspace.objects.get(id=workspace_id),
        target=f"{data_mode} data",
        data={"deleted": deleted, "scope": "workspace" if created_by_id is None else "mine"},
    )
    return deleted


def _keys_of(workspace_id: UUID, created_by_id: int) -> list[int]:
    return list(
        ApiKey.objects.filter(workspace_id=workspace_id, created_by_id=created_by_id).values_list("id", flat=True)
    )


def _chunks(workspace_id: UUID, data_mode: str) -> Iterator[list[datetime]]:
    """The quarter hours that hold the data mode, as many at a time as one short transaction can read."""
    rollups_from = LedgerCoverage.of(workspace_id).rollups_from
    where: dict[str, Any] = {"workspace": workspace_id, "mode": data_mode, "rollups_from": rollups_from}
    with connection.cursor() as cursor:
        cursor.execute(_FIND_BUCKETS, where)
        found: dict[datetime, int] = dict(cursor.fetchall())
        if rollups_from:
            cursor.execute(_FIND_BUCKETS_WITHOUT_ROLLUPS, where)
            found |= cursor.fetchall()
    chunk: list[datetime] = []
    reads = 0
    for bucket, rows in found.items():
        if chunk and (reads + rows > CHUNK_READS or len(chunk) == CHUNK_BUCKETS):
            yield chunk
            chunk, reads = [], 0
        chunk.append(bucket)
        reads += rows
    if chunk:
        yield chunk


@transaction.atomic(durable=True)
def _delete_chunk(workspace_id: UUID, data_mode: str, keys: list[int] | None, buckets: list[datetime]) -> int:
    """Delete at most `CHUNK_ROWS` raw rows of `buckets`; when no more are left, the roll-ups that outlived theirs."""
    policy = lock_ledger(workspace_id)
    where: dict[str, Any] = {
        "workspace": workspace_id,
        "mode": data_mode,
        "buckets": buckets,
        "only_keys": keys is not None,
        "keys": keys or [],
        "limit": CHUNK_ROWS,
    }
    deleted = _take_out(_DELETE_EVENTS, where, policy)
    with connection.cursor() as cursor:
        cursor.execute(_DELETE_EMPTY_ROLLUPS, where)
    if keys is None and deleted < CHUNK_ROWS:
        # Under the lock no new row can arrive: whatever the roll-ups still hold has no raw row any more.
        _take_out(_DELETE_OUTLIVED_ROLLUPS, where, policy)
    return deleted


def _take_out(statement: str, where: dict[str, Any], policy: WorkspacePolicy) -> int:
    """Run a deleting statement that returns sums by scope and day; take these out of the meters.

    Answers the number of events.
    """
    with connection.cursor() as cursor:
        cursor.execute(statement, where)
        gone = [meters.Usage(*row) for row in cursor.fetchall()]
    if gone:
        meters.subtract(where["workspace"], policy, where["mode"], gone)
        note_rewrite(where["workspace"])
    return sum(item.requests for item in gone if not item.scope_kind)
