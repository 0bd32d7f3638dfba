"""Paths under `/v1/`, and pages under `/w/<slug>/`."""

from django.urls import path

from billing import api, webhooks
from billing.views import changes, overview, portal

urlpatterns = [
    path("billing/subscription", api.SubscriptionView.as_view(), name="api-billing-subscription"),
    path("billing/subscription/change-plan", api.ChangePlanView.as_view(), name="api-billing-change-plan"),
    path("billing/subscription/cancel", api.CancelView.as_view(), name="api-billing-cancel"),
    path("billing/subscription/resume", api.ResumeView.as_view(), name="api-billing-resume"),
    path("billing/checkout", api.CheckoutView.as_view(), name="api-billing-checkout"),
    path("billing/portal", api.PortalView.as_view(), name="api-billing-portal"),
    path("webhooks/lemon-squeezy", webhooks.LemonSqueezyWebhook.as_view(), name="webhook-lemon-squeezy"),
]

page_urlpatterns = [
    path("settings/billing/", overview.billing_page, name="settings-billing"),
    path("settings/billing/pending/", overview.pending_part, name="settings-billing-pending"),
    path("settings/billing/payments/", overview.payments_page, name="settings-billing-payments"),
    path(
        "settings/billing/checkout/<slug:plan>/<slug:interval>/",
        changes.checkout_page,
        name="settings-billing-checkout",
    ),
    path("settings/billing/change/<slug:plan>/<slug:interval>/", changes.change_page, name="settings-billing-change"),
    path("settings/billing/cancel/", changes.cancel_page, name="settings-billing-cancel"),
    path("settings/billing/resume/", changes.resume_page, name="settings-billing-resume"),
    path("settings/billing/portal/", portal.portal, name="settings-billing-portal"),
]
