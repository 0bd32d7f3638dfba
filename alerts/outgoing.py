"""Putting messages on their way: rows that `alerts.deliveries` sends. Always inside the caller's transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from alerts.models import UNDER_WAY, Action, Alert, Channel, ChannelKind, Delivery, DeliveryState, Report
from opsmeter_site.lib.clock import utc_now
from workspaces.models import User

_Content = Delivery.alerts.through
_Place = tuple[UUID | None, str, str, datetime]


def queue(
    channel: Channel,
    action: Action,
    *,
    recipient: str = "",
    alerts: Iterable[Alert] = (),
    report: Report | None = None,
    about: Channel | None = None,
    requested_by: User | None = None,
    hold: str = "",
    send_at: datetime | None = None,
) -> Delivery:
    """One message to `channel`; for e-mail to `recipient`. Sent from `send_at` (aware; default now) on."""
    delivery = Delivery.objects.create(
        workspace_id=channel.workspace_id,
        channel=channel,
        channel_kind=channel.kind,
        recipient=recipient,
        action=action,
        report=report,
        about=about,
        requested_by=requested_by,
        hold=hold,
        next_attempt_at=send_at or utc_now(),
    )
    delivery.alerts.add(*alerts)
    return delivery


# --- Alerts, many at once ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Envelope:
    """Alerts for one receiver, to be posted. With `hold` it waits, and joins what waits for the same if it may."""

    channel: Channel
    alerts: Sequence[Alert]
    send_at: datetime
    recipient: str = ""
    hold: str = ""
    may_join: bool = True
    action: Action = Action.ALERT


def post(envelopes: Sequence[Envelope], now: datetime) -> None:
    """Put these on their way, in a few statements however many there are."""
    waiting = _waiting(envelopes)
    created, contents = [], []
    for envelope in envelopes:
        delivery = waiting.get(_place(envelope)) if envelope.may_join else None
        if delivery is None:
            delivery = Delivery(
                workspace_id=envelope.channel.workspace_id,
                channel=envelope.channel,
                channel_kind=envelope.channel.kind,
                recipient=envelope.recipient,
                action=envelope.action,
                hold=envelope.hold,
                created_at=now,
                next_attempt_at=envelope.send_at,
            )
            created.append(delivery)
        contents += [_Content(delivery_id=delivery.pk, alert_id=alert.pk) for alert in envelope.alerts]
    Delivery.objects.bulk_create(created)
    _Content.objects.bulk_create(contents, ignore_conflicts=True)


def withdraw(alerts: Iterable[Alert]) -> None:
    """Take alerts out of messages that are held. A message that has nothing left to say is cancelled."""
    wanted = list(alerts)
    held = {delivery.pk for delivery in _held().filter(alerts__in=wanted).select_for_update(of=("self",))}
    _Content.objects.filter(delivery__in=held, alert__in=wanted).delete()
    Delivery.objects.filter(pk__in=held, alerts=None).update(state=DeliveryState.CANCELLED)


def held_alerts(alerts: Iterable[Alert]) -> set[UUID]:
    """Those of the alerts whose message is held, so that it will say how they stand."""
    return set(_held().filter(alerts__in=list(alerts)).values_list("alerts", flat=True))


def close_incidents(alerts: Iterable[Alert], now: datetime) -> None:
    """Tell PagerDuty, where it has been told of these alerts, that they are over. What has yet to ring is cancelled."""
    told = list(
        _Content.objects.filter(
            alert__in=list(alerts),
            delivery__action=Action.ALERT,
            delivery__channel__kind=ChannelKind.PAGERDUTY,
            delivery__state__in=(*UNDER_WAY, DeliveryState.SENT),
        )
        .select_related("alert", "delivery__channel")
        .select_for_update(of=("delivery",))
    )
    waiting = [each.delivery for each in told if each.delivery.state == DeliveryState.WAITING]
    Delivery.objects.filter(pk__in=[each.pk for each in waiting]).update(state=DeliveryState.CANCELLED)
    # One that has been tried in vain may have arrived all the same.
    post([_resolve(each, now) for each in told if each.delivery.attempts_made], now)


def _resolve(content: Any, now: datetime) -> Envelope:
    trigger: Delivery = content.delivery
    # One that is being sent is over when its lease ends; before that it could arrive after what resolves it.
    send_at = trigger.next_attempt_at if trigger.state == DeliveryState.SENDING else now
    return Envelope(content.delivery.channel, [content.alert], send_at, may_join=False, action=Action.RESOLVE)


def _held() -> QuerySet[Delivery]:
    """Messages that wait for a moment of their own and have not been tried."""
    return Delivery.objects.filter(state=DeliveryState.WAITING, attempts_made=0).exclude(hold="")


def _place(envelope: Envelope) -> _Place:
    """Receiver, reason and moment."""
    return envelope.channel.pk, envelope.recipient, envelope.hold, envelope.send_at


def _waiting(envelopes: Iterable[Envelope]) -> dict[_Place, Delivery]:
    """The held messages that envelopes may join, by place. Locked, so that none of them is sent meanwhile."""
    joining = [envelope for envelope in envelopes if envelope.hold and envelope.may_join]
    if not joining:
        return {}
    found = _held().filter(
        action=Action.ALERT,
        channel__in={envelope.channel.pk for envelope in joining},
        next_attempt_at__in={envelope.send_at for envelope in joining},
    )
    return {
        (delivery.channel_id, delivery.recipient, delivery.hold, delivery.next_attempt_at): delivery
        for delivery in found.select_for_update(of=("self",))
    }
