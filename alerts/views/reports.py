"""Summaries to read: all of them, and each under its own address."""

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path
from django.utils.safestring import SafeString
from django.views.decorators.http import require_GET

from alerts.delivery_log import error_text, receiver
from alerts.models import Report, ReportKind, ReportState
from alerts.recipients import visible_addresses
from alerts.reports import listing, sentences
from alerts.reports.figures import ReportContent
from alerts.reports.mail import investigate_path
from alerts.reports.tables import executive, summary
from ingest.drivers import LABELS, MEANINGS
from opsmeter_site.lib import charts, formats
from workspaces.access import WorkspaceAccess
from workspaces.pages import workspace_page

MOST_MESSAGES = 100


@workspace_page()
@require_GET
def reports(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """The newest summaries, or those of a kind or state."""
    kind = _one_of(request.GET.get("kind", ""), ReportKind.values)
    state = _one_of(request.GET.get("state", ""), ReportState.values)
    page = listing.report_page(access.workspace.pk, kind, state, request.GET.get("cursor", ""))
    chosen = {name: value for name, value in (("kind", kind), ("state", state)) if value}
    context = {
        "rows": [{"report": each, "says": _says(each, access.workspace.name)} for each in page.reports],
        "kinds": ReportKind.choices,
        "states": ReportState.choices,
        "kind": kind,
        "state": state,
        "is_first": "cursor" not in request.GET,
        "newest": f"?{urlencode(chosen)}",
        "older": f"?{urlencode(chosen | {'cursor': page.older})}" if page.older else "",
        "first_due": None if page.reports else listing.first_due(access.workspace.pk),
    }
    return render(request, "alerts/reports.html", context)


@workspace_page()
@require_GET
def report(request: HttpRequest, access: WorkspaceAccess, report_id: UUID) -> HttpResponse:
    """One summary as it was made, and what became of its messages."""
    found = listing.report_of(access.workspace.pk, report_id)
    content = ReportContent.from_json(found.content) if found.content else None
    deliveries, visible = list(listing.messages_of(found)[:MOST_MESSAGES]), visible_addresses(access)
    context: dict[str, Any] = {
        "report": found,
        "window": f"{found.first_day:%-d %b %Y}",
        "is_preview": found.schedule_id is None,
        "deliveries": [(each, receiver(each, visible), error_text(each, visible)) for each in deliveries],
        "more_deliveries": found.deliveries.count() - len(deliveries),
    }
    if content:
        is_executive = found.kind == ReportKind.EXECUTIVE
        context |= executive(content) if is_executive else summary(content)
        context |= {
            "is_executive": is_executive,
            "chart": _chart(content) if content.bars else None,
            "waterfall": _waterfall(content) if content.change.effects else None,
            "investigate_url": investigate_path(found, content),
        }
    return render(request, "alerts/report.html", context)


def _one_of(value: str, known: list[str]) -> str:
    return value if value in known else ""


def _says(report: Report, workspace_name: str) -> str:
    """What happened, in a few words; the workspace's name is not needed on its own pages."""
    name = f"{sentences.plain_name(workspace_name)} · "
    words = report.title.removeprefix(name) or f"{report.first_day:%A %-d %b}"
    return words[0].upper() + words[1:]


def _chart(content: ReportContent) -> SafeString:
    zone, is_day = content.time_zone, content.days == 1
    locals_ = [bar.start.astimezone(zone) for bar in content.bars]
    return charts.stacked_bars(
        chart_id="spend",
        title="Spend by hour" if is_day else "Spend by day",
        series=[charts.Series(key="usd", name="Spend")],
        bars=[
            charts.Bar(
                label=f"{local:%H:%M}" if is_day else f"{local:%a %-d}",
                title=f"{local:%-d %b, %H:%M}" if is_day else f"{local:%A, %-d %B}",
                when=f"before: {formats.usd(bar.before_usd)}",
                parts={"usd": bar.cost_usd} if bar.cost_usd else {},
            )
            for bar, local in zip(content.bars, locals_, strict=True)
        ],
        axis_format=charts.short_usd,
        value_format=formats.usd,
        empty="No priced requests in these days.",
        shows_title=False,
    )


def _waterfall(content: ReportContent) -> SafeString:
    meanings = {driver.value: meaning for driver, meaning in MEANINGS.items()}
    labels = {driver.value: label for driver, label in LABELS.items()}
    return charts.waterfall(
        chart_id="change",
        title="What moved spend",
        before=("Before", content.before.cost_usd),
        effects=[
            charts.Effect(labels.get(each.driver, each.driver), each.amount_usd, about=meanings.get(each.driver, ""))
            for each in content.change.effects
        ],
        after=("Now", content.now.cost_usd),
        value_format=formats.usd,
        shows_title=False,
    )


page_urlpatterns = [
    path("reports/", reports, name="reports"),
    path("reports/<uuid:report_id>/", report, name="report"),
]
