"""Alerts, channels and messages as rows, for tests that begin where routing ends."""

import json
from datetime import datetime
from typing import Any

from alerts.channel_sets import email_channel
from alerts.channels import webhook
from alerts.models import Action, Alert, AlertKind, Channel, ChannelKind, Delivery, Handling, Severity
from alerts.outgoing import queue
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import day_of
from opsmeter_site.lib.sealed import seal
from workspaces.models import Workspace


def make_alert(workspace: Workspace, title: str = "Daily budget exceeded: $52.10 of $50.00", **fields: Any) -> Alert:
    """An alert about a daily budget, as noticing leaves it."""
    opened_at: datetime = fields.get("opened_at", utc_now())
    window = day_of(opened_at)
    number = Alert.objects.filter(workspace=workspace).count()
    defaults = {
        "kind": AlertKind.BUDGET_EXCEEDED,
        "severity": Severity.CRITICAL,
        "scope": f"limit:{number}",
        "metric": "usd.day",
        "dedup_key": f"limit:{number}|usd.day",
        "text": "Spend of the UTC day is $52.10, 104.2% of the daily budget of $50.00.",
        "facts": {"measure": "usd", "spend": "52.1", "limit": "50", "share": "1.042"},
        "window_start": window.start,
        "window_end": window.end,
        "opened_at": opened_at,
        "handling": Handling.SENT,
    }
    return Alert.objects.create(workspace=workspace, title=title, **defaults | fields)


def make_webhook(workspace: Workspace, url: str, name: str = "Hook", **fields: Any) -> Channel:
    """A signed webhook to `url`."""
    config = webhook.with_new_secret({"url": url}, utc_now())
    return Channel.objects.create(
        workspace=workspace, kind=ChannelKind.WEBHOOK, name=name, sealed=seal(json.dumps(config)), **fields
    )


def queue_alert(channel: Channel, *alerts: Alert, **fields: Any) -> Delivery:
    """A message about `alerts`, or about a new one."""
    return queue(channel, Action.ALERT, alerts=alerts or [make_alert(channel.workspace)], **fields)


def queue_mail(workspace: Workspace, recipient: str, *alerts: Alert, **fields: Any) -> Delivery:
    """The same by e-mail."""
    return queue_alert(email_channel(workspace.pk), *alerts, recipient=recipient, **fields)
