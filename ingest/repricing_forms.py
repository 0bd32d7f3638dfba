"""The form that asks for a re-pricing: which names, which local days, and why. Fields are named as in the service."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django import forms

from ingest.repricing_selectors import SentName
from opsmeter_site.lib.formats import count
from opsmeter_site.lib.periods import day_start

ALL_PROVIDERS = [("", "All of them")]
WHICH = [
    ("yes", "Only those without a price"),
    ("no", "All of them: a corrected price replaces the wrong one"),
]
_DAY = timedelta(days=1)


class _DayInput(forms.DateInput):
    """A calendar; the value is an ISO date whatever the language."""

    input_type = "date"

    def __init__(self, first: date, last: date) -> None:
        super().__init__(format="%Y-%m-%d", attrs={"min": f"{first}", "max": f"{last}"})


class RepricingForm(forms.Form):
    """A wish for a re-pricing. Choices are `sent`, the names of which requests are still stored.

    Days are local days of `zone`, both included, from that of `kept_from` (since when single requests are stored) to
    `today`.
    """

    def __init__(
        self, *args: Any, sent: Sequence[SentName], zone: ZoneInfo, kept_from: datetime, today: date, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sent, self.zone, self.kept_from, self.today = sent, zone, kept_from, today
        self.first_day = kept_from.astimezone(zone).date()
        providers = sorted({name.provider for name in sent})
        self.fields["provider"] = forms.ChoiceField(
            label="Provider",
            required=False,
            choices=[*ALL_PROVIDERS, *((provider, provider) for provider in providers)],
            help_text="As your requests name it.",
        )
        self.fields["models_sent"] = forms.MultipleChoiceField(
            label="Models",
            required=False,
            choices=_model_choices(sent),
            widget=forms.CheckboxSelectMultiple,
            help_text="As your requests name them. Choose none to mean all.",
        )
        calendar = _DayInput(self.first_day, today)
        self.fields["start"] = forms.DateField(label="First day", widget=calendar)
        self.fields["end"] = forms.DateField(label="Last day", widget=calendar)
        self.fields["only_unpriced"] = forms.ChoiceField(
            label="Which requests", choices=WHICH, initial="no", widget=forms.RadioSelect
        )
        self.fields["reason"] = forms.CharField(
            label="Why",
            max_length=200,
            help_text="For those who look at it later, such as “Azure price was entered too high”.",
            widget=forms.TextInput(attrs={"autocomplete": "off"}),
        )

    def clean_start(self) -> date:
        """A day of which single requests are still stored."""
        day: date = self.cleaned_data["start"]
        if day < self.first_day:
            message = f"Single requests are stored from {self.first_day:%-d %b %Y} on; older ones are only sums."
            raise forms.ValidationError(message)
        return day

    def clean_end(self) -> date:
        """No day to come."""
        day: date = self.cleaned_data["end"]
        if day > self.today:
            raise forms.ValidationError(f"Today, {self.today:%-d %b %Y}, is the last day there is.")
        return day

    def clean(self) -> dict[str, Any]:
        """What belongs together: the days in order, and models that the provider was sent with."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        start, end = data.get("start"), data.get("end")
        if start and end and start > end:
            self.add_error("end", "The last day is before the first one.")
        provider = data.get("provider")
        known = {name.model for name in self.sent if name.provider == provider}
        strange = [model for model in data.get("models_sent", ()) if provider and model not in known]
        if strange:
            self.add_error("models_sent", f"Not sent with the provider {provider}: {', '.join(strange)}.")
        return data

    def wish(self) -> dict[str, Any]:
        """What the service takes: a half-open UTC range, of the first day what is still there. After `is_valid`."""
        data = self.cleaned_data
        return {
            "provider": data["provider"],
            "models_sent": data["models_sent"],
            "start": max(day_start(self.zone, data["start"]), self.kept_from),
            "end": day_start(self.zone, data["end"] + _DAY),
            "only_unpriced": data["only_unpriced"] == "yes",
            "reason": data["reason"],
        }


def _model_choices(sent: Sequence[SentName]) -> list[tuple[str, str]]:
    """Each model once, with who is said to host it and how much of it there is."""
    by_model: dict[str, list[SentName]] = {}
    for name in sent:
        by_model.setdefault(name.model, []).append(name)
    return [(model, f"{model} ({_about(names)})") for model, names in by_model.items()]


def _about(names: Sequence[SentName]) -> str:
    unpriced = sum(name.unpriced_requests for name in names)
    number = sum(name.requests for name in names)
    requests = f"{count(number)} request{'' if number == 1 else 's'}"
    providers = ", ".join(dict.fromkeys(name.provider for name in names))
    return f"{providers}; {requests}, {count(unpriced)} without a price" if unpriced else f"{providers}; {requests}"
