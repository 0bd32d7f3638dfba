"""The first page of a workspace: what was spent on what, how that compares, and how near the limits are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.safestring import SafeString
from django.views.decorators.http import require_GET

from billing.usage import requests_gauge
from budgets.forecast import forecasts
from budgets.gauges import budget_gauges
from budgets.scoped.exceeded import exceeded_budgets
from budgets.selectors import PlanStatus, WorkspaceStatus, workspace_status
from ingest import reports
from ingest.ranges import DayRange
from ingest.report_filters import DRILL_PARAMETERS, PARAMETERS, ReportFilters, filter_bar, read_filters, requests_query
from ingest.report_rows import OTHER, Figures, Percentiles, RefusedSpell, Series, Top
from ingest.snapshots import snapshot
from opsmeter_site.lib import charts, formats
from opsmeter_site.lib.clock import utc_now
from workspaces.access import WorkspaceAccess
from workspaces.pages import workspace_page

TOPS = ("endpoint_tag", "model", "prompt_version", "feature_tag", "tenant_id", "user_id")
REASONS = {
    "plan_limit_reached": "Refused: plan limit reached",
    "budget_exceeded": "Refused: budget hard stop",
}
_LESS_IS_BETTER = frozenset({"Error rate", "Latency p50", "Latency p95", "Unpriced requests"})


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure with its change: `change` as text, `tone` "good", "bad" or "" (neither), `before` what it was.

    `exact`: the value without rounding, where the shown one is rounded.
    """

    label: str
    value: str
    change: str
    tone: str
    before: str
    exact: str = ""
    trend: str = ""
    note: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that depends on range and filters, read from one state of the database."""

    days: DayRange
    before: DayRange
    now: Figures
    then: Figures
    latency: Percentiles
    latency_then: Percentiles
    series: Series
    tops: dict[str, Top]
    refused: list[RefusedSpell]


@workspace_page()
@require_GET
def overview(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Figures of a range against the one before it, budgets, plan usage and what costs most."""
    now = utc_now()
    workspace = access.workspace
    filters = read_filters(request.GET.dict(), workspace.pk, workspace.timezone, now, keep=("by",))
    by = filters.extra.get("by", "endpoint")
    dimension = PARAMETERS.get(by, "endpoint_tag")
    with snapshot():
        report = _read(access, filters, dimension, now)
        status = workspace_status(workspace.pk, now)
        ahead = forecasts(workspace.pk, now)
        exceeded = exceeded_budgets(workspace.pk, now)
    context = {
        **filter_bar(filters),
        "now": now,
        "report": report,
        "is_empty": not (report.now.requests or report.then.requests or reports.has_events(workspace.pk)),
        "is_running": report.days.is_running(now),
        "tiles": _tiles(report, access),
        "chart": _chart(report, filters, dimension, now),
        "stacks": [
            {"label": reports.DIMENSIONS[each], "query": filters.query(by=name), "is_current": each == dimension}
            for name, each in PARAMETERS.items()
        ],
        "budget_gauges": budget_gauges(
            status, ahead, workspace.timezone, now, href=reverse("settings-budgets", args=[workspace.slug])
        ),
        "plan_gauge": _plan_gauge(status.plan),
        "status": status,
        "exceeded": exceeded,
        "has_budget": _has_budget(status),
        "tops": [_top_table(report, filters, access, name) for name in TOPS],
        "refused": _refused_words(report.refused),
    }
    return render(request, "console/overview.html", context)


def _has_budget(status: WorkspaceStatus) -> bool:
    return status.daily.limit_usd is not None or status.monthly.limit_usd is not None


def _read(access: WorkspaceAccess, filters: ReportFilters, dimension: str, now: datetime) -> Report:
    workspace_id, days, where = access.workspace.pk, filters.days, filters.where
    before = days.previous(now)
    # First: they read what all the others need, too, and it is read once.
    tops = {name: reports.top(workspace_id, days, before, where, name) for name in TOPS}
    return Report(
        days=days,
        before=before,
        now=reports.totals(workspace_id, days, where),
        then=reports.totals(workspace_id, before, where),
        latency=reports.latency(workspace_id, days, where),
        latency_then=reports.latency(workspace_id, before, where),
        series=reports.series(workspace_id, days, where, dimension),
        tops=tops,
        refused=reports.refused(workspace_id, days),
    )


