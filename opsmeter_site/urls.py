"""Every path of the site, except the gateway's, which `opsmeter_site.wsgi` takes before Django sees them."""

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.urls import include, path, re_path
from django.views.decorators.csrf import csrf_exempt

from opsmeter_site import api_errors, docs, health
from opsmeter_site.console.home import home
from opsmeter_site.metrics_view import metrics
from opsmeter_site.operators import mfa


@csrf_exempt
@login_not_required
def _no_such_api_path(request: HttpRequest) -> HttpResponse:
    """Whatever is not under `/v1`, also in debug mode and for any method."""
    return api_errors.page_not_found(request)


urlpatterns = [
    path("", home, name="home"),
    # In front of the same page without the way back to the operators' console.
    path("accounts/2fa/totp/activate/", mfa.turn_on, name="mfa_activate_totp"),
    path("accounts/", include("workspaces.accounts.urls")),
    path("", include("opsmeter_site.console.urls")),
    path("admin/", admin.site.urls),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("internal/metrics", metrics, name="metrics"),
    path("v1/openapi.json", docs.OpenApiView.as_view(), name="openapi"),
    path("v1/docs", docs.DocsView.as_view(), name="api-docs"),
    path("v1/", include("budgets.urls")),
    path("v1/", include("billing.urls")),
    path("v1/", include("ingest.urls")),
    re_path(r"^v1(?:/[\s\S]*)?\Z", _no_such_api_path, name="no-such-api-path"),
]

handler400 = api_errors.bad_request
handler403 = api_errors.permission_denied
handler404 = api_errors.page_not_found
handler500 = api_errors.server_error
