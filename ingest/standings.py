"""Where many workspaces stand, in one statement: limits that are near or over, ledgers whose upkeep is late.

The rule for near and over is that of `ingest.limits`.
"""

from datetime import datetime, timedelta
from decimal import Decimal

from django.db.models import Case, CharField, Exists, F, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import Coalesce

from ingest.models import Limit, Measure, Meter, SummarySpan
from opsmeter_site.lib.periods import Period, window_of

OVER, NEAR, BELOW = "over", "near", "below"

# The audit runs every night and retention every hour; one missed run is no trouble yet.
AUDIT_LATE_AFTER = timedelta(hours=36)
PURGE_LATE_AFTER = timedelta(hours=3)
# Summaries are made every minute, for some workspaces each time.
SUMMARIES_LATE_AFTER = timedelta(hours=1)

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
    """`limits`, each with `used` (its meter at `now`, in USD or requests) and `standing`: `OVER`, `NEAR` or `BELOW`.

    Near is at or above the first threshold, and not over.
    """
    is_over = Q(measure=Measure.REQUESTS, used__gte=F("amount")) | Q(measure=Measure.USD, used__gt=F("amount"))
    is_near = Q(used__gte=F("thresholds__0") * F("amount"))
    standing = Case(
        When(is_over, then=Value(OVER)),
        When(is_near, then=Value(NEAR)),
        default=Value(BELOW),
        output_field=CharField(),
    )
    return limits.annotate(used=_used(now)).annotate(standing=standing)


def _used(now: datetime) -> Coalesce:
    """The meter of the limit's period at `now`; a period without a row stands at zero."""
    current = Q()
    for period in Period:
        current |= Q(period=period.value, period_start=window_of(period, now).start)
    meters = Meter.objects.filter(
        current, workspace_id=OuterRef("workspace_id"), measure=OuterRef("measure"), period=OuterRef("period")
    )
    return Coalesce(Subquery(meters.values("value")[:1]), Decimal(0))
