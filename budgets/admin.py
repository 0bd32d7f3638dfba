"""Budgets in the operators' console."""

from decimal import Decimal
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from budgets.forms import VALUE_FIELDS, BudgetSettingsForm
from budgets.models import Budget, BudgetSettings
from budgets.services import update_budget_settings
from ingest.scope_words import scope_in_words
from opsmeter_site.lib.clock import utc_now
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
        budgets = list(settings.workspace.budgets.all())
        whole = sorted((each for each in budgets if each.is_of_workspace), key=lambda budget: budget.period)
        shown = ", ".join(_shown(budget) for budget in whole) or "none"
        return shown if len(whole) == len(budgets) else f"{shown}; {len(budgets) - len(whole):,} on scopes"

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


class RaisedFilter(admin.SimpleListFilter):
    """Whether another amount holds for a while."""

    title = "raised now"
    parameter_name = "raised"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Yes")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(raised_until__gt=utc_now()) if self.value() == "yes" else queryset


@admin.register(Budget)
class BudgetAdmin(ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """Only to look: limits are changed on the pages of the workspace's budgets."""

    list_display = (
        "workspace",
        "name",
        "scope",
        "period",
        "amount",
        "stop",
        "thresholds_shown",
        "raised",
        "created_at",
    )
    list_filter = ("period", "scope_kind", "is_each_value", "enforcement", "unpriced", RaisedFilter)
    list_select_related = ("workspace__budget_settings",)
    search_fields = ("workspace__name", "workspace__slug", "workspace__id", "id", "name", "scope_value")
    search_help_text = "The workspace's name, slug or id, or the budget's name, id or value."
    date_hierarchy = "created_at"
    ordering = ("workspace__name", "scope_kind", "scope_value", "period")

    @admin.display(description="scope", ordering="scope_kind")
    def scope(self, budget: Budget) -> str:
        return scope_in_words(budget, {})

    @admin.display(description="stop")
    def stop(self, budget: Budget) -> str:
        return budget.workspace.budget_settings.enforcement if budget.is_of_workspace else budget.enforcement

    @admin.display(description="told at")
    def thresholds_shown(self, budget: Budget) -> str:
        if budget.is_of_workspace:
            return _percent(budget.workspace.budget_settings.warning_threshold_ratio)
        shares = [_percent(share) for share in budget.thresholds]
        return ", ".join([*shares, *(f"{_usd(amount)} USD" for amount in budget.thresholds_usd)]) or "over it only"

    @admin.display(description="raised to (USD)", ordering="raised_until")
    def raised(self, budget: Budget) -> str:
        if budget.raised_limit_usd is None or budget.raised_until is None:
            return "–"
        return f"{_usd(budget.raised_limit_usd)} until {budget.raised_until:%Y-%m-%d %H:%M}"

    @admin.display(description="limit (USD)", ordering="limit_usd")
    def amount(self, budget: Budget) -> str:
        return _usd(budget.limit_usd)


def _shown(budget: Budget) -> str:
    return f"{_usd(budget.limit_usd)} USD a {budget.period}"


def _percent(share: Decimal) -> str:
    return f"{(share * 100).normalize():f}%"


def _usd(amount: Decimal) -> str:
    """All digits that say something, and at least cents."""
    shown = f"{amount:,f}".rstrip("0")
    whole, _, decimals = shown.partition(".")
    return f"{whole}.{decimals:0<2}"
