"""The form for when one kind of summary is sent."""

from datetime import time
from typing import Any

from django import forms

from alerts.models import ReportKind, Schedule, Weekday
from alerts.schedule_services import ScheduleValues, values_of

_CLOCK = "%H:%M"


class ScheduleForm(forms.Form):
    """Send time and weekday of one summary; the daily one has no weekday."""

    is_enabled = forms.BooleanField(label="Send it", required=False)
    send_at = forms.TimeField(
        label="Send time",
        input_formats=[_CLOCK],
        widget=forms.TimeInput(format=_CLOCK, attrs={"type": "time"}),
        error_messages={
            "invalid": "There is no such time of day; write one such as 09:00.",
            "required": "Write a time such as 09:00.",
        },
    )
    weekday = forms.TypedChoiceField(
        label="Weekday",
        choices=Weekday.choices,
        coerce=int,
        error_messages={"invalid_choice": "There is no such weekday.", "required": "Choose a weekday."},
    )
    skips_empty = forms.BooleanField(label="Skip it when nothing happened", required=False)

    def __init__(self, schedule: Schedule, data: Any = None) -> None:
        # Three of these forms are on one page, so their elements need names of their own.
        values = values_of(schedule)
        initial = {"is_enabled": values.is_enabled, "send_at": values.send_at, "weekday": values.weekday}
        super().__init__(data, auto_id=f"{schedule.kind}_%s", initial=initial | {"skips_empty": values.skips_empty})
        self._weekday = values.weekday
        if schedule.kind == ReportKind.DAILY:
            del self.fields["weekday"]

    @property
    def values(self) -> ScheduleValues:
        """The values of a valid form."""
        return ScheduleValues(**{"weekday": self._weekday} | self.cleaned_data)


def form_data(values: ScheduleValues) -> dict[str, str]:
    """What the form posts to bring `values` about."""
    switches = {name: "on" for name in ("is_enabled", "skips_empty") if getattr(values, name)}
    return {"send_at": time_text(values.send_at), "weekday": str(values.weekday), **switches}


def time_text(value: time) -> str:
    """A wall time as the form shows it."""
    return value.strftime(_CLOCK)
