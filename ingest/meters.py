"""Exact sums of a workspace per UTC day and month. Ingest adds to them; what else changes or reads them is here.

(requests, month) counts every event but demo ones; (usd, day) and (usd, month) sum the cost of the events whose data
mode the policy counts, unpriced ones as nothing. A period without such events may have no row: that is a meter at zero.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import Q

from ingest.limits import estimated_usd, levels_of
from ingest.models import DataMode, LedgerCoverage, Limit, LimitCrossing, Measure, Meter, WorkspacePolicy
from opsmeter_site.lib.periods import Period, window_of

# What the meters must say of the periods that roll-ups cover, `first_day` and `first_month` on. Also read by the audit.
EXPECTED_SQL = """
    days AS (
        SELECT date_trunc('day', bucket_start, 'UTC') AS day,
            sum(requests) FILTER (WHERE data_mode <> 'demo') AS requests,
            sum(cost_usd) FILTER (WHERE data_mode = ANY(%(counted)s::text[])) AS usd,
            coalesce(sum(uncached_input_tokens + cache_read_tokens + cache_write_tokens + output_tokens)
                FILTER (WHERE data_mode = ANY(%(counted)s::text[]) AND NOT is_priced), 0)::bigint AS tokens
        FROM ingest_rollup
        WHERE workspace_id = %(workspace)s AND bucket_start >= %(first_day)s
        GROUP BY 1
    ), months AS (
        SELECT date_trunc('month', day, 'UTC') AS month, sum(requests) AS requests, sum(usd) AS usd,
            sum(tokens)::bigint AS tokens
        FROM days
        WHERE day >= %(first_month)s
        GROUP BY 1
    ), expected AS (
        SELECT 'usd' AS measure, 'day' AS period, day AS period_start, usd AS value, tokens AS unpriced_tokens
        FROM days WHERE usd IS NOT NULL
        UNION ALL SELECT 'usd', 'month', month, usd, tokens FROM months WHERE usd IS NOT NULL
        UNION ALL SELECT 'requests', 'month', month, requests, 0 FROM months WHERE requests IS NOT NULL
    )"""

_DELETE_COVERED = """
DELETE FROM ingest_meter
WHERE workspace_id = %(workspace)s AND scope_kind = ''
    AND period_start >= CASE period WHEN 'day' THEN %(first_day)s::timestamptz ELSE %(first_month)s::timestamptz END
"""

_INSERT_EXPECTED = f"""
WITH {EXPECTED_SQL}
INSERT INTO ingest_meter (
    workspace_id, measure, period, period_start, scope_kind, scope_value, value, unpriced_tokens
)
SELECT %(workspace)s, measure, period, period_start, '', '', value, unpriced_tokens FROM expected
"""  # noqa: S608 (only the constant above is put in)

# Only meters that are kept: one that retention has removed, or whose scope has no limit, does not come back. A meter
# stops at zero: in a period that was partly purged when the counted data modes last changed, it may not hold what is
# taken away now.
_ADD = """
UPDATE ingest_meter AS meter
SET value = greatest(meter.value + change.value, 0),
    unpriced_tokens = greatest(meter.unpriced_tokens + change.unpriced_tokens, 0)
FROM unnest(
    %(measures)s::text[], %(kinds)s::text[], %(values)s::text[], %(periods)s::text[], %(starts)s::timestamptz[],
    %(amounts)s::numeric[], %(tokens)s::bigint[]
) AS change (measure, scope_kind, scope_value, period, period_start, value, unpriced_tokens)
WHERE meter.workspace_id = %(workspace)s AND meter.period_start = change.period_start
    AND meter.scope_kind = change.scope_kind AND meter.scope_value = change.scope_value
    AND meter.period = change.period AND meter.measure = change.measure
"""

# Of limits that are not on each value: the running meter with its unpriced tokens, and what was adjusted.
_COUNTED = """
SELECT ingest_limit.id, coalesce(meter.value, 0), coalesce(meter.unpriced_tokens, 0), coalesce((
    SELECT sum(usd) FROM ingest_limitadjustment
    WHERE limit_id = ingest_limit.id AND period_start = running.period_start
), 0)
FROM ingest_limit
    JOIN unnest(%(periods)s::text[], %(starts)s::timestamptz[]) AS running (period, period_start) USING (period)
    LEFT JOIN ingest_meter AS meter USING (workspace_id, measure, period, period_start, scope_kind, scope_value)
