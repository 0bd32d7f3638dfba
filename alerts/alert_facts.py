"""The figures behind an alert as labelled values, and its moments by the workspace's clocks."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django.urls import reverse

from alerts.lists import listed, short
from alerts.messages import Fact, Figure
from alerts.models import Alert
from ingest.models import Measure
from opsmeter_site.lib.formats import count, share, usd, usd_fine
from opsmeter_site.lib.wire import plain_number

_MOST_VALUES = 10
_MOMENT = "%a %-d %b %Y, %H:%M"


def moment_text(moment: datetime, zone: ZoneInfo) -> str:
    """A moment by the workspace's clocks and in UTC: "Sun 22 Nov 2026, 14:05 Europe/Berlin (13:05 UTC)"."""
    there, utc = moment.astimezone(zone), moment.astimezone(UTC)
    if there.utcoffset() == utc.utcoffset():
        return f"{utc:{_MOMENT}} UTC"
    return f"{there:{_MOMENT}} {zone.key} ({utc:{'%H:%M' if there.date() == utc.date() else _MOMENT}} UTC)"


def window_text(start: datetime, end: datetime) -> str:
    """The window that was measured, in UTC: a day, a month, or from one moment to another."""
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    if start.time() == end.time() == time.min:
        if (end - start).days == 1:
            return f"{start:%a %-d %b %Y} (UTC day)"
        if start.day == end.day == 1 and (end - start).days <= 31:
            return f"{start:%B %Y} (UTC month)"
    return f"{start:{_MOMENT}} to {end:{'%H:%M' if start.date() == end.date() else _MOMENT}} UTC"


def _amount(value: Any, facts: Mapping[str, Any]) -> str:
    number = Decimal(str(value))
    return f"{count(number)} requests" if facts.get("measure") == Measure.REQUESTS else usd(number)


def _decimal(write: Callable[[Decimal], str]) -> Callable[[Any, Mapping[str, Any]], str]:
    return lambda value, _facts: write(Decimal(str(value)))


def _named(value: Any, _facts: Mapping[str, Any]) -> str:
    return str(value)


def _values(values: Any, _facts: Mapping[str, Any]) -> str:
    return listed([short(value) for value in values], _MOST_VALUES)


# What is shown of an alert's facts, in this order; whatever else is in there is for programs.
_SHOWN: Mapping[str, tuple[str, Callable[[Any, Mapping[str, Any]], str]]] = {
    "scope": ("Scope", _named),
    "scope_values": ("Values", _values),
    "spend": ("So far", _amount),
    "limit": ("Limit", _amount),
    "share": ("Share of it", _decimal(share)),
    "usd_per_request": ("Cost per request", _decimal(usd_fine)),
    "actual_usd": ("Spend", _decimal(usd)),
    "usual_usd": ("Usual spend", _decimal(usd)),
    "highest_usd": ("Highest spend", _decimal(usd)),
    "threshold_usd": ("Threshold", _decimal(usd_fine)),
    "requests": ("Requests", _decimal(count)),
}


def facts_of(alert: Alert, zone: ZoneInfo) -> tuple[Fact, ...]:
    """What a message shows beside the text: the alert's figures, its window, and when it happened."""
    known = [(key, label, write) for key, (label, write) in _SHOWN.items() if alert.facts.get(key) not in (None, "")]
    return (
        *(Fact(label, write(alert.facts[key], alert.facts)) for key, label, write in known),
        Fact("Window", window_text(alert.window_start, alert.window_end)),
        Fact("When", moment_text(alert.opened_at, zone)),
    )


# What programs get of an alert's facts. Names of figures end in the unit, or `measure` says it: usd or requests.
_WORDS = ("measure", "period", "scope_kind", "scope_value", "scope_values", "budget_id")
_FIGURES = (
    "spend",
    "limit",
    "share",
    "threshold",
    "threshold_usd",
    "highest_usd",
    "actual_usd",
    "usual_usd",
    "usd_per_request",
    "requests",
    "weeks",
)


def figures_of(alert: Alert) -> dict[str, Figure]:
    """What is behind an alert, for programs: words as they are, amounts as numbers with exactly their digits."""
    words = {name: alert.facts[name] for name in _WORDS if alert.facts.get(name) is not None}
    return words | {name: _figure(alert.facts[name]) for name in _FIGURES if alert.facts.get(name) is not None}


def _figure(value: int | str) -> Decimal | int:
    return value if isinstance(value, int) else plain_number(Decimal(value))


def budget_path(alert: Alert, slug: str) -> str:
    """The page of the budget that an alert is about; that of all budgets if it does not say which."""
    budget_id = alert.facts.get("budget_id")
    return reverse("budget", args=[slug, budget_id]) if budget_id else reverse("settings-budgets", args=[slug])
