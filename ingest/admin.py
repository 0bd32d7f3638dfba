"""The ledger in the operators' console: facts to look at. Prices are in `admin_prices`."""

from decimal import Decimal
from functools import cached_property
from typing import Any, ClassVar
from uuid import UUID

from django import forms
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.forms import Media
from django.http import HttpRequest

from ingest import admin_prices
from ingest.models import (
    Event,
    LedgerAudit,
    LedgerCoverage,
    Limit,
    LimitCrossing,
    Meter,
    Refusal,
    Rollup,
    WorkspacePolicy,
)
from workspaces.models import Workspace

__all__ = ["admin_prices"]

_WORKSPACE = "workspace"


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts no further than `CAP` rows: nobody turns a thousand pages, and a full count reads the whole table."""

    CAP = 2_000

    @cached_property
    def count(self) -> int:
        """The number of rows, at most `CAP`."""
        rows: Any = self.object_list
        return rows.order_by()[: self.CAP].count()  # type: ignore[no-any-return]


class WorkspaceFilter(admin.SimpleListFilter):
    """Chooses one workspace by typing part of its name; a list of all of them would be as long as the customer list."""

    title = "workspace"
    parameter_name = _WORKSPACE
    template = "admin/workspace_filter.html"

    def __init__(self, request: HttpRequest, params: Any, model: type[Model], model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        self._model_admin = model_admin
        self._others = {name: value for name, value in request.GET.items() if name not in {_WORKSPACE, "p"}}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return []

    def has_output(self) -> bool:
        return True

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self._chosen()
        return queryset.filter(workspace_id=chosen) if chosen else queryset

    def choices(self, changelist: Any) -> Any:
        chosen = self._chosen()
        field = forms.ModelChoiceField(Workspace.objects.all(), widget=workspace_widget(self._model_admin))
        yield {
            "field": field.widget.render(_WORKSPACE, chosen, {"id": "filter-workspace"}),
            "others": self._others.items(),
            "clear": changelist.get_query_string(remove=[_WORKSPACE]),
            "is_chosen": chosen is not None,
        }

    def _chosen(self) -> UUID | None:
        value = self.value()
        try:
            return UUID(value) if value else None
        except ValueError as error:
            raise IncorrectLookupParameters(error) from error


def workspace_widget(model_admin: Any) -> AutocompleteSelect:
    """The stock autocomplete for the model's workspace."""
    field = model_admin.model._meta.get_field(_WORKSPACE)
    return AutocompleteSelect(field, model_admin.admin_site, attrs={"data-placeholder": "Any workspace"})


class FactsAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows that only the product writes: to look at, never to change."""

    list_select_related = (_WORKSPACE,)
    actions = None

    @property
    def media(self) -> Media:
        return super().media + workspace_widget(self).media

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class LargeTableAdmin(FactsAdmin):
    """Millions of rows. Every page is served by an index: newest first, or one workspace by time.

    Filters and the search appear once a workspace is chosen, because all indexes begin with it.
    """

    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    list_max_show_all = 200
    sortable_by = ()
    workspace_ordering: ClassVar[tuple[str, ...]]
    workspace_filters: ClassVar[tuple[Any, ...]]
    workspace_search: ClassVar[tuple[str, ...]] = ()

    def get_ordering(self, request: HttpRequest) -> Any:
        return self.workspace_ordering if request.GET.get(_WORKSPACE) else ("-id",)

    def get_list_filter(self, request: HttpRequest) -> Any:
        return (WorkspaceFilter, *(self.workspace_filters if request.GET.get(_WORKSPACE) else ()))

    def get_search_fields(self, request: HttpRequest) -> Any:
        return self.workspace_search if request.GET.get(_WORKSPACE) else ()


@admin.register(Event)
class EventAdmin(LargeTableAdmin):
    list_display = (
        "external_request_id",
        "workspace",
        "occurred_at",
        "provider",
        "model",
        "endpoint_tag",
        "data_mode",
        "status",
        "tokens",
        "cost",
    )
    workspace_ordering = ("-occurred_at",)
    workspace_filters = (("occurred_at", admin.DateFieldListFilter), "data_mode", "environment", "status")
    workspace_search = ("=external_request_id",)
    search_help_text = "The whole externalRequestId."

    @admin.display(description="tokens in / out")
    def tokens(self, event: Event) -> str:
        inputs = event.uncached_input_tokens + event.cache_read_tokens + event.cache_write_tokens
        return f"{inputs:,} / {event.output_tokens:,}"

    @admin.display(description="cost (USD)", empty_value="unpriced")
    def cost(self, event: Event) -> str | None:
        return None if event.cost_usd is None else usd(event.cost_usd)


class _SumsAdmin(LargeTableAdmin):
    workspace_ordering = ("-bucket_start",)

    @admin.display(description="cost (USD)")
    def cost(self, sums: Rollup | Refusal) -> str:
        return usd(sums.cost_usd)


@admin.register(Rollup)
class RollupAdmin(_SumsAdmin):
    list_display = ("bucket_start", "workspace", "provider", "model", "endpoint_tag", "data_mode", "requests", "cost")
    workspace_filters = (("bucket_start", admin.DateFieldListFilter), "data_mode", "environment", "is_priced")


@admin.register(Refusal)
class RefusalAdmin(_SumsAdmin):
    list_display = ("bucket_start", "workspace", "reason", "requests", "cost")
    workspace_filters = (("bucket_start", admin.DateFieldListFilter), "reason")


@admin.register(Meter)
class MeterAdmin(LargeTableAdmin):
    list_display = ("workspace", "measure", "period", "period_start", "amount")
    workspace_ordering = ("-period_start", "period", "measure")
    workspace_filters = (("period_start", admin.DateFieldListFilter), "measure", "period")

    @admin.display(description="value")
    def amount(self, meter: Meter) -> str:
        return usd(meter.value)


@admin.register(Limit)
class LimitAdmin(FactsAdmin):
    list_display = ("name", "workspace", "measure", "period", "limit", "enforce", "source", "updated_at")
    list_filter = (WorkspaceFilter, "measure", "period", "enforce", "source")
    ordering = ("-updated_at",)

    @admin.display(description="amount", ordering="amount")
    def limit(self, limit: Limit) -> str:
        return usd(limit.amount)


@admin.register(LimitCrossing)
class LimitCrossingAdmin(FactsAdmin):
    list_display = ("limit", "workspace", "period_start", "threshold", "amount", "value", "crossed_at")
    list_filter = (("crossed_at", admin.DateFieldListFilter), "limit__measure", "limit__period")
    list_select_related = ("limit__workspace",)
    search_fields = ("limit__workspace__name", "limit__workspace__slug", "limit__workspace__id")
    search_help_text = "The workspace's name, slug or id."
    ordering = ("-crossed_at",)
    show_full_result_count = False

    @property
    def media(self) -> Media:
        return super(FactsAdmin, self).media

    @admin.display(description="workspace")
    def workspace(self, crossing: LimitCrossing) -> str:
        return str(crossing.limit.workspace)


class _PerWorkspaceAdmin(FactsAdmin):
    """One row a workspace."""

    search_fields = ("workspace__name", "workspace__slug", "workspace__id")
    search_help_text = "The workspace's name, slug or id."
    ordering: ClassVar[tuple[str, ...]] = ("workspace__name",)


@admin.register(WorkspacePolicy)
class WorkspacePolicyAdmin(_PerWorkspaceAdmin):
    """Changed elsewhere: the plan's part by Workspace plans, the budgets' part by Budget settings."""

    list_display = (
        "workspace",
        "plan_name",
        "requests_per_minute",
        "raw_retention_days",
        "rollup_retention_days",
        "observe_mode",
        "counted_data_modes",
    )
    list_filter = ("plan_name", "observe_mode")


@admin.register(LedgerCoverage)
class LedgerCoverageAdmin(_PerWorkspaceAdmin):
    list_display = ("workspace", "events_purged_before", "rollups_purged_before", "purged_at")


@admin.register(LedgerAudit)
class LedgerAuditAdmin(_PerWorkspaceAdmin):
    list_display = ("workspace", "is_exact", "checked_at", "events", "drift_usd", "drift_requests")
    list_filter = ("is_exact",)
    ordering = ("is_exact", "-checked_at")


def usd(amount: Decimal) -> str:
    """All digits that say something."""
    shown = f"{amount:,f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown
