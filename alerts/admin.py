"""Alerts in the operators' console: facts to look at. What is sent has a module of its own."""

from django.contrib import admin
from django.contrib.admin import TabularInline

from alerts import admin_sending
from alerts.models import Alert, AlertNote, AlertSettings, MailOptOut, Recipient, Rule
from ingest.admin_facts import CappedPaginator, FactsAdmin, PerWorkspaceAdmin
from workspaces.admin_base import ReadOnlyMixin
from workspaces.admin_filters import WorkspaceFilter, WorkspaceFilterMixin

__all__ = ["admin_sending"]


class NoteInline(ReadOnlyMixin, TabularInline):  # type: ignore[type-arg]
    """What people wrote beside the alert."""

    model = AlertNote
    fields = ("created_at", "author", "text")
    readonly_fields = fields


@admin.register(Alert)
class AlertAdmin(WorkspaceFilterMixin, FactsAdmin):
    """What a workspace has in its inbox; its people acknowledge and resolve."""

    list_display = ("title", "workspace", "kind", "severity", "state", "handling", "occurrences", "opened_at")
    list_filter = ("state", WorkspaceFilter, "kind", "severity", "handling")
    search_fields = ("workspace__name", "workspace__slug", "workspace__id", "scope")
    search_help_text = "The workspace's name, slug or id, or the scope."
    date_hierarchy = "opened_at"
    ordering = ("-opened_at",)
    paginator = CappedPaginator
    show_full_result_count = False
    inlines = (NoteInline,)
    fieldsets = (
        (None, {"fields": ("title", "workspace", "text", ("kind", "severity", "is_urgent"), "facts")}),
        ("What it is about", {"fields": (("scope", "metric"), ("window_start", "window_end"), "dedup_key")}),
        (
            "When",
            {"fields": (("opened_at", "created_at"), ("occurrences", "last_occurred_at"))},
        ),
        (
            "What became of it",
            {
                "fields": (
                    ("handling", "held_until"),
                    ("state", "resolution"),
                    ("acknowledged_at", "acknowledged_by"),
                    ("resolved_at", "resolved_by"),
                    "recovers",
                )
            },
        ),
    )


@admin.register(AlertSettings)
class AlertSettingsAdmin(PerWorkspaceAdmin):
    """Workspaces where somebody has changed something."""

    list_display = ("workspace", "cooldown_seconds", "quiet_from", "quiet_until", "recipient_roles", "updated_at")
    list_filter = ("spike_is_on",)


@admin.register(Rule)
class RuleAdmin(WorkspaceFilterMixin, FactsAdmin):
    """What a workspace has watched beside its limits."""

    list_display = ("workspace", "kind", "dimension", "value", "threshold_usd", "period", "is_enabled", "created_at")
    list_filter = ("is_enabled", WorkspaceFilter, "kind", "dimension")
    search_fields = ("workspace__name", "workspace__slug", "workspace__id", "value")
    search_help_text = "The workspace's name, slug or id, or the endpoint or model."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)


@admin.register(Recipient)
class RecipientAdmin(WorkspaceFilterMixin, FactsAdmin):
    """Named addresses outside the members. They confirm themselves; nobody does it for them."""

    list_display = ("email", "workspace", "added_by", "created_at", "asked_at", "confirmed_at")
    list_filter = (("confirmed_at", admin.EmptyFieldListFilter), WorkspaceFilter)
    list_select_related = ("workspace", "added_by")
    search_fields = ("email", "workspace__name", "workspace__slug", "workspace__id")
    search_help_text = "The address, or the workspace's name, slug or id."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)


@admin.register(MailOptOut)
class MailOptOutAdmin(WorkspaceFilterMixin, FactsAdmin):
    """Who gets no mail of a workspace, and why. Only people themselves subscribe again."""

    list_display = ("email", "workspace", "topic", "reason", "created_at")
    list_filter = ("reason", "topic", WorkspaceFilter)
    search_fields = ("email", "workspace__name", "workspace__slug", "workspace__id")
    search_help_text = "The address, or the workspace's name, slug or id."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
