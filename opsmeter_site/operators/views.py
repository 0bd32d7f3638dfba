"""The console's pages that belong to no single model. The site lets only operators in; rights are asked for here."""

from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

import structlog
from django.contrib import admin, messages
from django.contrib.auth.decorators import permission_required
from django.db import Error
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from ingest.audit import audit_workspace
from opsmeter_site.lib import formats
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import quarter_hour_of
from opsmeter_site.operators import traffic
from opsmeter_site.operators.search import MOST, find_workspaces, public_part
from opsmeter_site.operators.support import facts, note_look, workspace_for_support
from workspaces.models import User, Workspace

logger = structlog.get_logger(__name__)

LONGEST_LIST = 100
_WINDOWS = {"1": "24 hours", "7": "7 days"}

_sees_workspaces = permission_required("workspaces.view_workspace", raise_exception=True)


@require_GET
@_sees_workspaces
def activity(request: HttpRequest) -> HttpResponse:
    """Who sent most in the last 24 hours, had most refused, or sent most without a price."""
    order = request.GET.get("order", "requests")
    if order not in traffic.ORDERS:
        raise Http404
    rows = traffic.busiest(_days_ago(1), order, LONGEST_LIST)
    context = {"rows": rows, "order": order, "orders": traffic.ORDERS, "most": LONGEST_LIST}
    return _page(request, "admin/activity.html", "Workspaces in the last 24 hours", context)


@require_GET
@_sees_workspaces
def unpriced(request: HttpRequest) -> HttpResponse:
    """Models without a price, over all workspaces, with the way to a price or an alias."""
    days = request.GET.get("days", "1")
    if days not in _WINDOWS:
        raise Http404
    rows = traffic.unpriced_models(_days_ago(int(days)), LONGEST_LIST)
    context = {"rows": rows, "days": days, "windows": _WINDOWS, "most": LONGEST_LIST}
    return _page(request, "admin/unpriced.html", "Models without a price", context)


@require_GET
@_sees_workspaces
def search(request: HttpRequest) -> HttpResponse:
    """From what a customer names to the workspace's page; a list if several fit."""
    wanted = request.GET.get("q", "")
    found = find_workspaces(wanted)
    if len(found) == 1:
        return redirect("admin:support", found[0].pk)
    context = {"found": found, "is_cut": len(found) == MOST, "wanted": public_part(wanted)}
    return _page(request, "admin/support_search.html", "Find a workspace", context)


@require_GET
@_sees_workspaces
def support(request: HttpRequest, workspace_id: UUID) -> HttpResponse:
    """Everything about one workspace. That somebody looked is recorded."""
    workspace = _workspace(workspace_id)
    note_look(workspace, cast(User, request.user))
    context = {"workspace": workspace, **facts(workspace, utc_now())}
    return _page(request, "admin/support.html", workspace.name, context)


@require_POST
@permission_required("ingest.change_ledgeraudit", raise_exception=True)
def audit_now(request: HttpRequest, workspace_id: UUID) -> HttpResponse:
    """Compare the workspace's ledger with itself, now."""
    workspace = _workspace(workspace_id)
    try:
        report = audit_workspace(workspace.pk, utc_now())
    except Error:
        logger.exception("audit_failed", workspace_id=str(workspace.pk))
        messages.error(request, "The audit could not be finished. The one before still stands; the log says why.")
    else:
        compared = f"{formats.count(report.events)} raw rows were compared with roll-ups and meters"
        if report.is_exact:
            messages.success(request, f"The ledger is exact: {compared}.")
        else:
            drift = f"{formats.usd_exact(report.drift_usd)} and {formats.count(report.drift_requests)} requests"
            messages.error(request, f"The ledger drifts by {drift}: {compared}.")
    return redirect("admin:support", workspace.pk)


def _workspace(workspace_id: UUID) -> Workspace:
    workspace = workspace_for_support(workspace_id)
    if workspace is None:
        raise Http404
    return workspace


def _days_ago(days: int) -> datetime:
    return quarter_hour_of(utc_now()) - timedelta(days=days)


def _page(request: HttpRequest, template: str, title: str, context: dict[str, Any]) -> HttpResponse:
    return render(request, template, {**admin.site.each_context(request), "title": title, **context})
