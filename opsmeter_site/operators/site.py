"""Our admin site: who gets in, what its first page shows, and the pages that belong to no single model."""

from collections.abc import Mapping
from typing import Any

from allauth.account.utils import get_next_redirect_url
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

from opsmeter_site.lib.clock import utc_now
from opsmeter_site.operators import mfa, views
from opsmeter_site.operators.state import recent_state

_ORDER = {label: place for place, label in enumerate(("workspaces", "billing", "budgets", "ingest", "alerts"))}


class OperatorsSite(admin.AdminSite):
    """The stock site, entered through the product's own sign-in."""

    site_header = "Opsmeter operators' console"
    site_title = "Opsmeter operators"
    index_title = "Service"
    site_url = "/"
    empty_value_display = "–"

    def has_permission(self, request: HttpRequest) -> bool:
        """Operators who have shown their second factor where that is asked for."""
        return super().has_permission(request) and not mfa.missing_step(request)

    @method_decorator(never_cache)
    @method_decorator(login_not_required)
    def login(self, request: HttpRequest, extra_context: Mapping[str, Any] | None = None) -> HttpResponse:
        """Where everybody comes who may not enter yet: on to the sign-in, to the second factor, or no further."""
        return_to = get_next_redirect_url(request) or reverse("admin:index")
        if not request.user.is_authenticated:
            return redirect_to_login(return_to, reverse(settings.LOGIN_URL))
        if not super().has_permission(request):
            return render(request, "admin/not_an_operator.html", status=403)
        step = mfa.missing_step(request)
        return mfa.send_to(request, step, return_to) if step else HttpResponseRedirect(return_to)

    def password_change(  # type: ignore[override]
        self, request: HttpRequest, extra_context: Mapping[str, Any] | None = None
    ) -> HttpResponse:
        """The page that everybody has."""
        return redirect("account_change_password")

    def index(self, request: HttpRequest, extra_context: Mapping[str, Any] | None = None) -> TemplateResponse:
        """The stock index below the service's state."""
        moment, sections = recent_state(utc_now())
        return super().index(request, {"sections": sections, "moment": moment, **(extra_context or {})})

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Our own apps first; the others, which are looked at less, in the stock order."""
        apps = super().get_app_list(request, app_label)
        return sorted(apps, key=lambda app: _ORDER.get(app["app_label"], len(_ORDER)))

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """Says on every page which installation this is, so that nobody takes production for a trial."""
        return super().each_context(request) | {"environment": settings.OPSMETER_ENV}

    def get_urls(self) -> list[URLResolver | URLPattern]:
        """Our pages first: the stock patterns end with one that matches everything."""
        return [
            path("activity/", self.admin_view(views.activity), name="activity"),
            path("unpriced/", self.admin_view(views.unpriced), name="unpriced"),
            path("support/", self.admin_view(views.search), name="support-search"),
            path("support/<uuid:workspace_id>/", self.admin_view(views.support), name="support"),
            path("support/<uuid:workspace_id>/audit/", self.admin_view(views.audit_now), name="support-audit"),
            *super().get_urls(),
        ]
