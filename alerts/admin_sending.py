"""What is sent, in the operators' console: channels, messages, schedules and summaries."""
# ruff: noqa: D101, D102 (as in every admin.py)

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from alerts import delivery_services, operator_services
from alerts.lateness import delivery_is_late, schedule_is_late
from alerts.models import Attempt, Channel, Delivery, Report, ReportState, Schedule
from alerts.report_runs import retry_report
from ingest.admin_facts import CappedPaginator, FactsAdmin
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import OpsmeterError
from workspaces.admin_base import ReadOnlyMixin, ask_first, operator_of
from workspaces.admin_filters import WorkspaceFilter, WorkspaceFilterMixin


@admin.register(Channel)
class ChannelAdmin(WorkspaceFilterMixin, FactsAdmin):
    """Where a workspace's messages go. What is secret about it is shown to nobody."""

    list_display = ("name", "workspace", "kind", "hint", "state", "last_sent_at", "failed_at", "failure")
    list_filter = ("state", "kind", WorkspaceFilter, "takes_alerts", "takes_summaries")
    search_fields = ("name", "workspace__name", "workspace__slug", "workspace__id")
    search_help_text = "The channel's name, or the workspace's name, slug or id."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    fields = (
        ("name", "workspace", "kind"),
        "hint",
        ("takes_alerts", "takes_summaries", "minimum_severity"),
        ("state", "failed_at", "failure"),
        "last_sent_at",
        ("created_by", "created_at"),
    )


class OverdueFilter(admin.SimpleListFilter):
    """Messages that should have been on their way for a while."""

    title = "due"
    parameter_name = "due"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("late", "Overdue by 2 minutes")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> QuerySet[Delivery]:
        return queryset.filter(delivery_is_late(utc_now())) if self.value() == "late" else queryset


class AttemptInline(ReadOnlyMixin, admin.TabularInline):  # type: ignore[type-arg]
    model = Attempt
    fields = ("number", "started_at", "duration_ms", "outcome", "status_code", "answer")
    readonly_fields = fields
    ordering = ("-number",)


@admin.register(Delivery)
class DeliveryAdmin(WorkspaceFilterMixin, FactsAdmin):
    """Messages to channels and by mail to single addresses; the identifier is the receiver's idempotency key."""

    list_display = (
        "created_at",
        "workspace",
        "action",
        "state",
        "channel_kind",
        "recipient",
        "attempts_made",
        "next_attempt_at",
        "last_error",
    )
    list_filter = ("state", OverdueFilter, WorkspaceFilter, "channel_kind", "action", "hold")
    search_fields = ("=id", "=recipient", "workspace__name", "workspace__slug", "=workspace__id")
    search_help_text = "The message's whole id or recipient, or the workspace's name, slug or id."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    paginator = CappedPaginator
    show_full_result_count = False
    inlines = (AttemptInline,)
    actions = ("retry", "cancel")
    fields = (
        ("id", "workspace", "action"),
        ("channel", "channel_kind", "recipient"),
        ("report", "about", "requested_by"),
        ("state", "hold", "attempts_made"),
        ("created_at", "next_attempt_at", "sent_at"),
        "last_error",
    )

    def has_act_permission(self, request: HttpRequest) -> bool:
        return operator_of(request).has_perm("alerts.change_delivery")

    @admin.action(description="Try again: send the selected failed or cancelled messages", permissions=["act"])
    def retry(self, request: HttpRequest, rows: QuerySet[Delivery]) -> None:
        _do_each(request, rows, delivery_services.retry, "On their way again")

    @admin.action(description="Cancel: do not send the selected waiting messages", permissions=["act"])
    def cancel(self, request: HttpRequest, rows: QuerySet[Delivery]) -> HttpResponse | None:
        consequence = "Nobody is told what these messages say, other than in the inbox. They can be tried again."
        if question := ask_first(self, request, rows, "Cancel these messages?", consequence, "Cancel them"):
            return question
        _do_each(request, rows, delivery_services.cancel, "Cancelled")
        return None


