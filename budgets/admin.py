"""Budgets in the operators' console."""

from decimal import Decimal
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest

from budgets.forms import VALUE_FIELDS, BudgetSettingsForm
from budgets.models import Budget, BudgetSettings
from budgets.services import update_budget_settings
from workspaces.admin_base import ReadOnlyMixin, ServiceAdminMixin, become, operator_of


@admin.register(BudgetSettings)
class BudgetSettingsAdmin(ServiceAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    form = BudgetSettingsForm
    list_display = ("workspace", "limits", "warning_threshold_ratio", "enforcement", "is_observed", "updated_at")
    list_filter = ("enforcement", "workspace__policy__observe_mode")
    list_select_related = ("workspace__policy",)
    search_fields = ("workspace__name", "workspace__slug", "workspace__id")
    search_help_text = "The workspace's name, slug or id."
    date_hierarchy = "updated_at"
    ordering = ("-updated_at",)
    autocomplete_fields = ("workspace",)
    fieldsets = (
        (
            None,
            {
                "fields": ("workspace",),
                "description": (
                    "Owners and admins set these themselves. Budgets concern telemetry only: "
                    "calls to providers never pass through Opsmeter."
                ),
            },
        ),
        (
            "Limits",
            {
                "fields": ("daily_limit_usd", "monthly_limit_usd", "counted_data_modes"),
                "description": "Empty: no limit. Days and months are UTC.",
            },
        ),
        ("Behaviour", {"fields": ("warning_threshold_ratio", "enforcement", "observe_mode")}),
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("workspace__budgets")

    def get_readonly_fields(self, request: HttpRequest, obj: BudgetSettings | None = None) -> Any:
        return ("workspace",) if obj else ()

    @admin.display(description="limits")
    def limits(self, settings: BudgetSettings) -> str:
        budgets = sorted(settings.workspace.budgets.all(), key=lambda budget: budget.period)
        return ", ".join(_shown(budget) for budget in budgets) or "none"

    @admin.display(description="observe mode", boolean=True)
    def is_observed(self, settings: BudgetSettings) -> bool:
        return settings.workspace.policy.observe_mode

    def save_model(self, request: HttpRequest, obj: BudgetSettings, form: Any, change: bool) -> None:
        changes = {name: form.cleaned_data[name] for name in VALUE_FIELDS}
        update_budget_settings(obj.workspace, acting_user=operator_of(request), **changes)
        stored = BudgetSettings.objects.filter(pk=obj.workspace_id).first()
        if stored is None:
            messages.info(request, "These are the defaults, which hold without being stored.")
        else:
            become(obj, stored)


@admin.register(Budget)
class BudgetAdmin(ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """Only to look: limits are changed on the page of the workspace's budget settings."""

    list_display = ("workspace", "name", "amount", "created_at")
    list_filter = ("period",)
    list_select_related = ("workspace",)
    search_fields = ("workspace__name", "workspace__slug", "workspace__id")
    search_help_text = "The workspace's name, slug or id."
    date_hierarchy = "created_at"
    ordering = ("workspace__name", "period")

    @admin.display(description="limit (USD)", ordering="limit_usd")
    def amount(self, budget: Budget) -> str:
        return _usd(budget.limit_usd)


def _shown(budget: Budget) -> str:
    return f"{_usd(budget.limit_usd)} USD a {budget.period}"


def _usd(amount: Decimal) -> str:
    """All digits that say something, and at least cents."""
    shown = f"{amount:,f}".rstrip("0")
    whole, _, decimals = shown.partition(".")
    return f"{whole}.{decimals:0<2}"
