"""Workspaces with limits, spend, channels and findings, for tests of what becomes of them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import time_machine
from django.db import transaction

from alerts.findings import Finding
from alerts.models import Action, Alert, AlertKind, AlertSettings, Channel, ChannelKind, Delivery, Severity
from billing.services import OpenedWorkspace
from budgets.services import update_budget_settings
from ingest import meters
from ingest.models import Limit, Meter
from ingest.services import LimitSpec, lock_ledger, put_limit
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import Period, day_of, window_of

# A Monday; the tests' clock stands still at this moment.
NOON = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def set_budget(opened: OpenedWorkspace, **changes: Any) -> None:
    update_budget_settings(opened.workspace, acting_user=opened.owner, **changes)


def spend(opened: OpenedWorkspace, usd: str) -> None:
    """The workspace has spent so much in the running day and month: meters and crossings as ingest leaves them."""
    _count(opened, "usd", [Period.DAY, Period.MONTH], Decimal(usd))


def spend_in_steps(opened: OpenedWorkspace, *usd: str) -> None:
    """The same, after one commit for each of these: the last one now, the others in the seconds before."""
    now = utc_now()
    for seconds, amount in zip(reversed(range(len(usd))), usd, strict=True):
        with time_machine.travel(now - timedelta(seconds=seconds), tick=False):
            spend(opened, amount)


def use_requests(opened: OpenedWorkspace, number: int) -> None:
    """The same for requests of the month."""
    _count(opened, "requests", [Period.MONTH], Decimal(number))


def limit_on(opened: OpenedWorkspace, kind: str, value: str = "", **changes: Any) -> Limit:
    """A daily USD limit of 50 on one value of a dimension, or without one on each; told at 80 % and above it."""
    fields: dict[str, Any] = {
        "source_id": str(uuid4()),
        "name": "The cap",
        "measure": "usd",
        "period": "day",
        "amount": Decimal(50),
        "thresholds": (Decimal("0.8"), Decimal(1)),
        "enforce": False,
        "scope_kind": kind,
        "scope_value": value,
        "is_each_value": not value,
    }
    return put_limit(opened.workspace.pk, "budgets", LimitSpec(**fields | changes))


def spend_on(opened: OpenedWorkspace, kind: str, **usd: str) -> None:
    """These values of a dimension have spent so much in the running day and month."""
    for value, amount in usd.items():
        _count(opened, "usd", [Period.DAY, Period.MONTH], Decimal(amount), scope_kind=kind, scope_value=value)


@transaction.atomic
def _count(opened: OpenedWorkspace, measure: str, periods: list[Period], value: Decimal, **scope: str) -> None:
    lock_ledger(opened.workspace.pk)
    now = utc_now()
    for period in periods:
        start = window_of(period, now).start
        key = {"workspace": opened.workspace, "measure": measure, "period": period.value, "period_start": start}
        key |= {"scope_kind": "", "scope_value": ""} | scope
        Meter.objects.update_or_create(**key, defaults={"value": value})
    meters.record_crossings(opened.workspace.pk, now)


def set_alerts(opened: OpenedWorkspace, **changes: Any) -> None:
    AlertSettings.objects.update_or_create(workspace=opened.workspace, defaults=changes)


def add_channel(opened: OpenedWorkspace, kind: ChannelKind, **changes: Any) -> Channel:
    fields = {"workspace": opened.workspace, "kind": kind, "name": kind.label}
    return Channel.objects.create(**fields | changes)


def finding(opened: OpenedWorkspace, **changes: Any) -> Finding:
    """The unit cost of one endpoint over its threshold, in the running UTC day."""
    window = day_of(utc_now())
    fields: dict[str, Any] = {
        "workspace_id": opened.workspace.pk,
        "kind": AlertKind.UNIT_COST,
        "severity": Severity.WARNING,
        "scope": "endpoint_tag:checkout",
        "metric": "usd_per_request",
        "title": "checkout costs $0.30 a request",
        "text": "Over the threshold.",
        "window_start": window.start,
        "window_end": window.end,
        "occurred_at": utc_now(),
    }
    return Finding(**fields | changes)


def alerts_of(opened: OpenedWorkspace, **where: Any) -> list[Alert]:
    """Its alerts in the order in which they were found."""
    return list(Alert.objects.filter(workspace=opened.workspace, **where).order_by("created_at", "opened_at", "kind"))


def kinds_of(opened: OpenedWorkspace) -> list[str]:
    return sorted(alert.kind for alert in alerts_of(opened))


def messages_of(opened: OpenedWorkspace, action: Action = Action.ALERT, **where: Any) -> list[Delivery]:
    """Its messages in the order in which they are due."""
    messages = Delivery.objects.filter(workspace=opened.workspace, action=action, **where)
    return list(messages.order_by("next_attempt_at", "created_at", "channel_kind", "recipient"))


def told(message: Delivery) -> list[str]:
    """The kinds of alerts in it."""
    return sorted(alert.kind for alert in message.alerts.all())


def send(opened: OpenedWorkspace, **where: Any) -> None:
    """What is due has gone out, at the tests' clock."""
    now = utc_now()
    due = Delivery.objects.filter(workspace=opened.workspace, state="waiting", next_attempt_at__lte=now, **where)
    due.update(state="sent", sent_at=now, attempts_made=1)
