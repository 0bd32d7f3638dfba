"""What changed? A range against the one before it: what moved spend, by how much, and where."""

from collections.abc import Sequence

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.safestring import SafeString
from django.views.decorators.http import require_GET

from ingest import reports
from ingest.drivers import LABELS, MEANINGS, Change, Driver, explain_change
from ingest.report_filters import DRILL_PARAMETERS, PARAMETERS, ReportFilters, filter_bar, read_filters, requests_query
from ingest.report_rows import Movers, RefusedSpell, TopRow
from ingest.snapshots import snapshot
from opsmeter_site.lib import charts, formats
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.money import to_ledger
from workspaces.access import WorkspaceAccess
from workspaces.pages import workspace_page

# Dimensions whose new and gone values are listed.
ARRIVALS = ("endpoint", "version", "user")
SHOWN_MOVERS = 15
SHOWN_ARRIVALS = 8
# How many of those that moved most are looked through for new and gone ones.
COMPARED = 300


@workspace_page()
@require_GET
def investigate(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """The difference, its causes, the biggest movers, and what is new or gone."""
    now = utc_now()
    workspace = access.workspace
    filters = read_filters(request.GET.dict(), workspace.pk, workspace.timezone, now, keep=("by",))
    by = filters.extra.get("by", "")
    by = by if by in PARAMETERS else "endpoint"
    before = filters.days.previous(now)
    with snapshot():
        cells_before = reports.cells(workspace.pk, before, filters.where)
        cells_now = reports.cells(workspace.pk, filters.days, filters.where)
        refused = [*reports.refused(workspace.pk, before), *reports.refused(workspace.pk, filters.days)]
        movers = {
            name: reports.movers(workspace.pk, filters.days, before, filters.where, PARAMETERS[name], limit=COMPARED)
            for name in dict.fromkeys((by, *ARRIVALS))
        }
        change = explain_change(cells_before, cells_now)
    rows = movers[by].rows
    context = {
        **filter_bar(filters),
        "now": now,
        "days": filters.days,
        "before": before,
        "is_running": filters.days.is_running(now),
        "change": change,
        "relative": change.difference / change.before_usd if change.before_usd else None,
        "main": LABELS[change.main_driver] if change.main_driver else "",
        "chart": _chart(change),
        "effects": [
            {"label": LABELS[driver], "meaning": MEANINGS[driver], "amount": to_ledger(change.effects[driver])}
            for driver in Driver
        ],
        "tabs": [
            {"label": reports.DIMENSIONS[each], "query": filters.query(by=name), "is_current": name == by}
            for name, each in PARAMETERS.items()
        ],
        "by_label": reports.DIMENSIONS[PARAMETERS[by]],
        "movers": [_mover_row(row, by, filters, access, change) for row in rows[:SHOWN_MOVERS]],
        "more_movers": max(0, len(rows) - SHOWN_MOVERS),
        "is_unnarrowed": PARAMETERS[by] in reports.ATTRIBUTION and bool(filters.drill),
        "arrivals": [_arrivals(name, movers[name], filters, access) for name in ARRIVALS],
        "refused": refused and _refused(refused),
    }
    return render(request, "ingest/investigate.html", context)


def _chart(change: Change) -> SafeString:
    return charts.waterfall(
        chart_id="change",
        title="What moved spend",
        before=("Before", change.before_usd),
        effects=[
            charts.Effect(LABELS[driver], to_ledger(amount), about=MEANINGS[driver])
            for driver, amount in change.effects.items()
            if to_ledger(amount)
        ],
        after=("Now", change.now_usd),
        value_format=formats.usd,
        empty="No priced requests in either range.",
        shows_title=False,
    )


def _mover_row(
    mover: TopRow, by: str, filters: ReportFilters, access: WorkspaceAccess, change: Change
) -> dict[str, object]:
    endpoint = next((each for each in change.endpoints if by == "endpoint" and each.endpoint_tag == mover.value), None)
    main = endpoint.main_driver if endpoint else None
    return {
        "value": mover.value,
        "url": _drill_url(by, mover.value, filters, access),
        "requests_url": _requests_url(by, mover.value, filters, access),
        "before": mover.before,
        "now": mover.now,
        "difference": mover.difference,
        "is_new": mover.is_new,
        "is_gone": mover.is_gone,
        "main": LABELS[main] if main else "",
    }


def _drill_url(by: str, value: str, filters: ReportFilters, access: WorkspaceAccess) -> str:
    if by not in DRILL_PARAMETERS:
        return _requests_url(by, value, filters, access)
    # Inside an endpoint the next question is which model; inside anything else, which endpoint.
    return filters.query(**{by: value, "by": "model" if by == "endpoint" else None})


def _requests_url(by: str, value: str, filters: ReportFilters, access: WorkspaceAccess) -> str:
    return reverse("requests", args=[access.workspace.slug]) + requests_query(filters, by, value)


def _arrivals(name: str, found: Movers, filters: ReportFilters, access: WorkspaceAccess) -> dict[str, object]:
    """The new and the gone values of one dimension: how many, and the costliest of them."""
    new = [row for row in found.rows if row.is_new]
    gone = [row for row in found.rows if row.is_gone]
    return {
        "label": reports.DIMENSIONS[PARAMETERS[name]],
        "is_unnarrowed": PARAMETERS[name] in reports.ATTRIBUTION and bool(filters.drill),
        "new": {"count": found.new, "rows": _linked(new, name, filters, access)},
        "gone": {"count": found.gone, "rows": _linked(gone, name, filters, access)},
    }


def _linked(rows: list[TopRow], name: str, filters: ReportFilters, access: WorkspaceAccess) -> list[dict[str, object]]:
    return [
        {
            "value": row.value,
            "amount": row.now.cost_usd if row.is_new else row.before.cost_usd,
            "url": _drill_url(name, row.value, filters, access),
        }
        for row in rows[:SHOWN_ARRIVALS]
    ]


def _refused(spells: Sequence[RefusedSpell]) -> int:
    return sum(spell.requests for spell in spells)
