"""Budgets, adjustments, history, leases and simulations as the serializers of `/v1/budgets` take them."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from budgets.models import Budget, Enforcement
from budgets.scoped.replays import BudgetReplay, ReplayedPeriod
from budgets.scoped.selectors import BudgetStanding
from budgets.scoped.serializers import FIELD_NAMES, PERIOD_NAMES, thresholds_json
from budgets.scoped.words import notes
from ingest.models import Lease, LimitAdjustment
from ingest.scopes import wire_name
from opsmeter_site.lib.periods import Window, to_wire
from opsmeter_site.lib.wire import plain_number
from workspaces.audit_words import name_of
from workspaces.models import AuditEntry

MOST_PERIODS = 1_000
_UTC = ZoneInfo("UTC")
_ZERO = Decimal(0)
_HUNDRED = Decimal(100)
_MOMENTS = {"raised_until", "period_start"}


def budget_json(standing: BudgetStanding, now: datetime) -> dict[str, Any]:
    """A budget and where it stands at `now`."""
    budget = standing.budget
    return {
        "id": budget.pk,
        "name": budget.name,
        "scope": wire_name(budget.scope_kind),
        "scopeValue": budget.scope_value or None,
        "eachValue": budget.is_each_value,
        "period": PERIOD_NAMES[budget.period],
        "limitUsd": budget.limit_usd,
        "thresholds": thresholds_json(budget.thresholds, budget.thresholds_usd),
        "enforcement": budget.enforcement,
        "unpriced": budget.unpriced,
        "estimateUsdPer1MTokens": budget.estimate_usd_per_1m,
        "raise": _raise(budget, now),
        "managedBy": "settings" if budget.is_of_workspace else "budgets",
        "createdAt": budget.created_at,
        "updatedAt": budget.updated_at,
        "countsFrom": standing.counts_from,
        "lastSeenAt": standing.last_seen,
        "current": _current(standing, now),
        "values": [
            {
                "scopeValue": value.scope_value,
                "currentSpendUsd": value.spend_usd,
                "heldUsd": value.held_usd,
                "isWarning": value.is_warning,
                "isExceeded": value.is_exceeded,
            }
            for value in standing.values
        ],
        "warnings": _warnings(standing),
    }


def adjustment_json(adjustment: LimitAdjustment) -> dict[str, Any]:
    """An adjustment; its person is at hand."""
    return {
        "amountUsd": adjustment.usd,
        "reason": adjustment.reason,
        "scopeValue": adjustment.scope_value or None,
        "periodStart": adjustment.period_start,
        "createdAt": adjustment.created_at,
        "by": name_of(adjustment.created_by),
    }


def entry_json(entry: AuditEntry) -> dict[str, Any]:
    """An entry of a budget's history; its person is at hand."""
    return {
        "at": entry.created_at,
        "by": name_of(entry.actor),
        "action": entry.action,
        "old": _facts(entry.data.get("old") or {}),
        "new": _facts(entry.data.get("new") or {}),
    }


def lease_json(lease: Lease) -> dict[str, Any]:
    """A live lease."""
    return {
        "externalRequestId": lease.external_request_id,
        "heldUsd": lease.usd,
        "unpricedTokens": lease.unpriced_tokens,
        "createdAt": lease.created_at,
        "expiresAt": lease.expires_at,
        "provider": lease.provider,
        "model": lease.model,
        "endpointTag": lease.endpoint_tag,
        "promptVersion": lease.prompt_version,
        "environment": lease.environment,
        "dataMode": lease.data_mode,
        "userId": lease.user_id,
        "tenantId": lease.tenant_id,
        "apiKey": str(lease.api_key_id),
    }


def replay_json(replay: BudgetReplay) -> dict[str, Any]:
    """What a budget would have done."""
    return {
        "start": replay.start,
        "end": replay.end,
        "exactFrom": replay.exact_from,
        "knownFrom": replay.known_from,
        **_sent(replay),
        "alerts": replay.alerts,
        "periodCount": len(replay.periods),
        "periods": [_period(period) for period in replay.periods[:MOST_PERIODS]],
    }


def _raise(budget: Budget, now: datetime) -> dict[str, Any] | None:
    if not budget.is_raised_at(now):
        return None
    return {"limitUsd": budget.raised_limit_usd, "until": budget.raised_until, "reason": budget.raise_reason}


def _current(standing: BudgetStanding, now: datetime) -> dict[str, Any]:
    return {
        **_bounds(standing.window),
        "limitUsd": standing.limit_usd,
        "currentSpendUsd": standing.spend_usd,
        "heldUsd": standing.held_usd,
        "remainingUsd": max(standing.remaining_usd, _ZERO),
        "adjustedUsd": standing.adjusted_usd,
        "utilizationRatio": standing.utilization_ratio,
        "isWarning": standing.is_warning,
        "isExceeded": standing.is_exceeded,
        "isEnforced": standing.is_enforced,
        "asOf": now,
    }


def _warnings(standing: BudgetStanding) -> list[str]:
    found = notes(standing, _UTC)
    if standing.budget.enforcement == Enforcement.HARD and not standing.is_enforced:
        found.append("The workspace is in observe mode: its hard stops are evaluated and refuse nothing.")
    return found


def _bounds(window: Window) -> dict[str, datetime]:
    return {"periodStart": window.start, "resetsAt": window.end}


def _sent(of: BudgetReplay | ReplayedPeriod) -> dict[str, Any]:
    return {
        "sentRequests": of.sent_requests,
        "sentUsd": of.sent_usd,
        "refusedRequests": of.refused_requests,
        "refusedUsd": of.refused_usd,
    }


def _period(period: ReplayedPeriod) -> dict[str, Any]:
    return {
        **_bounds(period.window),
        "scopeValue": period.scope_value,
        **_sent(period),
        "crossings": [
            {
                "crossedAt": crossing.crossed_at,
                "percent": crossing.share * _HUNDRED,
                "levelUsd": crossing.level_usd,
                "spendUsd": crossing.spend_usd,
            }
            for crossing in period.crossings
        ],
    }


def _facts(values: Mapping[str, Any]) -> dict[str, Any]:
    """What an audit entry stored, as the wire calls and writes it."""
    names = FIELD_NAMES | {"adjusted_usd": "amountUsd"}
    facts = {names.get(name) or _camel(name): _fact(name, value) for name, value in values.items()}
    if "thresholds" in values:
        shares, amounts = (
            [Decimal(number) for number in values.get(name) or ()] for name in ("thresholds", "thresholds_usd")
        )
        facts["thresholds"] = thresholds_json(shares, amounts)
    return facts


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _fact(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_fact(name, each) for each in value]
    if name == "scope_kind":
        return wire_name(value)
    if name == "scope_value":
        return value or None
    if name in _MOMENTS and value:
        return to_wire(datetime.fromisoformat(value))
    if name == "period":
        return PERIOD_NAMES.get(value, value)
    is_number = "usd" in name or name == "thresholds" or name.endswith("_ratio")
    return plain_number(Decimal(value)) if is_number and isinstance(value, str) else value
