"""Making summaries from raw rows, behind ingest's back: it never waits for a sum, and a sum is never of a past state.

1. Spans around new events are noted down, to be built when they are over.
2. A span that is due is armed under the ledger lock: from then on, whoever changes raw rows in it marks it stale.
3. Its sums are made in one snapshot, without any lock. Their transaction ends by saying that the span is built, which
   fails if anybody has marked it meanwhile: then the next run makes it again.

Longer spans are summed from shorter ones. May be killed at any point, run twice at once, and begin anywhere.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from time import monotonic
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from django.db import DatabaseError, Error, connection, transaction
from django.db.models import Q, QuerySet
from psycopg.errors import SerializationFailure, UniqueViolation

from ingest import report_sources as sources
from ingest.covers import Cover, Window, cover
from ingest.models import (
    AttributionSummary,
    LatencySummary,
    LedgerCoverage,
    Rollup,
    SpanLevel,
    SummaryProgress,
    SummarySpan,
    UsageSummary,
    WorkspacePolicy,
)
from ingest.profiles import SUMS_SQL
from ingest.report_rows import FIGURE_COLUMNS
from ingest.selectors import EVERYTHING
from ingest.services import lock_ledger
from ingest.spans import spans_around
from ingest.staleness import BUILT_AFTER
from opsmeter_site.lib.periods import quarter_hour_of
from workspaces.models import Workspace

logger = structlog.get_logger(__name__)

# Armed at a time; ingest waits while it is done.
CHUNK_SPANS = 100

# Hours are for ranges that are cut at a time of day, which is mostly now. Of older days they would be most of what is
# stored, to spare reading six hours of raw rows.
HOURS_KEPT = timedelta(days=3)

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_IS_DUE = Q(is_stale=True) | Q(built_at=None)

# Cheap for those with nothing to do: two look-ups in an index.
_WORKSPACES_WITH_WORK = """
SELECT policy.workspace_id
FROM ingest_workspacepolicy AS policy
JOIN workspaces_workspace AS workspace ON workspace.id = policy.workspace_id
LEFT JOIN ingest_summaryprogress AS progress ON progress.workspace_id = policy.workspace_id
WHERE progress.zone <> workspace.timezone
    OR EXISTS (
        SELECT FROM ingest_rollup AS rollup
        WHERE rollup.workspace_id = policy.workspace_id AND rollup.bucket_start < %(until)s
            AND rollup.bucket_start >= coalesce(progress.scanned_until, '-infinity')
    )
    OR EXISTS (
        SELECT FROM ingest_summaryspan AS span
        WHERE span.workspace_id = policy.workspace_id AND (span.is_stale OR span.built_at IS NULL)
            AND span.ends_at <= %(until)s
    )
ORDER BY progress.looked_at NULLS FIRST
"""


class BusyElsewhere(Exception):
    """Another process is building this workspace's summaries."""


class _Due(NamedTuple):
    id: int
    level: SpanLevel
    start: datetime
    end: datetime


def summarise_all(now: datetime, *, seconds: float = float("inf")) -> int:
    """Build what is due in every workspace, who waited longest first, for about `seconds`; how many failed.

    One that fails is logged and tried again by the next run.
    """
    deadline = monotonic() + seconds
    with connection.cursor() as cursor:
        cursor.execute(_WORKSPACES_WITH_WORK, {"until": _built_until(now)})
        waiting = [workspace_id for (workspace_id,) in cursor.fetchall()]
    failed = 0
    for workspace_id in waiting:
        if monotonic() >= deadline:
            break
        try:
            summarise_workspace(workspace_id, now, deadline=deadline)
        except (Error, WorkspacePolicy.DoesNotExist, Workspace.DoesNotExist):
            failed += 1
            connection.close_if_unusable_or_obsolete()
            logger.exception("summarise_failed", workspace_id=str(workspace_id))
    return failed


