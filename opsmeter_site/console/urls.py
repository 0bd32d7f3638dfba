"""The console's addresses: pages of a workspace below `/w/<slug>/`, and those of people without one."""

from django.urls import include, path

import alerts.urls
import billing.urls
import budgets.urls
import ingest.urls
import workspaces.urls
from opsmeter_site.console import docs_pages, onboarding, outbox, overview

page_urlpatterns = [
    path("", overview.overview, name="overview"),
    path("start/", onboarding.start, name="start"),
    *alerts.urls.page_urlpatterns,
    *ingest.urls.page_urlpatterns,
    *budgets.urls.page_urlpatterns,
    *billing.urls.page_urlpatterns,
    *workspaces.urls.page_urlpatterns,
]

urlpatterns = [
    path("w/<slug:slug>/", include(page_urlpatterns)),
    path("workspaces/new/", onboarding.new_workspace, name="workspace-new"),
    path("docs/", docs_pages.docs_page, name="docs"),
    path("docs/<slug:page>/", docs_pages.docs_page, name="docs-page"),
    path("outbox/", outbox.outbox, name="outbox"),
    path("outbox/<str:mail_id>/", outbox.outbox_mail, name="outbox-mail"),
    path("outbox/<str:mail_id>/html/", outbox.outbox_mail_html, name="outbox-mail-html"),
    *alerts.urls.site_urlpatterns,
    *workspaces.urls.site_urlpatterns,
]
