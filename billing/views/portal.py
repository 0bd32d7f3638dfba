"""The way to the provider's own pages, for payment method and invoices."""

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from billing import changes
from opsmeter_site.lib.errors import OpsmeterError
from workspaces.access import WorkspaceAccess
from workspaces.models import Role
from workspaces.pages import workspace_page

PAYMENT_METHOD = "payment-method"


@workspace_page(Role.ADMIN)
@never_cache
@require_GET
def portal(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Fetch a fresh link and go there; `?to=payment-method` leads to the form for another card."""
    to = PAYMENT_METHOD if request.GET.get("to") == PAYMENT_METHOD else ""
    try:
        links = changes.portal_links(access.workspace, acting_user=access.user)
    except OpsmeterError as refusal:
        context = {"refusal": refusal, "to": to}
        response = render(request, "billing/portal.html", context, status=refusal.status)
        for name, value in refusal.headers.items():
            response[name] = value
        return response
    return HttpResponseRedirect(links.payment_method_url if to else links.portal_url)
