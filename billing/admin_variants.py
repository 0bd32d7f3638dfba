"""What the provider sells as which plan, in the operators' console."""
# ruff: noqa: D102 (as in every admin.py)

from typing import Any

from django.contrib import admin
from django.db.models import Exists, Model, OuterRef, QuerySet
from django.http import HttpRequest

from billing.forms import VariantForm
from billing.models import PlanVariant, Subscription
from billing.variants import delete_variant, is_used, map_variant
from workspaces.admin_base import ServiceAdminMixin, become, operator_of


@admin.register(PlanVariant)
class PlanVariantAdmin(ServiceAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """The variants of the provider's dashboard, each with its plan and interval."""

    form = VariantForm
    list_display = ("variant_id", "plan", "interval", "is_offered", "price_text", "is_used", "provider")
    list_filter = ("is_offered", "plan", "interval")
    list_select_related = ("plan",)
    search_fields = ("=variant_id", "plan__name", "price_text")
    search_help_text = "The variant's whole id, the plan's name, or the price as shown."
    ordering = ("plan__rank", "interval")
    actions = None
    fieldsets = (
        (
            None,
            {
                "fields": ("variant_id", "plan", "interval", "is_offered", "price_text"),
                "description": (
                    "A variant that somebody is subscribed to stays here, offered or not: without it nobody knows "
                    "their plan. After adding one, process the parked messages about it again."
                ),
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[PlanVariant]:
        users = Subscription.objects.filter(provider=OuterRef("provider"), variant_id=OuterRef("variant_id"))
        variants: QuerySet[PlanVariant] = super().get_queryset(request).annotate(used=Exists(users))
        return variants

    @admin.display(description="subscribed to", boolean=True, ordering="used")
    def is_used(self, variant: Any) -> bool:
        return bool(variant.used)

    def get_readonly_fields(self, request: HttpRequest, obj: PlanVariant | None = None) -> Any:
        return ("variant_id",) if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        may_delete = operator_of(request).has_perm("billing.delete_planvariant")
        return may_delete and not (isinstance(obj, PlanVariant) and is_used(obj))

    def save_model(self, request: HttpRequest, obj: PlanVariant, form: Any, change: bool) -> None:
        stored = map_variant(
            plan_tier=obj.plan_id,
            interval=obj.interval,
            variant_id=obj.variant_id,
            price_text=obj.price_text,
            is_offered=obj.is_offered,
            acting_user=operator_of(request),
        )
        become(obj, stored)

    def delete_model(self, request: HttpRequest, obj: PlanVariant) -> None:
        delete_variant(obj, acting_user=operator_of(request))
