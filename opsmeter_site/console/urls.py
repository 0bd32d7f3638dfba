"""The console's addresses: pages of a workspace below `/w/<slug>/`, and those of people without one."""

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import include, path

import budgets.urls
import ingest.urls
import workspaces.urls
from opsmeter_site.console import onboarding, overview

_OWN = [path("", overview.overview, name="overview"), path("start/", onboarding.start, name="start")]


def _pending(request: HttpRequest, **_: object) -> HttpResponse:
    raise Http404


_modules = (budgets.urls, ingest.urls, workspaces.urls)
_taken = {
    pattern.name
    for module in _modules
    for pattern in [*getattr(module, "page_urlpatterns", []), *getattr(module, "site_urlpatterns", [])]
} | {pattern.name for pattern in _OWN}
_PAGES = {
    "overview": "",
    "investigate": "investigate/",
    "versions": "versions/",
    "requests": "requests/",
    "exports": "exports/",
    "prices": "prices/",
    "prices-unpriced": "prices/unpriced/",
    "settings-general": "settings/",
    "settings-budgets": "settings/budgets/",
    "settings-keys": "settings/keys/",
    "settings-members": "settings/members/",
    "settings-tokens": "settings/tokens/",
    "settings-data": "settings/data/",
    "settings-audit": "settings/audit/",
}
_pages = [path(route, _pending, name=name) for name, route in _PAGES.items() if name not in _taken]

urlpatterns = [
    path("workspaces/new/", onboarding.new_workspace, name="workspace-new"),
    path("w/<slug:slug>/", include([*_OWN, *_pages])),
    *(path("w/<slug:slug>/", include(getattr(module, "page_urlpatterns", []))) for module in _modules),
    *(path("", include(getattr(module, "site_urlpatterns", []))) for module in _modules),
    *(path(f"{name}/", _pending, name=name) for name in ("docs", "outbox") if name not in _taken),
]
