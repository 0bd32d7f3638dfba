"""The console's addresses: pages of a workspace below `/w/<slug>/`, and those of people without one."""

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import include, path

import budgets.urls
import ingest.urls
import workspaces.urls


def _pending(request: HttpRequest, **_: object) -> HttpResponse:
    raise Http404


_taken = {
    pattern.name
    for module in (budgets.urls, ingest.urls, workspaces.urls)
    for pattern in [*getattr(module, "page_urlpatterns", []), *getattr(module, "site_urlpatterns", [])]
}
_PENDING_PAGES = [
    "",
    "investigate/",
    "versions/",
    "requests/",
    "exports/",
    "prices/",
    "start/",
    "settings/",
    "settings/budgets/",
    "settings/keys/",
    "settings/members/",
    "settings/tokens/",
    "settings/data/",
    "settings/audit/",
]
_NAMES = [
    "overview",
    "investigate",
    "versions",
    "requests",
    "exports",
    "prices",
    "start",
    "settings-general",
    "settings-budgets",
    "settings-keys",
    "settings-members",
    "settings-tokens",
    "settings-data",
    "settings-audit",
]

page_urlpatterns = [
    path(route, _pending, name=name) for route, name in zip(_PENDING_PAGES, _NAMES, strict=True) if name not in _taken
]

urlpatterns = [
    path("w/<slug:slug>/", include(page_urlpatterns)),
    *(
        path("w/<slug:slug>/", include(module.page_urlpatterns))
        for module in (budgets.urls, ingest.urls, workspaces.urls)
        if hasattr(module, "page_urlpatterns")
    ),
    *(
        path("", include(module.site_urlpatterns))
        for module in (ingest.urls, workspaces.urls)
        if hasattr(module, "site_urlpatterns")
    ),
    *(path(f"{name}/", _pending, name=name) for name in ("workspace-new", "docs", "outbox") if name not in _taken),
]
