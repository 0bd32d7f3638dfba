"""Removing what a plan no longer keeps. Counters stay: expired rows were spent all the same.

Those of scopes stay as long as roll-ups do.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.db import Error, connection, transaction
from django.db.models import F, Q

from ingest.models import LedgerCoverage, SpanLevel, SummarySpan, WorkspacePolicy
from ingest.models.audits import first_raw_bucket
from ingest.scope_sums import is_metered_sql
from ingest.scoped_meters import FEW_METERS
from ingest.services import lock_ledger
from ingest.summaries import drop_spans
from opsmeter_site.lib.periods import quarter_hour_of

logger = structlog.get_logger(__name__)

# "For ever" may be written as a number that no calendar reaches back to.
_LONGEST_DAYS = 36_500

# Few enough that ingest, which waits for the same lock, does not feel a chunk.
CHUNK_ROWS = 2_000

# Rows expire by when they were received, so that a repeated id stays recognisable all that time. Ids grow with it,
# give or take moments: the oldest rows come first in the primary key, and a page without any expired one is the end.
_PAGE_OF_EVENTS = """
SELECT id, received_at < %(received_before)s AS has_expired
FROM ingest_event
WHERE workspace_id = %(workspace)s AND id > %(after)s
ORDER BY id
LIMIT %(limit)s
"""
_DELETE_EVENTS = "DELETE FROM ingest_event WHERE workspace_id = %(workspace)s AND id = ANY(%(ids)s)"

_DELETE_ROLLUPS = """
DELETE FROM ingest_rollup WHERE workspace_id = %(workspace)s AND id = ANY(ARRAY(
    SELECT id FROM ingest_rollup WHERE workspace_id = %(workspace)s AND bucket_start < %(before)s
    ORDER BY bucket_start LIMIT %(limit)s
))
"""
_DELETE_REFUSALS = """
DELETE FROM ingest_refusal WHERE workspace_id = %(workspace)s AND id = ANY(ARRAY(
    SELECT id FROM ingest_refusal WHERE workspace_id = %(workspace)s AND bucket_start < %(before)s
    ORDER BY bucket_start LIMIT %(limit)s
))
"""

# Leases that are over are of use to people for a while; holds go with them.
_LEASES_KEPT = timedelta(days=1)
_DELETE_LEASES = """
DELETE FROM ingest_lease WHERE workspace_id = %(workspace)s AND external_request_id = ANY(ARRAY(
    SELECT external_request_id FROM ingest_lease WHERE workspace_id = %(workspace)s AND expires_at < %(before)s
    ORDER BY expires_at LIMIT %(limit)s
))
"""
_DELETE_HOLDS = """
DELETE FROM ingest_hold WHERE workspace_id = %(workspace)s AND ctid = ANY(ARRAY(
    SELECT ctid FROM ingest_hold WHERE workspace_id = %(workspace)s AND expires_at < %(before)s LIMIT %(limit)s
))
"""
# Of scopes only: those of the whole workspace are few, and stay. Whoever prepares a scope may be deleting the same ones
# and waits for the ledger with them.
_DELETE_SCOPED_METERS = """
DELETE FROM ingest_meter WHERE workspace_id = %(workspace)s AND ctid = ANY(ARRAY(
    SELECT ctid FROM ingest_meter
    WHERE workspace_id = %(workspace)s AND period_start < %(before)s AND scope_kind <> ''
        AND period_start + CASE period WHEN 'day' THEN INTERVAL '1 day' ELSE INTERVAL '1 month' END <= %(before)s
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
"""
# Of scopes that no limit is set on any more. They are looked for without the lock, among all that are still needed.
# More than these are for the next run.
_MOST_LEFT_OVER = 2_000_000
_IS_LEFT_OVER = (
    f"workspace_id = %(workspace)s AND scope_kind <> '' AND NOT {is_metered_sql('scope_kind', 'scope_value')}"
)
_LEFT_OVER_METERS = f"""
SELECT array_agg(ctid::text) FROM (SELECT ctid FROM ingest_meter WHERE {_IS_LEFT_OVER} LIMIT {_MOST_LEFT_OVER}) AS meter
"""  # noqa: S608 (only constants are put in, also below)
# A place may have gone to another row since. As an array of a SELECT the places are looked up one by one, even when the
# planner does not know yet how many meters there are.
_DELETE_LEFT_OVER_METERS = f"""
DELETE FROM ingest_meter WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM ingest_meter
    WHERE ctid = ANY(ARRAY(SELECT unnest(%(places)s::tid[]))) AND {_IS_LEFT_OVER} FOR UPDATE SKIP LOCKED
))
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Purged:
    """How many rows a purge removed; of summaries, how many spans."""

    events: int
    rollups: int
    refusals: int
    summaries: int = 0
    leases: int = 0
    holds: int = 0
    scoped_meters: int = 0


def raw_detail_starts_at(policy: WorkspacePolicy, now: datetime) -> datetime:
    """From which quarter hour on every raw row of the workspace is there, and will be until this one expires."""
    kept_from = first_raw_bucket(_expiry(now, policy.raw_retention_days))
    return max(kept_from, LedgerCoverage.of(policy.workspace_id).raw_from or kept_from)