WHERE ingest_limit.id = ANY(%(limits)s)
"""

# Of a limit on each value, what every value that was seen or adjusted has crossed. They may be many.
_CROSS_EACH = """
WITH adjusted AS (
    SELECT scope_value, sum(usd) AS usd FROM ingest_limitadjustment
    WHERE limit_id = %(limit)s AND period_start = %(start)s
    GROUP BY scope_value
), spent AS (
    SELECT scope_value, value + unpriced_tokens * %(estimate)s * 0.000001 AS usd FROM ingest_meter
    WHERE workspace_id = %(workspace)s AND period_start = %(start)s AND scope_kind = %(kind)s AND period = %(period)s
        AND measure = %(measure)s
), counted AS (
    SELECT scope_value, coalesce(spent.usd, 0) + coalesce(adjusted.usd, 0) AS value
    FROM spent FULL JOIN adjusted USING (scope_value)
)
INSERT INTO ingest_limitcrossing
    (limit_id, period_start, scope_value, threshold, threshold_usd, amount, value, crossed_at)
SELECT %(limit)s, %(start)s, scope_value, share, threshold_usd, %(amount)s, value, %(now)s
FROM counted JOIN unnest(
    %(shares)s::numeric[], %(thresholds_usd)s::numeric[], %(levels)s::numeric[], %(when_reached)s::boolean[]
) AS level (share, threshold_usd, level_amount, when_reached)
    ON value > level_amount OR value = level_amount AND when_reached
