"""The requests explorer: the list, more of it, values to choose filters from, and one request with its cost."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET

from ingest import explorer
from ingest.cost_explained import RULE_WORDS, as_charged, charge_of, resolved_now
from ingest.explorer import Cursor, Page
from ingest.models import Event, ExportWhat, Rollup, WorkspacePolicy
from ingest.page_filters import SUGGESTED, RequestFilterForm
from ingest.retention import raw_detail_starts_at
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import to_wire
from workspaces.access import WorkspaceAccess
from workspaces.models import ApiKey, Workspace
from workspaces.pages import workspace_page

_NOTHING = Page([], None, None)


@dataclass(frozen=True, slots=True)
class Row:
    """A request as the list shows it."""

    event: Event
    key_name: str

    @property
    def input_tokens(self) -> int:
        """All of them, cached or not."""
        return self.event.uncached_input_tokens + self.event.cache_read_tokens + self.event.cache_write_tokens


@dataclass(frozen=True, slots=True)
class Detail:
    """From when on every single request is there, what the plan keeps, and whether sums reach back further."""

    starts_at: datetime
    kept_days: int
    plan_name: str
    has_older_sums: bool


def form_facts(workspace: Workspace) -> dict[str, Any]:
    """What a form of filters must know of its workspace."""
    return {
        "keys": list(ApiKey.objects.filter(workspace=workspace).order_by("name", "pk")),
        "zone": workspace.timezone,
        "now": utc_now(),
        "values_url": reverse("requests-values", kwargs={"slug": workspace.slug}),
    }


def detail_of(policy: WorkspacePolicy) -> Detail:
    """What retention leaves of a workspace's requests."""
    starts_at = raw_detail_starts_at(policy, utc_now())
    older = Rollup.objects.filter(workspace_id=policy.workspace_id, bucket_start__lt=starts_at)
    return Detail(starts_at, policy.raw_retention_days, policy.plan_name, older.exists())


# --- The list -------------------------------------------------------------------------------------------------------


@workspace_page()
@require_GET
def requests(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """The newest requests, or with a cursor those beside a place in the list."""
    form = RequestFilterForm(request.GET.dict(), **form_facts(access.workspace))
    wanted = request.GET.get("cursor", "")
    cursor = Cursor.decode(wanted)
    is_valid = form.is_valid()
    page = explorer.page_of(access.workspace.pk, form.filters(), cursor) if is_valid else _NOTHING
    context = _listed(request, form, page, found=0) | {
        "bad_cursor": bool(wanted) and cursor is None,
        "is_first": page.newer is None,
        "is_empty": not page.rows and page.older is None and page.newer is None,
        "chips": form.chips() if is_valid else [],
        "export_query": form.query(what=ExportWhat.REQUESTS.value),
        "detail": detail_of(access.workspace.policy),
        "start": form.filters().start if is_valid else None,
    }
    return render(request, "ingest/requests.html", context)


@workspace_page()
@require_GET
def requests_more(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """The rows after a cursor, to be added to a list that shows `found` of this page."""
    form = RequestFilterForm(request.GET.dict(), **form_facts(access.workspace))
    cursor = Cursor.decode(request.GET.get("cursor", ""))
    if cursor is None or not form.is_valid():
        raise Http404("No such place in the list.")
    found = _number(request.GET.get("found", ""))
    page = explorer.page_of(access.workspace.pk, form.filters(), cursor, limit=explorer.PAGE_ROWS - found)
    context = _listed(request, form, page, found=found)
    if page.older is None:
        context["detail"] = detail_of(access.workspace.policy)
    return render(request, "ingest/_requests_more.html", context)


def _number(text: str) -> int:
    """How many rows of a page are there already."""
    return min(int(text), explorer.PAGE_ROWS - 1) if text.isascii() and text.isdigit() else 0


def _listed(request: HttpRequest, form: RequestFilterForm, page: Page, *, found: int) -> dict[str, Any]:
    columns = "all" if request.GET.get("columns") == "all" else None
    names = {key.pk: key.name for key in form.keys}
    return {
        "form": form,
        "suggested": SUGGESTED,
        "page": page,
        "rows": [Row(event, names.get(event.api_key_id or 0, "")) for event in page.rows],
        # A page that is not full goes on searching until it is.
        "found": found + len(page.rows) if page.searched_to else 0,
        "shows_all_columns": columns is not None,
        "first_query": form.query(columns=columns),
        "columns_query": form.query(columns=None if columns else "all"),
        "row_query": form.query(columns=columns, cursor=request.GET.get("cursor")),
        "older_query": form.query(columns=columns, cursor=page.older.encode()) if page.older else "",
        "newer_query": form.query(columns=columns, cursor=page.newer.encode()) if page.newer else "",
    }


@workspace_page()
@require_GET
def requests_values(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Options for the input of one filter: the values among the latest requests."""
    column = SUGGESTED.get(request.GET.get("filter", ""))
    if column is None:
        raise Http404("No such filter.")
    values = explorer.suggestions(access.workspace.pk, column)
    return render(request, "ingest/_requests_values.html", {"values": values})


# --- One request ----------------------------------------------------------------------------------------------------


@workspace_page()
@require_GET
def request_page(request: HttpRequest, access: WorkspaceAccess, event_id: int) -> HttpResponse:
    """Everything that is known of one request, and why it costs what it costs."""
    event = Event.objects.filter(workspace_id=access.workspace.pk, pk=event_id).first()
    if event is None:
        raise Http404("There is no such request.")
    now = resolved_now(event)
    charge = charge_of(event)
    key = ApiKey.objects.filter(workspace=access.workspace, pk=event.api_key_id or 0).first()
    is_same_model = charge is not None and now.model == charge.price.model
    context = {
        "event": event,
        "row": Row(event, key.name if key else ""),
        "charge": charge,
        "at_first": as_charged(event),
        "reprice_url": _reprice_url(event, access.workspace),
        "is_exact": charge is not None and charge.ledger_sum == event.cost_usd,
        "difference": _difference(event),
        "now": now,
        # How a name was found is not stored: it is told only if it still leads to the model that was charged.
        "found_by": RULE_WORDS[now.rule] if is_same_model else "",
        "steps": [(RULE_WORDS[step.rule], step.name, step.found) for step in now.steps],
        "list_query": request.GET.urlencode(),
    }
    return render(request, "ingest/request.html", context)


def _reprice_url(event: Event, workspace: Workspace) -> str:
    """Where its model can be priced again, from its day on."""
    query = {"provider": event.provider, "model": event.model, "from": to_wire(event.occurred_at)}
    return f"{reverse('repricing-new', kwargs={'slug': workspace.slug})}?{urlencode(query)}"


def _difference(event: Event) -> Decimal | None:
    """Our cost less the provider's own figure, in USD; None unless there are both."""
    if event.cost_usd is None or event.reported_cost_usd is None:
        return None
    return event.cost_usd - event.reported_cost_usd
