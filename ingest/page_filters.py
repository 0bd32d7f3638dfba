"""The filters of requests as an address says them: checked, turned into what selectors read, and shown as chips.

The names of the parameters are those of the report pages, so that their links lead here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django import forms
from django.core.exceptions import ValidationError

from ingest.explorer import Filters
from ingest.models import DataMode, Environment, Outcome, ServiceTier
from ingest.ranges import EARLIEST_DAY, day_range
from opsmeter_site.lib.formats import count, milliseconds, usd_exact
from opsmeter_site.lib.periods import day_start
from workspaces.models import ApiKey

ANY = [("", "Any")]
RANGES = [
    ("", "Everything"),
    ("today", "Today"),
    ("24h", "Last 24 hours"),
    ("7d", "7 days"),
    ("30d", "30 days"),
    ("mtd", "Month to date"),
    ("custom", "Custom"),
]
_IS_PRICED = {"yes": "true", "no": "false"}

# Parameter → column and label.
_TEXTS: Mapping[str, tuple[str, str]] = {
    "model": ("model", "Model"),
    "provider": ("provider", "Provider"),
    "endpoint": ("endpoint_tag", "Endpoint"),
    "version": ("prompt_version", "Prompt version"),
    "user": ("user_id", "User"),
    "tenant": ("tenant_id", "Tenant"),
    "feature": ("feature_tag", "Feature"),
    "error": ("error_code", "Error code"),
}
_CHOICES: Mapping[str, tuple[str, str, Sequence[tuple[str, str]]]] = {
    "env": ("environment", "Environment", Environment.choices),
    "mode": ("data_mode", "Data", DataMode.choices),
    "status": ("status", "Status", Outcome.choices),
    "tier": ("service_tier", "Service tier", ServiceTier.choices),
}
# Parameters whose latest values are offered as suggestions → column.
SUGGESTED = {name: column for name, (column, _) in _TEXTS.items()}
_MINIMA: Mapping[str, tuple[str, str]] = {
    "min_cost": ("min_cost_usd", "Cost"),
    "min_latency": ("min_latency_ms", "Latency"),
    "min_tokens": ("min_tokens", "Tokens"),
}
# Parameter → name in `Filters.where`.
COLUMN_OF: Mapping[str, str] = {
    **{name: column for group in (_CHOICES, _TEXTS, _MINIMA) for name, (column, *_) in group.items()},
    "key": "api_key_id",
    "priced": "is_priced",
    "id": "external_request_id",
}
# What the report pages say for "no filter".
_ALL = "all"
_LONGEST_VALUE = 200
_LATEST_DAY = date(2200, 1, 1)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Chip:
    """One filter in force, as people read it, and the query string without it."""

    label: str
    value: str
    query: str


class LocalMomentField(forms.CharField):
    """A wall time such as 2026-11-01T10:00, or a day, in the workspace's zone; answers a `datetime` or a `date`.

    `day_means`: how long after its start a day is meant, for the input, which only shows moments.
    """

    def __init__(self, *, day_means: timedelta, **options: Any) -> None:
        self.day_means = day_means
        super().__init__(required=False, widget=forms.TextInput(attrs={"type": "datetime-local"}), **options)

    def prepare_value(self, value: Any) -> Any:
        """A day as the moment that it means."""
        try:
            return f"{date.fromisoformat(value) + self.day_means}T00:00"
        except (TypeError, ValueError, OverflowError):
            return value

    def clean(self, value: Any) -> date | datetime | None:
        """The day or wall time (naive) that was entered."""
        text = super().clean(value).strip()
        if not text:
            return None
        try:
            moment = datetime.fromisoformat(text) if "T" in text else date.fromisoformat(text)
        except ValueError as error:
            raise ValidationError("A day such as 2026-11-01, or with a time: 2026-11-01T10:00.") from error
        if isinstance(moment, datetime) and moment.tzinfo is not None:
            raise ValidationError("A local time, without an offset.")
        if not EARLIEST_DAY <= (moment.date() if isinstance(moment, datetime) else moment) <= _LATEST_DAY:
            raise ValidationError(f"Between {EARLIEST_DAY} and {_LATEST_DAY}.")
        return moment


class RequestFilterForm(forms.Form):
    """Filters of requests, from a query string; `filters` turns them into what selectors read.

    `values_url` answers the options of a text filter. `in_view`: the fields that are not behind "More filters".
    """

    in_view: ClassVar[frozenset[str]] = frozenset({"range", "from", "to", "model", "endpoint", "id"})

    def __init__(
        self, data: Mapping[str, str], *, keys: Sequence[ApiKey], zone: ZoneInfo, now: datetime, values_url: str
    ) -> None:
        super().__init__({name: "" if value == _ALL else value for name, value in data.items()})
        self.keys, self.zone, self.now = keys, zone, now
        self.fields["range"] = forms.ChoiceField(label="Range", choices=RANGES, required=False)
        self.fields["from"] = LocalMomentField(label="From", day_means=timedelta(0))
        self.fields["to"] = LocalMomentField(label="Until", day_means=_DAY)
        for name, (_, label, choices) in _CHOICES.items():
            self.fields[name] = forms.ChoiceField(label=label, choices=ANY + list(choices), required=False)
        for name, (_, label) in _TEXTS.items():
            widget = forms.TextInput(attrs=_suggesting(name, values_url))
            self.fields[name] = forms.CharField(label=label, required=False, max_length=_LONGEST_VALUE, widget=widget)
        listed = [(str(key.pk), key.name if key.revoked_at is None else f"{key.name} (revoked)") for key in keys]
        self.fields["key"] = forms.ChoiceField(label="API key", choices=ANY + listed, required=False)
        priced = [*ANY, ("yes", "Priced"), ("no", "Unpriced")]
        self.fields["priced"] = forms.ChoiceField(label="Price", choices=priced, required=False)
        self.fields["min_cost"] = forms.DecimalField(
            label="Cost from, USD", required=False, min_value=0, max_digits=20, decimal_places=12
        )
        most = 2**63 - 1
        self.fields["min_latency"] = forms.IntegerField(
            label="Latency from, ms", required=False, min_value=0, max_value=most
        )
        self.fields["min_tokens"] = forms.IntegerField(label="Tokens from", required=False, min_value=0, max_value=most)
        self.fields["id"] = forms.CharField(label="External id", required=False, max_length=_LONGEST_VALUE)

    def clean(self) -> dict[str, Any]:
        """A custom range needs a beginning or an end, in this order."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if data.get("range") != "custom" or self.errors:
            return data
        start, end = self.bounds()
        if start is None and end is None:
            self.add_error("from", "A custom range needs a beginning, an end, or both.")
        elif start is not None and end is not None and start >= end:
            self.add_error("to", "The end is not after the beginning.")
        return data

    def bounds(self) -> tuple[datetime | None, datetime | None]:
        """The UTC range `[start, end)` that is asked for; None is open."""
        name = self.cleaned_data.get("range") or ""
        today = self.now.astimezone(self.zone).date()
        firsts = {"today": today, "7d": today - 6 * _DAY, "30d": today - 29 * _DAY, "mtd": today.replace(day=1)}
        if name in firsts:
            days = day_range(self.zone, firsts[name], today)
            return days.start, days.end
        if name == "24h":
            return self.now - _DAY, None
        if name == "custom":
            return self._moment("from", timedelta(0)), self._moment("to", _DAY)
        return None, None

    def _moment(self, name: str, whole_day: timedelta) -> datetime | None:
        """A wall time as UTC; a day is its start, or with `whole_day` its end."""
        value = self.cleaned_data.get(name)
        if value is None:
            return None
        if isinstance(value, datetime):
            return value.replace(tzinfo=self.zone).astimezone(UTC)
        return day_start(self.zone, value + whole_day)

    def filters(self) -> Filters:
        """What selectors read. After `is_valid` has said yes."""
        start, end = self.bounds()
        return Filters(start, end, dict(self._where()))

    def _where(self) -> Iterator[tuple[str, str]]:
        for name, column in COLUMN_OF.items():
            value = self.cleaned_data.get(name)
            if value in (None, ""):
                continue
            if name == "priced":
                value = _IS_PRICED[value]
            yield column, f"{value:f}" if isinstance(value, Decimal) else str(value)

    # --- As pages show it ---------------------------------------------------------------------------------------

    def query(self, **changes: str | None) -> str:
        """The query string of what was asked for, with some parameters changed; None removes one."""
        return urlencode({name: value for name, value in {**self.asked(), **changes}.items() if value})

    def asked(self) -> dict[str, str]:
        """The parameters that say something, as they were given."""
        asked = {name: str(self.data.get(name) or "") for name in self.fields}
        if asked["range"] != "custom":
            asked |= {"from": "", "to": ""}
        return {name: value for name, value in asked.items() if value}

    @property
    def has_more(self) -> bool:
        """Whether a filter is in force, or wrong, that is not in view."""
        return any(self.data.get(name) for name in self.fields if name not in self.in_view)

    def chips(self) -> list[Chip]:
        """The filters in force, the range first."""
        return [Chip(label, value, self.query(**dict.fromkeys(names))) for names, label, value in self._words()]

    def _words(self) -> Iterator[tuple[tuple[str, ...], str, str]]:
        data = self.cleaned_data
        if data.get("range"):
            yield ("range", "from", "to"), "Range", self.range_words()
        for name, field in self.fields.items():
            value = data.get(name)
            if name in ("range", "from", "to") or value in (None, ""):
                continue
            if isinstance(field, forms.ChoiceField):
                labels = {str(key): str(text) for key, text in field.choices}  # type: ignore[union-attr,misc]
                yield (name,), str(field.label), labels[value]
            elif name in _MINIMA:
                yield (name,), _MINIMA[name][1], f"{_AMOUNTS[name](value)} or more"
            else:
                yield (name,), str(field.label), str(value)

    def range_words(self) -> str:
        """The range in local time, for reading."""
        name = self.cleaned_data.get("range") or ""
        if name != "custom":
            return dict(RANGES)[name]
        start, end = (moment and f"{moment.astimezone(self.zone):%-d %b %Y, %H:%M}" for moment in self.bounds())
        if start and end:
            return f"{start} to {end}"
        return f"from {start}" if start else f"until {end}"


_AMOUNTS = {"min_cost": usd_exact, "min_latency": milliseconds, "min_tokens": count}


def _suggesting(name: str, values_url: str) -> dict[str, str]:
    """Attributes of an input whose options are fetched when it is first entered."""
    return {
        "list": f"values-{name}",
        "autocomplete": "off",
        "hx-get": f"{values_url}?filter={name}",
        "hx-trigger": "focus once",
        "hx-target": f"#values-{name}",
        # Not what the form around it does.
        "hx-swap": "innerHTML",
        "hx-sync": "this:drop",
    }
