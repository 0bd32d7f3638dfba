"""Alerts as the sources make them."""

from datetime import UTC, datetime, timedelta

from alerts.findings import Finding
from alerts.models import Alert, AlertKind, Severity
from alerts.noticing import raise_alerts
from opsmeter_site.lib.periods import day_of

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)


def finding(workspace, **wanted):
    """A budget warning of the UTC day that is running at `occurred_at`, unless told otherwise."""
    occurred_at = wanted.get("occurred_at", NOON)
    day = day_of(occurred_at)
    facts = {
        "workspace_id": workspace.pk,
        "kind": AlertKind.BUDGET_WARNING,
        "severity": Severity.WARNING,
        "scope": "limit:1",
        "metric": "usd.day",
        "title": "Daily budget at 80%",
        "text": "Spend in USD of the UTC day is above the warning threshold.",
        "window_start": day.start,
        "window_end": day.end,
        "occurred_at": occurred_at,
        "facts": {"name": "Daily budget"},
    }
    return Finding(**facts | wanted)


def raise_one(workspace, now=None, **wanted):
    """An alert in the inbox; `now` is when it is noticed."""
    found = finding(workspace, **wanted)
    (alert,) = raise_alerts([found], now or found.occurred_at)
    return alert


def raise_many(workspace, number, *, apart=timedelta(minutes=1), **wanted):
    """`number` alerts, each about a scope of its own and `apart` later than the one before."""
    start = wanted.pop("occurred_at", NOON)
    findings = [
        finding(workspace, **{"scope": f"limit:{n}", "title": f"Alert {n}", "occurred_at": start + n * apart} | wanted)
        for n in range(number)
    ]
    raise_alerts(findings, start)
    return list(Alert.objects.filter(workspace=workspace).order_by("opened_at"))
