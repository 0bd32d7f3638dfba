"""What a workspace wants to be told, and how, with what holds when nobody has set anything."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from alerts.kinds import KINDS
from alerts.models import AlertKind, AlertSettings, Mode
from alerts.quiet_hours import QuietHours
from billing.selectors import PlanFeatures


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """All that can be set about how alerts are told. `modes` has every kind; without `quiet_hours` there are none."""

    modes: Mapping[AlertKind, Mode]
    cooldown: timedelta
    quiet_hours: QuietHours | None
    recipient_roles: tuple[str, ...]
    spike_is_on: bool
    spike_factor: Decimal
    spike_minimum_usd: Decimal


def preferences_of(workspace_id: UUID) -> Preferences:
    """The preferences of one workspace."""
    return preferences_of_many([workspace_id])[workspace_id]


def preferences_of_many(workspace_ids: Iterable[UUID]) -> dict[UUID, Preferences]:
    """The same for many workspaces, in one query; every one of them is in the answer."""
    wanted = list(workspace_ids)
    stored = AlertSettings.objects.in_bulk(wanted)
    return {each: _preferences(stored.get(each) or AlertSettings(workspace_id=each)) for each in wanted}


def effective_mode(kind: AlertKind, preferences: Preferences, plan: PlanFeatures) -> Mode:
    """How an alert of `kind` is told, with what the plan includes."""
    if KINDS[kind].needs_integrations and not plan.has_integrations:
        return Mode.INBOX
    mode = preferences.modes[kind]
    if mode is Mode.IMMEDIATE and not plan.has_immediate_alerts:
        mode = Mode.DAILY
    if mode in (Mode.DAILY, Mode.WEEKLY) and not plan.has_summaries:
        return Mode.INBOX
    return mode


def _preferences(settings: AlertSettings) -> Preferences:
    return Preferences(
        modes={kind: Mode(settings.modes.get(kind.value, facts.usual_mode)) for kind, facts in KINDS.items()},
        cooldown=timedelta(seconds=settings.cooldown_seconds),
        quiet_hours=_quiet_hours(settings),
        recipient_roles=tuple(settings.recipient_roles),
        spike_is_on=settings.spike_is_on,
        spike_factor=settings.spike_factor,
        spike_minimum_usd=settings.spike_minimum_usd,
    )


def _quiet_hours(settings: AlertSettings) -> QuietHours | None:
    if settings.quiet_from is None or settings.quiet_until is None:
        return None
    return QuietHours(settings.quiet_from, settings.quiet_until)
