"""From a delivery's rows to the message that its channel sends."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from zoneinfo import ZoneInfo

from django.conf import settings
from django.urls import reverse

from alerts.alert_facts import budget_path, facts_of, figures_of, moment_text
from alerts.alert_mail import alert_mail, notice_mail
from alerts.messages import AlertItem, Fact, Message
from alerts.models import Action, Alert, AlertKind, AlertState, ChannelKind, Delivery, Handling, Severity
from alerts.reports.mail import report_brief, report_mail
from alerts.telling import HELD_BY
from alerts.unsubscribing import unsubscribe_url
from workspaces.models import Membership


def compose(delivery: Delivery) -> Message:
    """The message as of now: alerts say whether they have cleared since."""
    return _COMPOSERS[Action(delivery.action)](delivery)


# --- Alerts ---------------------------------------------------------------------------------------------------------


def _alert_message(delivery: Delivery) -> Message:
    alerts = sorted(delivery.alerts.all(), key=lambda alert: (-Severity(alert.severity).rank, alert.opened_at))
    items = tuple(_item(delivery, alert) for alert in alerts)
    first, others, note = items[0], items[1:], _note(delivery, alerts)
    text = _counts(items) if others else first.text
    message = _message(
        delivery,
        title=f"{len(items)} alerts: {first.title} and {len(others)} more" if others else first.title,
        text=f"{text}\n\n{note}" if note else text,
        url=_url(delivery, "alerts") if others else first.url,
        severity=first.severity,
        facts=() if others else first.facts,
        items=items,
    )
    return replace(message, mail=alert_mail(message, note, _reason(delivery))) if _is_mail(delivery) else message


def _counts(items: Sequence[AlertItem]) -> str:
    """How many of each severity: "1 critical, 2 warning."."""
    numbers = Counter(item.severity for item in items)
    return ", ".join(f"{numbers[each]} {each.label.lower()}" for each in reversed(Severity) if numbers[each]) + "."


def _item(delivery: Delivery, alert: Alert) -> AlertItem:
    # A recovery speaks of the alert that it ends, so that receivers that count by key close the right one.
    dedup_key = alert.recovers.dedup_key if alert.recovers else alert.dedup_key
    return AlertItem(
        id=str(alert.pk),
        kind=AlertKind(alert.kind),
        severity=Severity(alert.severity),
        title=alert.title,
        text=alert.text,
        facts=facts_of(alert, _zone(delivery)),
        url=_url(delivery, "alert", str(alert.pk)),
        dedup_key=dedup_key,
        opened_at=alert.opened_at,
        window_start=alert.window_start,
        window_end=alert.window_end,
        has_cleared=_has_cleared(delivery, alert),
        figures=figures_of(alert),
        budget_url=(
            f"{settings.OPSMETER_URL}{budget_path(alert, delivery.workspace.slug)}"
            if "budget_id" in alert.facts
            else ""
        ),
    )


def _has_cleared(delivery: Delivery, alert: Alert) -> bool:
    """Whether what is told as bad news is over by now. A recovery is good news."""
    return delivery.action == Action.ALERT and alert.kind != AlertKind.RECOVERY and alert.state == AlertState.RESOLVED


def _note(delivery: Delivery, alerts: Sequence[Alert]) -> str:
    """What happened to the message and its alerts since they arose; empty if nothing."""
    standing = _standing(delivery, alerts)
    until = max((alert.held_until for alert in alerts if alert.held_until), default=None)
    if delivery.hold not in HELD_BY or until is None:
        has_cleared = any(_has_cleared(delivery, alert) for alert in alerts)
        return f"{standing[0].upper()}{standing[1:]}." if has_cleared else ""
    these = "This was" if len(alerts) == 1 else "These were"
    zone = _zone(delivery)
    held = f"{these} held by {HELD_BY[Handling(delivery.hold)]} until {until.astimezone(zone):%H:%M} ({zone.key})"
    return f"{held}; {standing}." if standing else f"{held}."


def _standing(delivery: Delivery, alerts: Sequence[Alert]) -> str:
    """How what was bad news stands by now; empty if it was all good news."""
    bad_news = [alert for alert in alerts if alert.kind != AlertKind.RECOVERY]
    cleared = sum(_has_cleared(delivery, alert) for alert in bad_news)
    if delivery.action != Action.ALERT or not bad_news:
        return ""
    if len(bad_news) == 1:
        return f"{'it' if len(alerts) == 1 else 'the alert'} {'has cleared since' if cleared else 'still holds'}"
    return f"{cleared or 'none'} of {len(bad_news)} {'has' if cleared == 1 else 'have'} cleared since"


def _reason(delivery: Delivery) -> str:
    """Why the reader of a mail gets it."""
    people = Membership.objects.filter(workspace_id=delivery.workspace_id, user__email__iexact=delivery.recipient)
    member = people.first()
    whose = f"the alerts of the workspace {delivery.workspace.name}"
    if member is None:
        return f"Sent to {delivery.recipient}: this address confirmed that it wants {whose}."
    return f"Sent to {delivery.recipient}: as {member.get_role_display().lower()}, you get {whose}."


# --- Everything else ------------------------------------------------------------------------------------------------


def _report_message(delivery: Delivery) -> Message:
    report = delivery.report
    if report is None:
        raise LookupError("a summary without its report")
    text, facts = report_brief(report)
    message = _message(
        delivery, title=report.title, text=text, url=_url(delivery, "report", str(report.pk)), facts=facts
    )
    return replace(message, mail=report_mail(report, message.unsubscribe_url)) if _is_mail(delivery) else message


def _test_message(delivery: Delivery) -> Message:
    person = delivery.requested_by
    asked = f"{person.name or person.email} asked for it." if person else ""
    message = _message(
        delivery,
        title="Test message",
        text=f"Messages of the workspace {delivery.workspace.name} arrive here. {asked}".strip(),
        url=_url(delivery, "settings-channels"),
        facts=(Fact("When", moment_text(delivery.created_at, _zone(delivery))),),
    )
    reason = f"Sent to {delivery.recipient} as a test."
    return replace(message, mail=notice_mail(message, reason)) if _is_mail(delivery) else message


def _channel_off_message(delivery: Delivery) -> Message:
    channel = delivery.about
    name = f"{channel.name} ({channel.get_kind_display()})" if channel else "that was deleted since"
    facts = [Fact("When", moment_text((channel and channel.failed_at) or delivery.created_at, _zone(delivery)))]
    if channel and channel.failure:
        facts.insert(0, Fact("Answer", channel.failure))
    message = _message(
        delivery,
        title=f"The channel {name} was switched off",
        text=(
            "It refuses messages, or has taken none for two days, so nothing is sent there any more. "
            "Alerts still reach the inbox and the other channels. "
            "Put the channel right, resume it, and send again what was missed."
        ),
        url=_url(delivery, "settings-channels"),
        severity=Severity.WARNING,
        facts=tuple(facts),
    )
    reason = f"Sent to {delivery.recipient}: you own the workspace {delivery.workspace.name}."
    return replace(message, mail=notice_mail(message, reason)) if _is_mail(delivery) else message


_COMPOSERS: Mapping[Action, Callable[[Delivery], Message]] = {
    Action.ALERT: _alert_message,
    Action.RESOLVE: _alert_message,
    Action.REPORT: _report_message,
    Action.TEST: _test_message,
    Action.CHANNEL_OFF: _channel_off_message,
}


# --- What all have --------------------------------------------------------------------------------------------------


def _message(
    delivery: Delivery,
    *,
    title: str,
    text: str,
    url: str,
    severity: Severity = Severity.INFO,
    facts: tuple[Fact, ...] = (),
    items: tuple[AlertItem, ...] = (),
) -> Message:
    # What somebody asked for once, and what owners must know, is no subscription.
    is_subscribed = delivery.recipient and delivery.action not in (Action.TEST, Action.CHANNEL_OFF)
    return Message(
        id=str(delivery.pk),
        action=Action(delivery.action),
        severity=severity,
        workspace_id=str(delivery.workspace_id),
        workspace_name=delivery.workspace.name,
        workspace_slug=delivery.workspace.slug,
        title=title,
        text=text,
        url=url,
        created_at=delivery.created_at,
        facts=facts,
        items=items,
        recipient=delivery.recipient,
        unsubscribe_url=(
            unsubscribe_url(delivery.workspace_id, delivery.recipient, delivery.topic) if is_subscribed else ""
        ),
    )


def _is_mail(delivery: Delivery) -> bool:
    return delivery.channel_kind == ChannelKind.EMAIL


def _zone(delivery: Delivery) -> ZoneInfo:
    zone: ZoneInfo = delivery.workspace.timezone
    return zone


def _url(delivery: Delivery, name: str, *arguments: str) -> str:
    return f"{settings.OPSMETER_URL}{reverse(name, args=[delivery.workspace.slug, *arguments])}"