def summarise_workspace(workspace_id: UUID, now: datetime, *, deadline: float = float("inf")) -> int:
    """Build the workspace's spans that are due at `now`, the newest days first; how many were built.

    Stops at `deadline` (of the monotonic clock), or when another process is at it; the next run goes on.
    """
    zone = _note_spans(workspace_id, now)
    _forget_hours(workspace_id, now)
    waiting = iter(_due_spans(workspace_id, zone, now))
    built = 0
    while monotonic() < deadline and (chunk := list(islice(waiting, CHUNK_SPANS))):
        _arm(workspace_id, [span.id for span in chunk])
        for span in chunk:
            if monotonic() >= deadline:
                break
            try:
                built += _build_unless_changed(workspace_id, span, now)
            except BusyElsewhere:
                return built
    return built


def drop_spans(spans: "QuerySet[SummarySpan]") -> int:
    """Delete spans with their sums; whoever is building one of them fails. How many there were.

    Each in a transaction of its own, which so never waits for one row while it holds another.
    """
    dropped = list(spans.values_list("workspace_id", "id"))
    for workspace_id, span_id in dropped:
        with transaction.atomic(durable=True):
            _drop(workspace_id, span_id)
    return len(dropped)


# --- What is to be done -----------------------------------------------------------------------------------------------


def _built_until(now: datetime) -> datetime:
    """The end of the last quarter hour that is over for good, but for events that say that they are late."""
    return quarter_hour_of(now - BUILT_AFTER)


def _note_spans(workspace_id: UUID, now: datetime) -> ZoneInfo:
    """Note the spans around events that are new since the last look; the workspace's timezone."""
    zone: ZoneInfo = Workspace.objects.only("timezone").get(id=workspace_id).timezone
    progress = SummaryProgress.objects.filter(workspace_id=workspace_id).first() or _begin(workspace_id, zone, now)
    since = progress.scanned_until if progress.zone == str(zone) else _BEGINNING
    since = max(since, LedgerCoverage.of(workspace_id).raw_from or since)
    until = _built_until(now)
    buckets = (
        Rollup.objects.filter(workspace_id=workspace_id, bucket_start__gte=since, bucket_start__lt=until)
        .order_by()
        .values_list("bucket_start", flat=True)
        .distinct()
    )
    hours_from = now - HOURS_KEPT
    spans = {
        span
        for bucket in buckets
        for span in spans_around(zone, bucket)
        if span.level != SpanLevel.HOUR or span.start >= hours_from
    }
    SummarySpan.objects.bulk_create(
        (
            SummarySpan(workspace_id=workspace_id, level=span.level, starts_at=span.start, ends_at=span.end)
            # Two that note the same ones at once must not wait for each other.
            for span in sorted(spans)
        ),
        batch_size=1_000,
        ignore_conflicts=True,
    )
    # A late event has perhaps moved it back meanwhile: then it stays there for the next look.
    SummaryProgress.objects.filter(workspace_id=workspace_id, scanned_until=progress.scanned_until).update(
        scanned_until=max(since, until), zone=str(zone), looked_at=now
    )
    return zone


def _forget_hours(workspace_id: UUID, now: datetime) -> None:
    old = SummarySpan.objects.filter(workspace_id=workspace_id, level=SpanLevel.HOUR, starts_at__lt=now - HOURS_KEPT)
    drop_spans(old)


@transaction.atomic(durable=True)
def _begin(workspace_id: UUID, zone: ZoneInfo, now: datetime) -> SummaryProgress:
    """The workspace's first progress. Under the lock: whatever the first look does not see then moves it back."""
    lock_ledger(workspace_id)
    progress, _ = SummaryProgress.objects.get_or_create(
        workspace_id=workspace_id, defaults={"scanned_until": _BEGINNING, "zone": str(zone), "looked_at": now}
    )
    return progress


def _due_spans(workspace_id: UUID, zone: ZoneInfo, now: datetime) -> list[_Due]:
    """The newest days first, within a day the short spans first; a week comes after its days."""
    rows = SummarySpan.objects.filter(_IS_DUE, workspace_id=workspace_id, ends_at__lte=_built_until(now))
    found = [
        _Due(span_id, SpanLevel(level), start, end)
        for span_id, level, start, end in rows.values_list("id", "level", "starts_at", "ends_at")
    ]
    return sorted(found, key=lambda span: (-span.start.astimezone(zone).toordinal(), span.level, span.start))


@transaction.atomic(durable=True)
def _arm(workspace_id: UUID, span_ids: Sequence[int]) -> None:
    lock_ledger(workspace_id)
    SummarySpan.objects.filter(_IS_DUE, workspace_id=workspace_id, id__in=span_ids).update(
        is_stale=False, built_at=None
    )


