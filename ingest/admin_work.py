"""Work that people have asked for and workers do, in the operators' console."""
# ruff: noqa: D101, D102 (as in every admin.py)

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from ingest.admin_facts import FactsAdmin
from ingest.exports import retry_export
from ingest.models import ExportJob, ExportState, RowDeletion
from workspaces.admin_base import operator_of
from workspaces.admin_filters import WorkspaceFilter, WorkspaceFilterMixin


@admin.register(ExportJob)
class ExportJobAdmin(WorkspaceFilterMixin, FactsAdmin):
    """What an export holds is for its workspace only: here is whether it got done."""

    list_display = ("workspace", "what", "format", "state", "rows", "created_by", "created_at", "finished_at", "error")
    list_filter = ("state", WorkspaceFilter, "what", "format", "is_truncated")
    list_select_related = ("workspace", "created_by")
    search_fields = ("workspace__name", "workspace__slug", "created_by__email", "error")
    search_help_text = "Workspace, who asked for it, or the error."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    actions = ("retry",)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return operator_of(request).has_perm("ingest.change_exportjob")

    @admin.action(description="Try again: begin the selected failed exports anew", permissions=["retry"])
    def retry(self, request: HttpRequest, jobs: QuerySet[ExportJob]) -> None:
        failed = jobs.filter(state=ExportState.FAILED).select_related("workspace")
        for job in (begun := list(failed)):
            retry_export(job, acting_user=operator_of(request))
        messages.success(request, f"Begun anew: {len(begun)} exports.")


class FinishedFilter(admin.SimpleListFilter):
    """Whether the work is done."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("waiting", "Waiting or under way"), ("done", "Done")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "waiting":
                return queryset.filter(finished_at=None)
            case "done":
                return queryset.exclude(finished_at=None)
        return queryset


@admin.register(RowDeletion)
class RowDeletionAdmin(WorkspaceFilterMixin, FactsAdmin):
    list_display = ("workspace", "data_mode", "only_own", "asked_by", "asked_at", "finished_at", "deleted")
    list_filter = (FinishedFilter, WorkspaceFilter, "data_mode", "only_own")
    list_select_related = ("workspace", "asked_by")
    search_fields = ("workspace__name", "workspace__slug", "asked_by__email")
    search_help_text = "Workspace, or who asked for it."
    date_hierarchy = "asked_at"
    ordering = ("-asked_at",)