class LateFilter(admin.SimpleListFilter):
    """Schedules whose moment has passed."""

    title = "due"
    parameter_name = "due"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("late", "Overdue by 5 minutes")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> QuerySet[Schedule]:
        return queryset.filter(schedule_is_late(utc_now())) if self.value() == "late" else queryset


@admin.register(Schedule)
class ScheduleAdmin(WorkspaceFilterMixin, FactsAdmin):
    """When workspaces get their summaries; their own admins choose."""

    list_display = ("workspace", "kind", "is_enabled", "send_at", "weekday", "zone", "next_day", "next_due_at")
    list_filter = ("is_enabled", LateFilter, "kind", WorkspaceFilter)
    search_fields = ("workspace__name", "workspace__slug", "workspace__id", "zone")
    search_help_text = "The workspace's name, slug or id, or the timezone."
    date_hierarchy = "next_due_at"
    ordering = ("next_due_at",)
    actions = ("run_again",)

    def has_act_permission(self, request: HttpRequest) -> bool:
        return operator_of(request).has_perm("alerts.change_schedule")

    @admin.action(description="Run again: see to the summary that was due last", permissions=["act"])
    def run_again(self, request: HttpRequest, rows: QuerySet[Schedule]) -> HttpResponse | None:
        consequence = (
            "A summary that is missing is made and sent, one that failed is made again, and of one that was made the "
            "messages that failed are sent again. Who has got it does not get it twice."
        )
        if question := ask_first(self, request, rows, "Run these schedules again?", consequence, "Run again"):
            return question
        for schedule in rows:
            done = operator_services.run_again(schedule, acting_user=operator_of(request))
            messages.success(request, f"{schedule}: {done}.")
        return None


@admin.register(Report)
class ReportAdmin(WorkspaceFilterMixin, FactsAdmin):
    """Summaries. What they say is for their workspace only: here is whether they were made and sent."""

    list_display = (
        "workspace",
        "kind",
        "first_day",
        "last_day",
        "zone",
        "state",
        "due_at",
        "made_at",
        "attempts_made",
        "last_error",
    )
    list_filter = ("state", "kind", WorkspaceFilter)
    search_fields = ("=id", "workspace__name", "workspace__slug", "=workspace__id")
    search_help_text = "The summary's whole id, or the workspace's name, slug or id."
    date_hierarchy = "due_at"
    ordering = ("-due_at",)
    paginator = CappedPaginator
    show_full_result_count = False
    actions = ("make_again", "send_again")
    fields = (
        ("id", "workspace", "kind", "schedule"),
        ("first_day", "last_day", "zone"),
        ("starts_at", "ends_at"),
        ("due_at", "requested_by"),
        ("state", "made_at"),
        ("attempts_made", "next_attempt_at", "last_error"),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Report]:
        return super().get_queryset(request).defer("content")

    def has_act_permission(self, request: HttpRequest) -> bool:
        return operator_of(request).has_perm("alerts.change_report")

    @admin.action(description="Make again: the selected summaries that could not be made", permissions=["act"])
    def make_again(self, request: HttpRequest, rows: QuerySet[Report]) -> None:
        failed = list(rows.filter(state=ReportState.FAILED))
        for report in failed:
            retry_report(report, acting_user=operator_of(request))
        messages.success(request, f"Summaries to be made again: {len(failed)}.")

    @admin.action(description="Send again: messages of the selected summaries that failed", permissions=["act"])
    def send_again(self, request: HttpRequest, rows: QuerySet[Report]) -> None:
        sent = [operator_services.send_again(report, acting_user=operator_of(request)) for report in rows]
        messages.success(request, f"Messages on their way again: {sum(sent)}.")


def _do_each(request: HttpRequest, rows: QuerySet[Any], deed: Callable[..., object], done: str) -> None:
    """Do it to each row that allows it, and say of the others why not."""
    number, refusals = 0, set()
    for row in rows:
        try:
            deed(row, acting_user=operator_of(request))
            number += 1
        except OpsmeterError as refusal:
            refusals.add(refusal.message)
    messages.success(request, f"{done}: {number}.")
    for reason in sorted(refusals):
        messages.warning(request, reason)