# --- Tiles ------------------------------------------------------------------------------------------------------------


def _tiles(report: Report, access: WorkspaceAccess) -> list[Tile]:
    now, then = report.now, report.then
    trends = [bar.figures for bar in report.series.bars]
    return [
        _tile(
            "Spend",
            now.cost_usd,
            then.cost_usd,
            formats.usd,
            [each.cost_usd for each in trends],
            exact=formats.usd_exact(now.cost_usd),
            note="At least: some requests have no price" if now.unpriced_requests else "",
        ),
        _count_tile("Requests", now.requests, then.requests, [each.requests for each in trends]),
        _tile("Cost per request", now.cost_per_request, then.cost_per_request, formats.usd_fine),
        _count_tile("Tokens", now.tokens, then.tokens, [each.tokens for each in trends]),
        _tile("Error rate", now.error_rate, then.error_rate, formats.share, [each.error_rate for each in trends]),
        _latency_tile("Latency p50", report.latency.p50_ms, report.latency_then.p50_ms, report),
        _latency_tile("Latency p95", report.latency.p95_ms, report.latency_then.p95_ms, report),
        _tile(
            "Unpriced requests",
            now.unpriced_share,
            then.unpriced_share,
            formats.share,
            note=f"{now.unpriced_requests:,} without a price" if now.unpriced_requests else "",
            url=reverse("prices-unpriced", args=[access.workspace.slug]) if now.unpriced_requests else "",
        ),
    ]


def _count_tile(label: str, now: int, then: int, trend: Sequence[int]) -> Tile:
    return _tile(label, now, then, formats.compact, trend, exact=formats.count(now))


def _latency_tile(label: str, now: float | None, then: float | None, report: Report) -> Tile:
    note = "" if report.latency.is_complete else "Part of the range has no latency detail any more"
    return _tile(label, _decimal(now), _decimal(then), formats.milliseconds, note=note)


def _decimal(value: float | None) -> Decimal | None:
    return None if value is None else Decimal(value)


def _tile(
    label: str,
    now: Decimal | int | None,
    then: Decimal | int | None,
    write: charts.Format,
    trend: Sequence[Decimal | int | None] = (),
    exact: str = "",
    note: str = "",
    url: str = "",
) -> Tile:
    change = relative_change(now, then)
    return Tile(
        label=label,
        value=formats.NOTHING if now is None else write(Decimal(now)),
        change="" if change is None else formats.change(change),
        tone=_tone(label, change),
        before=formats.NOTHING if then is None else write(Decimal(then)),
        exact=exact,
        trend=charts.sparkline(trend),
        note=note,
        url=url,
    )


def relative_change(now: Decimal | int | None, then: Decimal | int | None) -> Decimal | None:
    """By what share `now` differs from `then`; None where there is nothing to compare with."""
    if now is None or not then:
        return None
    return Decimal(now) / Decimal(then) - 1


def _tone(label: str, change: Decimal | None) -> str:
    """More spend or traffic is neither good nor bad by itself; more errors and slower answers are bad."""
    if change is None or label not in _LESS_IS_BETTER or abs(change) < Decimal("0.005"):
        return ""
    return "bad" if change > 0 else "good"


# --- The chart --------------------------------------------------------------------------------------------------------


