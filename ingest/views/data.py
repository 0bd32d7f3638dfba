"""Data hygiene: test and demo rows, how long data is kept, and what counts."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from ingest import hygiene
from ingest.gateway.committer import UnavailableError
from ingest.gateway.demo import DATA_SET_DAYS, DATA_SET_EVENTS
from ingest.models import DataMode, LedgerCoverage, WorkspacePolicy
from ingest.views.requests import detail_of
from opsmeter_site.lib.errors import NotAllowed
from opsmeter_site.lib.formats import count, usd
from workspaces.access import WorkspaceAccess, require_role
from workspaces.models import Role, Workspace
from workspaces.pages import workspace_page

# Scope → whether only rows of the person's own keys are meant.
_SCOPES = {"workspace": False, "mine": True}


@workspace_page()
@require_GET
def data(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """How many test and demo rows there are, what can be done with them, and what is kept."""
    policy = WorkspacePolicy.objects.get(workspace_id=access.workspace.pk)
    context = _stocks(access.workspace) | {
        "policy": policy,
        "counted": [DataMode(mode).label for mode in policy.counted_data_modes],
        "detail": detail_of(policy),
        "coverage": LedgerCoverage.of(access.workspace.pk),
        "has_own_keys": bool(hygiene.own_keys(access.workspace, access.user)),
        "demo_events": DATA_SET_EVENTS,
        "demo_days": DATA_SET_DAYS,
    }
    return render(request, "ingest/data.html", context)


@workspace_page()
@require_GET
def data_state(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """The counts by themselves, to be looked at again while rows are being deleted."""
    context = _stocks(access.workspace) | {
        "has_own_keys": bool(hygiene.own_keys(access.workspace, access.user)),
    }
    return render(request, "ingest/_data_stocks.html", context)


def _stocks(workspace: Workspace) -> dict[str, Any]:
    return {
        "stocks": [{"mode": mode, "stock": stock} for mode, stock in hygiene.stocks_of(workspace).items()],
        "deletions": hygiene.unfinished_deletions(workspace),
    }


@workspace_page()
@require_http_methods(["GET", "POST"])
def data_delete(request: HttpRequest, access: WorkspaceAccess, mode: str, scope: str) -> HttpResponse:
    """Ask, then delete the rows of a data mode: all of them, or those of the person's own keys."""
    if mode not in hygiene.DELETABLE or scope not in _SCOPES:
        raise Http404("There is nothing to delete here.")
    only_own = _SCOPES[scope]
    if not only_own:
        require_role(access, Role.ADMIN)
    label = DataMode(mode).label.lower()
    if request.method == "POST":
        _delete(request, access, mode, label, only_own=only_own)
        return redirect("settings-data", slug=access.workspace.slug)
    whose = "your" if only_own else "all"
    context = {
        "title": f"Delete {whose} {label} rows?",
        "consequences": _consequences(access, mode, label, only_own=only_own),
        "confirm_label": f"Delete {whose} {label} rows",
        "cancel_url": reverse("settings-data", kwargs={"slug": access.workspace.slug}),
    }
    return render(request, "console/confirm.html", context)


def _consequences(access: WorkspaceAccess, mode: str, label: str, *, only_own: bool) -> list[str]:
    workspace = access.workspace
    if only_own:
        keys = hygiene.own_keys(workspace, access.user)
        stock = hygiene.own_stock(workspace.pk, mode, keys)
        names = ", ".join(key.name for key in keys) or "none"
        whose = f"Only what was sent with the API keys that you created: {names}."
    else:
        stock = hygiene.stocks_of(workspace)[DataMode(mode)]
        whose = "Whoever sent them, also those whose single rows have expired and that only count in sums."
    at_least = "At least " if stock.is_more else ""
    follow = "Totals and charts follow at once, and budgets where they count such rows."
    if mode == DataMode.TEST:
        follow += " The plan’s count of requests goes down by as many."
    return [
        f"{at_least}{count(stock.requests)} {label} requests, worth {usd(stock.cost_usd)}, are deleted.",
        whose,
        follow,
        "Requests of real traffic are not touched.",
        "This cannot be undone.",
    ]


def _delete(request: HttpRequest, access: WorkspaceAccess, mode: str, label: str, *, only_own: bool) -> None:
    workspace = access.workspace
    deletion = hygiene.request_deletion(workspace, mode, only_own=only_own, acting_user=access.user)
    deleted = hygiene.run_deletion(deletion) if hygiene.is_quick(workspace, mode) else None
    if deleted is None:
        messages.info(request, f"The {label} rows are being deleted. You can leave this page; it goes on.")
    elif deleted:
        messages.success(request, f"{count(deleted)} {label} rows are deleted, and every counter has followed.")
    else:
        messages.info(request, f"There were no {label} rows to delete.")


@workspace_page(Role.ADMIN)
@require_POST
def data_demo(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Load the small demo data set."""
    try:
        loaded = hygiene.load_demo(access.workspace, acting_user=access.user)
    except NotAllowed as refusal:
        messages.error(request, refusal.message)
    except UnavailableError:
        messages.error(request, "The database takes no rows right now. Nothing was loaded; please try again.")
    else:
        messages.success(
            request, f"{count(loaded)} demo requests of the last days are loaded. Delete them here at any time."
        )
    return redirect("settings-data", slug=access.workspace.slug)
