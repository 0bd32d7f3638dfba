"""Messages as `alerts.composing` makes them, written by hand."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import uuid4

from alerts.messages import AlertItem, Fact, InlineImage, Mail, Message
from alerts.models import Action, AlertKind, Severity

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = (datetime(2026, 11, 22, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC))
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f64540"
    "0000000049454e44ae426082"
)
_numbers = count(1)


def alert_item(kind: AlertKind = AlertKind.BUDGET_EXCEEDED, **changes: Any) -> AlertItem:
    """One alert."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "kind": kind,
        "severity": Severity.INFO if kind == AlertKind.RECOVERY else Severity.WARNING,
        "title": f"{kind.label}: workspace, UTC day",
        "text": "Spend is $51.20 of $50 in the UTC day of 22 November 2026.",
        "facts": (Fact("So far", "$51.20"), Fact("Limit", "$50.00")),
        "url": f"https://opsmeter.example/w/acme/alerts/{number}/",
        "dedup_key": f"limit:{number}|usd.day|2026-11-22T00:00Z",
        "opened_at": NOON,
        "window_start": DAY[0],
        "window_end": DAY[1],
        "has_cleared": False,
    }
    return AlertItem(**values | changes)


def message(action: Action = Action.ALERT, *items: AlertItem, **changes: Any) -> Message:
    """A message that tells `items`."""
    first = items[0] if items else None
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "action": action,
        "severity": first.severity if first else Severity.INFO,
        "workspace_id": str(uuid4()),
        "workspace_name": "Acme & Söhne",
        "workspace_slug": "acme",
        "title": first.title if first else f"{action.label} of Acme",
        "text": first.text if first else "Spend was $51.20, 12% more than the day before.",
        "url": first.url if first else "https://opsmeter.example/w/acme/reports/1/",
        "created_at": NOON,
        "facts": first.facts if first else (Fact("Spend", "$51.20"),),
        "items": items,
    }
    return Message(**values | changes)


def with_mail(plain: Message, recipient: str = "ada@example.com") -> Message:
    """The same for e-mail, with one picture."""
    mail = Mail(
        subject=plain.title,
        text=f"{plain.text}\n\n{plain.url}\n",
        html=f'<p>{plain.text}</p><img src="cid:chart" alt="Spend by day">',
        images=(InlineImage("chart", PNG),),
    )
    unsubscribe = "https://opsmeter.example/mail/unsubscribe/token/"
    return replace(plain, mail=mail, recipient=recipient, unsubscribe_url=unsubscribe)
