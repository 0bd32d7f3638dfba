"""What was sent: the log of messages, one message with all its attempts, and trying again."""

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

from alerts import delivery_services
from alerts.delivery_log import MOST_ALERTS, DeliveryFilters, alerts_in, attempts_of, channels_of, line_of, log_page
from alerts.models import Action, Alert, DeliveryState, Report
from billing.selectors import plan_features
from opsmeter_site.lib.errors import OpsmeterError
from opsmeter_site.lib.htmx import wants_part
from workspaces.access import WorkspaceAccess
from workspaces.models import Role
from workspaces.pages import workspace_page


@workspace_page()
@require_GET
def deliveries(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """One page of the log."""
    filters = DeliveryFilters.read(request.GET.dict())
    page = log_page(access, filters, request.GET.get("cursor", ""))
    context: dict[str, Any] = {
        "page": page,
        "filters": filters,
        "is_first": "cursor" not in request.GET,
        "chosen": urlencode(filters.query()),
        "newest": f"?{urlencode(filters.query())}",
        "older": f"?{urlencode(filters.query() | {'cursor': page.older})}" if page.older else "",
        "channels": channels_of(access.workspace),
        "states": DeliveryState.choices,
        "actions": Action.choices,
        "only_about": _only_about(access, filters),
        "plan": plan_features(access.workspace.pk),
    }
    return render(request, "alerts/deliveries.html", context)


def _only_about(access: WorkspaceAccess, filters: DeliveryFilters) -> Alert | Report | None:
    """What the address asks for the messages of, if it is one alert or one summary."""
    if filters.alert_id:
        return Alert.objects.filter(workspace=access.workspace, pk=filters.alert_id).first()
    if filters.report_id:
        return Report.objects.filter(workspace=access.workspace, pk=filters.report_id).first()
    return None


@workspace_page()
@require_GET
def delivery(request: HttpRequest, access: WorkspaceAccess, delivery_id: UUID) -> HttpResponse:
    """One message; for htmx, which looks again while it is under way, only what changes."""
    line = line_of(access, delivery_id)
    context = {"line": line, "delivery": line.delivery, "attempts": attempts_of(line)}
    if wants_part(request):
        return render(request, "alerts/delivery_facts.html", context)
    context |= {"alerts": alerts_in(line.delivery), "most_alerts": MOST_ALERTS}
    return render(request, "alerts/delivery.html", context)


@workspace_page(Role.ADMIN)
@require_POST
def delivery_retry(request: HttpRequest, access: WorkspaceAccess, delivery_id: UUID) -> HttpResponse:
    """Send a message that has failed or was cancelled once more."""
    line = line_of(access, delivery_id)
    try:
        delivery_services.retry(line.delivery, acting_user=access.user)
    except OpsmeterError as refusal:
        messages.error(request, refusal.message)
    else:
        messages.success(request, "The message is on its way again.")
    return redirect("delivery", access.workspace.slug, delivery_id)


page_urlpatterns = [
    path("deliveries/", deliveries, name="deliveries"),
    path("deliveries/<uuid:delivery_id>/", delivery, name="delivery"),
    path("deliveries/<uuid:delivery_id>/retry/", delivery_retry, name="delivery-retry"),
]
