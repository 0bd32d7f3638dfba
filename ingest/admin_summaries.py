"""The sums behind reports in the operators' console: which times are summed, and what the sums are."""
# ruff: noqa: D101 (as in every admin.py)

from django.contrib import admin

from ingest.admin_facts import LargeTableAdmin, PerWorkspaceAdmin, usd
from ingest.models import AttributionSummary, LatencySummary, SummaryProgress, SummarySpan, UsageSummary


@admin.register(SummarySpan)
class SummarySpanAdmin(LargeTableAdmin):
    """A span that is stale or not built is not used: reports read raw rows in its place."""

    list_display = ("starts_at", "ends_at", "level", "is_stale", "built_at", "id")
    newest_first = "starts_at"
    workspace_filters = (("starts_at", admin.DateFieldListFilter), "level", "is_stale")


@admin.register(SummaryProgress)
class SummaryProgressAdmin(PerWorkspaceAdmin):
    list_display = ("workspace", "zone", "scanned_until", "looked_at")
    date_hierarchy = "looked_at"


class _OfSpansAdmin(LargeTableAdmin):
    newest_first = "span_id"
    workspace_search = ("=span_id",)
    search_help_text = "The id of a summary span."

    @admin.display(description="cost (USD)")
    def cost(self, summary: UsageSummary | AttributionSummary) -> str:
        return usd(summary.cost_usd)


@admin.register(UsageSummary)
class UsageSummaryAdmin(_OfSpansAdmin):
    list_display = ("span_id", "provider", "model", "endpoint_tag", "prompt_version", "data_mode", "requests", "cost")
    workspace_filters = ("data_mode", "environment")


@admin.register(AttributionSummary)
class AttributionSummaryAdmin(_OfSpansAdmin):
    list_display = ("span_id", "kind", "value", "data_mode", "requests", "cost")
    workspace_filters = ("kind", "data_mode", "environment")


@admin.register(LatencySummary)
class LatencySummaryAdmin(_OfSpansAdmin):
    list_display = ("span_id", "endpoint_tag", "prompt_version", "environment", "data_mode")
    workspace_filters = ("data_mode", "environment")
