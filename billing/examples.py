"""The examples of the API description."""

from typing import Any

STANDING: dict[str, Any] = {
    "billing": "lemonsqueezy",
    "currentPlanTier": "starter",
    "currentPlanName": "Starter",
    "grantedPlanTier": "free",
    "subscription": {
        "status": "active",
        "planTier": "starter",
        "interval": "month",
        "renewsAt": "2026-04-07T09:30:00Z",
        "endsAt": None,
        "trialEndsAt": None,
        "cancelled": False,
        "paymentMethod": {"brand": "visa", "lastFour": "4242"},
        "usable": True,
    },
    "pending": {
        "status": "pending_webhook",
        "action": "change_plan",
        "requestedPlanTier": "pro",
        "requestedAt": "2026-03-07T12:00:00Z",
        "overdue": False,
        "unsure": False,
    },
    "lastFailure": None,
    "retention": None,
}

REQUESTED_PLAN: dict[str, Any] = {
    "status": "pending_webhook",
    "currentPlanTier": "starter",
    "requestedPlanTier": "pro",
    "requestedAt": "2026-03-07T12:00:00Z",
}

REQUESTED_END: dict[str, Any] = {
    "status": "pending_webhook",
    "currentPlanTier": "pro",
    "requestedPlanTier": "free",
    "requestedAt": "2026-03-07T12:00:00Z",
    "endsAt": None,
}

REQUESTED_RESUMPTION: dict[str, Any] = {
    **REQUESTED_END,
    "requestedPlanTier": "pro",
    "endsAt": "2026-04-07T09:30:00Z",
}

STARTED_CHECKOUT: dict[str, Any] = {
    "checkoutUrl": "https://store.lemonsqueezy.com/checkout/custom/5c8e1c8a?signature=0f3a",
    "checkoutId": "5c8e1c8a-5f0e-4f6a-9d0e-2a0c7c1d9b11",
    "planTier": "pro",
    "interval": "month",
    "expiresAt": "2026-03-07T13:00:00Z",
}

PORTAL: dict[str, Any] = {
    "portalUrl": "https://store.lemonsqueezy.com/billing?expires=1772888400&signature=8d1f",
    "paymentMethodUrl": "https://store.lemonsqueezy.com/subscription/1/payment-details?expires=1772888400&signature=77ab",
}
