"""What the gateway says: the answers of the wire contract, section 1, key for key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec

from ingest.gateway.ledger import BudgetNotice, Standing, Verdict
from ingest.limit_sets import ZERO
from ingest.models import RefusalReason
from ingest.scopes import wire_name
from opsmeter_site.lib.errors import FieldError
from opsmeter_site.lib.periods import Period, to_wire, window_of
from opsmeter_site.lib.wire import plain_number

encode = msgspec.json.Encoder(decimal_format="number").encode

STATUS_LINES = {
    200: "200 OK",
    400: "400 Bad Request",
    401: "401 Unauthorized",
    402: "402 Payment Required",
    403: "403 Forbidden",
    405: "405 Method Not Allowed",
    413: "413 Content Too Large",
    415: "415 Unsupported Media Type",
    429: "429 Too Many Requests",
    500: "500 Internal Server Error",
    503: "503 Service Unavailable",
}

_ENTITY_MESSAGES = {
    "missing_api_key": "Send your workspace's API key in the X-API-Key header.",
    "invalid_api_key": "The API key is malformed, unknown, expired or revoked.",
    "invalid_json": "The body is not one JSON object in UTF-8; `errors` says where.",
    "invalid_payload": "The body is JSON, but not what this endpoint takes; `errors` names the fields.",
    "rate_limited": "Too many requests this minute. Retry after the time in Retry-After.",
    "payload_too_large": "The body is larger than this endpoint takes.",
    "unsupported_media_type": "Send the body as application/json, plain; OTLP also as application/x-protobuf and gzip.",
    "method_not_allowed": "This endpoint does not know that method; see the Allow header.",
    "unavailable": "Nothing was stored. Retry after the time in Retry-After, with the same externalRequestId.",
    "internal_error": "Something went wrong on our side. Retry with the same externalRequestId.",
}


@dataclass(slots=True)
class Answer:
    """A status, the body (JSON, but for OTLP in protobuf) and headers besides the common ones."""

    status: int
    body: bytes
    headers: list[tuple[str, str]] = field(default_factory=list)
    outcome: str = "accepted"
    content_type: str = "application/json"


def number(amount: Decimal | None) -> Decimal | None:
    """Money as a JSON number with its own digits, trailing zeros left out."""
    return None if amount is None else plain_number(amount)


def flags(standing: Standing) -> dict[str, Any]:
    """What every answer says about the workspace."""
    return {
        "telemetryPaused": standing.is_plan_limit_reached,
        "providerCallsContinue": True,
        "isPlanLimitReached": standing.is_plan_limit_reached,
        "budgetWarning": standing.is_budget_warning,
        "budgetExceeded": standing.is_budget_exceeded,
        "planLimitRequests": standing.plan_limit_requests or 0,
        "freeLimitRemainingRequests": standing.remaining_requests or 0,
    }


def event_warnings(verdict: Verdict, warnings: Sequence[str]) -> list[str]:
    """The warnings of one event; a repeat says only whether it differs from the stored row."""
    if verdict.unpriced_model:
        return [_blocked(verdict)]
    if not verdict.is_duplicate:
        return list(warnings)
    return ["Another event is stored under this externalRequestId; it was kept."] if verdict.differs else []


def accepted(external_request_id: str, verdict: Verdict, warnings: Sequence[str], standing: Standing) -> Answer:
    """200: the row is committed, now or by an earlier request with the same id."""
    body = {
        "ok": True,
        "accepted": True,
        "duplicate": verdict.is_duplicate,
        "reason": None,
        "warnings": event_warnings(verdict, warnings),
        "planTier": standing.plan_name,
        **flags(standing),
        "externalRequestId": external_request_id,
        "costUsd": number(verdict.cost_usd),
        "budget": standing.budget and budget(standing.budget),
    }
    return Answer(200, encode(body), outcome="duplicate" if verdict.is_duplicate else "accepted")


def refused(verdict: Verdict, standing: Standing) -> Answer:
    """402: the plan limit or a hard-stop budget of the event's period is used up; nothing was stored."""
    return Answer(402, encode(refusal_body(verdict, standing)), outcome=verdict.reason or "")


def refusal_body(verdict: Verdict, standing: Standing) -> dict[str, Any]:
    """The 402 body. The refusing limit may be that of an earlier period; the flags then say so of that period."""
    by_plan = verdict.reason == RefusalReason.PLAN_LIMIT_REACHED
    body = {"ok": False, "accepted": False, "reason": verdict.reason, **flags(standing)}
    if by_plan:
        body |= {"telemetryPaused": True, "isPlanLimitReached": True, "freeLimitRemainingRequests": 0}
    else:
        body |= {"telemetryPaused": False, "isPlanLimitReached": False, "budgetExceeded": True}
    if verdict.unpriced_model:
        body["message"] = _blocked(verdict)
    if verdict.budget is not None:
        body["budget"] = budget(verdict.budget)
    return body


