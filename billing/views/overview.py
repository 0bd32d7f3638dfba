"""Plan and billing: where the workspace stands, what it uses, which plans there are, and what was paid."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from billing import changes
from billing.models import Interval, Invoice
from billing.obstacles import obstacle_to_cancel, obstacle_to_resume
from billing.plan_table import intervals_of, plan_table
from billing.providers import is_billing_on
from billing.selectors import Standing, offers, standing
from billing.usage import plan_usage
from billing.views.waiting import follow, pending_context, pending_state, say_if_confirmed
from ingest.snapshots import snapshot
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.htmx import wants_part
from workspaces.access import WorkspaceAccess
from workspaces.models import Role, Workspace
from workspaces.pages import workspace_page

NEWEST_PAYMENTS = 5
PAGE_SIZE = 50
_REASONS = {"initial": "First payment", "renewal": "Renewal", "updated": "Change of plan"}
_STATES = {
    "paid": ("Paid", "good"),
    "pending": ("Not paid yet", "warn"),
    "void": ("Void", ""),
    "refunded": ("Refunded", ""),
    "partial_refund": ("Refunded in part", ""),
}


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment as pages show it."""

    invoice: Invoice
    reason: str
    state: str
    tone: str


@workspace_page(Role.ADMIN)
@never_cache
@require_GET
def billing_page(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Everything about the workspace's plan; `?checkout=` is the way back from the provider."""
    workspace = access.workspace
    if "checkout" in request.GET:
        return _back_from_checkout(request, workspace)
    now = utc_now()
    with snapshot():
        stands, usage = standing(workspace.pk, now), plan_usage(workspace, now)
        payments = [_payment(each) for each in _invoices(workspace)[:NEWEST_PAYMENTS]]
    follow(request, workspace, stands)
    offered = offers() if stands.is_billing_on else []
    interval = _interval(request, stands)
    context: dict[str, Any] = {
        **pending_context(stands),
        "usage": usage,
        "interval": interval,
        "intervals": intervals_of(offered),
        "table": plan_table(stands, offered, interval),
        "may_cancel": stands.is_billing_on and obstacle_to_cancel(stands) is None,
        "may_resume": stands.is_billing_on and obstacle_to_resume(stands) is None,
        "payments": payments,
    }
    return render(request, "billing/billing.html", context)


@workspace_page(Role.ADMIN)
@never_cache
@require_GET
def pending_part(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """For htmx: the card of what is pending, unless it is as `?shown=` says. When it is over, the page loads anew."""
    if not wants_part(request):
        return redirect("settings-billing", access.workspace.slug)
    stands = standing(access.workspace.pk, utc_now())
    follow(request, access.workspace, stands)
    if stands.pending is None:
        return HttpResponse(headers={"HX-Refresh": "true"})
    if request.GET.get("shown") == pending_state(stands.pending):
        return HttpResponse(status=204)
    return render(request, "billing/_pending.html", pending_context(stands))


@workspace_page(Role.ADMIN)
@never_cache
@require_GET
def payments_page(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Every payment, the newest first."""
    page = Paginator(_invoices(access.workspace), PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "payments": [_payment(each) for each in page],
        "is_billing_on": is_billing_on(),
        "is_first": not page.has_previous(),
        "newest": "?",
        "older": f"?page={page.next_page_number()}" if page.has_next() else "",
    }
    return render(request, "billing/payments.html", context)


def _back_from_checkout(request: HttpRequest, workspace: Workspace) -> HttpResponse:
    """Note it and forget the id in the address: reloading means nothing."""
    try:
        checkout_id = UUID(request.GET["checkout"])
    except ValueError:
        pass
    else:
        say_if_confirmed(request, workspace, checkout_id)
        changes.note_return(workspace, checkout_id)
    return redirect("settings-billing", workspace.slug)


def _interval(request: HttpRequest, stands: Standing) -> str:
    """The chosen one; without a choice that of the subscription."""
    asked = request.GET.get("interval")
    if asked in Interval.values:
        return asked
    if stands.is_subscribed and stands.subscription and stands.subscription.interval:
        return stands.subscription.interval
    return Interval.MONTH


def _invoices(workspace: Workspace) -> "QuerySet[Invoice]":
    return Invoice.objects.filter(subscription__workspace=workspace).order_by("-invoiced_at", "-pk")


def _payment(invoice: Invoice) -> Payment:
    state, tone = _STATES.get(invoice.status, (invoice.status.replace("_", " ").capitalize(), ""))
    if invoice.is_refunded and invoice.status in ("paid", "refunded"):
        state, tone = "Refunded", ""
    reason = _REASONS.get(invoice.reason, invoice.reason.replace("_", " ").capitalize())
    return Payment(invoice, reason, state, tone)
