"""Subscriptions and what belongs to them, in the operators' console: facts, and the two things that operators do."""
# ruff: noqa: D101, D102 (as in every admin.py)

from datetime import datetime
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AutocompleteSelect
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from billing import lateness
from billing.checking import check_subscription
from billing.models import BillingEvent, ChangeRequest, Checkout, Invoice, Outcome, Subscription
from billing.providers.base import ProviderUnavailable
from billing.subscriptions import Applied, assign_workspace
from ingest.admin_facts import CappedPaginator, FactsAdmin
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import OpsmeterError
from workspaces.admin_base import ReadOnlyMixin, explain, operator_of
from workspaces.admin_filters import WorkspaceFilter, WorkspaceFilterMixin
from workspaces.models import Workspace

# The operator waits for the provider's answers, one after the other.
MOST_ASKED_AT_ONCE = 10


class AttentionFilter(admin.SimpleListFilter):
    """What an operator should look at; the first page counts the same."""

    title = "attention"
    parameter_name = "needs"
    _CHOICES = (
        ("workspace", "Without a workspace"),
        ("doubtful", "Doubtful: money late, or past its date"),
        ("check", "Not checked for 2 days"),
        ("twice", "Workspace pays twice"),
        ("variant", "Variant without a plan"),
    )

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(self._CHOICES)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> QuerySet[Subscription]:
        chosen = self.value()
        return queryset.filter(_needs(chosen, utc_now())) if chosen else queryset


def _needs(what: str, now: datetime) -> Q:
    match what:
        case "workspace":
            return lateness.LIVE & Q(workspace=None)
        case "doubtful":
            return lateness.is_doubtful(now)
        case "check":
            return lateness.check_is_late(now)
        case "twice":
            return lateness.is_paid_twice()
        case "variant":
            return lateness.is_unmapped()
    return Q()


class _FactsInline(ReadOnlyMixin, admin.TabularInline):  # type: ignore[type-arg]
    """Rows that belong to a subscription, each with a link to its own page."""

    show_change_link = True
    extra = 0


class InvoiceInline(_FactsInline):
    model = Invoice
    fields = ("invoiced_at", "reason", "status", "total_text", "refunded_text", "card_brand", "card_last_four")
    readonly_fields = fields
    ordering = ("-invoiced_at",)
    verbose_name_plural = "payments"


class ChangeInline(_FactsInline):
    model = ChangeRequest
    fields = ("requested_at", "kind", "plan", "interval", "requested_by", "state", "is_unsure", "resolved_at", "note")
    readonly_fields = fields
    ordering = ("-requested_at",)
    verbose_name_plural = "requests of people"

    def get_queryset(self, request: HttpRequest) -> QuerySet[ChangeRequest]:
        return super().get_queryset(request).select_related("plan", "requested_by")


class EventInline(_FactsInline):
    model = BillingEvent
    fields = ("received_at", "source", "name", "state", "outcome", "error", "repeats")
    readonly_fields = fields
    ordering = ("-received_at",)
    verbose_name_plural = "events"

    def get_queryset(self, request: HttpRequest) -> QuerySet[BillingEvent]:
        return super().get_queryset(request).defer("sealed_body")


class AssignForm(forms.Form):
    """Whose subscription it is."""

    def __init__(self, model_admin: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        widget = AutocompleteSelect(model_admin.model._meta.get_field("workspace"), model_admin.admin_site)
        self.fields["workspace"] = forms.ModelChoiceField(Workspace.objects.all(), widget=widget)


@admin.register(Subscription)
class SubscriptionAdmin(WorkspaceFilterMixin, FactsAdmin):
    """Subscriptions as the provider described them last. Only its word changes them."""

    list_display = (
        "provider_subscription_id",
        "workspace",
        "plan",
        "interval",
        "status",
        "renews_at",
        "ends_at",
        "checked_at",
        "heard_at",
        "is_test",
    )
    list_filter = (AttentionFilter, "status", "plan", WorkspaceFilter, "interval", "is_test")
    list_select_related = ("workspace", "plan")
    search_fields = (
        "=provider_subscription_id",
        "=provider_customer_id",
        "workspace__name",
        "workspace__slug",
        "=workspace__id",
    )
    search_help_text = "The provider's whole id of subscription or customer, or the workspace's name, slug or id."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    paginator = CappedPaginator
    show_full_result_count = False
    inlines = (ChangeInline, InvoiceInline, EventInline)
    actions = ("ask_now", "assign")
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("workspace", "plan", "interval"),
                    ("status", "pause_mode"),
                    ("renews_at", "ends_at", "trial_ends_at"),
                    ("card_brand", "card_last_four"),
                )
            },
        ),
        (
            "At the provider",
            {
                "fields": (
                    ("provider", "provider_subscription_id", "provider_customer_id"),
                    ("variant_id", "is_test"),
                    ("started_at", "provider_updated_at"),
                )
            },
        ),
        ("What we know", {"fields": (("heard_at", "checked_at", "next_check_at"), ("lapsed_at", "created_at"))}),
    )

    def has_act_permission(self, request: HttpRequest) -> bool:
        return operator_of(request).has_perm("billing.change_subscription")

    @admin.action(description="Ask the provider now how the selected subscriptions stand", permissions=["act"])
    def ask_now(self, request: HttpRequest, rows: QuerySet[Subscription]) -> None:
        chosen = list(rows[: MOST_ASKED_AT_ONCE + 1])
        if len(chosen) > MOST_ASKED_AT_ONCE:
            messages.error(request, f"At most {MOST_ASKED_AT_ONCE} at once. All are asked about once a day anyway.")
            return
        for row in chosen:
            try:
                applied = check_subscription(row, utc_now(), urgent=True, with_invoices=True)
            except OpsmeterError as refusal:
                messages.error(request, f"{row.provider_subscription_id}: {explain(refusal)}")
                if isinstance(refusal, ProviderUnavailable):
                    return
            else:
                messages.success(request, f"{row.provider_subscription_id}: {_told(applied)}")

    @admin.action(description="Assign the selected subscription to a workspace", permissions=["act"])
    def assign(self, request: HttpRequest, rows: QuerySet[Subscription]) -> HttpResponse | None:
        if rows.count() != 1:
            messages.error(request, "One at a time.")
            return None
        row = rows.get()
        form = AssignForm(self, request.POST)
        workspace = form.cleaned_data["workspace"] if form.is_valid() else None
        if workspace is None and "workspace" in request.POST:
            messages.error(request, "Choose a workspace.")
        if workspace is None or not request.POST.get("confirmed"):
            return self._ask_whose(request, row, workspace)
        try:
            assign_workspace(row, workspace, acting_user=operator_of(request))
        except OpsmeterError as refusal:
            messages.error(request, explain(refusal))
        else:
            messages.success(request, f"{row.provider_subscription_id} belongs to {workspace} now.")
        return None

    def _ask_whose(self, request: HttpRequest, row: Subscription, workspace: Workspace | None) -> HttpResponse:
        # What was entered may be no id at all, which the field could not show.
        form = AssignForm(self)
        title = f"Assign it to {workspace}?" if workspace else "Whose subscription is it?"
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "row": row,
            "form": form,
            "workspace": workspace,
            "media": form.media,
        }
        return TemplateResponse(request, "admin/billing/assign.html", context)


