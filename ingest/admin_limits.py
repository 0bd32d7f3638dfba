"""Limits, policies and the ledger's upkeep in the operators' console."""
# ruff: noqa: D101, D102 (as in every admin.py)

from typing import Any

import structlog
from django.contrib import admin, messages
from django.db import Error
from django.db.models import QuerySet
from django.http import HttpRequest

from ingest.admin_facts import FactsAdmin, PerWorkspaceAdmin, usd
from ingest.audit import audit_workspace
from ingest.models import LedgerAudit, LedgerCoverage, Limit, LimitCrossing, WorkspacePolicy
from ingest.standings import HAS_DRIFT, NEAR, OVER, audit_is_late, purge_is_late, summaries_are_late, with_standing
from opsmeter_site.lib.clock import utc_now
from workspaces.admin_base import operator_of
from workspaces.admin_filters import WorkspaceFilter, WorkspaceFilterMixin

logger = structlog.get_logger(__name__)


class StandingFilter(admin.SimpleListFilter):
    """Where the limit stands in the running period."""

    title = "stands now"
    parameter_name = "standing"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(NEAR, "Near"), (OVER, "Reached or exceeded")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(standing=self.value()) if self.value() in {NEAR, OVER} else queryset


@admin.register(Limit)
class LimitAdmin(WorkspaceFilterMixin, FactsAdmin):
    """Set by the plan (Workspace plans) or by budgets (Budget settings), and changed there."""

    list_display = (
        "name",
        "workspace",
        "measure",
        "scope",
        "period",
        "limit",
        "used",
        "standing",
        "enforce",
        "updated_at",
    )
    list_filter = (StandingFilter, WorkspaceFilter, "measure", "period", "scope_kind", "enforce", "source")
    search_fields = ("workspace__name", "workspace__slug", "workspace__id", "name", "scope_value", "source_id")
    search_help_text = "The workspace's name, slug or id, or the limit's name, value or the id of its budget."
    date_hierarchy = "updated_at"
    ordering = ("-updated_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Limit]:
        return with_standing(super().get_queryset(request), utc_now())

    @admin.display(description="scope", ordering="scope_kind")
    def scope(self, limit: Limit) -> str:
        if not limit.scope_kind:
            return "whole workspace"
        return f"{limit.get_scope_kind_display()} {limit.scope_value or '(each)'}"

    @admin.display(description="amount in force", ordering="amount")
    def limit(self, limit: Limit) -> str:
        return usd(limit.amount_at(utc_now()))

    @admin.display(description="used now", ordering="used")
    def used(self, limit: Any) -> str:
        return usd(limit.used)

    @admin.display(description="stands", ordering="standing")
    def standing(self, limit: Any) -> str:
        return str(limit.standing)


@admin.register(LimitCrossing)
class LimitCrossingAdmin(FactsAdmin):
    list_display = (
        "limit",
        "workspace",
        "whose",
        "period_start",
        "threshold",
        "threshold_usd",
        "amount",
        "value",
        "crossed_at",
        "claimed_at",
    )
    list_filter = ("limit__measure", "limit__period", "threshold", ("claimed_at", admin.EmptyFieldListFilter))
    list_select_related = ("limit__workspace",)
    search_fields = ("limit__workspace__name", "limit__workspace__slug", "limit__workspace__id")
    search_help_text = "The workspace's name, slug or id."
    date_hierarchy = "crossed_at"
    ordering = ("-crossed_at",)
    show_full_result_count = False

    @admin.display(description="value of the scope")
    def whose(self, crossing: LimitCrossing) -> str:
        return crossing.scope_value or crossing.limit.scope_value or "–"

    @admin.display(description="workspace")
    def workspace(self, crossing: LimitCrossing) -> str:
        return str(crossing.limit.workspace)


class LedgerFilter(admin.SimpleListFilter):
    """What the last audit of the workspace found, or that it is late."""

    title = "ledger audit"
    parameter_name = "ledger"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("drift", "Found a drift"), ("late", "Late")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "drift":
                return queryset.filter(HAS_DRIFT)
            case "late":
                return queryset.filter(audit_is_late(utc_now()))
        return queryset


class RetentionFilter(admin.SimpleListFilter):
    """Whether expired rows are removed in time."""

    title = "retention"
    parameter_name = "retention"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("late", "Late")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(purge_is_late(utc_now())) if self.value() == "late" else queryset


class SummariesFilter(admin.SimpleListFilter):
    """Whether the sums behind reports are made in time."""

    title = "summaries"
    parameter_name = "summaries"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("late", "Late")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(summaries_are_late(utc_now())) if self.value() == "late" else queryset


@admin.register(WorkspacePolicy)
class WorkspacePolicyAdmin(PerWorkspaceAdmin):
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
    list_filter = ("plan_name", "observe_mode", LedgerFilter, RetentionFilter, SummariesFilter)


@admin.register(LedgerCoverage)
class LedgerCoverageAdmin(PerWorkspaceAdmin):
    list_display = ("workspace", "events_purged_before", "rollups_purged_before", "purged_at")
    date_hierarchy = "purged_at"


@admin.register(LedgerAudit)
class LedgerAuditAdmin(PerWorkspaceAdmin):
    list_display = ("workspace", "is_exact", "checked_at", "events", "drift_usd", "drift_requests")
    list_filter = ("is_exact",)
    date_hierarchy = "checked_at"
    ordering = ("is_exact", "-checked_at")
    actions = ("audit_again",)

    def has_audit_permission(self, request: HttpRequest) -> bool:
        return operator_of(request).has_perm("ingest.change_ledgeraudit")

    @admin.action(description="Audit again: compare the selected ledgers now", permissions=["audit"])
    def audit_again(self, request: HttpRequest, audits: QuerySet[LedgerAudit]) -> None:
        for audit in audits.select_related("workspace"):
            try:
                report = audit_workspace(audit.workspace_id, utc_now())
            except Error:
                logger.exception("audit_failed", workspace_id=str(audit.workspace_id))
                messages.error(request, f"{audit.workspace}: the audit could not be finished; the log says why.")
            else:
                say = messages.success if report.is_exact else messages.error
                found = "exact" if report.is_exact else "DRIFT"
                say(request, f"{audit.workspace}: {found}, {report.events:,} raw rows compared.")
