"""Pages of alerts and summaries: below `/w/<slug>/`, and outside any workspace."""

from alerts.views import channels, deliveries, inbox, recipients, reports, rules, settings, summaries, unsubscribe

page_urlpatterns = [
    *inbox.page_urlpatterns,
    *reports.page_urlpatterns,
    *settings.page_urlpatterns,
    *rules.page_urlpatterns,
    *summaries.page_urlpatterns,
    *channels.page_urlpatterns,
    *recipients.page_urlpatterns,
    *deliveries.page_urlpatterns,
]
site_urlpatterns = [*recipients.site_urlpatterns, *unsubscribe.site_urlpatterns]