def _chart(report: Report, filters: ReportFilters, dimension: str, now: datetime) -> SafeString:
    found, zone = report.series, filters.days.zone
    parameter = next((name for name, each in DRILL_PARAMETERS.items() if each == dimension), None)
    parts = [
        charts.Series(
            key=value,
            name="Others" if value == OTHER else value,
            href=filters.query(**{parameter: value}) if parameter and value != OTHER else "",
            is_other=value == OTHER,
        )
        for value in found.values
    ]
    bars = [
        charts.Bar(
            label=f"{bar.day:%-d %b}" if bar.day else f"{bar.start.astimezone(zone):%H:%M}",
            title=f"{bar.day:%A, %-d %B %Y}" if bar.day else f"{bar.start.astimezone(zone):%-d %b, %H:%M}",
            when="" if bar.day else f"to {bar.end.astimezone(zone):%H:%M}",
            parts=bar.parts,
            href=filters.query(range="custom", **{"from": f"{bar.day}", "to": f"{bar.day}"}) if bar.day else "",
            is_running=bar.start <= now < bar.end,
        )
        for bar in found.bars
    ]
    edges = [bar.start for bar in found.bars] + [bar.end for bar in found.bars[-1:]]
    return charts.stacked_bars(
        chart_id="spend",
        title=f"Spend by {reports.DIMENSIONS[dimension].lower()}",
        series=parts,
        bars=bars,
        axis_format=charts.short_usd,
        value_format=formats.usd,
        shades=[_shade(spell, edges, zone) for spell in report.refused],
        empty="No priced requests in this range.",
        note=_known_from(found),
        shows_title=False,
    )


def _known_from(found: Series) -> str:
    return f"Known from {found.known_from:%-d %b %Y} on; before that it is under Others." if found.known_from else ""


def _shade(spell: RefusedSpell, edges: Sequence[datetime], zone: ZoneInfo) -> charts.Shade:
    start, end = spell.start.astimezone(zone), spell.end.astimezone(zone)
    return charts.Shade(
        start=charts.place(spell.start, edges),
        end=charts.place(spell.end, edges),
        reason=REASONS.get(spell.reason, spell.reason),
        detail=f"{start:%-d %b %H:%M} to {end:%H:%M}: {spell.requests:,} requests, about {formats.usd(spell.cost_usd)}",
    )


def _refused_words(spells: Sequence[RefusedSpell]) -> dict[str, object] | None:
    """What was refused in the range, added up: the figures above do not contain it."""
    if not spells:
        return None
    return {
        "requests": sum(spell.requests for spell in spells),
        "cost_usd": sum((spell.cost_usd for spell in spells), Decimal(0)),
        "reasons": sorted({spell.reason for spell in spells}),
    }


# --- Plan usage: requests, kept apart from money ----------------------------------------------------------------------


def _plan_gauge(plan: PlanStatus) -> SafeString | None:
    """Requests of the UTC month against the plan; None without a limit."""
    title = f"{plan.name} plan, this month (UTC)"
    return requests_gauge(title, plan.request_count, plan.request_limit, plan.window, unit=" requests")


# --- Tables -----------------------------------------------------------------------------------------------------------


def _top_table(report: Report, filters: ReportFilters, access: WorkspaceAccess, dimension: str) -> dict[str, object]:
    top = report.tops[dimension]
    rows = [
        {
            "value": row.value,
            "provider": row.provider,
            "url": _drill_url(filters, access, dimension, row.value),
            "now": row.now,
            "share": row.share,
            "change": relative_change(row.now.cost_usd, row.before.cost_usd),
            "is_new": row.is_new,
            "is_gone": row.is_gone,
        }
        for row in top.rows
    ]
    return {
        "dimension": dimension,
        "title": reports.DIMENSIONS[dimension],
        "rows": rows,
        "others": top.others,
        "more": top.distinct - sum(1 for row in top.rows if row.now.requests),
        "known_from": top.known_from,
        "is_narrowed": dimension in reports.ATTRIBUTION and bool(filters.drill),
    }


def _drill_url(filters: ReportFilters, access: WorkspaceAccess, dimension: str, value: str) -> str:
    """Endpoints, models and versions are looked into; a person's or tenant's requests are listed."""
    name = next(name for name, each in PARAMETERS.items() if each == dimension)
    if name in DRILL_PARAMETERS:
        return reverse("investigate", args=[access.workspace.slug]) + filters.query(**{name: value, "by": None})
    return reverse("requests", args=[access.workspace.slug]) + requests_query(filters, name, value)
