"""What comes of the alert settings: what the plan makes of a mode, and what would be told in vain."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from alerts.channel_sets import active_channels
from alerts.kinds import KINDS
from alerts.models import AlertKind, ChannelKind, MailTopic, Mode, ReportKind, Schedule
from alerts.preferences import Preferences, effective_mode
from alerts.quiet_hours import QuietHours
from alerts.recipients import mail_addresses
from billing.selectors import PlanFeatures
from opsmeter_site.lib.periods import DAY, wall_moment

_SUMMARY_OF = {Mode.DAILY: ReportKind.DAILY, Mode.WEEKLY: ReportKind.WEEKLY}


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that reaches nobody as it is set, and the page where that can be changed."""

    text: str
    page: str
    label: str


def plan_note(kind: AlertKind, preferences: Preferences, plan: PlanFeatures) -> str:
    """What the plan makes of the mode of `kind`; empty where it is told as it is set."""
    if KINDS[kind].needs_integrations and not plan.has_integrations:
        return f"Not part of {_named(plan)}; from Pro on."
    mode = effective_mode(kind, preferences, plan)
    return "" if mode is preferences.modes[kind] else f"On {_named(plan)}: {mode.label.lower()}."


def _named(plan: PlanFeatures) -> str:
    return f"the {plan.name} plan" if plan.name else "no plan"


def gaps(workspace_id: UUID, preferences: Preferences, plan: PlanFeatures) -> list[Gap]:
    """What is told in a summary that is switched off, or at once to nobody."""
    kinds = defaultdict(list)
    for kind in AlertKind:
        kinds[effective_mode(kind, preferences, plan)].append(kind.label)
    off = set(Schedule.objects.filter(workspace_id=workspace_id, is_enabled=False).values_list("kind", flat=True))
    found = [
        Gap(
            f"{summary.label} is switched off, and these are told in it: {', '.join(kinds[mode])}.",
            "settings-summaries",
            "Summaries",
        )
        for mode, summary in _SUMMARY_OF.items()
        if summary in off and kinds[mode]
    ]
    if kinds[Mode.IMMEDIATE] and not _has_audience(workspace_id, plan):
        text = "What is told immediately reaches nobody: no channel takes alerts, and nobody gets them by e-mail."
        found.append(Gap(text, "settings-channels", "Channels"))
    return found


def _has_audience(workspace_id: UUID, plan: PlanFeatures) -> bool:
    kinds = {channel.kind for channel in active_channels(workspace_id) if channel.takes_alerts}
    if plan.has_integrations and kinds - {ChannelKind.EMAIL}:
        return True
    return ChannelKind.EMAIL in kinds and bool(mail_addresses(workspace_id, MailTopic.ALERTS))


def next_quiet_hours(hours: QuietHours, zone: ZoneInfo, now: datetime) -> tuple[datetime, datetime]:
    """When the hours that hold `now` (aware), or else the next ones, begin and end."""
    today = now.astimezone(zone).date()
    starts = (wall_moment(zone, today + n * DAY, hours.start) for n in range(-1, 3))
    ends = ((start, hours.end_after(start, zone)) for start in starts)
    return next((start, end) for start, end in ends if end is not None and end > now)
