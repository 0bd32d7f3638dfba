"""The audit entries of a budget in words: each value with its name, and with what it was before."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from budgets.models import Enforcement
from budgets.scoped.words import percent_in_words
from ingest.models import UnpricedPolicy
from opsmeter_site.lib.formats import NOTHING, usd_exact
from workspaces.audit_words import Value, values
from workspaces.models import AuditEntry

# What people call the values, in the order in which they read them. Scope and period never change.
_LABELS = {
    "name": "Name",
    "limit_usd": "Limit",
    "adjusted_usd": "Amount",
    "thresholds": "Alert at",
    "thresholds_usd": "Alert at amounts",
    "enforcement": "When it is exceeded",
    "unpriced": "Requests without a price",
    "estimate_usd_per_1m": "Assumed price per 1M tokens",
    "raised_limit_usd": "Raised to",
    "raised_until": "Until",
    "raise_reason": "Why",
    "reason": "Why",
    "scope_value": "Of",
}
_FIXED = {"scope_value"}


def changes(entry: AuditEntry, zone: ZoneInfo) -> list[Value]:
    """What the entry changed; moments are told in `zone`. Of a new budget, all that it says."""
    if not entry.action.startswith("budget."):
        return values(entry, zone)
    return list(_changes(entry.data.get("old") or {}, entry.data.get("new") or {}, entry.action, zone))


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], action: str, zone: ZoneInfo) -> Iterator[Value]:
    for name, label in _LABELS.items():
        if name not in new or old.get(name) == new[name] or (name in _FIXED and action != "budget.adjusted"):
            continue
        after = _text(name, new[name], zone)
        if old:
            yield Value(label, _text(name, old.get(name), zone), after)
        elif after != NOTHING:
            yield Value(label, None, after)


def _text(name: str, value: Any, zone: ZoneInfo) -> str:
    if value in (None, "", []):
        return NOTHING
    match name:
        case "thresholds":
            return ", ".join(percent_in_words(Decimal(share)) for share in value)
        case "thresholds_usd":
            return ", ".join(usd_exact(Decimal(amount)) for amount in value)
        case "limit_usd" | "adjusted_usd" | "estimate_usd_per_1m" | "raised_limit_usd":
            return usd_exact(Decimal(value))
        case "enforcement":
            return str(Enforcement(value).label)
        case "unpriced":
            return str(UnpricedPolicy(value).label)
        case "raised_until":
            return f"{datetime.fromisoformat(value).astimezone(zone):%-d %b %Y, %H:%M}"
    return str(value)
