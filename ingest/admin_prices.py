"""The price catalogue in the operators' console: prices are added and decided on, never changed."""
# ruff: noqa: D101, D102 (as in every admin.py)

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from ingest import catalog
from ingest.forms import KEY_FIELDS, ModelAliasForm, ModelPriceForm, messages_of
from ingest.models import CatalogVersion, ModelAlias, ModelPrice
from ingest.models.prices import UNIT_PRICE_FIELDS, PriceState
from opsmeter_site.lib.errors import InvalidInput
from workspaces.admin_base import ReadOnlyMixin, ServiceAdminMixin, ask_first, become, operator_of


class WhoseFilter(admin.SimpleListFilter):
    """The catalogue's prices, or those that one workspace has of its own."""

    title = "whose"
    parameter_name = "whose"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("catalogue", "The catalogue's"), ("own", "A workspace's own")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ModelPrice]) -> QuerySet[ModelPrice]:
        return queryset.filter(workspace__isnull=self.value() == "catalogue") if self.value() else queryset


@admin.register(ModelPrice)
class ModelPriceAdmin(ServiceAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    form = ModelPriceForm
    list_display = (
        "provider",
        "model",
        "service_tier",
        "context_above",
        "effective_from",
        "input_usd_per_1m",
        "output_usd_per_1m",
        "replaces",
        "state",
        "source",
        "workspace",
    )
    list_display_links = ("model",)
    list_filter = (
        "state",
        WhoseFilter,
        "service_tier",
        "is_withdrawn",
        "provider",
    )
    list_select_related = ("workspace",)
    search_fields = ("model", "provider", "workspace__name")
    search_help_text = "Model, provider, or the workspace whose own price it is."
    date_hierarchy = "effective_from"
    ordering = ("provider", "model", "service_tier", "context_above", "-effective_from", "-revision")
    autocomplete_fields = ("workspace",)
    actions = ("approve", "reject")
    fieldsets = (
        (
            None,
            {
                "fields": ("workspace", "provider", "model", *KEY_FIELDS),
                "description": (
                    "A price is added, never changed: the newest of the same key holds from its date on. "
                    "Events keep the cost that they were stored with."
                ),
            },
        ),
        ("Prices", {"fields": (*UNIT_PRICE_FIELDS, "is_withdrawn", "source_url", "is_meant")}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: ModelPrice | None = None) -> Any:
        if obj is None:
            return super().get_fieldsets(request, obj)
        return ((None, {"fields": [field.name for field in ModelPrice._meta.fields]}),)

    def has_change_permission(self, request: HttpRequest, obj: ModelPrice | None = None) -> bool:
        return False

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return operator_of(request).has_perm("ingest.change_modelprice")

    @admin.display(description="in force now (in / out)")
    def replaces(self, price: ModelPrice) -> str:
        """Only for what waits: each look-up costs a little, and only there it is asked."""
        if price.state != PriceState.PENDING:
            return ""
        current = catalog.price_in_force(price)
        return "none" if current is None else f"{current.unit_prices.input} / {current.unit_prices.output}"

    def save_model(self, request: HttpRequest, obj: ModelPrice, form: ModelPriceForm, change: bool) -> None:
        data = form.cleaned_data
        try:
            stored = catalog.add_price(
                acting_user=operator_of(request),
                workspace=data["workspace"],
                provider=data["provider"],
                model=data["model"],
                **{name: data[name] for name in KEY_FIELDS},
                unit_prices=form.unit_prices(),
                is_withdrawn=data["is_withdrawn"],
                source_url=data["source_url"],
            )
        except ValidationError as error:
            raise InvalidInput(messages_of(error)) from error
        become(obj, stored)

    @admin.action(description="Approve: let the price take part in pricing", permissions=["decide"])
    def approve(self, request: HttpRequest, queryset: QuerySet[ModelPrice]) -> HttpResponse | None:
        consequence = (
            "From now on events are priced by these, and by whatever waits for the same model and date. "
            "Stored events keep their cost."
        )
        if question := ask_first(self, request, queryset, "Approve these prices?", consequence, "Approve"):
            return question
        self._decide(request, queryset, catalog.approve_price, "Approved")
        return None

    @admin.action(description="Reject: imports will not offer the price again", permissions=["decide"])
    def reject(self, request: HttpRequest, queryset: QuerySet[ModelPrice]) -> HttpResponse | None:
        consequence = "The prices in force stay in force, and imports will not offer these again."
        if question := ask_first(self, request, queryset, "Reject these prices?", consequence, "Reject"):
            return question
        self._decide(request, queryset, catalog.reject_price, "Rejected")
        return None

    def _decide(self, request: HttpRequest, queryset: QuerySet[ModelPrice], decide: Any, done: str) -> None:
        """Decide on each; what waits for the same model and date is decided with it, and not asked about again."""
        decided: set[int] = set()
        for price in queryset.order_by("pk"):
            if price.pk in decided:
                continue
            try:
                decided |= {row.pk for row in decide(price, acting_user=operator_of(request))}
            except ValidationError as error:
                messages.error(request, f"{price}: {messages_of(error)}")
        if decided:
            messages.success(request, f"{done}: {len(decided)} prices.")


@admin.register(ModelAlias)
class ModelAliasAdmin(ServiceAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    form = ModelAliasForm
    list_display = ("provider", "alias", "model", "source", "created_at")
    list_display_links = ("alias",)
    list_filter = ("source", "provider")
    search_fields = ("alias", "model", "provider")
    search_help_text = "Alias, model or provider."
    date_hierarchy = "created_at"
    ordering = ("provider", "alias")

    def get_readonly_fields(self, request: HttpRequest, obj: ModelAlias | None = None) -> Any:
        return ("provider", "alias") if obj else ()

    def save_model(self, request: HttpRequest, obj: ModelAlias, form: ModelAliasForm, change: bool) -> None:
        try:
            stored = catalog.set_alias(
                acting_user=operator_of(request),
                provider=obj.provider,
                alias=obj.alias,
                model=form.cleaned_data["model"],
            )
        except ValidationError as error:
            raise InvalidInput(messages_of(error)) from error
        become(obj, stored)


@admin.register(CatalogVersion)
class CatalogVersionAdmin(ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """The one row by which every process notices a change of the catalogue."""

    list_display = ("version", "changed_at", "imported_at", "source")
