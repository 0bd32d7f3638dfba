"""Changing how a workspace's alerts are told: one function, one transaction, one audit entry."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import time, timedelta
from hashlib import sha256
from typing import Any, TypedDict, Unpack

from django.db import transaction

from alerts.kinds import KINDS
from alerts.models import AlertKind, AlertSettings, Mode
from alerts.preferences import Preferences, preferences_of
from alerts.quiet_hours import QuietHours
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError, InvalidInput
from workspaces.models import Role, User, Workspace
from workspaces.services import locked_workspace, record_audit

LONGEST_COOLDOWN_SECONDS = 86_400
_QUIET = ("quiet_from", "quiet_until")


class SettingsChanges(TypedDict, total=False):
    """What to change. `modes`: the kinds to change, each with its mode; the others stay as they are."""

    modes: Mapping[str, str]
    cooldown_seconds: int
    quiet_from: time | None
    quiet_until: time | None
    recipient_roles: Iterable[str]


class SettingsChanged(Exception):
    """Somebody else has changed the settings since they were shown: `now` they are this, and `wanted` was that."""

    def __init__(self, now: Preferences, wanted: Preferences) -> None:
        super().__init__("The alert settings have been changed since.")
        self.now, self.wanted = now, wanted


@dataclass(frozen=True, slots=True)
class Change:
    """What the settings were before a change and what they are after it."""

    old: Preferences
    new: Preferences

    @property
    def is_one(self) -> bool:
        """Whether anything changed."""
        return self.old != self.new


def version_of(values: Preferences) -> str:
    """The same if and only if modes, cooldown and quiet hours are; forms say with it what they were made from."""
    told = [values.modes, values.cooldown.total_seconds(), *map(_clock, quiet_ends(values))]
    return sha256(json.dumps(told).encode()).hexdigest()[:16]


def quiet_ends(values: Preferences) -> tuple[time | None, time | None]:
    """When the quiet hours begin and end; twice None without them."""
    hours = values.quiet_hours
    return (hours.start, hours.end) if hours else (None, None)


@transaction.atomic
def change_alert_settings(
    workspace: Workspace, *, acting_user: User, seen: str, **changes: Unpack[SettingsChanges]
) -> Change:
    """Apply `changes` if the settings still are those of version `seen`, or already are as wanted.

    Raises `SettingsChanged` otherwise, and `InvalidInput` like `update_alert_settings`.
    """
    locked_workspace(workspace)
    old = preferences_of(workspace.pk)
    wanted = _changed(old, changes)
    if version_of(old) not in (seen, version_of(wanted)):
        raise SettingsChanged(old, wanted)
    return Change(old, update_alert_settings(workspace, acting_user=acting_user, **changes))


@transaction.atomic
def update_alert_settings(
    workspace: Workspace, *, acting_user: User | None, **changes: Unpack[SettingsChanges]
) -> Preferences:
    """Apply `changes` and return all values as they then are. Nothing is written when nothing changes.

    Raises `InvalidInput` with every field that is at fault, named as in `SettingsChanges`.
    """
    locked_workspace(workspace)
    old = preferences_of(workspace.pk)
    new = _changed(old, changes)
    if new == old:
        return old
    AlertSettings.objects.update_or_create(workspace=workspace, defaults={**_stored(new), "updated_at": utc_now()})
    before, after = _for_audit(old), _for_audit(new)
    changed = [name for name in after if after[name] != before[name]]
    record_audit(
        "alert_settings.changed",
        workspace=workspace,
        acting_user=acting_user,
        target=workspace.name,
        data={"old": {name: before[name] for name in changed}, "new": {name: after[name] for name in changed}},
    )
    return new


def _changed(old: Preferences, changes: SettingsChanges) -> Preferences:
    """`old` with the changes; raises `InvalidInput`."""
    modes = changes.get("modes", {})
    cooldown_seconds = changes.get("cooldown_seconds", int(old.cooldown.total_seconds()))
    usual_start, usual_end = quiet_ends(old)
    start, end = changes.get("quiet_from", usual_start), changes.get("quiet_until", usual_end)
    roles = set(changes.get("recipient_roles", old.recipient_roles))
    errors = [
        *_mode_errors(modes),
        *_cooldown_errors(cooldown_seconds),
        *_quiet_errors(start, end),
        *_role_errors(roles),
    ]
    if errors:
        raise InvalidInput(f"{errors[0].field}: {errors[0].message}", errors=errors)
    return replace(
        old,
        modes={**old.modes, **{AlertKind(kind): Mode(mode) for kind, mode in modes.items()}},
        cooldown=timedelta(seconds=cooldown_seconds),
        quiet_hours=QuietHours(start, end) if start is not None and end is not None else None,
        recipient_roles=tuple(role for role in Role.values if role in roles),
    )


def _mode_errors(modes: Mapping[str, str]) -> Iterator[FieldError]:
    for kind in modes:
        if kind not in AlertKind.values:
            yield FieldError("modes", f"There is no kind of alert called “{kind}”.")
    if not set(modes.values()) <= set(Mode.values):
        yield FieldError("modes", f"Each must be one of: {', '.join(Mode.values)}.")


def _cooldown_errors(seconds: int) -> Iterator[FieldError]:
    if not 0 <= seconds <= LONGEST_COOLDOWN_SECONDS:
        yield FieldError("cooldown_seconds", "Must be between 0 seconds and 24 hours.")


def _quiet_errors(start: time | None, end: time | None) -> Iterator[FieldError]:
    for name, moment in zip(_QUIET, (start, end), strict=True):
        if moment is not None and (moment.second or moment.microsecond or moment.tzinfo):
            yield FieldError(name, "Must be a local time of day, to the minute.")
    if (start is None) != (end is None):
        missing = _QUIET[0] if start is None else _QUIET[1]
        yield FieldError(missing, "Quiet hours need a beginning and an end; leave both empty for none.")
    elif start is not None and start == end:
        yield FieldError("quiet_until", "Must not be the time at which they begin.")


def _role_errors(roles: Iterable[str]) -> Iterator[FieldError]:
    if not set(roles) <= set(Role.values):
        yield FieldError("recipient_roles", f"Each must be one of: {', '.join(Role.values)}.")


def _stored(values: Preferences) -> dict[str, Any]:
    start, end = quiet_ends(values)
    return {
        "modes": {kind.value: mode.value for kind, mode in values.modes.items() if mode is not KINDS[kind].usual_mode},
        "cooldown_seconds": int(values.cooldown.total_seconds()),
        "quiet_from": start,
        "quiet_until": end,
        "recipient_roles": list(values.recipient_roles),
    }


def _for_audit(values: Preferences) -> dict[str, Any]:
    """Each value under a name that the audit trail can show; times of day as text, since JSON has none."""
    start, end = quiet_ends(values)
    return {
        **{kind.value: mode.label for kind, mode in values.modes.items()},
        "cooldown_seconds": int(values.cooldown.total_seconds()),
        "quiet_from": _clock(start),
        "quiet_until": _clock(end),
        "recipient_roles": list(values.recipient_roles),
    }


def _clock(moment: time | None) -> str | None:
    return None if moment is None else f"{moment:%H:%M}"
