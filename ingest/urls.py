"""Paths under `/v1/`. The gateway takes its own before Django sees them."""

from django.urls import path

from ingest import api

urlpatterns = [
    path("public/pricing-models", api.PricingModelsView.as_view(), name="pricing-models"),
    path("ingest/demo-data", api.DemoDataView.as_view(), name="ingest-demo-data"),
    path("ingest/test-data", api.TestDataView.as_view(), name="ingest-test-data"),
]
