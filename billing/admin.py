"""Plans and who is on them in the operators' console."""

from dataclasses import fields
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest

from billing import admin_events, admin_subscriptions, admin_variants, services
from billing.forms import OpenWorkspaceForm, PlanForm, WorkspacePlanForm
from billing.models import Plan, WorkspacePlan
from billing.plans import EffectiveNumbers, Overrides, effective_numbers, overrides_of
from opsmeter_site.lib.clock import utc_now
from workspaces.admin_base import ServiceAdminMixin, become, operator_of
from workspaces.models import User

__all__ = ["admin_events", "admin_subscriptions", "admin_variants"]


@admin.register(Plan)
class PlanAdmin(ServiceAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    form = PlanForm
    list_display = (
        "name",
        "tier",
        "monthly_requests",
        "requests_per_minute",
        "raw_retention_days",
        "rollup_retention_days",
        "members",
        "workspace_count",
    )
    list_filter = (
        "has_summaries",
        "has_immediate_alerts",
        "has_integrations",
        "has_executive_report",
        "has_price_overrides",
    )
    search_fields = ("name", "tier")
    search_help_text = "Name or tier."
    ordering = ("rank",)
    readonly_fields = ("tier", "rank")
    fieldsets = (
        (
            None,
            {
                "fields": ("name", "tier", "rank"),
                "description": "Saving pushes the numbers to every workspace on the plan, at once.",
            },
        ),
        (
            "Numbers",
            {
                "fields": (
                    "monthly_requests",
                    "requests_per_minute",
                    "raw_retention_days",
                    "rollup_retention_days",
                    "members",
                ),
                "description": "A workspace can carry its own number in place of each (Workspace plans).",
            },
        ),
        (
            "Included",
            {
                "fields": (
                    "has_summaries",
                    "has_immediate_alerts",
                    "has_integrations",
                    "has_executive_report",
                    "has_price_overrides",
                )
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plan]:
        plans: QuerySet[Plan] = super().get_queryset(request).annotate(number=Count("workspaces"))
        return plans

    @admin.display(description="workspaces", ordering="number")
    def workspace_count(self, plan: Any) -> int:
        return int(plan.number)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Plan, form: Any, change: bool) -> None:
        become(obj, services.update_plan(obj, acting_user=operator_of(request), **form.cleaned_data))


def _number(number: int | None) -> str:
    return "no limit" if number is None else f"{number:,}"


class OwnNumbersFilter(admin.SimpleListFilter):
    """Workspaces whose contract replaces a number of the plan."""

    title = "own numbers"
    parameter_name = "own"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Has own numbers"), ("no", "Only the plan's")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        plain = Q(**{f"{item.name}_override": None for item in fields(Overrides)})
        match self.value():
            case "yes":
                return queryset.exclude(plain)
            case "no":
                return queryset.filter(plain)
        return queryset


@admin.register(WorkspacePlan)
class WorkspacePlanAdmin(ServiceAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        "workspace",
        "plan",
        "granted",
        "effective_monthly_requests",
        "effective_requests_per_minute",
        "kept_until",
        "updated_at",
    )
    list_filter = ("plan", "granted", OwnNumbersFilter, ("kept_until", admin.EmptyFieldListFilter))
    list_select_related = ("workspace", "plan", "granted")
    search_fields = ("workspace__name", "workspace__slug", "workspace__id")
    search_help_text = "The workspace's name, slug or id."
    date_hierarchy = "updated_at"
    ordering = ("-updated_at",)

    def get_form(
        self, request: HttpRequest, obj: WorkspacePlan | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        kwargs["form"] = WorkspacePlanForm if change else OpenWorkspaceForm
        return super().get_form(request, obj, change=change, **kwargs)

    def get_readonly_fields(self, request: HttpRequest, obj: WorkspacePlan | None = None) -> Any:
        return ("workspace", "applies", "effective", "kept", "updated_at") if obj else ()

    def get_fieldsets(self, request: HttpRequest, obj: WorkspacePlan | None = None) -> Any:
        numbers = ("monthly_requests_override", "requests_per_minute_override")
        if obj is None:
            about = "Opens a workspace. Its first API key and access token are shown once, after saving."
            return ((None, {"fields": ("name", "owner_email", "timezone", "granted", *numbers), "description": about}),)
        days = ("raw_retention_days_override", "rollup_retention_days_override", "members_override")
        return (
            (None, {"fields": ("workspace", "granted", "applies", "effective", "kept", "updated_at")}),
            (
                "Instead of the plan's numbers",
                {
                    "fields": (*numbers, *days),
                    "description": "Empty: the plan's number applies. 0 requests refuse all.",
                },
            ),
        )

    @admin.display(description="requests a month")
    def effective_monthly_requests(self, holding: WorkspacePlan) -> str:
        return _number(_effective(holding).monthly_requests)

    @admin.display(description="requests a minute")
    def effective_requests_per_minute(self, holding: WorkspacePlan) -> str:
        return _number(_effective(holding).requests_per_minute)

    @admin.display(description="what applies")
    def applies(self, holding: WorkspacePlan) -> str:
        return f"{holding.plan}: {_reason(holding)}"

    @admin.display(description="kept for now")
    def kept(self, holding: WorkspacePlan) -> str:
        if holding.kept_until is None:
            return "–"
        return (
            f"Until {holding.kept_until:%Y-%m-%d %H:%M} UTC: raw rows {holding.kept_raw_days} days, "
            f"sums {holding.kept_rollup_days} days"
        )

    @admin.display(description="its numbers")
    def effective(self, holding: WorkspacePlan) -> str:
        numbers = _effective(holding)
        return (
            f"{_number(numbers.monthly_requests)} requests a month, {_number(numbers.requests_per_minute)} a minute; "
            f"raw rows {numbers.raw_retention_days} days, sums {numbers.rollup_retention_days} days; "
            f"members: {_number(numbers.members)}"
        )

    def save_model(self, request: HttpRequest, obj: WorkspacePlan, form: Any, change: bool) -> None:
        operator, data = operator_of(request), form.cleaned_data
        if change:
            holding = services.change_workspace_plan(
                obj.workspace, plan_tier=data["granted"].tier, overrides=overrides_of(obj), acting_user=operator
            )
        else:
            holding = self._open(request, operator, data)
        become(obj, holding)

    def _open(self, request: HttpRequest, operator: User, data: dict[str, Any]) -> WorkspacePlan:
        opened = services.open_workspace(
            name=data["name"],
            plan_tier=data["granted"].tier,
            owner_email=data["owner_email"],
            timezone=data["timezone"],
            monthly_requests=data["monthly_requests_override"],
            requests_per_minute=data["requests_per_minute_override"],
            acting_user=operator,
        )
        secrets = [f"API key {opened.api_key_plain}", f"access token {opened.access_token_plain}"]
        if opened.owner_password is not None:
            secrets.append(f"password of {opened.owner.email}: {opened.owner_password}")
        messages.success(request, f"Copy these now, they are not shown again: {'; '.join(secrets)}")
        return WorkspacePlan.objects.select_related("workspace", "plan", "granted").get(pk=opened.workspace.pk)


def _effective(holding: WorkspacePlan) -> EffectiveNumbers:
    return effective_numbers(holding.plan, overrides_of(holding))


def _reason(holding: WorkspacePlan) -> str:
    """Why the plan applies: what an operator granted, or the subscription that gives more."""
    if holding.plan_id == holding.granted_id:
        return "granted by an operator, or what everybody starts with"
    now = utc_now()
    for paid in holding.workspace.subscriptions.filter(plan=holding.plan_id):
        if paid.gives_access(now):
            return f"by subscription {paid.provider_subscription_id} ({paid.get_status_display().lower()})"
    return "by a subscription that has just ended"
