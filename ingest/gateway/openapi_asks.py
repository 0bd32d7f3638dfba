"""Checks, leases and releases as OpenAPI 3.0."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingest.gateway.openapi_schemas import (
    BUDGET,
    BUDGET_EXAMPLE,
    EVENT_PROPERTIES,
    MOMENT,
    USD,
    WARNINGS,
    Schema,
    flag,
    record,
    text,
    tokens,
)

_ID = text("The id under which the event of the call will be sent.", minLength=1)
_LABELS: Schema = {
    name: EVENT_PROPERTIES[name]
    for name in (
        "endpointTag", "promptVersion", "tenantId", "userId", "environment", "dataMode", "serviceTier",
    )
}  # fmt: skip
_PROVIDER = text("As in events.", 100, minLength=1)
_MODEL = text("As in events.", minLength=1)
_OPTIONAL_NAMES: Schema = {
    "provider": text("As in events. Default `unknown`.", 100, nullable=True),
    "model": text("As in events. Default `unknown`.", nullable=True),
}
_ESTIMATE: Schema = {
    "estimatedCostUsd": {
        **USD,
        "maximum": 10_000_000,
        "nullable": True,
        "description": "What the call may cost. Wins over tokens.",
    },
    "estimatedInputTokens": tokens("Input tokens, priced at the current prices.", nullable=True),
    "estimatedOutputTokens": tokens("Output tokens, reasoning included.", nullable=True),
    "estimatedCachedInputTokens": tokens("Of the input tokens, those read from the cache.", nullable=True),
}
_SECONDS: Schema = {
    "type": "integer",
    "minimum": 1,
    "maximum": 3_600,
    "nullable": True,
    "description": "How long the estimate is held if no event arrives. Default 120.",
}
_LEASE = record(
    {
        "state": {"type": "string", "enum": ["held", "released"]},
        "heldUsd": {**USD, "description": "What it holds, or held until it was released; 0 without a known price."},
        "expiresAt": MOMENT,
        "createdAt": MOMENT,
    },
    nullable=True,
    description="The lease that is held, or was released now.",
)
_REASONS = ("budget_exceeded", "unpriced", "already_recorded", "no_lease")


def _answered(*reasons: str) -> Schema:
    nullable_budget = {"allOf": [BUDGET], "nullable": True, "description": "The one that says no, else the tightest."}
    return {
        "ok": flag("Always true: the question was understood. Look at `allowed`."),
        "allowed": flag("No hard stop speaks against the call."),
        "reason": {"type": "string", "nullable": True, "enum": [*reasons, None]},
        "message": {"type": "string", "nullable": True, "description": "For people: which budget, and what is left."},
        "providerCallsContinue": flag("Always true: Opsmeter is never in the path of a provider call."),
        "estimatedCostUsd": {**USD, "nullable": True, "description": "Null: nothing was estimated, or no known price."},
        "remainingUsd": {**USD, "nullable": True, "description": "What is left of `budget`, after this lease."},
        "resetsAt": {**MOMENT, "nullable": True, "description": "When the period of `budget` ends."},
        "budget": nullable_budget,
        "budgets": {"type": "array", "items": BUDGET, "description": "All that apply, the tightest first."},
        "observeMode": flag("The workspace evaluates budgets and enforces none: everything is allowed."),
        "warnings": WARNINGS,
    }


_OF_ONE_CALL: Schema = {
    "externalRequestId": {"type": "string"},
    "lease": _LEASE,
    "duplicate": flag("The lease was held before: the same id, asked for again."),
}

SCHEMAS: dict[str, Schema] = {
    "BudgetCheck": {
        "type": "object",
        "properties": _OPTIONAL_NAMES | _LABELS | _ESTIMATE,
        "description": "A call to come. Without an estimate: may anything be spent at all?",
    },
    "BudgetChecked": record(_answered("budget_exceeded", "unpriced")),
    "BudgetLease": record(
        {"externalRequestId": _ID, "provider": _PROVIDER, "model": _MODEL, "leaseSeconds": _SECONDS}
        | _LABELS
        | _ESTIMATE,
        optional=("leaseSeconds", *_LABELS, *_ESTIMATE),
        description="A call to come, with `estimatedCostUsd`, or `estimatedInputTokens` and `estimatedOutputTokens`.",
    ),
    "BudgetLeased": record(_answered(*_REASONS[:3]) | _OF_ONE_CALL),
    "BudgetRelease": record(
        {"externalRequestId": _ID} | _OPTIONAL_NAMES | _LABELS,
        optional=(*_OPTIONAL_NAMES, *_LABELS),
        description="The labels matter only to the answer about an id without a lease.",
    ),
    "BudgetReleased": record(
        _answered("no_lease") | _OF_ONE_CALL | {"released": flag("A lease was held until this request.")}
    ),
}

_CALL_EXAMPLE: dict[str, Any] = {
    "provider": "openai",
    "model": "gpt-4o-mini",
    "endpointTag": "support/summarize",
    "tenantId": "acme",
    "estimatedInputTokens": 4000,
    "estimatedOutputTokens": 800,
}
_ID_EXAMPLE = {"externalRequestId": "ext_01hs5y6b1w"}
_NOTICE_EXAMPLE: dict[str, Any] = {
    **BUDGET_EXAMPLE["budget"],
    "name": "Acme",
    "scope": "tenantId",
    "scopeValue": "acme",
    "currentSpendUsd": 12.5,
    "heldUsd": 0.25,
    "remainingUsd": 37.25,
}
CHECKED_EXAMPLE: dict[str, Any] = {
    "ok": True,
    "allowed": True,
    "reason": None,
    "message": None,
    "providerCallsContinue": True,
    "estimatedCostUsd": 0.00108,
    "remainingUsd": 37.25,
    "resetsAt": "2026-03-08T00:00:00Z",
    "budget": _NOTICE_EXAMPLE,
    "budgets": [_NOTICE_EXAMPLE],
    "observeMode": False,
    "warnings": [],
}
_FULL_NOTICE = {**_NOTICE_EXAMPLE, "currentSpendUsd": 49.75, "remainingUsd": 0}
_DENIED_EXAMPLE: dict[str, Any] = {
    **CHECKED_EXAMPLE,
    "allowed": False,
    "reason": "budget_exceeded",
    "message": 'The budget "Acme" (daily, tenantId acme) has 0 of 50 USD left: 49.75 USD are spent, and live leases '
    "hold 0.25 USD. This call may cost 0.00108 USD. It resets at 2026-03-08T00:00:00Z.",
    "remainingUsd": 0,
    "budget": _FULL_NOTICE,
    "budgets": [_FULL_NOTICE],
}
_HELD: dict[str, Any] = {
    **_ID_EXAMPLE,
    "lease": {
        "state": "held",
        "heldUsd": 0.00108,
        "expiresAt": "2026-03-07T10:17:00Z",
        "createdAt": "2026-03-07T10:15:00Z",
    },
    "duplicate": False,
}
_NOTHING_HELD = _HELD | {"lease": None}
LEASED_EXAMPLE: dict[str, Any] = CHECKED_EXAMPLE | _HELD
_RELEASED_EXAMPLE: dict[str, Any] = {
    **LEASED_EXAMPLE,
    "lease": {**_HELD["lease"], "state": "released"},
    "released": True,
}


@dataclass(frozen=True)
class Operation:
    """One of the three: what it is called, and its schemas with examples."""

    operation_id: str
    summary: str
    description: str
    question: str
    questions: Mapping[str, Any]
    answered: str
    answer: str
    answers: Mapping[str, Any]


_RATE = (
    "Questions have a rate of their own, as large as that of ingest. Whatever is understood is answered 200; nothing "
    "here ever stops a provider call."
)

OPERATIONS = {
    "/v1/budgets/check": Operation(
        "budgetsCheck",
        "Ask whether a call may be made",
        "Allowed if recorded spend, live leases and the estimate together are not over any hard-stop budget that "
        f"applies. Holds nothing. {_RATE}",
        "BudgetCheck",
        {"call": _CALL_EXAMPLE, "anything": {"tenantId": "acme"}},
        "Whether the call may be made, and where every budget that applies stands.",
        "BudgetChecked",
        {"allowed": CHECKED_EXAMPLE, "denied": _DENIED_EXAMPLE},
    ),
    "/v1/budgets/leases": Operation(
        "budgetsLease",
        "Hold the estimate of a call",
        "Like a check, and the estimate of an allowed call is held until its event is sent under the same "
        "`externalRequestId`, until it is released, or until its time is up. The same id again answers the same lease. "
        f"{_RATE}",
        "BudgetLease",
        {"call": _ID_EXAMPLE | _CALL_EXAMPLE | {"leaseSeconds": 120}},
        "The lease, or why nothing is held.",
        "BudgetLeased",
        {"held": LEASED_EXAMPLE, "denied": _DENIED_EXAMPLE | _NOTHING_HELD},
    ),
    "/v1/budgets/leases/release": Operation(
        "budgetsRelease",
        "Give up a lease",
        f"For a call that is not made after all. An id without a live lease is no error. {_RATE}",
        "BudgetRelease",
        {"call": _ID_EXAMPLE},
        "`released` says whether there was something to give up.",
        "BudgetReleased",
        {
            "released": _RELEASED_EXAMPLE,
            "no lease": {
                **_RELEASED_EXAMPLE,
                "reason": "no_lease",
                "message": "No lease is held under this externalRequestId: it expired, was settled or released, or "
                "never was.",
                "estimatedCostUsd": None,
                "lease": None,
                "released": False,
            },
        },
    ),
}
