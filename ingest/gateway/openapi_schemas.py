"""The gateway's JSON, described by hand: the wire contract, section 1, as OpenAPI 3.0 schemas and examples."""

from typing import Any

from ingest.scopes import WIRE_NAMES, WORKSPACE_WIRE_NAME

Schema = dict[str, Any]

_MAX_TOKENS = 1_000_000_000


def text(description: str, maximum: int = 200, **more: Any) -> Schema:
    """A text of at most `maximum` characters."""
    return {"type": "string", "maxLength": maximum, "description": description, **more}


def _optional_text(description: str, **more: Any) -> Schema:
    return text(description, nullable=True, **more)


def tokens(description: str, maximum: int = _MAX_TOKENS, **more: Any) -> Schema:
    """A number of tokens."""
    return {"type": "integer", "minimum": 0, "maximum": maximum, "description": description, **more}


def _choice(description: str, *values: str) -> Schema:
    """An optional name: trimmed and case-folded by the server; null means the default, which comes first."""
    text = f"{description} Default `{values[0]}`; case and surrounding blanks make no difference."
    return {"type": "string", "enum": [*values, None], "nullable": True, "description": text}


def flag(description: str) -> Schema:
    """True or false."""
    return {"type": "boolean", "description": description}


def record(properties: Schema, *, optional: tuple[str, ...] = (), **more: Any) -> Schema:
    """An object with these properties, all of them required but the `optional` ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, **more}


USD = {"type": "number", "minimum": 0}
_REQUIRED_EVENT_FIELDS = ("provider", "model", "inputTokens", "outputTokens", "status")

EVENT_PROPERTIES: Schema = {
    "externalRequestId": _optional_text(
        "Idempotency key, unique in the workspace: a repeat is answered 200 and counts nothing. Missing or empty: a "
        "generated id is used, with a warning.",
    ),
    "provider": text("Who served the call, such as `openai`.", 100, minLength=1),
    "model": text("The model as the provider calls it. Unknown ones are stored as unpriced.", minLength=1),
    "promptVersion": _optional_text("Version of the prompt. Default `unknown`."),
    "endpointTag": _optional_text("The feature or route that made the call. Default `unknown`."),
    "inputTokens": tokens("All input tokens, cached ones included (but see `usageConvention`)."),
    "outputTokens": tokens("All output tokens, reasoning included."),
    "totalTokens": tokens(
        "Default input + output; another value is stored, with a warning.", 4 * _MAX_TOKENS, nullable=True
    ),
    "latencyMs": {
        "type": "integer",
        "minimum": 0,
        "maximum": 86_400_000,
        "nullable": True,
        "description": "Duration of the provider call in milliseconds.",
    },
    "status": {"type": "string", "enum": ["success", "error"], "description": "How the provider call ended."},
    "errorCode": {
        "anyOf": [{"type": "string", "maxLength": 200, "nullable": True}, {"type": "integer"}],
        "description": "The provider's error code; stored as text.",
    },
    "userId": _optional_text("Your user. Missing groups as `unknown`."),
    "tenantId": _optional_text("Your customer. Also read from `metadata.tenantId`."),
    "featureTag": _optional_text("The product feature. Also read from `metadata.feature`."),
    "createdAt": {
        "type": "string",
        "format": "date-time",
        "nullable": True,
        "description": "When the call happened; default now. At most 35 days ago and 5 minutes ahead. ISO 8601; UTC "
        "unless it names an offset.",
    },
    "occurredAt": {
        "type": "string",
        "format": "date-time",
        "nullable": True,
        "description": "Another name of `createdAt`, which wins when both are sent.",
    },
    "dataMode": _choice("Demo rows use no plan quota.", "real", "test", "demo"),
    "environment": _choice("Where the caller runs.", "prod", "staging", "dev"),
    "metadata": {
        "type": "object",
        "nullable": True,
        "additionalProperties": {
            "anyOf": [{"type": "string", "nullable": True}, {"type": "number"}, {"type": "boolean"}]
        },
        "description": "Scalar values and nulls, at most 4 KiB as JSON.",
    },
    "cachedInputTokens": tokens("Read from the provider's cache; part of `inputTokens`.", nullable=True),
    "cacheWriteTokens": tokens("Written to the provider's cache; part of `inputTokens`.", nullable=True),
    "reasoningTokens": tokens("Part of `outputTokens`.", nullable=True),
    "usageConvention": _choice(
        "`exclusive` says that cached and cache-write tokens come on top of `inputTokens`.", "inclusive", "exclusive"
    ),
    "serviceTier": _choice("The provider's price tier of the call.", "standard", "batch", "flex", "priority"),
    "costUsd": {
        **USD,
        "maximum": 10_000_000,
        "nullable": True,
        "description": "The provider's own figure, if it gave one; stored beside ours, never replacing it.",
    },
}

_FLAGS: Schema = {
    "telemetryPaused": flag("The plan limit is reached: telemetry is refused until the plan or the month changes."),
    "providerCallsContinue": flag("Always true: Opsmeter is never in the path of a provider call."),
    "isPlanLimitReached": flag("The plan's requests of this UTC month are used up."),
    "budgetWarning": flag("Spend has reached the warning threshold of a daily or monthly budget."),
    "budgetExceeded": flag("Spend is above a daily or monthly budget."),
    "planLimitRequests": {"type": "integer", "minimum": 0, "description": "Requests a UTC month; 0: no limit."},
    "freeLimitRemainingRequests": {
        "type": "integer",
        "minimum": 0,
        "description": "Requests left this UTC month, on every plan; the name is historical.",
    },
}
WARNINGS: Schema = {"type": "array", "items": {"type": "string"}}
_PLAN_TIER = {"type": "string", "description": "The plan's display name, such as `Free`."}
_COST = {**USD, "nullable": True, "description": "What the call cost, in USD; null: no price is known (unpriced)."}
_DUPLICATE = flag("The id was stored before: nothing was added to any counter.")
_ERRORS: Schema = {
    "type": "array",
    "items": record({"field": {"type": "string"}, "message": {"type": "string"}}),
    "description": "Each field at fault, as the client wrote it; the empty name is the body itself.",
}
MOMENT: Schema = {"type": "string", "format": "date-time"}
BUDGET: Schema = {"$ref": "#/components/schemas/BudgetNotice"}
TIGHTEST: Schema = {"allOf": [BUDGET], "nullable": True, "description": "The tightest budget that applies, if any."}
_BLOCKED: Schema = {
    "type": "string",
    "description": "Only if a budget refuses events without a known price: which model.",
}
_BATCH_COUNTS: Schema = {
    "accepted": {"type": "integer", "minimum": 0, "description": "New events stored."},
    "duplicates": {"type": "integer", "minimum": 0, "description": "Events that were stored before."},
    "rejected": {"type": "integer", "minimum": 0, "description": "Events that were not stored."},
    "results": {
        "type": "array",
        "items": {"$ref": "#/components/schemas/TelemetryBatchResult"},
        "description": "One an event, in order.",
    },
}

SCHEMAS: dict[str, Schema] = {
    "BudgetNotice": record(
        {
            "id": {"type": "string"},
            "name": {"type": "string"},
            "scope": {
                "type": "string",
                "enum": [WORKSPACE_WIRE_NAME, *WIRE_NAMES.values()],
                "description": "What it counts: everything, or what has one value of this field.",
            },
            "scopeValue": {"type": "string", "nullable": True, "description": "That value; null for `workspace`."},
            "period": {"type": "string", "enum": ["daily", "monthly"]},
            "limitUsd": {**USD, "description": "The limit in force now, a temporary raise included."},
            "currentSpendUsd": {"type": "number", "description": "Recorded spend; adjustments and estimates included."},
            "heldUsd": {**USD, "description": "What live leases hold besides."},
            "remainingUsd": {**USD, "description": "What is left after both; never below 0."},
            "resetsAt": {**MOMENT, "description": "The end of the UTC day or month."},
        },
        description="Where a budget stands: the one that refused, or the tightest of those that apply.",
    ),
    "TelemetryEvent": {
        "type": "object",
        "description": "One LLM call. Unknown fields are ignored; prompts and completions have no field.",
        "properties": EVENT_PROPERTIES,
        "required": list(_REQUIRED_EVENT_FIELDS),
    },
    "TelemetryBatch": record(
        {
            "events": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/TelemetryEvent"},
                "minItems": 1,
                "maxItems": 1_000,
            }
        }
    ),
    "TelemetryAccepted": record(
        {
            "ok": flag("Always true."),
            "accepted": flag("Always true: the row is committed and every counter includes it."),
            "duplicate": _DUPLICATE,
            "reason": {"type": "string", "nullable": True, "enum": [None], "description": "Always null."},
            "warnings": WARNINGS,
            "planTier": _PLAN_TIER,
            **_FLAGS,
            "externalRequestId": {"type": "string", "description": "As stored; generated if none was sent."},
            "costUsd": _COST,
            "budget": TIGHTEST,
        }
    ),
    "TelemetryBatchResult": record(
        {
            "externalRequestId": {"type": "string", "nullable": True},
            "accepted": flag("The row is stored, now or before."),
            "duplicate": _DUPLICATE,
            "reason": {
                "type": "string",
                "nullable": True,
                "enum": ["invalid_payload", "invalid_json", "plan_limit_reached", "budget_exceeded", None],
            },
            "costUsd": _COST,
            "warnings": WARNINGS,
            "errors": _ERRORS,
        }
    ),
    "TelemetryBatchAccepted": record(
        {
            "ok": flag("Always true: the batch was read. Look at each result."),
            "reason": {"type": "string", "nullable": True, "enum": [None], "description": "Always null."},
            "warnings": WARNINGS,
            "planTier": _PLAN_TIER,
            **_FLAGS,
            "budget": TIGHTEST,
            **_BATCH_COUNTS,
        }
    ),
    "TelemetryRefused": record(
        {
            "ok": flag("Always false."),
            "accepted": flag("Always false: nothing was stored."),
            "reason": {"type": "string", "enum": ["plan_limit_reached", "budget_exceeded"]},
            **_FLAGS,
            "message": _BLOCKED,
            "budget": BUDGET,
        },
        optional=("message", "budget"),
    ),
    "TelemetryBatchRefused": record(
        {
            "ok": flag("Always false."),
            "reason": {"type": "string", "enum": ["plan_limit_reached", "budget_exceeded"]},
            "warnings": WARNINGS,
            "planTier": _PLAN_TIER,
            **_FLAGS,
            "message": _BLOCKED,
            "budget": BUDGET,
            **_BATCH_COUNTS,
        },
        optional=("message", "budget"),
    ),
    "TelemetryError": record(
        {
            "ok": flag("Always false."),
            "accepted": flag("Always false: nothing was stored."),
            "reason": {"type": "string", "description": "For machines; stable."},
            **_FLAGS,
            "message": {"type": "string", "description": "For people."},
            "errors": _ERRORS,
        },
        optional=("message", "errors"),
    ),
}

EVENT_EXAMPLE: dict[str, Any] = {
    "externalRequestId": "ext_01hs5y6b1w",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "promptVersion": "summary_v3",
    "endpointTag": "support/summarize",
    "inputTokens": 120,
    "outputTokens": 45,
    "latencyMs": 820,
    "status": "success",
    "tenantId": "acme",
}
_OPEN_FLAGS: dict[str, Any] = {
    "telemetryPaused": False,
    "providerCallsContinue": True,
    "isPlanLimitReached": False,
    "budgetWarning": False,
    "budgetExceeded": False,
    "planLimitRequests": 10000,
    "freeLimitRemainingRequests": 9999,
}
ACCEPTED_EXAMPLE: dict[str, Any] = {
    "ok": True,
    "accepted": True,
    "duplicate": False,
    "reason": None,
    "warnings": [],
    "planTier": "Free",
    **_OPEN_FLAGS,
    "externalRequestId": "ext_01hs5y6b1w",
    "costUsd": 0.000045,
    "budget": None,
}
# The one of the public documentation.
PLAN_LIMIT_EXAMPLE: dict[str, Any] = {
    "ok": False,
    "accepted": False,
    "reason": "plan_limit_reached",
    "telemetryPaused": True,
    "providerCallsContinue": True,
    "isPlanLimitReached": True,
    "budgetWarning": False,
    "budgetExceeded": False,
    "planLimitRequests": 100000,
    "freeLimitRemainingRequests": 0,
}
BUDGET_EXAMPLE: dict[str, Any] = {
    **PLAN_LIMIT_EXAMPLE,
    "reason": "budget_exceeded",
    "telemetryPaused": False,
    "isPlanLimitReached": False,
    "budgetWarning": True,
    "budgetExceeded": True,
    "freeLimitRemainingRequests": 1769,
    "budget": {
        "id": "5c0d6f0e-8c3e-4b65-9a0b-7a8f6a3d9c11",
        "name": "Daily budget",
        "scope": "workspace",
        "scopeValue": None,
        "period": "daily",
        "limitUsd": 50,
        "currentSpendUsd": 50.01,
        "heldUsd": 0,
        "remainingUsd": 0,
        "resetsAt": "2026-03-08T00:00:00Z",
    },
}
BATCH_EXAMPLE: dict[str, Any] = {
    "ok": True,
    "reason": None,
    "warnings": [],
    "planTier": "Free",
    **_OPEN_FLAGS,
    "budget": None,
    "accepted": 1,
    "duplicates": 0,
    "rejected": 1,
    "results": [
        {
            "externalRequestId": "ext_01hs5y6b1w",
            "accepted": True,
            "duplicate": False,
            "reason": None,
            "costUsd": 0.000045,
            "warnings": [],
            "errors": [],
        },
        {
            "externalRequestId": "ext_01hs5y6b1x",
            "accepted": False,
            "duplicate": False,
            "reason": "invalid_payload",
            "costUsd": None,
            "warnings": [],
            "errors": [{"field": "inputTokens", "message": "Expected `int` >= 0."}],
        },
    ],
}


def error_example(reason: str, *errors: dict[str, str]) -> dict[str, Any]:
    """An error answer as the gateway writes it."""
    flags = dict.fromkeys(_OPEN_FLAGS, False) | {
        "providerCallsContinue": True,
        "planLimitRequests": 0,
        "freeLimitRemainingRequests": 0,
    }
    body: dict[str, Any] = {"ok": False, "accepted": False, "reason": reason, **flags}
    return body | {"errors": list(errors)} if errors else body