ON CONFLICT DO NOTHING
"""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class MeterPlace(NamedTuple):
    """Which USD meter of a workspace: of which scope (both empty: the whole workspace) and period."""

    scope_kind: str
    scope_value: str
    period: str
    period_start: datetime


@dataclass(frozen=True, slots=True)
class Usage:
    """What some events of one scope and UTC day add up to; `usd` counts unpriced ones as nothing."""

    scope_kind: str
    scope_value: str
    day: datetime
    requests: int
    usd: Decimal
    unpriced_tokens: int

    def places(self) -> tuple[MeterPlace, MeterPlace]:
        """Its meters of the day and of the month."""
        month = window_of(Period.MONTH, self.day).start
        return (
            MeterPlace(self.scope_kind, self.scope_value, Period.DAY.value, self.day),
            MeterPlace(self.scope_kind, self.scope_value, Period.MONTH.value, month),
        )


def coverage_parameters(workspace_id: UUID, policy: WorkspacePolicy) -> dict[str, Any]:
    """The parameters of `EXPECTED_SQL`: the periods that roll-ups cover from end to end, and what counts."""
    return {
        "workspace": workspace_id,
        "counted": list(policy.counted_data_modes),
    } | first_whole_periods(LedgerCoverage.of(workspace_id).rollups_from)


def first_whole_periods(moment: datetime | None) -> dict[str, datetime]:
    """The starts of the first day and month that begin at `moment` or later; of all there are, if it is None."""
    since = moment or BEGINNING
    return {"first_day": _first_whole(Period.DAY, since), "first_month": _first_whole(Period.MONTH, since)}


def rebuild(workspace_id: UUID, policy: WorkspacePolicy) -> None:
    """Make the meters again from the roll-ups, for every period that the roll-ups cover; others are left alone.

    Runs in the caller's transaction, which holds the ledger lock.
    """
    parameters = coverage_parameters(workspace_id, policy)
    with connection.cursor() as cursor:
        cursor.execute(_DELETE_COVERED, parameters)
        cursor.execute(_INSERT_EXPECTED, parameters)


def add_to_meters(workspace_id: UUID, deltas: Mapping[MeterPlace, tuple[Decimal, int]]) -> None:
    """Add USD and unpriced tokens (both may be below 0) to the USD meters of stored events that have changed.

    Places whose meter is not kept are passed over. In the caller's transaction, under the ledger lock.
    """
    _add(workspace_id, [(Measure.USD.value, place, *delta) for place, delta in deltas.items()])


def subtract(workspace_id: UUID, policy: WorkspacePolicy, data_mode: str, usage: Iterable[Usage]) -> None:
    """Take deleted events of one data mode out of the meters, in the caller's transaction, under the ledger lock.

    `usage` has them once for the whole workspace, and once for each of their scopes that is metered.
    """
    changes: dict[tuple[str, MeterPlace], tuple[Decimal, int]] = {}
    for gone in usage:
        day, month = gone.places()
        if data_mode in policy.counted_data_modes:
            for place in (day, month):
                usd, tokens = changes.get((Measure.USD.value, place), (Decimal(0), 0))
                changes[Measure.USD.value, place] = (usd - gone.usd, tokens - gone.unpriced_tokens)
        if data_mode != DataMode.DEMO and not gone.scope_kind:
            requests, _ = changes.get((Measure.REQUESTS.value, month), (Decimal(0), 0))
            changes[Measure.REQUESTS.value, month] = (requests - gone.requests, 0)
    _add(workspace_id, [(measure, place, *delta) for (measure, place), delta in changes.items()])


def _add(workspace_id: UUID, changes: Sequence[tuple[str, MeterPlace, Decimal, int]]) -> None:
    if not changes:
        return
    measures, places, amounts, tokens = zip(*changes, strict=True)
    kinds, values, periods, starts = zip(*places, strict=True)
    columns = {
        "measures": measures,
        "kinds": kinds,
        "values": values,
        "periods": periods,
        "starts": starts,
        "amounts": amounts,
        "tokens": tokens,
    }
    with connection.cursor() as cursor:
        cursor.execute(_ADD, {"workspace": workspace_id} | {name: list(column) for name, column in columns.items()})


def current_meters(workspace_id: UUID, now: datetime) -> dict[tuple[str, str], Decimal]:
    """The meters of the day and the month that hold `now`, by (measure, period); one that is missing stands at zero."""
    current = Q()
    for period in Period:
        current |= Q(period=period, period_start=window_of(period, now).start)
    rows = Meter.objects.filter(current, workspace_id=workspace_id, scope_kind="").values_list(
        "measure", "period", "value"
    )
    return {(measure, period): value for measure, period, value in rows}


def record_crossings(workspace_id: UUID, now: datetime, limits: Iterable[Limit] | None = None) -> None:
    """Store a crossing for every threshold that a current meter has passed and that has none yet.

    For changes other than an event: a new limit, a smaller amount, the end of a raise. Of `limits`, or of all that the
    workspace has. In the caller's transaction, under the ledger lock.
    """
    chosen = list(Limit.objects.filter(workspace_id=workspace_id) if limits is None else limits)
    _cross([limit for limit in chosen if not limit.is_each_value], now)
    for limit in chosen:
        if limit.is_each_value:
            _cross_each(limit, now)


def _cross(limits: Sequence[Limit], now: datetime) -> None:
    starts = {period.value: window_of(period, now).start for period in Period}
    parameters: dict[str, Any] = {
        "limits": [limit.id for limit in limits],
        "periods": list(starts),
        "starts": list(starts.values()),
    }
    with connection.cursor() as cursor:
        cursor.execute(_COUNTED, parameters)
        meters = {limit_id: sums for limit_id, *sums in cursor.fetchall()}
    crossings = []
    for limit in limits:
        spent, tokens, adjusted = meters[limit.id]
        value, amount = spent + estimated_usd(tokens, limit.estimate_usd_per_1m) + adjusted, limit.amount_at(now)
        crossings += [
            LimitCrossing(
                limit=limit,
                period_start=starts[limit.period],
                threshold=level.share,
                threshold_usd=level.usd,
                amount=amount,
                value=value,
                crossed_at=now,
            )
            for level in levels_of(amount, limit.thresholds, limit.thresholds_usd)
            if level.is_crossed(limit.measure, value)
        ]
    LimitCrossing.objects.bulk_create(crossings, ignore_conflicts=True)


def _cross_each(limit: Limit, now: datetime) -> None:
    amount = limit.amount_at(now)
    levels = levels_of(amount, limit.thresholds, limit.thresholds_usd)
    parameters: dict[str, Any] = {
        "workspace": limit.workspace_id,
        "limit": limit.id,
        "measure": limit.measure,
        "period": limit.period,
        "start": window_of(Period(limit.period), now).start,
        "kind": limit.scope_kind,
        "estimate": limit.estimate_usd_per_1m,
        "amount": amount,
        "now": now,
        "shares": [level.share for level in levels],
        "thresholds_usd": [level.usd for level in levels],
        "levels": [level.amount for level in levels],
        "when_reached": [level.is_crossed(limit.measure, level.amount) for level in levels],
    }
    with connection.cursor() as cursor:
        cursor.execute(_CROSS_EACH, parameters)


def counted(limit: Limit, moment: datetime) -> dict[str, Decimal]:
    """What a limit counts in its period that holds `moment`, by scope value: estimates and adjustments included.

    Of a limit on each value there is one for every value that was seen or adjusted; otherwise exactly one.
    """
    start = window_of(Period(limit.period), moment).start
    meters = Meter.objects.filter(
        workspace_id=limit.workspace_id,
        measure=limit.measure,
        period=limit.period,
        period_start=start,
        scope_kind=limit.scope_kind,
    )
    adjusted: dict[str, Decimal] = {}
    for value, usd in limit.adjustments.filter(period_start=start).values_list("scope_value", "usd"):
        adjusted[value] = adjusted.get(value, Decimal(0)) + usd
    if not limit.is_each_value:
        meters = meters.filter(scope_value=limit.scope_value)
        adjusted = {limit.scope_value: sum(adjusted.values(), Decimal(0))}
    values = {
        value: spent + estimated_usd(tokens, limit.estimate_usd_per_1m)
        for value, spent, tokens in meters.values_list("scope_value", "value", "unpriced_tokens")
    }
    return {value: values.get(value, Decimal(0)) + adjusted.get(value, Decimal(0)) for value in values | adjusted}


def _first_whole(period: Period, moment: datetime) -> datetime:
    """The start of the first period that begins at `moment` or later."""
    window = window_of(period, moment)
    return window.start if window.start == moment else window.end
