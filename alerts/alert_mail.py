"""An alert as a mail, and the short notices: a test, a channel that was switched off."""

from django.conf import settings
from django.urls import reverse

from alerts.mail_rendering import render_mail
from alerts.messages import AlertItem, Mail, Message
from alerts.models import Action, AlertKind, Severity

# Of more alerts in one mail the worst are told; the inbox has them all.
MOST_SHOWN = 20
_PILLS = {Severity.INFO: "info", Severity.WARNING: "warn", Severity.CRITICAL: "bad"}


def alert_mail(message: Message, note: str, reason: str) -> Mail:
    """One alert, or several that were held together.

    `note` says what happened to them since, `reason` why the reader gets the mail.
    """
    items = [{"item": item} | _label(message, item) for item in message.items[:MOST_SHOWN]]
    number = len(message.items)
    facts = {"items": items, "note": note, "number": number, "is_one": number == 1, "left_out": number - len(items)}
    return render_mail("alert", _frame(message, reason) | facts)


def notice_mail(message: Message, reason: str) -> Mail:
    """A message without alerts: what happened, and where to go on."""
    return render_mail("alert_notice", _frame(message, reason))


def _label(message: Message, item: AlertItem) -> dict[str, str]:
    """How an alert stands, and in which colour."""
    if message.action == Action.RESOLVE or item.kind == AlertKind.RECOVERY:
        return {"label": "Resolved", "pill": "good"}
    if item.has_cleared:
        return {"label": "Cleared", "pill": "good"}
    return {"label": item.severity.label, "pill": _PILLS[item.severity]}


def _frame(message: Message, reason: str) -> dict[str, object]:
    path = reverse("settings-recipients", args=[message.workspace_slug])
    return {
        "message": message,
        "workspace_name": message.workspace_name,
        "reason": reason,
        "settings_url": settings.OPSMETER_URL + path if message.unsubscribe_url else "",
        "unsubscribe_url": message.unsubscribe_url,
    }
