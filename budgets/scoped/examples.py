"""The examples of `/v1/budgets` in the API description."""

from typing import Any

_ID = "0198c1a2-5a43-7d0e-9c2b-6f1f6a3b2c1d"

WISH: dict[str, Any] = {
    "scope": "tenantId",
    "scopeValue": "acme",
    "period": "daily",
    "limitUsd": 50,
    "thresholds": [{"percent": 50}, {"percent": 80}, {"usd": 45}],
    "enforcement": "hard",
}
EACH_WISH: dict[str, Any] = {"scope": "userId", "eachValue": True, "period": "monthly", "limitUsd": 5}
BUDGET: dict[str, Any] = {
    "id": _ID,
    "name": "Tenant acme, daily",
    "scope": "tenantId",
    "scopeValue": "acme",
    "eachValue": False,
    "period": "daily",
    "limitUsd": 50,
    "thresholds": [{"percent": 50}, {"percent": 80}, {"percent": 100}, {"usd": 45}],
    "enforcement": "hard",
    "unpriced": "ignore",
    "estimateUsdPer1MTokens": None,
    "raise": {"limitUsd": 75, "until": "2026-03-09T00:00:00Z", "reason": "Launch week"},
    "managedBy": "budgets",
    "createdAt": "2026-03-01T09:30:00Z",
    "updatedAt": "2026-03-07T08:00:00Z",
    "countsFrom": None,
    "lastSeenAt": "2026-03-07T00:00:00Z",
    "current": {
        "periodStart": "2026-03-07T00:00:00Z",
        "resetsAt": "2026-03-08T00:00:00Z",
        "limitUsd": 75,
        "currentSpendUsd": 41.25,
        "heldUsd": 0.5,
        "remainingUsd": 33.25,
        "adjustedUsd": 0,
        "utilizationRatio": 0.55,
        "isWarning": True,
        "isExceeded": False,
        "isEnforced": True,
        "asOf": "2026-03-07T14:20:00Z",
    },
    "values": [],
    "warnings": [],
}
BUDGETS: dict[str, Any] = {"budgets": [BUDGET], "count": 1, "nextCursor": None}
DELETED: dict[str, Any] = {"ok": True, "liveLeases": 2, "heldUsd": 0.5}
RAISE_WISH: dict[str, Any] = {"limitUsd": 75, "until": "2026-03-09T00:00:00Z", "reason": "Launch week"}
ADJUSTMENT_WISH: dict[str, Any] = {"amountUsd": -12.5, "reason": "Refunded by the provider"}
ADJUSTMENT: dict[str, Any] = {
    **ADJUSTMENT_WISH,
    "scopeValue": None,
    "periodStart": "2026-03-07T00:00:00Z",
    "createdAt": "2026-03-07T14:10:00Z",
    "by": "Ada Lovelace",
}
ADJUSTMENTS: dict[str, Any] = {"adjustments": [ADJUSTMENT], "count": 1}
HISTORY: dict[str, Any] = {
    "entries": [
        {
            "at": "2026-03-07T08:00:00Z",
            "by": "Ada Lovelace",
            "action": "budget.raised",
            "old": {"limitUsd": 50, "raisedLimitUsd": None},
            "new": {"limitUsd": 50, "raisedLimitUsd": 75},
        }
    ],
    "count": 1,
}
SIMULATION: dict[str, Any] = {
    "start": "2026-02-06T00:00:00Z",
    "end": "2026-03-07T14:20:00Z",
    "exactFrom": None,
    "knownFrom": None,
    "sentRequests": 98231,
    "sentUsd": 812.4,
    "refusedRequests": 120,
    "refusedUsd": 1.92,
    "alerts": 3,
    "periodCount": 1,
    "periods": [
        {
            "periodStart": "2026-03-02T00:00:00Z",
            "resetsAt": "2026-03-03T00:00:00Z",
            "scopeValue": "acme",
            "sentRequests": 4100,
            "sentUsd": 51.95,
            "refusedRequests": 120,
            "refusedUsd": 1.92,
            "crossings": [{"crossedAt": "2026-03-02T21:04:11Z", "percent": 100, "levelUsd": 50, "spendUsd": 50.000045}],
        }
    ],
}
LEASES: dict[str, Any] = {
    "leases": [
        {
            "externalRequestId": "req-7f3a",
            "heldUsd": 0.25,
            "unpricedTokens": 0,
            "createdAt": "2026-03-07T14:19:30Z",
            "expiresAt": "2026-03-07T14:24:30Z",
            "provider": "openai",
            "model": "gpt-4o-mini",
            "endpointTag": "checkout",
            "promptVersion": "v3",
            "environment": "prod",
            "dataMode": "real",
            "userId": "unknown",
            "tenantId": "acme",
            "apiKey": "17",
        }
    ],
    "count": 1,
    "nextCursor": None,
}
