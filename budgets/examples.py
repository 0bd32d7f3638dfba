"""The examples of the API description; the status is the one of the public documentation."""

from typing import Any

BUDGETS: dict[str, Any] = {
    "dailyLimitUsd": 50,
    "monthlyLimitUsd": 500,
    "warningThresholdRatio": 0.8,
    "enforcement": "soft",
    "observeMode": False,
    "countedDataModes": ["real"],
}

STATUS: dict[str, Any] = {
    "workspaceId": "f0f2d17d-7bf7-4efa-a11e-4f13e8a0216b",
    "isPlanLimitReached": False,
    "telemetryPaused": False,
    "providerCallsContinue": True,
    "isBudgetWarning": True,
    "isBudgetExceeded": False,
    "severity": "warning",
    "plan": {
        "planTier": "starter",
        "planName": "Starter",
        "currentRequestCount": 98231,
        "planRequestLimit": 100000,
        "remainingRequestCount": 1769,
        "isPlanLimitReached": False,
        "telemetryPaused": False,
        "periodStart": "2026-03-01T00:00:00Z",
        "periodEnd": "2026-03-31T23:59:59Z",
    },
    "budget": {
        "warningThresholdRatio": 0.8,
        "daily": {
            "limitUsd": 50,
            "currentSpendUsd": 41.25,
            "utilizationRatio": 0.825,
            "isWarning": True,
            "isExceeded": False,
            "period": "daily",
            "periodStart": "2026-03-07T00:00:00Z",
            "periodEnd": "2026-03-07T23:59:59Z",
        },
        "monthly": {
            "limitUsd": 500,
            "currentSpendUsd": 412.55,
            "utilizationRatio": 0.8251,
            "isWarning": True,
            "isExceeded": False,
            "period": "monthly",
            "periodStart": "2026-03-01T00:00:00Z",
            "periodEnd": "2026-03-31T23:59:59Z",
        },
    },
}
