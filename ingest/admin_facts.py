"""What the ledger's lists in the operators' console share: rows to look at, in tables that may be very long."""

from decimal import Decimal
from functools import cached_property
from typing import Any, ClassVar
from urllib.parse import parse_qs
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from workspaces.admin_base import ReadOnlyMixin
from workspaces.admin_filters import WORKSPACE, WorkspaceFilter, WorkspaceFilterMixin

# How the stock admin hands the list's filters on to the page of one row.
_LIST_FILTERS = "_changelist_filters"


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts no further than `CAP` rows: nobody turns a thousand pages, and a full count reads the whole table."""

    CAP = 2_000

    @cached_property
    def count(self) -> int:
        """The number of rows, at most `CAP`."""
        rows: Any = self.object_list
        return rows.order_by()[: self.CAP].count()  # type: ignore[no-any-return]


class FactsAdmin(ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows of workspaces that only the product writes."""

    list_select_related: ClassVar[tuple[str, ...]] = (WORKSPACE,)
    actions: Any = None


class PerWorkspaceAdmin(FactsAdmin):
    """One row a workspace."""

    search_fields: ClassVar[tuple[str, ...]] = ("workspace__name", "workspace__slug", "workspace__id")
    search_help_text = "The workspace's name, slug or id."
    ordering: ClassVar[tuple[str, ...]] = ("workspace__name",)


class OneWorkspaceList(ChangeList):
    """Nothing until a workspace is chosen."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        """The rows of the chosen workspace."""
        rows = super().get_queryset(request, exclude_parameters)
        return rows if request.GET.get(WORKSPACE) else rows.none()


class LargeTableAdmin(WorkspaceFilterMixin, FactsAdmin):
    """Millions of rows. All indexes begin with the workspace, so a list shows one workspace's rows, by time."""

    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    list_max_show_all = 200
    sortable_by = ()
    # Filters by date and no hierarchy of dates, which would read the time of every row.
    newest_first: ClassVar[str]
    workspace_filters: ClassVar[tuple[Any, ...]] = ()
    workspace_search: ClassVar[tuple[str, ...]] = ()

    def get_changelist(self, request: HttpRequest, **_: Any) -> type[ChangeList]:
        """The list above."""
        return OneWorkspaceList

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The stock page; without a workspace it says what to do."""
        subtitle = None if request.GET.get(WORKSPACE) else "Choose a workspace to see its rows."
        return super().changelist_view(request, {"subtitle": subtitle, **(extra_context or {})})

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """On the page of one row: only of the workspace whose list it was opened from, because ids have no index."""
        rows = super().get_queryset(request)
        chosen = _workspace_of_list(request)
        return rows.filter(workspace_id=chosen) if chosen else rows

    def get_ordering(self, request: HttpRequest) -> Any:
        """As the index goes, the newest first."""
        return (f"-{self.newest_first}",)

    def get_list_filter(self, request: HttpRequest) -> Any:
        """More filters once there is a workspace to filter."""
        return (WorkspaceFilter, *(self.workspace_filters if request.GET.get(WORKSPACE) else ()))

    def get_search_fields(self, request: HttpRequest) -> Any:
        """The same for the search."""
        return self.workspace_search if request.GET.get(WORKSPACE) else ()


def _workspace_of_list(request: HttpRequest) -> UUID | None:
    chosen = parse_qs(request.GET.get(_LIST_FILTERS, "")).get(WORKSPACE, [""])[0]
    try:
        return UUID(chosen) if chosen else None
    except ValueError:
        return None


def usd(amount: Decimal) -> str:
    """All digits that say something."""
    shown = f"{amount:,f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown
