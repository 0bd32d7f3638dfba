"""The audit trail: who did what, when, and what it was before."""

import csv
import json
from collections.abc import Iterator
from datetime import UTC
from io import StringIO
from zoneinfo import ZoneInfo

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_GET

from opsmeter_site.lib.clock import utc_now
from workspaces import selectors
from workspaces.access import WorkspaceAccess
from workspaces.audit_words import deed, name_of, values
from workspaces.forms import TrailForm
from workspaces.models import AuditEntry, Role
from workspaces.pages import workspace_page

PAGE_SIZE = 50
_COLUMNS = ("timeUtc", "timeLocal", "person", "email", "what", "action", "target", "values")
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


@workspace_page(Role.ADMIN)
@require_GET
def audit(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """The newest entries, or those of the filters."""
    form = _filters(request, access)
    page = selectors.trail_page(access.workspace, form.wanted(), request.GET.get("cursor", ""), PAGE_SIZE)
    zone = ZoneInfo(str(access.workspace.timezone))
    chosen = request.GET.copy()
    chosen.pop("cursor", None)
    context = {
        "form": form,
        "entries": [
            {"entry": entry, "person": name_of(entry.actor), "deed": deed(entry), "values": values(entry, zone)}
            for entry in page.entries
        ],
        "next_cursor": page.next_cursor,
        "is_first": "cursor" not in request.GET,
        "is_filtered": any(request.GET.get(name) for name in form.fields),
        "chosen": chosen.urlencode(),
    }
    return render(request, "workspaces/audit.html", context)


@workspace_page(Role.ADMIN)
@require_GET
def audit_csv(request: HttpRequest, access: WorkspaceAccess) -> HttpResponseBase:
    """Every entry of the filters as CSV, sent while it is read."""
    wanted = _filters(request, access).wanted()
    zone = ZoneInfo(str(access.workspace.timezone))
    lines = _lines(selectors.trail_rows(access.workspace, wanted), zone)
    name = f"audit-{access.workspace.slug}-{utc_now():%Y%m%d}.csv"
    return StreamingHttpResponse(
        lines,
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"},
    )


def _filters(request: HttpRequest, access: WorkspaceAccess) -> TrailForm:
    form = TrailForm(selectors.trail_actions(access.workspace), selectors.trail_people(access.workspace), request.GET)
    form.is_valid()
    return form


def _lines(entries: Iterator[AuditEntry], zone: ZoneInfo) -> Iterator[str]:
    yield _line(_COLUMNS)
    for entry in entries:
        yield _line(
            (
                f"{entry.created_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
                entry.created_at.astimezone(zone).isoformat(timespec="seconds"),
                name_of(entry.actor),
                entry.actor.email if entry.actor else "",
                deed(entry),
                entry.action,
                entry.target,
                json.dumps(entry.data, ensure_ascii=False),
            )
        )


def _line(cells: tuple[str, ...]) -> str:
    # A spreadsheet would run a text that looks like a formula, and people choose names.
    safe = [f"'{cell}" if cell.startswith(_FORMULA_SIGNS) else cell for cell in cells]
    line = StringIO()
    csv.writer(line).writerow(safe)
    return line.getvalue()
