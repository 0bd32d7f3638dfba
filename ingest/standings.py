"""Where many workspaces stand, in one statement: limits that are near or over, ledgers whose upkeep is late.

The rule for near and over is that of `ingest.limits`.
"""

from datetime import datetime, timedelta

from django.db.models import Case, CharField, DecimalField, Exists, F, Func, OuterRef, Q, QuerySet, Value, When

from ingest.models import Limit, Measure, SummarySpan
from opsmeter_site.lib.periods import Period, window_of

OVER, NEAR, BELOW = "over", "near", "below"

# The audit runs every night and retention every hour; one missed run is no trouble yet.
AUDIT_LATE_AFTER = timedelta(hours=36)
PURGE_LATE_AFTER = timedelta(hours=3)
# Summaries are made every minute, for some workspaces each time.
SUMMARIES_LATE_AFTER = timedelta(hours=1)

_AMOUNT = DecimalField(max_digits=24, decimal_places=12)
_USED_COLUMNS = (
    "id",
    "workspace_id",
    "measure",
    "period",
    "scope_kind",
    "scope_value",
    "is_each_value",
    "estimate_usd_per_1m",
)
# What a limit counts: its meter with estimates, and adjustments. Of each value: the highest of those that are adjusted,
# which are few, and of the others.
_USED = """(
    SELECT CASE
        WHEN wanted.is_each_value THEN coalesce(greatest(
            (
                SELECT max(meter.value + meter.unpriced_tokens * wanted.estimate / 1000000)
                FROM ingest_meter AS meter
                WHERE meter.workspace_id = wanted.workspace_id AND meter.period_start = wanted.period_start
                    AND meter.scope_kind = wanted.scope_kind AND meter.period = wanted.period
                    AND meter.measure = wanted.measure AND meter.scope_value <> ALL(ARRAY(
                        SELECT scope_value FROM ingest_limitadjustment
                        WHERE limit_id = wanted.id AND period_start = wanted.period_start
                    ))
            ), (
                SELECT max(adjusted.usd + coalesce(meter.value + meter.unpriced_tokens * wanted.estimate / 1000000, 0))
                FROM (
                    SELECT scope_value, sum(usd) AS usd FROM ingest_limitadjustment
                    WHERE limit_id = wanted.id AND period_start = wanted.period_start GROUP BY 1
                ) AS adjusted LEFT JOIN ingest_meter AS meter ON meter.workspace_id = wanted.workspace_id
                    AND meter.period_start = wanted.period_start AND meter.scope_kind = wanted.scope_kind
                    AND meter.scope_value = adjusted.scope_value AND meter.period = wanted.period
                    AND meter.measure = wanted.measure
            )
        ), 0)
        ELSE coalesce((
            SELECT meter.value + meter.unpriced_tokens * wanted.estimate / 1000000
            FROM ingest_meter AS meter
            WHERE meter.workspace_id = wanted.workspace_id AND meter.period_start = wanted.period_start
                AND meter.scope_kind = wanted.scope_kind AND meter.scope_value = wanted.scope_value
                AND meter.period = wanted.period AND meter.measure = wanted.measure
        ), 0) + coalesce((
            SELECT sum(usd) FROM ingest_limitadjustment
            WHERE limit_id = wanted.id AND period_start = wanted.period_start
        ), 0)
    END
    FROM (
        SELECT *, CASE period WHEN 'day' THEN day_start ELSE month_start END AS period_start
        FROM (VALUES (%(expressions)s)) AS given (
            id, workspace_id, measure, period, scope_kind, scope_value, is_each_value, estimate, day_start, month_start
        )
    ) AS wanted
)"""
# The same of a row of limits that is called `l`, for statements that are written out: `day_start` and `month_start` are
# parameters of theirs.
USED_SQL = _USED % {
    "expressions": ", ".join([*(f"l.{column}" for column in _USED_COLUMNS), "%(day_start)s", "%(month_start)s"])
}
# OFFSET 0 keeps the planner from working out what is used for every comparison.
_STANDING = f"""(
    SELECT CASE
        WHEN used > amount OR used = amount AND measure = '{Measure.REQUESTS}' THEN '{OVER}'
        WHEN used >= shares[1] * amount
            OR EXISTS (SELECT FROM unnest(thresholds_usd) AS usd WHERE usd < amount AND used >= usd) THEN '{NEAR}'
        ELSE '{BELOW}'
    END
    FROM (SELECT %(expressions)s OFFSET 0) AS stands (used, measure, amount, shares, thresholds_usd)
)"""  # noqa: S608 (only constants are put in)

# Conditions on `WorkspacePolicy`.
HAS_DRIFT = Q(workspace__ledger_audit__is_exact=False)


def audit_is_late(now: datetime) -> Q:
    """Policies whose ledger was not audited lately; a new workspace gets as long for its first audit."""
    before = now - AUDIT_LATE_AFTER
    return Q(workspace__ledger_audit__checked_at__lt=before) | Q(
        workspace__ledger_audit=None, workspace__created_at__lt=before
    )


def purge_is_late(now: datetime) -> Q:
    """Policies where retention has not finished lately; a new workspace gets as long for its first time."""
    before = now - PURGE_LATE_AFTER
    return Q(workspace__ledger_coverage__purged_at__lt=before) | Q(
        workspace__ledger_coverage__purged_at=None, workspace__created_at__lt=before
    )


def summaries_are_late(now: datetime) -> Q:
    """Policies of workspaces that have had summaries to make for long, and no turn; reports read raw rows meanwhile."""
    before = now - SUMMARIES_LATE_AFTER
    due = SummarySpan.objects.filter(
        Q(is_stale=True) | Q(built_at=None), workspace=OuterRef("workspace_id"), ends_at__lt=before
    )
    return Q(Exists(due), workspace__summary_progress__looked_at__lt=before)


def with_standing(limits: "QuerySet[Limit]", now: datetime) -> "QuerySet[Limit]":
    """`limits`, each with `amount_now`, `used` (what it counts at `now`: USD or requests) and `standing`.

    That is `OVER`, `NEAR` (at or above the lowest threshold, and not over) or `BELOW`. Of a limit on each value, the
    highest value counts.
    """
    amount = Case(When(raised_until__gt=now, then=F("raised_amount")), default=F("amount"))
    starts = [Value(window_of(period, now).start) for period in (Period.DAY, Period.MONTH)]
    used = Func(*map(F, _USED_COLUMNS), *starts, template=_USED, output_field=_AMOUNT)
    standing = Func(
        F("used"),
        F("measure"),
        F("amount_now"),
        F("thresholds"),
        F("thresholds_usd"),
        template=_STANDING,
        output_field=CharField(),
    )
    return limits.annotate(amount_now=amount, used=used).annotate(standing=standing)
