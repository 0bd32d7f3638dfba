"""From an alert to its cause: the driver that moved spend in its window most, and the page that shows the rest."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from alerts.models import Alert, AlertKind
from ingest import reports
from ingest.drivers import LABELS, MEANINGS, Change, explain_change
from ingest.models import WorkspacePolicy
from ingest.ranges import DayRange, day_range
from ingest.report_filters import ALL, DRILL_PARAMETERS, PARAMETERS
from ingest.scopes import WORKSPACE_WIRE_NAME
from ingest.selectors import Slice
from ingest.snapshots import snapshot
from opsmeter_site.lib import formats
from opsmeter_site.lib.money import to_ledger
from opsmeter_site.lib.periods import QUARTER_HOUR, quarter_hour_of

SPEND_KINDS = frozenset(
    {
        AlertKind.BUDGET_WARNING,
        AlertKind.BUDGET_EXCEEDED,
        AlertKind.UNIT_COST,
        AlertKind.SPEND_SPIKE,
        AlertKind.SPENDER_OVER,
    }
)
# Parameters of the investigate page by which sums can be narrowed.
_SLICED = {**DRILL_PARAMETERS, "env": "environment"}
_WEEK = timedelta(days=7)
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class WhatChanged:
    """What moved spend most in an alert's window, in one sentence; empty where money is not the matter.

    `query` opens the investigate page on the local days that hold the window. `days_note` says so where these are not
    the window itself.
    """

    sentence: str
    query: str
    days_note: str


def what_changed(alert: Alert, policy: WorkspacePolicy, zone: ZoneInfo, now: datetime) -> WhatChanged:
    """The window of `alert` against the period before it, by the data modes that the workspace's budgets count."""
    sentence = ""
    if alert.kind in SPEND_KINDS:
        days, before, words = _ranges(alert, now)
        where = Slice(data_mode=tuple(policy.counted_data_modes), **_dimensions(alert))
        with snapshot():
            change = explain_change(
                reports.cells(policy.workspace_id, before, where), reports.cells(policy.workspace_id, days, where)
            )
        sentence = f"{_scope_note(alert)}{_sentence(change, words)}"
    first, last = _local_days(alert, zone)
    shown = {
        "range": "custom",
        "from": first.isoformat(),
        "to": min(last, now.astimezone(zone).date()).isoformat(),
        "env": ALL,
        "mode": policy.counted_data_modes[0] if len(policy.counted_data_modes) == 1 else ALL,
        **_drill(alert),
    }
    return WhatChanged(sentence, f"?{urlencode(shown)}", _days_note(alert, zone))


def _drill(alert: Alert) -> dict[str, str]:
    """Parameters that the investigate page knows."""
    drill = alert.facts.get("drill") or {}
    return {name: str(value) for name, value in drill.items() if name in (*PARAMETERS, "by", "env") and value}


def _dimensions(alert: Alert) -> dict[str, tuple[str, ...]]:
    drill = _drill(alert)
    return {dimension: (drill[name],) for name, dimension in _SLICED.items() if name in drill}


def _scope_note(alert: Alert) -> str:
    """Says so where the figures are those of more than the alert is about: sums know some dimensions only."""
    is_of_part = alert.facts.get("scope_kind", WORKSPACE_WIRE_NAME) != WORKSPACE_WIRE_NAME
    return "In the whole workspace: " if is_of_part and not _dimensions(alert) else ""


# --- The window and the one before it ---------------------------------------------------------------------------------


def _ranges(alert: Alert, now: datetime) -> tuple[DayRange, DayRange, str]:
    """The window, what it is compared with, and that in words."""
    zone = ZoneInfo("UTC")
    if alert.kind == AlertKind.SPEND_SPIKE:
        start, end = (datetime.fromisoformat(alert.facts[name]) for name in ("hours_start", "hours_end"))
        return _span(start, end), _span(start - _WEEK, end - _WEEK), "the same hours a week before"
    start, end = alert.window_start.astimezone(UTC), alert.window_end.astimezone(UTC)
    if _is_whole_days(start, end):
        days = day_range(zone, start.date(), (end - _INSTANT).date())
        before = "the UTC day before" if days.days == 1 else f"the {days.days} UTC days before"
        return days, days.previous(now), f"{before}, up to the same time" if days.is_running(now) else before
    start, end = quarter_hour_of(start), quarter_hour_of(end + QUARTER_HOUR - _INSTANT)
    return _span(start, end), _span(start - (end - start), start), "as long a time just before"


def _span(start: datetime, end: datetime) -> DayRange:
    """Part of a day, or of some days, at quarter hours."""
    return DayRange(ZoneInfo("UTC"), start.date(), end.date(), start, end)


def _is_whole_days(start: datetime, end: datetime) -> bool:
    return start.time() == end.time() == datetime.min.time()


def _local_days(alert: Alert, zone: ZoneInfo) -> tuple[date, date]:
    """The first and the last local day that hold part of the window."""
    return alert.window_start.astimezone(zone).date(), (alert.window_end - _INSTANT).astimezone(zone).date()


def _days_note(alert: Alert, zone: ZoneInfo) -> str:
    """Says so where the local days are not the window itself."""
    start, end = (moment.astimezone(UTC) for moment in (alert.window_start, alert.window_end))
    if not _is_whole_days(start, end):
        return "The page shows the whole local days that hold the window."
    if _is_whole_days(start.astimezone(zone), end.astimezone(zone)):
        return ""
    return f"The window is counted in UTC; the page shows the local days in {zone.key} that hold it: figures differ."


# --- In words ---------------------------------------------------------------------------------------------------------


def _sentence(change: Change, before: str) -> str:
    if not change.now_usd and not change.before_usd:
        return "No priced request is stored for this window any more, or yet."
    relative = f" ({formats.change(change.difference / change.before_usd)})" if change.before_usd else ""
    spent = f"{formats.usd(change.now_usd)} in this window, {formats.usd(change.before_usd)} in {before}{relative}."
    if change.main_driver is None:
        return f"{spent} Nothing in it has changed."
    amount = to_ledger(change.effects[change.main_driver])
    top = change.endpoints[0]
    where = f" The endpoint that moved most is {top.endpoint_tag} ({formats.usd_change(top.difference)})."
    return (
        f"{spent} {LABELS[change.main_driver]} moved it most ({formats.usd_change(amount)}): "
        f"{_lower_first(MEANINGS[change.main_driver])}{where}"
    )


def _lower_first(text: str) -> str:
    return text[0].lower() + text[1:]
