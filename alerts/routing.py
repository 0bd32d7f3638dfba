"""Who hears of an alert, how and when: mode and plan, then cooldown and quiet hours, then channels and recipients."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from uuid import UUID

from alerts.audiences import Audience
from alerts.channel_sets import active_channels
from alerts.channels import MODULES
from alerts.models import (
    Action,
    Alert,
    AlertKind,
    Channel,
    ChannelKind,
    Delivery,
    DeliveryState,
    Handling,
    MailTopic,
    Mode,
    Severity,
)
from alerts.outgoing import Envelope
from alerts.preferences import effective_mode
from alerts.recipients import mail_addresses

# No message is held for longer: quiet hours are less than a local day, and that has at most 25 hours.
_LONGEST_HOLD = timedelta(days=2)

# What a cooldown covers: workspace, scope and metric.
_Subject = tuple[UUID, str, str]


@dataclass(frozen=True, slots=True)
class _Earlier:
    """A message about some subject: how loud it is, when it went or goes out, and what it waits for if so."""

    loudness: tuple[int, bool]
    at: datetime
    hold: str


@dataclass(frozen=True, slots=True)
class _Moment:
    """When a message goes out, and what it waits for until then."""

    handling: Handling
    at: datetime


def route(audiences: Mapping[UUID, Audience], alerts: Iterable[Alert], now: datetime) -> list[Envelope]:
    """Decide what becomes of telling these alerts, and note it on them; what is to be posted.

    The caller holds the inboxes, stores the alerts and posts the envelopes, all in one transaction.
    """
    immediate = []
    for alert in alerts:
        audience, kind = audiences[alert.workspace_id], AlertKind(alert.kind)
        mode = effective_mode(kind, audience.preferences, audience.plan)
        alert.held_until = None
        if mode is Mode.IMMEDIATE:
            immediate.append(alert)
        elif mode is not audience.preferences.modes[kind]:
            alert.handling = Handling.PLAN
        else:
            alert.handling = Handling.INBOX if mode is Mode.INBOX else Handling.SUMMARY
    envelopes = []
    for workspace_id, moments in _moments(audiences, immediate, now).items():
        envelopes += _envelopes(audiences[workspace_id], moments)
    return envelopes


# --- When -------------------------------------------------------------------------------------------------------------


def _moments(
    audiences: Mapping[UUID, Audience], alerts: Iterable[Alert], now: datetime
) -> Mapping[UUID, Mapping[_Moment, list[Alert]]]:
    """Which alerts of each workspace go out when. Those of one subject go together, as the loudest of them may."""
    groups = defaultdict(list)
    for alert in alerts:
        groups[alert.workspace_id, alert.scope, alert.metric].append(alert)
    earlier = _earlier(audiences, groups, now)
    moments: dict[UUID, dict[_Moment, list[Alert]]] = defaultdict(lambda: defaultdict(list))
    for subject, group in groups.items():
        workspace_id, _, _ = subject
        moment = _moment(audiences[workspace_id], max(map(_loudness, group)), earlier[subject], now)
        moments[workspace_id][moment] += group
    return moments


def _moment(audience: Audience, loudness: tuple[int, bool], earlier: Iterable[_Earlier], now: datetime) -> _Moment:
    """When a message of this loudness may go out after those about the same subject.

    Softer messages hold nothing back: a warning never delays what is critical.
    """
    cooldown = audience.preferences.cooldown
    moment = _after_quiet_hours(audience, _Moment(Handling.SENT, now), loudness)
    as_loud = [each for each in earlier if each.loudness >= loudness]
    waiting = [each for each in as_loud if each.hold and moment.at <= each.at < moment.at + cooldown]
    if waiting:
        first = min(waiting, key=lambda each: each.at)
        return _Moment(Handling(first.hold), first.at)
    free_at = max((each.at + cooldown for each in as_loud if each.at <= moment.at), default=now)
    if free_at > moment.at:
        return _after_quiet_hours(audience, _Moment(Handling.COOLDOWN, free_at), loudness)
    return moment


def _after_quiet_hours(audience: Audience, moment: _Moment, loudness: tuple[int, bool]) -> _Moment:
    _, is_urgent = loudness
    quiet_hours = audience.preferences.quiet_hours
    if is_urgent or quiet_hours is None:
        return moment
    end = quiet_hours.end_after(moment.at, audience.workspace.timezone)
    return moment if end is None else _Moment(Handling.QUIET_HOURS, end)


def _loudness(alert: Alert) -> tuple[int, bool]:
    return Severity(alert.severity).rank, alert.is_urgent


def _earlier(
    audiences: Mapping[UUID, Audience], subjects: Collection[_Subject], now: datetime
) -> Mapping[_Subject, list[_Earlier]]:
    """The messages about these subjects that a cooldown may count from, or that wait."""
    workspace_ids = {workspace_id for workspace_id, _, _ in subjects}
    cooldowns = [audiences[each].preferences.cooldown for each in workspace_ids]
    rows = (
        Delivery.alerts.through.objects.filter(
            delivery__workspace__in=workspace_ids,
            delivery__created_at__gte=now - max(cooldowns, default=timedelta(0)) - _LONGEST_HOLD,
            delivery__action=Action.ALERT,
            alert__scope__in={scope for _, scope, _ in subjects},
        )
        .exclude(delivery__state=DeliveryState.CANCELLED)
        .values_list(
            "delivery__workspace",
            "alert__scope",
            "alert__metric",
            "alert__severity",
            "alert__is_urgent",
            "delivery__hold",
            "delivery__attempts_made",
            "delivery__next_attempt_at",
            "delivery__sent_at",
            "delivery__created_at",
        )
        .distinct()
    )
    found: dict[_Subject, list[_Earlier]] = defaultdict(list)
    for workspace_id, scope, metric, severity, is_urgent, hold, attempts, next_attempt_at, sent_at, created_at in rows:
        is_held = bool(hold) and not attempts
        at = next_attempt_at if is_held else sent_at or created_at
        loudness = Severity(severity).rank, is_urgent
        found[workspace_id, scope, metric].append(_Earlier(loudness, at, hold if is_held else ""))
    return found


# --- To whom ----------------------------------------------------------------------------------------------------------


def _envelopes(audience: Audience, moments: Mapping[_Moment, Sequence[Alert]]) -> list[Envelope]:
    channels = [
        channel
        for channel in active_channels(audience.workspace.pk)
        if channel.takes_alerts and (channel.kind == ChannelKind.EMAIL or audience.plan.has_integrations)
    ]
    addresses = _addresses(audience.workspace.pk, channels)
    envelopes = []
    for moment, alerts in moments.items():
        own = [each for channel in channels for each in _of_channel(channel, addresses, moment, alerts)]
        reached = {alert.pk for alert in chain.from_iterable(envelope.alerts for envelope in own)}
        for alert in alerts:
            alert.handling = moment.handling if alert.pk in reached else Handling.NOBODY
            alert.held_until = moment.at if alert.pk in reached and moment.handling is not Handling.SENT else None
        envelopes += own
    return envelopes


def _addresses(workspace_id: UUID, channels: Iterable[Channel]) -> list[str]:
    has_mail = any(channel.kind == ChannelKind.EMAIL for channel in channels)
    return mail_addresses(workspace_id, MailTopic.ALERTS) if has_mail else []


def _of_channel(channel: Channel, addresses: Iterable[str], moment: _Moment, alerts: Sequence[Alert]) -> list[Envelope]:
    """What one channel gets of alerts that go out together, the worst first."""
    fitting = sorted((alert for alert in alerts if _takes(channel, alert)), key=_loudness, reverse=True)
    if not fitting:
        return []
    hold = "" if moment.handling is Handling.SENT else moment.handling.value
    if MODULES[ChannelKind(channel.kind)].IS_ONE_BY_ONE:
        return [Envelope(channel, [alert], send_at=moment.at, hold=hold, may_join=False) for alert in fitting]
    recipients = addresses if channel.kind == ChannelKind.EMAIL else [""]
    return [Envelope(channel, fitting, recipient=each, send_at=moment.at, hold=hold) for each in recipients]


def _takes(channel: Channel, alert: Alert) -> bool:
    # A recovery reaches PagerDuty as the end of the incident, not as another one.
    is_incident_over = alert.kind == AlertKind.RECOVERY and channel.kind == ChannelKind.PAGERDUTY
    return not is_incident_over and Severity(alert.severity).rank >= Severity(channel.minimum_severity).rank
