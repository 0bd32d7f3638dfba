"""What became of telling people about an alert, in words."""

from datetime import datetime
from zoneinfo import ZoneInfo

from alerts.limit_texts import with_scope
from alerts.models import Alert, AlertKind, AlertState, Handling
from alerts.selectors import Messages
from opsmeter_site.lib.formats import count
from workspaces.audit_words import name_of

HELD_BY = {Handling.COOLDOWN: "the cooldown", Handling.QUIET_HOURS: "quiet hours"}
_NOT_SENT = {
    Handling.SUMMARY: "Told in the summary",
    Handling.INBOX: "In the inbox only",
    Handling.PLAN: "Not sent at once on this plan: told in the summary if the plan has one",
    Handling.NOBODY: "Told to nobody: no channel and no recipient takes it",
}


def scope_in_words(alert: Alert) -> str:
    """What it is about: a limit and its scope, one endpoint or model, or the whole workspace; else its kind says it."""
    if "name" in alert.facts:
        return with_scope(alert.facts["name"], alert.facts.get("scope", ""))
    drill = alert.facts.get("drill") or {}
    if drill:
        return ", ".join(f"{name.capitalize()} {value}" for name, value in drill.items())
    return "The whole workspace" if alert.kind == AlertKind.SPEND_SPIKE else ""


def told(alert: Alert, messages: Messages, zone: ZoneInfo, now: datetime) -> str:
    """How people heard of it, or when they will: "Held by quiet hours until 07:00"."""
    handling = Handling(alert.handling)
    if handling in _NOT_SENT:
        return _NOT_SENT[handling]
    if not messages.total and alert.recovers_id:
        return "Told with the alert that it ends"
    held = f"Held by {HELD_BY[handling]}" if handling in HELD_BY else ""
    parts = [_held(held, alert, messages, zone, now) if held else _sent_at_once(messages)]
    if messages.failed:
        parts.append(f"{count(messages.failed)} not delivered")
    return "; ".join(parts)


def _sent_at_once(messages: Messages) -> str:
    if messages.under_way:
        return f"Sent at once; {count(messages.under_way)} more on the way" if messages.sent else "Being sent"
    return "Withdrawn before it was sent" if messages.is_withdrawn else "Sent at once"


def _held(held: str, alert: Alert, messages: Messages, zone: ZoneInfo, now: datetime) -> str:
    if messages.last_sent_at:
        return f"{held}, sent {moment(messages.last_sent_at, zone, now)}"
    if messages.is_withdrawn:
        return f"{held}, withdrawn before it was sent"
    if alert.held_until and alert.held_until > now:
        return f"{held} until {moment(alert.held_until, zone, now)}"
    return f"{held}, being sent" if messages.under_way else held


def looked_after(alert: Alert) -> str:
    """Who has acknowledged or resolved it; empty for an open one."""
    if alert.state == AlertState.RESOLVED:
        return f"Resolved by {name_of(alert.resolved_by)}" if alert.resolved_by else f"By itself: {alert.resolution}"
    return f"Acknowledged by {name_of(alert.acknowledged_by)}" if alert.acknowledged_by else ""


def repeats(alert: Alert, zone: ZoneInfo, now: datetime) -> str:
    """How often it was found again; empty for one that was found once."""
    if alert.occurrences == 1:
        return ""
    return f"De-duplicated: found {count(alert.occurrences)} times, last {moment(alert.last_occurred_at, zone, now)}"


def moment(when: datetime, zone: ZoneInfo, now: datetime) -> str:
    """A local time of day, with its day unless that is today."""
    there = when.astimezone(zone)
    is_today = there.date() == now.astimezone(zone).date()
    return f"{there:%H:%M}" if is_today else f"{there:%-d %b, %H:%M}"
