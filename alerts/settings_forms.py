"""The form for how alerts are told, and the same values in words."""

import re
from datetime import time
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError

from alerts.models import AlertKind, Mode
from alerts.preferences import Preferences
from alerts.settings_services import LONGEST_COOLDOWN_SECONDS, SettingsChanges, quiet_ends, version_of

_UNITS = {"h": 3_600, "min": 60, "s": 1}
_SPAN = re.compile(r"(\d{1,6})\s*(s|sec|seconds?|m|min|minutes?|h|hours?|)", re.IGNORECASE)
_CLOCK = "%H:%M"


def span_in_words(seconds: int) -> str:
    """A number of seconds in its largest whole unit: "5 min", "90 s", "2 h"."""
    unit = next((name for name, size in _UNITS.items() if seconds and seconds % size == 0), "s")
    return f"{seconds // _UNITS[unit]} {unit}"


class SpanField(forms.CharField):
    """A span of time as people write it: "90 s", "5 min", "2 h"; a bare number is seconds."""

    default_error_messages: ClassVar[dict[str, Any]] = {
        "invalid": "Write a number with s, min or h, such as 90 s, 5 min or 2 h.",
        "range": f"At most {span_in_words(LONGEST_COOLDOWN_SECONDS)}.",
    }

    def prepare_value(self, value: Any) -> Any:
        """In words; what somebody typed stays as it is."""
        return span_in_words(value) if isinstance(value, int) else value

    def clean(self, value: Any) -> Any:
        """Seconds."""
        found = _SPAN.fullmatch(super().clean(value))
        if found is None:
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        number, unit = found.groups()
        size = next((size for name, size in _UNITS.items() if unit and name[0] == unit[0].lower()), 1)
        seconds = int(number) * size
        if seconds > LONGEST_COOLDOWN_SECONDS:
            raise ValidationError(self.error_messages["range"], code="range")
        return seconds


def _clock_field(label: str) -> forms.TimeField:
    return forms.TimeField(
        label=label,
        required=False,
        input_formats=[_CLOCK],
        widget=forms.TimeInput(format=_CLOCK, attrs={"type": "time"}),
        error_messages={"invalid": "There is no such time of day; write one such as 22:00."},
    )


class AlertSettingsForm(forms.Form):
    """A mode for every kind (`mode_<kind>`), cooldown and quiet hours. `version`: which values it was made from."""

    cooldown_seconds = SpanField(
        label="Cooldown",
        max_length=20,
        widget=forms.TextInput(attrs={"autocomplete": "off", "size": 8}),
        help_text="After a message, further ones about the same scope and metric wait so long and are then sent "
        "together. A warning that becomes critical always passes. 90 s, 5 min or 2 h; 0 for none, at most 24 h.",
    )
    quiet_from = _clock_field("Quiet from")
    quiet_until = _clock_field("Quiet until")
    version = forms.CharField(widget=forms.HiddenInput, max_length=64)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for kind in AlertKind:
            self.fields[mode_field(kind)] = forms.ChoiceField(label=kind.label, choices=Mode.choices)

    @property
    def changes(self) -> SettingsChanges:
        """What a valid form asks for."""
        return {
            "modes": {kind.value: self.cleaned_data[mode_field(kind)] for kind in AlertKind},
            "cooldown_seconds": self.cleaned_data["cooldown_seconds"],
            "quiet_from": self.cleaned_data["quiet_from"],
            "quiet_until": self.cleaned_data["quiet_until"],
        }


def mode_field(kind: AlertKind) -> str:
    """The name of the kind's field."""
    return f"mode_{kind.value}"


def filled_form(values: Preferences) -> AlertSettingsForm:
    """The form as it is shown first."""
    start, end = quiet_ends(values)
    return AlertSettingsForm(
        initial={
            **{mode_field(kind): mode.value for kind, mode in values.modes.items()},
            "cooldown_seconds": int(values.cooldown.total_seconds()),
            "quiet_from": start,
            "quiet_until": end,
            "version": version_of(values),
        }
    )


def form_data(values: Preferences, version: str) -> dict[str, str]:
    """What the form posts to make `values` the settings, if `version` still holds then."""
    start, end = quiet_ends(values)
    return {
        **{mode_field(kind): mode.value for kind, mode in values.modes.items()},
        "cooldown_seconds": span_in_words(int(values.cooldown.total_seconds())),
        "quiet_from": _clock(start),
        "quiet_until": _clock(end),
        "version": version,
    }


def described(values: Preferences) -> list[tuple[str, str]]:
    """Every value of the form with its label, in words."""
    return [
        *((kind.label, mode.label) for kind, mode in values.modes.items()),
        ("Cooldown", cooldown_in_words(values)),
        ("Quiet hours", quiet_hours_in_words(values)),
    ]


def cooldown_in_words(values: Preferences) -> str:
    """Such as "5 min"."""
    return span_in_words(int(values.cooldown.total_seconds())) if values.cooldown else "None"


def quiet_hours_in_words(values: Preferences) -> str:
    """Such as "22:00 to 07:00"."""
    hours = values.quiet_hours
    return f"{_clock(hours.start)} to {_clock(hours.end)}" if hours else "None"


def _clock(moment: time | None) -> str:
    return "" if moment is None else f"{moment:{_CLOCK}}"
