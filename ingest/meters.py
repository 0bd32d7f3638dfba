"""Exact sums of a workspace per UTC day and month. Ingest adds to them; what else changes or reads them is here.

(requests, month) counts every event but demo ones; (usd, day) and (usd, month) sum the cost of the events whose data
mode the policy counts, unpriced ones as nothing. A period without such events may have no row: that is a meter at zero.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Q

from ingest.limits import has_crossed
from ingest.models import DataMode, LedgerCoverage, Limit, LimitCrossing, Meter, WorkspacePolicy
from opsmeter_site.lib.periods import Period, window_of

# What the meters must say of the periods that roll-ups cover, `first_day` and `first_month` on. Also read by the audit.
EXPECTED_SQL = """
    days AS (
        SELECT date_trunc('day', bucket_start, 'UTC') AS day,
            sum(requests) FILTER (WHERE data_mode <> 'demo') AS requests,
            sum(cost_usd) FILTER (WHERE data_mode = ANY(%(counted)s::text[])) AS usd
        FROM ingest_rollup
        WHERE workspace_id = %(workspace)s AND bucket_start >= %(first_day)s
        GROUP BY 1
    ), months AS (
        SELECT date_trunc('month', day, 'UTC') AS month, sum(requests) AS requests, sum(usd) AS usd
        FROM days
        WHERE day >= %(first_month)s
        GROUP BY 1
    ), expected AS (
        SELECT 'usd' AS measure, 'day' AS period, day AS period_start, usd AS value FROM days WHERE usd IS NOT NULL
        UNION ALL SELECT 'usd', 'month', month, usd FROM months WHERE usd IS NOT NULL
        UNION ALL SELECT 'requests', 'month', month, requests FROM months WHERE requests IS NOT NULL
    )"""

_DELETE_COVERED = """
DELETE FROM ingest_meter
WHERE workspace_id = %(workspace)s
    AND period_start >= CASE period WHEN 'day' THEN %(first_day)s::timestamptz ELSE %(first_month)s::timestamptz END
"""

_INSERT_EXPECTED = f"""
WITH {EXPECTED_SQL}
INSERT INTO ingest_meter (workspace_id, measure, period, period_start, value)
SELECT %(workspace)s, measure, period, period_start, value FROM expected
"""  # noqa: S608 (only the constant above is put in)

# A meter stops at zero: in a period that was partly purged when the counted data modes last changed, the meter may not
# hold what is taken away now.
_SUBTRACT = """
WITH gone AS (
    SELECT *
    FROM unnest(%(days)s::timestamptz[], %(requests)s::bigint[], %(usd)s::numeric[]) AS gone (day, requests, usd)
), changes AS (
    SELECT 'usd' AS measure, 'day' AS period, day AS period_start, sum(usd) AS value
    FROM gone WHERE %(counts_usd)s GROUP BY 3
    UNION ALL
    SELECT 'usd', 'month', date_trunc('month', day, 'UTC'), sum(usd) FROM gone WHERE %(counts_usd)s GROUP BY 3
    UNION ALL
    SELECT 'requests', 'month', date_trunc('month', day, 'UTC'), sum(requests)
    FROM gone WHERE %(counts_requests)s GROUP BY 3
)
UPDATE ingest_meter AS meter SET value = greatest(meter.value - changes.value, 0)
FROM changes
WHERE meter.workspace_id = %(workspace)s AND meter.measure = changes.measure AND meter.period = changes.period
    AND meter.period_start = changes.period_start
"""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Usage:
    """What some events of one UTC day add up to; `usd` counts unpriced ones as nothing."""

    day: datetime
    requests: int
    usd: Decimal


def coverage_parameters(workspace_id: UUID, policy: WorkspacePolicy) -> dict[str, Any]:
    """The parameters of `EXPECTED_SQL`: the periods that roll-ups cover from end to end, and what counts."""
    rollups_from = LedgerCoverage.of(workspace_id).rollups_from or BEGINNING
    return {
        "workspace": workspace_id,
        "counted": list(policy.counted_data_modes),
        "first_day": _first_whole(Period.DAY, rollups_from),
        "first_month": _first_whole(Period.MONTH, rollups_from),
    }


def rebuild(workspace_id: UUID, policy: WorkspacePolicy) -> None:
    """Make the meters again from the roll-ups, for every period that the roll-ups cover; others are left alone.

    Runs in the caller's transaction, which holds the ledger lock.
    """
    parameters = coverage_parameters(workspace_id, policy)
    with connection.cursor() as cursor:
        cursor.execute(_DELETE_COVERED, parameters)
        cursor.execute(_INSERT_EXPECTED, parameters)


def subtract(workspace_id: UUID, policy: WorkspacePolicy, data_mode: str, usage: Iterable[Usage]) -> None:
    """Take deleted events of one data mode out of the meters, in the caller's transaction, under the ledger lock."""
    gone = list(usage)
    with connection.cursor() as cursor:
        cursor.execute(
            _SUBTRACT,
            {
                "workspace": workspace_id,
                "days": [item.day for item in gone],
                "requests": [item.requests for item in gone],
                "usd": [item.usd for item in gone],
                "counts_usd": data_mode in policy.counted_data_modes,
                "counts_requests": data_mode != DataMode.DEMO,
            },
        )


def current_meters(workspace_id: UUID, now: datetime) -> dict[tuple[str, str], Decimal]:
    """The meters of the day and the month that hold `now`, by (measure, period); one that is missing stands at zero."""
    current = Q()
    for period in Period:
        current |= Q(period=period, period_start=window_of(period, now).start)
    rows = Meter.objects.filter(current, workspace_id=workspace_id).values_list("measure", "period", "value")
    return {(measure, period): value for measure, period, value in rows}


def record_crossings(workspace_id: UUID, now: datetime) -> None:
    """Store a crossing for every threshold that a current meter has passed and that has none yet.

    For changes other than an event: a new limit, a smaller amount. In the caller's transaction, under the ledger lock.
    """
    values = current_meters(workspace_id, now)
    crossings = []
    for limit in Limit.objects.filter(workspace_id=workspace_id):
        value = values.get((limit.measure, limit.period), Decimal(0))
        crossings += [
            LimitCrossing(
                limit=limit,
                period_start=window_of(Period(limit.period), now).start,
                threshold=threshold,
                amount=limit.amount,
                value=value,
                crossed_at=now,
            )
            for threshold in limit.thresholds
            if has_crossed(limit.measure, limit.amount, threshold, value)
        ]
    LimitCrossing.objects.bulk_create(crossings, ignore_conflicts=True)


def _first_whole(period: Period, moment: datetime) -> datetime:
    """The start of the first period that begins at `moment` or later."""
    window = window_of(period, moment)
    return window.start if window.start == moment else window.end
