"""An alert's life as a list of moments, oldest first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from alerts.delivery_log import error_text, receiver
from alerts.models import Alert, Delivery, DeliveryState
from alerts.recipients import VisibleAddresses, visible_addresses
from alerts.selectors import Messages
from alerts.telling import moment, repeats, told
from opsmeter_site.lib.formats import count
from workspaces.access import WorkspaceAccess
from workspaces.audit_words import name_of

# More messages than these are listed on the page of deliveries only.
MOST_DELIVERIES = 20


@dataclass(frozen=True, slots=True)
class Moment:
    """What happened at one moment. `tone`: "good", "warn", "bad" or nothing; `delivery`: the message it is about."""

    at: datetime
    text: str
    tone: str = ""
    delivery: Delivery | None = None


def timeline(
    alert: Alert, deliveries: Sequence[Delivery], messages: Messages, access: WorkspaceAccess, now: datetime
) -> list[Moment]:
    """All that is known of the alert, in order, as this member may see it."""
    zone, visible = access.workspace.timezone, visible_addresses(access)
    moments = [
        *_beginning(alert, messages, zone, now),
        *(_message(each, alert, visible, zone, now) for each in deliveries),
        *_ending(alert),
    ]
    return sorted(moments, key=lambda each: each.at)


def _beginning(alert: Alert, messages: Messages, zone: ZoneInfo, now: datetime) -> Iterator[Moment]:
    yield Moment(alert.opened_at, "It happened.")
    yield Moment(alert.created_at, f"In the inbox. {told(alert, messages, zone, now)}.")
    if alert.occurrences > 1:
        yield Moment(alert.last_occurred_at, f"{repeats(alert, zone, now)}. Repeats are counted, not told again.")


def _message(delivery: Delivery, alert: Alert, visible: VisibleAddresses, zone: ZoneInfo, now: datetime) -> Moment:
    what = f"{delivery.get_action_display()} to {receiver(delivery, visible)} ({delivery.get_channel_kind_display()})"
    error = error_text(delivery, visible)
    tries = f"{count(delivery.attempts_made)} attempt{'' if delivery.attempts_made == 1 else 's'}"
    # Queued in the commit that put the alert into the inbox, if a moment before by the clock.
    queued_at = max(delivery.created_at, alert.created_at)
    match DeliveryState(delivery.state):
        case DeliveryState.SENT:
            return Moment(delivery.sent_at or queued_at, f"{what}: sent.", "good", delivery)
        case DeliveryState.FAILED:
            return Moment(queued_at, f"{what}: failed after {tries}. {error}", "bad", delivery)
        case DeliveryState.CANCELLED:
            return Moment(queued_at, f"{what}: cancelled.", "", delivery)
    if delivery.attempts_made:
        return Moment(queued_at, f"{what}: on its way, {tries} so far. {error}", "warn", delivery)
    until = f" until {moment(delivery.next_attempt_at, zone, now)}" if delivery.next_attempt_at > now else ""
    return Moment(queued_at, f"{what}: waiting{until}.", "", delivery)


def _ending(alert: Alert) -> Iterator[Moment]:
    if alert.acknowledged_at:
        yield Moment(alert.acknowledged_at, f"Acknowledged by {name_of(alert.acknowledged_by)}.")
    if alert.resolved_at:
        by = f"by {name_of(alert.resolved_by)}" if alert.resolved_by else "by itself"
        yield Moment(alert.resolved_at, f"Resolved {by}. {alert.resolution}".strip(), "good")
