"""Alerts in a summary: which arose in its window, and those first that are told nowhere else."""

from datetime import datetime
from uuid import UUID

from django.db.models import Case, Count, IntegerField, Q, QuerySet, Sum, Value, When

from alerts.models import Alert, AlertState, Handling, Severity
from alerts.reports.figures import AlertLine, Alerts

MOST_LINES = 10
_TOLD_HERE = (Handling.SUMMARY, Handling.PLAN)
_HELD = (Handling.COOLDOWN, Handling.QUIET_HOURS)
_LINE = ("id", "kind", "severity", "state", "handling", "title", "opened_at")


def alerts_of(workspace_id: UUID, start: datetime, end: datetime) -> Alerts:
    """The alerts that arose in `[start, end)`, as they stand now."""
    alerts = Alert.objects.filter(workspace_id=workspace_id, opened_at__gte=start, opened_at__lt=end)
    numbers = alerts.aggregate(
        total=Count("id"),
        critical=Count("id", filter=Q(severity=Severity.CRITICAL)),
        held=Count("id", filter=Q(handling__in=_HELD)),
        found=Sum("occurrences"),
    )
    if not numbers["total"]:
        return Alerts()
    told_first = Case(When(handling__in=_TOLD_HERE, then=0), default=1, output_field=IntegerField())
    worst_first = Case(
        *(When(severity=each, then=Value(-each.rank)) for each in Severity), default=0, output_field=IntegerField()
    )
    return Alerts(
        lines=_lines(alerts.order_by(told_first, worst_first, "opened_at", "id")),
        total=numbers["total"],
        critical=numbers["critical"],
        held=numbers["held"],
        repeats=numbers["found"] - numbers["total"],
    )


def open_critical(workspace_id: UUID) -> tuple[AlertLine, ...]:
    """The critical alerts that nobody has taken on yet, newest first, whenever they arose."""
    alerts = Alert.objects.filter(workspace_id=workspace_id, state=AlertState.OPEN, severity=Severity.CRITICAL)
    return _lines(alerts.order_by("-opened_at", "id"))


def _lines(alerts: "QuerySet[Alert]") -> tuple[AlertLine, ...]:
    return tuple(AlertLine(**row | {"id": str(row["id"])}) for row in alerts.values(*_LINE)[:MOST_LINES])