def _told(applied: Applied) -> str:
    """What came of asking, as one line."""
    changes = ", ".join(
        f"{name}: {before or '–'} → {after or '–'}" for name, (before, after) in applied.changes.items()
    )
    return f"{Outcome(applied.outcome).label}{'; ' + changes if changes else ''}."


class LateRequestFilter(admin.SimpleListFilter):
    """Requests that wait for the provider's word for too long."""

    title = "due"
    parameter_name = "due"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("late", "Unconfirmed for 10 minutes")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ChangeRequest]) -> QuerySet[ChangeRequest]:
        return queryset.filter(lateness.request_is_late(utc_now())) if self.value() == "late" else queryset


class _OfSubscriptionAdmin(FactsAdmin):
    """Rows that belong to a workspace through their subscription."""

    list_select_related: ClassVar[tuple[str, ...]] = ("subscription__workspace", "subscription__plan")
    paginator = CappedPaginator
    show_full_result_count = False

    @admin.display(description="workspace", ordering="subscription__workspace__name")
    def workspace(self, row: Any) -> Any:
        return row.subscription and row.subscription.workspace


@admin.register(ChangeRequest)
class ChangeRequestAdmin(_OfSubscriptionAdmin):
    """What people asked the provider to change."""

    list_display = (
        "requested_at",
        "workspace",
        "kind",
        "plan",
        "interval",
        "requested_by",
        "state",
        "is_unsure",
        "resolved_at",
        "note",
    )
    list_filter = ("state", LateRequestFilter, "kind", "is_unsure")
    list_select_related = ("subscription__workspace", "subscription__plan", "plan", "requested_by")
    search_fields = (
        "=subscription__provider_subscription_id",
        "subscription__workspace__name",
        "subscription__workspace__slug",
        "=subscription__workspace__id",
    )
    search_help_text = "The provider's whole id of the subscription, or the workspace's name, slug or id."
    date_hierarchy = "requested_at"
    ordering = ("-requested_at",)


@admin.register(Invoice)
class InvoiceAdmin(_OfSubscriptionAdmin):
    """Payments in the provider's own words."""

    list_display = (
        "invoiced_at",
        "workspace",
        "total_text",
        "status",
        "reason",
        "is_refunded",
        "refunded_text",
        "provider_invoice_id",
    )
    list_filter = ("status", "reason", "is_refunded")
    search_fields = (
        "=provider_invoice_id",
        "=subscription__provider_subscription_id",
        "subscription__workspace__name",
        "subscription__workspace__slug",
    )
    search_help_text = "The provider's whole id of invoice or subscription, or the workspace's name or slug."
    date_hierarchy = "invoiced_at"
    ordering = ("-invoiced_at",)


@admin.register(Checkout)
class CheckoutAdmin(WorkspaceFilterMixin, FactsAdmin):
    """Who was sent to the provider to subscribe, and what came of it."""

    list_display = (
        "created_at",
        "workspace",
        "plan",
        "interval",
        "requested_by",
        "buyer_email",
        "returned_at",
        "subscription",
    )
    list_filter = (("subscription", admin.EmptyFieldListFilter), "plan", WorkspaceFilter)
    list_select_related = ("workspace", "plan", "requested_by", "subscription__plan")
    search_fields = ("=id", "=buyer_email", "workspace__name", "workspace__slug", "=workspace__id")
    search_help_text = "The checkout's whole id, the buyer's address, or the workspace's name, slug or id."
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    paginator = CappedPaginator
    show_full_result_count = False