# --- Building ---------------------------------------------------------------------------------------------------------


def _build_unless_changed(workspace_id: UUID, span: _Due, now: datetime) -> bool:
    try:
        return _build(workspace_id, span, now)
    except DatabaseError as error:
        # Somebody has marked the span stale, or has built it, after this transaction's snapshot was taken.
        if not isinstance(error.__cause__, (SerializationFailure, UniqueViolation)):
            raise
        return False


@transaction.atomic(durable=True)
def _build(workspace_id: UUID, span: _Due, now: datetime) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET LOCAL work_mem = '64MB'; SET LOCAL jit = off"
        )
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext('summaries'), hashtext(%s))", [str(workspace_id)])
        if not cursor.fetchone()[0]:
            raise BusyElsewhere
    armed = SummarySpan.objects.filter(workspace_id=workspace_id, id=span.id, is_stale=False, built_at=None)
    if not armed.exists():
        return False
    covered = cover(workspace_id, [Window(span.start, span.end)], below=span.level)
    rollups_from = LedgerCoverage.of(workspace_id).rollups_from
    if covered.lost_until() is not None or (rollups_from is not None and span.start < rollups_from):
        # What it was made of is gone: it can never be built again.
        _drop(workspace_id, span.id)
        return False
    _drop_sums(workspace_id, span.id)
    _insert_sums(covered, span.id)
    armed.update(built_at=now)
    return True


def _drop(workspace_id: UUID, span_id: int) -> None:
    SummarySpan.objects.filter(workspace_id=workspace_id, id=span_id).delete()
    _drop_sums(workspace_id, span_id)


def _drop_sums(workspace_id: UUID, span_id: int) -> None:
    for table in (UsageSummary, AttributionSummary, LatencySummary):
        table._default_manager.filter(workspace_id=workspace_id, span_id=span_id).delete()


_USAGE = ("provider", "model", "endpoint_tag", "prompt_version", "environment", "data_mode")
_ATTRIBUTION = ("kind", "value", "environment", "data_mode")
_LATENCY = ("endpoint_tag", "prompt_version", "environment", "data_mode")


def _insert_sums(covered: Cover, span_id: int) -> None:
    usage = sources.detail(covered, _same(_USAGE), EVERYTHING)
    squares = ", ".join(f"sum({name})" for name in sources.SQUARES)
    keys = (*_USAGE, "price_id")
    _insert("ingest_usagesummary", keys, (*FIGURE_COLUMNS, *sources.SQUARES), f"{SUMS_SQL}, {squares}", usage, span_id)
    attribution = sources.attribution(covered, sources.KINDS, _same(_ATTRIBUTION), EVERYTHING)
    _insert("ingest_attributionsummary", _ATTRIBUTION, FIGURE_COLUMNS, SUMS_SQL, attribution, span_id)
    for by_version in (True, False):
        labels = _same(_LATENCY) if by_version else _same(_LATENCY) | {"endpoint_tag": "''", "prompt_version": "''"}
        bins = sources.latency_bins(covered, labels, EVERYTHING, by_version=by_version)
        listed = ", ".join((*_LATENCY, "bin"))
        counted = f"SELECT {listed}, sum(requests)::bigint AS requests FROM ({bins.sql}) AS bins GROUP BY {listed}"  # noqa: S608
        arrays = "array_agg(bin ORDER BY bin), array_agg(requests ORDER BY bin)"
        source = sources.Source(counted, bins.parameters)
        _insert("ingest_latencysummary", _LATENCY, ("bins", "counts"), arrays, source, span_id)


def _same(names: Sequence[str]) -> dict[str, str]:
    return {name: name for name in names}


def _insert(
    table: str, keys: Sequence[str], columns: Sequence[str], aggregates: str, source: sources.Source, span_id: int
) -> None:
    listed = ", ".join(keys)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO {table} (workspace_id, span_id, {listed}, {", ".join(columns)})
            SELECT %(workspace)s, %(span)s, {listed}, {aggregates} FROM ({source.sql}) AS rows GROUP BY {listed}
            """,  # noqa: S608 (only names of this project's modules are put in)
            {**source.parameters, "span": span_id},
        )
