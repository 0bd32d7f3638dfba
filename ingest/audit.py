"""Raw rows against roll-ups, both against meters, leases against holds: does the ledger agree with itself? And repair.

An audit reads one snapshot, so it is right while ingest goes on, and blocks nobody.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import structlog
from django.db import Error, connection, transaction
from django.db.models import F

from ingest import meters, scoped_meters
from ingest.models import LedgerAudit, LedgerCoverage, WorkspacePolicy
from ingest.rollups import AGGREGATES_SQL, BUCKET_SQL, DIMENSIONS_SQL, SUMS_SQL, rebuild_rollups
from ingest.scope_sums import SOURCES, expected_sql, is_metered_sql
from ingest.scoped_meters import EXPECTED_HOLDS_SQL
from ingest.services import lock_ledger, note_rewrite
from opsmeter_site.lib.periods import to_wire

logger = structlog.get_logger(__name__)

# How many lines of differences are stored; a ledger that is wrong everywhere needs no list.
STORED_LINES = 200

_BEGIN_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
# The sums of a large workspace fit into memory; the default of 4 MB would write them to disk.
_SET_MEMORY = "SET LOCAL work_mem = '64MB'"

# One line a day; a difference within the day that cancels out (a row counted under another model) shows in `misplaced`.
_COMPARE_ROLLUPS = f"""
WITH raw AS (
    SELECT {BUCKET_SQL} AS bucket_start, provider, model, endpoint_tag, prompt_version, environment, data_mode,
        cost_usd IS NOT NULL AS is_priced, {AGGREGATES_SQL}
    FROM ingest_event
    WHERE workspace_id = %(workspace)s AND occurred_at >= %(since)s
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
), sides AS (
    SELECT bucket_start, {DIMENSIONS_SQL}, requests AS events, {SUMS_SQL} FROM raw
    UNION ALL
    SELECT bucket_start, {DIMENSIONS_SQL}, 0, -requests, -errors, -uncached_input_tokens, -cache_read_tokens,
        -cache_write_tokens, -output_tokens, -reasoning_tokens, -latency_ms_sum, -latency_count, -cost_usd
    FROM ingest_rollup
    WHERE workspace_id = %(workspace)s AND bucket_start >= %(since)s
), differences AS (
    SELECT bucket_start, sum(events) AS events, sum(requests) AS requests, sum(errors) AS errors,
        sum(uncached_input_tokens) AS uncached_input_tokens, sum(cache_read_tokens) AS cache_read_tokens,
        sum(cache_write_tokens) AS cache_write_tokens, sum(output_tokens) AS output_tokens,
        sum(reasoning_tokens) AS reasoning_tokens, sum(latency_ms_sum) AS latency_ms_sum,
        sum(latency_count) AS latency_count, sum(cost_usd) AS cost_usd
    FROM sides
    GROUP BY bucket_start, {DIMENSIONS_SQL}
)
SELECT date_trunc('day', bucket_start, 'UTC') AS day, sum(events)::bigint, sum(requests)::bigint, sum(errors)::bigint,
    sum(uncached_input_tokens)::bigint, sum(cache_read_tokens)::bigint, sum(cache_write_tokens)::bigint,
    sum(output_tokens)::bigint, sum(reasoning_tokens)::bigint, sum(latency_ms_sum)::bigint, sum(latency_count)::bigint,
    sum(cost_usd),
    count(*) FILTER (WHERE (
        requests, errors, uncached_input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
        latency_ms_sum, latency_count, cost_usd
    ) IS DISTINCT FROM (0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
FROM differences
GROUP BY 1
ORDER BY 1
"""  # noqa: S608 (only constants are put in)

# A period without a meter row stands at zero.
_COMPARE_METERS = f"""
WITH {meters.EXPECTED_SQL}, stored AS (
    SELECT measure, period, period_start, value, unpriced_tokens
    FROM ingest_meter
    WHERE workspace_id = %(workspace)s AND scope_kind = ''
        AND period_start >= CASE period WHEN 'day' THEN %(first_day)s::timestamptz ELSE %(first_month)s::timestamptz END
)
SELECT measure, period, period_start, coalesce(expected.value, 0), coalesce(stored.value, 0),
    coalesce(expected.unpriced_tokens, 0), coalesce(stored.unpriced_tokens, 0)
FROM expected FULL JOIN stored USING (measure, period, period_start)
ORDER BY period_start, period, measure
"""  # noqa: S608 (only a constant is put in)

# The meters of scopes are many: only how many, and those that differ.
_COMPARE_SCOPED_METERS = """
WITH {expected}, stored AS (
    SELECT period, period_start, scope_kind AS kind, scope_value AS value, meter.value AS usd, unpriced_tokens AS tokens
    FROM ingest_meter AS meter
    WHERE workspace_id = %(workspace)s AND scope_kind = ANY(%(kinds)s) AND measure = 'usd' AND {is_metered}
        AND period_start >= CASE period WHEN 'day' THEN %(first_day)s::timestamptz ELSE %(first_month)s::timestamptz END
), compared AS MATERIALIZED (
    SELECT period, period_start, coalesce(periods.usd, 0) AS expected_usd, coalesce(stored.usd, 0) AS usd,
        coalesce(periods.tokens, 0) AS expected_tokens, coalesce(stored.tokens, 0) AS tokens, kind, value
    FROM periods FULL JOIN stored USING (period, period_start, kind, value)
), differing AS (
    SELECT 'usd', compared.* FROM compared
    WHERE (expected_usd, expected_tokens) IS DISTINCT FROM (usd, tokens)
    ORDER BY period_start, period, kind, value
)
SELECT total.number, differing.* FROM (SELECT count(*) AS number FROM compared) AS total LEFT JOIN differing ON TRUE
"""

# A hold without leases is one of nothing.
_COMPARE_HOLDS = f"""
WITH expected AS ({EXPECTED_HOLDS_SQL}), stored AS (
    SELECT scope_kind AS kind, scope_value AS value, expires_at, usd, unpriced_tokens AS tokens FROM ingest_hold
    WHERE workspace_id = %(workspace)s AND expires_at > %(now)s
)
SELECT kind, value, expires_at, coalesce(expected.usd, 0), coalesce(stored.usd, 0), coalesce(expected.tokens, 0),
    coalesce(stored.tokens, 0)
FROM expected FULL JOIN stored USING (kind, value, expires_at)
WHERE (coalesce(expected.usd, 0), coalesce(expected.tokens, 0))
    <> (coalesce(stored.usd, 0), coalesce(stored.tokens, 0))
ORDER BY expires_at, kind, value
"""  # noqa: S608 (only a constant is put in)

# What makes a second row under the same id impossible; an index that was left invalid enforces nothing.
_IDS_ARE_UNIQUE = """
SELECT EXISTS (
    SELECT FROM pg_index JOIN pg_class ON pg_class.oid = pg_index.indexrelid
    WHERE indrelid = 'ingest_event'::regclass AND relname = 'event_external_id_unique'
        AND indisunique AND indisvalid AND indisready
)
"""

_NEXT_MOMENT = """
SELECT min(moment) FROM (
    SELECT min(occurred_at) AS moment FROM ingest_event WHERE workspace_id = %(workspace)s AND occurred_at >= %(since)s
    UNION ALL
    SELECT min(bucket_start) FROM ingest_rollup WHERE workspace_id = %(workspace)s AND bucket_start >= %(since)s
) AS moments
"""


@dataclass(frozen=True, slots=True)
class RollupDrift:
    """Raw rows minus roll-ups of one UTC day. `misplaced` counts the roll-ups that differ or are missing."""

    day: datetime
    requests: int
    errors: int
    uncached_input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    latency_ms_sum: int
    latency_count: int
    cost_usd: Decimal
    misplaced: int


@dataclass(frozen=True, slots=True)
class MeterDrift:
    """A meter that is not the sum of its roll-ups or raw rows; `expected` and `actual` in USD or requests.

    Of the whole workspace, if the scope is empty.
    """

    measure: str
    period: str
    period_start: datetime
    expected: Decimal
    actual: Decimal
    expected_unpriced_tokens: int
    actual_unpriced_tokens: int
    scope_kind: str = ""
    scope_value: str = ""

    @property
    def is_exact(self) -> bool:
        """Whether the meter says what it must."""
        expected = (self.expected, self.expected_unpriced_tokens)
        return expected == (self.actual, self.actual_unpriced_tokens)


@dataclass(frozen=True, slots=True)
class HoldDrift:
    """What is held until one second in one scope, if that is not the sum of its live leases. USD."""

    scope_kind: str
    scope_value: str
    expires_at: datetime
    expected: Decimal
    actual: Decimal
    expected_unpriced_tokens: int
    actual_unpriced_tokens: int


@dataclass(frozen=True, slots=True)
class LedgerReport:
    """What one audit compared and found. `since`: None if all of the workspace's rows are still there."""

    workspace_id: UUID
    slug: str
    checked_at: datetime
    since: datetime | None
    events: int
    days: int
    periods: int
    ids_are_unique: bool
    rollups: list[RollupDrift]
    meters: list[MeterDrift]
    holds: list[HoldDrift]

    @property
    def is_exact(self) -> bool:
        """No difference of any kind."""
        return self.ids_are_unique and not self.rollups and not self.meters and not self.holds

    @property
    def drift_usd(self) -> Decimal:
        """The sizes of all differences in cost, spent or held, added up, in USD."""
        in_usd = [abs(row.expected - row.actual) for row in self.meters if row.measure == "usd"]
        in_usd += [abs(row.expected - row.actual) for row in self.holds]
        return sum((abs(row.cost_usd) for row in self.rollups), Decimal(0)) + sum(in_usd, Decimal(0))

    @property
    def drift_requests(self) -> int:
        """The sizes of all differences in requests, added up."""
        in_meters = sum(abs(row.expected - row.actual) for row in self.meters if row.measure == "requests")
        return sum(abs(row.requests) for row in self.rollups) + int(in_meters)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values; amounts are texts, so that no digit is lost."""
        return {
            "workspaceId": str(self.workspace_id),
            "workspaceSlug": self.slug,
            "checkedAt": to_wire(self.checked_at),
            "since": to_wire(self.since) if self.since else None,
            "events": self.events,
            "days": self.days,
            "periods": self.periods,
            "isExact": self.is_exact,
            "idsAreUnique": self.ids_are_unique,
            "driftUsd": f"{self.drift_usd:.12f}",
            "driftRequests": self.drift_requests,
            "rollups": [_to_json(asdict(row)) for row in self.rollups],
            "meters": [_to_json(asdict(row)) for row in self.meters],
            "holds": [_to_json(asdict(row)) for row in self.holds],
        }


def _to_json(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` under camelCase names, times and amounts as texts."""
    plain: dict[str, Any] = {}
    for name, value in fields.items():
        head, *tail = name.split("_")
        key = head + "".join(part.capitalize() for part in tail)
        if isinstance(value, datetime):
            plain[key] = to_wire(value)
        else:
            plain[key] = f"{value:.12f}" if isinstance(value, Decimal) else value
    return plain


def audit_all(now: datetime) -> tuple[list[LedgerReport], int]:
    """Audit every workspace, the one that has waited longest first; the reports, and how many could not be audited."""
    waiting = WorkspacePolicy.objects.order_by(F("workspace__ledger_audit__checked_at").asc(nulls_first=True))
    reports = []
    failed = 0
    for workspace_id in list(waiting.values_list("workspace_id", flat=True)):
        try:
            reports.append(audit_workspace(workspace_id, now))
        except (Error, WorkspacePolicy.DoesNotExist):
            failed += 1
            connection.close_if_unusable_or_obsolete()
            logger.exception("audit_failed", workspace_id=str(workspace_id))
    return reports, failed


def audit_workspace(workspace_id: UUID, now: datetime) -> LedgerReport:
    """Compare the workspace's ledger with itself, store the result as its `LedgerAudit`, and answer it."""
    report = _compare(workspace_id, now)
    details = report.to_json()
    for kind in ("rollups", "meters", "holds"):
        details[kind] = details[kind][:STORED_LINES]
    LedgerAudit.objects.update_or_create(
        workspace_id=workspace_id,
        defaults={
            "checked_at": now,
            "events": report.events,
            "is_exact": report.is_exact,
            "drift_usd": report.drift_usd,
            "drift_requests": report.drift_requests,
            "details": details,
        },
    )
    if not report.is_exact:
        logger.error(
            "ledger_drift",
            workspace_id=str(workspace_id),
            drift_usd=str(report.drift_usd),
            drift_requests=report.drift_requests,
        )
    return report


@transaction.atomic(durable=True)
def _compare(workspace_id: UUID, now: datetime) -> LedgerReport:
    with connection.cursor() as cursor:
        cursor.execute(_BEGIN_SNAPSHOT)
        cursor.execute(_SET_MEMORY)
        policy = WorkspacePolicy.objects.select_related("workspace").get(workspace_id=workspace_id)
        coverage = LedgerCoverage.of(workspace_id)
        since = coverage.complete_from
        cursor.execute(_COMPARE_ROLLUPS, {"workspace": workspace_id, "since": since or meters.BEGINNING})
        days = cursor.fetchall()
        cursor.execute(_COMPARE_METERS, meters.coverage_parameters(workspace_id, policy))
        periods = [MeterDrift(*row) for row in cursor.fetchall()]
        scoped, scoped_drift = _compare_scoped_meters(cursor, policy)
        cursor.execute(_IDS_ARE_UNIQUE)
        (ids_are_unique,) = cursor.fetchone()
        holds = _compare_holds(cursor, policy, now)
    return LedgerReport(
        workspace_id=workspace_id,
        slug=policy.workspace.slug,
        checked_at=now,
        since=since,
        events=sum(events for _day, events, *_differences in days),
        days=len(days),
        periods=len(periods) + scoped,
        ids_are_unique=ids_are_unique,
        rollups=[RollupDrift(day, *differences) for day, _events, *differences in days if differences[-1]],
        meters=[row for row in periods if not row.is_exact] + scoped_drift,
        holds=holds,
    )


def _compare_scoped_meters(cursor: Any, policy: WorkspacePolicy) -> tuple[int, list[MeterDrift]]:
    """How many meters of scopes there are in the periods that are stored from end to end, and those that differ.

    What is stored now was there when a scope began to count: what retention has removed never comes back.
    """
    number = 0
    drift: list[MeterDrift] = []
    for kinds in SOURCES:
        expected, parameters = expected_sql(policy.workspace_id, policy, kinds)
        is_metered = is_metered_sql("scope_kind", "scope_value")
        cursor.execute(_COMPARE_SCOPED_METERS.format(expected=expected, is_metered=is_metered), parameters)
        rows = cursor.fetchall()
        number += rows[0][0]
        drift += [MeterDrift(*row) for _number, *row in rows if row[0] is not None]
    return number, drift


def _compare_holds(cursor: Any, policy: WorkspacePolicy, now: datetime) -> list[HoldDrift]:
    if policy.leases_until is None or policy.leases_until <= now:
        return []
    cursor.execute(_COMPARE_HOLDS, {"workspace": policy.workspace_id, "counted": policy.counted_data_modes, "now": now})
    return [HoldDrift(*row) for row in cursor.fetchall()]


def repair_ledger(workspace_id: UUID) -> None:
    """Make the workspace's roll-ups again from its raw rows, an hour at a time, then its meters and holds.

    What has outlived its source is kept. Ingest waits for an hour's worth at most; may be killed and run again.
    """
    since = meters.BEGINNING
    while (moment := _next_moment(workspace_id, since)) is not None:
        start = moment.replace(minute=0, second=0, microsecond=0)
        since = start + timedelta(hours=1)
        with transaction.atomic(durable=True):
            lock_ledger(workspace_id)
            rebuild_rollups(workspace_id, start, since)
    with transaction.atomic(durable=True):
        policy = lock_ledger(workspace_id)
        meters.rebuild(workspace_id, policy)
        scoped_meters.rebuild(workspace_id, policy)
        scoped_meters.rebuild_holds(workspace_id, policy)
        note_rewrite(workspace_id)


def _next_moment(workspace_id: UUID, since: datetime) -> datetime | None:
    """The first moment from `since` on of which the ledger has a row or a roll-up."""
    with connection.cursor() as cursor:
        cursor.execute(_NEXT_MOMENT, {"workspace": workspace_id, "since": since})
        (moment,) = cursor.fetchone()
    return moment if moment is None else moment.astimezone(UTC)
