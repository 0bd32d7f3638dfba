"""The console's addresses: pages of a workspace below `/w/<slug>/`, and those of people without one."""

from django.urls import include, path

import budgets.urls
import ingest.urls
import workspaces.urls
from opsmeter_site.console import docs_pages, onboarding, outbox, overview

page_urlpatterns = [
    path("", overview.overview, name="overview"),
    path("start/", onboarding.start, name="start"),
    *ingest.urls.page_urlpatterns,
    *budgets.urls.page_urlpatterns,
    *workspaces.urls.page_urlpatterns,
]

urlpatterns = [
    path("w/<slug:slug>/", include(page_urlpatterns)),
    path("workspaces/new/", onboarding.new_workspace, name="workspace-new"),
    path("docs/", docs_pages.docs_page, name="docs"),
    path("docs/<slug:page>/", docs_pages.docs_page, name="docs-page"),
    path("outbox/", outbox.outbox, name="outbox"),
    path("outbox/<str:mail_id>/", outbox.outbox_mail, name="outbox-mail"),
    *workspaces.urls.site_urlpatterns,
]
