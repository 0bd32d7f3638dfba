"""What limits count besides events, in the operators' console: scopes, adjustments, and spend about to happen."""
# ruff: noqa: D101, D102 (as in every admin.py)

from typing import ClassVar

from django.contrib import admin

from ingest.admin_facts import FactsAdmin, LargeTableAdmin, usd
from ingest.models import Hold, Lease, LimitAdjustment, MeteredScope
from workspaces.admin_filters import WorkspaceFilter, WorkspaceFilterMixin


@admin.register(Lease)
class LeaseAdmin(LargeTableAdmin):
    """Estimates that clients hold before a call."""

    list_display = ("external_request_id", "expires_at", "model", "amount", "unpriced_tokens", "outcome", "closed_at")
    newest_first = "expires_at"
    workspace_filters = (("expires_at", admin.DateFieldListFilter), "outcome", "data_mode", "environment")
    workspace_search = ("=external_request_id",)
    search_help_text = "The whole externalRequestId."

    @admin.display(description="estimate (USD)")
    def amount(self, lease: Lease) -> str:
        return usd(lease.usd)


@admin.register(Hold)
class HoldAdmin(LargeTableAdmin):
    """Sums of live leases; rows whose second is over hold nothing any more."""

    list_display = ("expires_at", "scope_kind", "scope_value", "amount", "unpriced_tokens")
    newest_first = "expires_at"
    workspace_filters = (("expires_at", admin.DateFieldListFilter), "scope_kind")
    workspace_search = ("=scope_value",)
    search_help_text = "The whole value of the scope."

    @admin.display(description="held (USD)")
    def amount(self, hold: Hold) -> str:
        return usd(hold.usd)


@admin.register(MeteredScope)
class MeteredScopeAdmin(WorkspaceFilterMixin, FactsAdmin):
    list_display = ("workspace", "kind", "value", "is_each_value", "counts_from")
    list_filter = (WorkspaceFilter, "kind", "is_each_value", ("counts_from", admin.EmptyFieldListFilter))
    search_fields = ("workspace__name", "workspace__slug", "value")
    search_help_text = "Workspace, or the value of the scope."
    ordering = ("workspace", "kind", "value")


@admin.register(LimitAdjustment)
class LimitAdjustmentAdmin(FactsAdmin):
    """Audited corrections of what one limit counts in one period."""

    list_display = ("limit", "workspace", "period_start", "scope_value", "amount", "reason", "created_by", "created_at")
    list_filter = ("limit__period",)
    list_select_related: ClassVar[tuple[str, ...]] = ("limit__workspace", "created_by")
    search_fields = ("limit__workspace__name", "limit__workspace__slug", "limit__name", "reason")
    search_help_text = "Workspace, limit, or the reason."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)

    @admin.display(description="workspace")
    def workspace(self, adjustment: LimitAdjustment) -> str:
        return str(adjustment.limit.workspace)

    @admin.display(description="USD", ordering="usd")
    def amount(self, adjustment: LimitAdjustment) -> str:
        return usd(adjustment.usd)