def _blocked(verdict: Verdict) -> str:
    name = verdict.budget.name if verdict.budget else ""
    return f'The budget "{name}" refuses events without a known price, and none is known for {verdict.unpriced_model}.'


def budget(notice: BudgetNotice) -> dict[str, Any]:
    """Where a budget stands, as every answer of the gateway tells it."""
    return {
        "id": notice.id,
        "name": notice.name,
        "scope": wire_name(notice.scope_kind),
        "scopeValue": notice.scope_value or None,
        "period": "daily" if notice.period == Period.DAY else "monthly",
        "limitUsd": number(notice.limit_usd),
        "currentSpendUsd": number(notice.current_spend_usd),
        "heldUsd": number(notice.held_usd),
        "remainingUsd": number(max(notice.remaining_usd, ZERO)),
        "resetsAt": resets_at(notice),
    }


def resets_at(notice: BudgetNotice) -> str:
    """When the budget's period ends, as the wire writes times."""
    return _end_of(notice.period, notice.period_start)


@lru_cache(maxsize=100)
def _end_of(period: str, start: datetime) -> str:
    return to_wire(window_of(Period(period), start).end)


def error(
    status: int,
    reason: str,
    *,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    standing: Mapping[str, Any] | None = None,
) -> Answer:
    """Any other refusal, with the keys of the 402 answer and what is wrong."""
    body: dict[str, Any] = {
        "ok": False,
        "accepted": False,
        "reason": reason,
        "telemetryPaused": False,
        "providerCallsContinue": True,
        "isPlanLimitReached": False,
        "budgetWarning": False,
        "budgetExceeded": False,
        "planLimitRequests": 0,
        "freeLimitRemainingRequests": 0,
        **(standing or {}),
    }
    if reason in _ENTITY_MESSAGES:
        body["message"] = _ENTITY_MESSAGES[reason]
    if errors:
        body["errors"] = [{"field": one.field, "message": one.message} for one in errors]
    return Answer(status, encode(body), list((headers or {}).items()), outcome=reason)


class BatchEntry(msgspec.Struct, gc=False):
    """One event of a batch: refused before the ledger saw it (`errors`), or with the ledger's verdict."""

    external_request_id: str | None
    errors: Sequence[FieldError] = ()
    verdict: Verdict | None = None
    warnings: Sequence[str] = ()


def batch(entries: Sequence[BatchEntry], standing: Standing) -> Answer:
    """200 with one result an event, in order; 402 only if every event was refused for the same limit."""
    reasons = {entry.verdict.reason if entry.verdict else None for entry in entries}
    first = entries[0].verdict
    if len(reasons) == 1 and first is not None and first.reason is not None:
        body = refusal_body(first, standing) | {"planTier": standing.plan_name, "warnings": []}
        return Answer(402, encode(body | _results(entries)), outcome=first.reason)
    body = {"ok": True, "reason": None, "warnings": [], "planTier": standing.plan_name, **flags(standing)}
    body["budget"] = standing.budget and budget(standing.budget)
    return Answer(200, encode(body | _results(entries)))


def _results(entries: Sequence[BatchEntry]) -> dict[str, Any]:
    results = [_result(entry) for entry in entries]
    return {
        "accepted": sum(1 for result in results if result["accepted"] and not result["duplicate"]),
        "duplicates": sum(1 for result in results if result["duplicate"]),
        "rejected": sum(1 for result in results if not result["accepted"]),
        "results": results,
    }


def _result(entry: BatchEntry) -> dict[str, Any]:
    verdict = entry.verdict
    if verdict is None:
        return {
            "externalRequestId": entry.external_request_id,
            "accepted": False,
            "duplicate": False,
            "reason": "invalid_payload",
            "costUsd": None,
            "warnings": [],
            "errors": [{"field": one.field, "message": one.message} for one in entry.errors],
        }
    return {
        "externalRequestId": entry.external_request_id,
        "accepted": verdict.reason is None,
        "duplicate": verdict.is_duplicate,
        "reason": verdict.reason,
        "costUsd": number(verdict.cost_usd) if verdict.reason is None else None,
        "warnings": event_warnings(verdict, entry.warnings),
        "errors": [],
    }