def purge_all(now: datetime) -> int:
    """Purge every workspace, the one that has waited longest first; answers how many could not be purged.

    One that fails is logged and tried again by the next run.
    """
    waiting = WorkspacePolicy.objects.order_by(F("workspace__ledger_coverage__purged_at").asc(nulls_first=True))
    failed = 0
    for workspace_id in list(waiting.values_list("workspace_id", flat=True)):
        try:
            purge_workspace(workspace_id, now)
        except (Error, WorkspacePolicy.DoesNotExist):
            failed += 1
            connection.close_if_unusable_or_obsolete()
            logger.exception("purge_failed", workspace_id=str(workspace_id))
    return failed


def purge_workspace(workspace_id: UUID, now: datetime) -> Purged:
    """Remove what of the workspace has expired at `now`: raw rows, sums, leases; in short transactions.

    May be killed and run again at any time, also twice at once.
    """
    received_before, buckets_before = _move_marks(workspace_id, now)
    purged = Purged(
        events=_purge_events(workspace_id, received_before),
        rollups=_purge_before(workspace_id, _DELETE_ROLLUPS, buckets_before),
        refusals=_purge_before(workspace_id, _DELETE_REFUSALS, buckets_before),
        summaries=_purge_summaries(workspace_id, received_before, buckets_before),
        leases=_purge_before(workspace_id, _DELETE_LEASES, now - _LEASES_KEPT),
        holds=_purge_before(workspace_id, _DELETE_HOLDS, now - _LEASES_KEPT),
        scoped_meters=_purge_before(workspace_id, _DELETE_SCOPED_METERS, buckets_before)
        + _purge_left_over_meters(workspace_id),
    )
    LedgerCoverage.objects.filter(workspace_id=workspace_id).update(purged_at=now)
    return purged


@transaction.atomic(durable=True)
def _move_marks(workspace_id: UUID, now: datetime) -> tuple[datetime, datetime]:
    """Say what is about to go before any of it goes: audit and repair no longer rely on it. Marks never go back."""
    policy = lock_ledger(workspace_id)
    coverage = LedgerCoverage.of(workspace_id)
    events_before = _expiry(now, policy.raw_retention_days)
    rollups_before = quarter_hour_of(_expiry(now, policy.rollup_retention_days))
    coverage.events_purged_before = max(events_before, coverage.events_purged_before or events_before)
    coverage.rollups_purged_before = max(rollups_before, coverage.rollups_purged_before or rollups_before)
    coverage.save()
    return events_before, rollups_before


def _purge_events(workspace_id: UUID, received_before: datetime) -> int:
    where: dict[str, Any] = {
        "workspace": workspace_id,
        "received_before": received_before,
        "after": 0,
        "limit": CHUNK_ROWS,
    }
    deleted = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(_PAGE_OF_EVENTS, where)
            page = cursor.fetchall()
        expired = [event_id for event_id, has_expired in page if has_expired]
        if not expired:
            return deleted
        deleted += _delete_locked(workspace_id, _DELETE_EVENTS, {"workspace": workspace_id, "ids": expired})
        where["after"] = page[-1][0]


def _purge_before(workspace_id: UUID, statement: str, before: datetime) -> int:
    where = {"workspace": workspace_id, "before": before, "limit": CHUNK_ROWS}
    deleted = 0
    while chunk := _delete_locked(workspace_id, statement, where):
        deleted += chunk
    return deleted


def _purge_left_over_meters(workspace_id: UUID) -> int:
    with connection.cursor() as cursor:
        cursor.execute(_LEFT_OVER_METERS, {"workspace": workspace_id})
        places = cursor.fetchone()[0] or []
    chunks = (places[start : start + FEW_METERS] for start in range(0, len(places), FEW_METERS))
    return sum(
        _delete_locked(workspace_id, _DELETE_LEFT_OVER_METERS, {"workspace": workspace_id, "places": chunk})
        for chunk in chunks
    )


def _purge_summaries(workspace_id: UUID, received_before: datetime, buckets_before: datetime) -> int:
    """Days and weeks go with the roll-ups. What is shorter goes with the raw rows, without which it is of no use."""
    is_expired = Q(starts_at__lt=buckets_before)
    is_short = Q(level__lt=SpanLevel.DAY, ends_at__lte=first_raw_bucket(received_before))
    return drop_spans(SummarySpan.objects.filter(is_expired | is_short, workspace_id=workspace_id))


@transaction.atomic(durable=True)
def _delete_locked(workspace_id: UUID, statement: str, where: dict[str, Any]) -> int:
    lock_ledger(workspace_id)
    with connection.cursor() as cursor:
        cursor.execute(statement, where)
        return int(cursor.rowcount)


def _expiry(now: datetime, days: int) -> datetime:
    """What is older than this has expired at `now`."""
    return now - timedelta(days=min(days, _LONGEST_DAYS))
