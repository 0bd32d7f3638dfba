"""Re-pricings in the operators' console: whether they get done, and what they changed."""
# ruff: noqa: D101, D102 (as in every admin.py)

from typing import ClassVar

from django.contrib import admin

from ingest.admin_facts import FactsAdmin, usd
from ingest.models import Repricing, RepricingDay
from workspaces.admin_filters import WorkspaceFilter, WorkspaceFilterMixin


@admin.register(Repricing)
class RepricingAdmin(WorkspaceFilterMixin, FactsAdmin):
    """Asked for, confirmed and stopped by the workspace's own people."""

    list_display = (
        "id",
        "workspace",
        "state",
        "provider",
        "models_sent",
        "looked_at_rows",
        "changed_rows",
        "created_by",
        "created_at",
        "worked_at",
        "finished_at",
        "error",
    )
    list_filter = ("state", WorkspaceFilter, "only_unpriced")
    list_select_related = ("workspace", "created_by")
    search_fields = ("workspace__name", "workspace__slug", "created_by__email", "reason", "error")
    search_help_text = "Workspace, who asked for it, why, or the error."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)


@admin.register(RepricingDay)
class RepricingDayAdmin(FactsAdmin):
    list_display = ("repricing", "workspace", "day", "is_preview", "rows", "newly_priced", "before", "after")
    list_filter = ("is_preview",)
    list_select_related: ClassVar[tuple[str, ...]] = ("repricing__workspace",)
    search_fields = ("=repricing__id", "repricing__workspace__name", "repricing__workspace__slug")
    search_help_text = "The number of the re-pricing, or the workspace."
    date_hierarchy = "day"
    ordering = ("-repricing", "-day")
    show_full_result_count = False

    @admin.display(description="workspace")
    def workspace(self, day: RepricingDay) -> str:
        return str(day.repricing.workspace)

    @admin.display(description="before (USD)", ordering="before_usd")
    def before(self, day: RepricingDay) -> str:
        return usd(day.before_usd)

    @admin.display(description="after (USD)", ordering="after_usd")
    def after(self, day: RepricingDay) -> str:
        return usd(day.after_usd)
