"""Paths under `/v1/`, of which the gateway takes its own before Django sees them, and pages of a workspace."""

from django.urls import path

from ingest import api
from ingest.views import data, exports, investigate, price_entries, prices, repricing, requests, versions

urlpatterns = [
    path("public/pricing-models", api.PricingModelsView.as_view(), name="pricing-models"),
    path("ingest/demo-data", api.DemoDataView.as_view(), name="ingest-demo-data"),
    path("ingest/test-data", api.TestDataView.as_view(), name="ingest-test-data"),
]

page_urlpatterns = [
    path("investigate/", investigate.investigate, name="investigate"),
    path("versions/", versions.versions, name="versions"),
    path("requests/", requests.requests, name="requests"),
    path("requests/more/", requests.requests_more, name="requests-more"),
    path("requests/values/", requests.requests_values, name="requests-values"),
    path("requests/<int:event_id>/", requests.request_page, name="request"),
    path("exports/", exports.exports, name="exports"),
    path("exports/stream/", exports.exports_stream, name="exports-stream"),
    path("exports/jobs/", exports.exports_jobs, name="exports-jobs"),
    path("exports/<int:job_id>/download/", exports.export_download, name="export-download"),
    path("exports/<int:job_id>/about/", exports.export_about, name="export-about"),
    path("exports/<int:job_id>/cancel/", exports.export_cancel, name="export-cancel"),
    path("exports/<int:job_id>/retry/", exports.export_retry, name="export-retry"),
    path("exports/<int:job_id>/delete/", exports.export_delete, name="export-delete"),
    path("prices/", prices.prices, name="prices"),
    path("prices/model/", prices.price, name="price"),
    path("prices/test/", prices.price_test, name="price-test"),
    path("prices/unpriced/", prices.prices_unpriced, name="prices-unpriced"),
    path("prices/own/", prices.prices_own, name="prices-own"),
    path("prices/own/new/", price_entries.price_own_new, name="price-own-new"),
    path("prices/own/<int:price_id>/withdraw/", price_entries.price_own_withdraw, name="price-own-withdraw"),
    path("prices/catalogue/new/", price_entries.price_new, name="price-new"),
    path("prices/catalogue/alias/", price_entries.price_alias, name="price-alias"),
    path("prices/repricing/", repricing.repricings, name="repricings"),
    path("prices/repricing/new/", repricing.repricing_new, name="repricing-new"),
    path("prices/repricing/<int:repricing_id>/", repricing.repricing, name="repricing"),
    path("prices/repricing/<int:repricing_id>/run/", repricing.repricing_run, name="repricing-run"),
    path("prices/repricing/<int:repricing_id>/again/", repricing.repricing_again, name="repricing-again"),
    path("prices/repricing/<int:repricing_id>/cancel/", repricing.repricing_cancel, name="repricing-cancel"),
    path("settings/data/", data.data, name="settings-data"),
    path("settings/data/state/", data.data_state, name="settings-data-state"),
    path("settings/data/demo/", data.data_demo, name="settings-data-demo"),
    path("settings/data/delete/<str:mode>/<str:scope>/", data.data_delete, name="settings-data-delete"),
]
