"""What limits count at a moment, many limits in a fixed number of queries: `ingest.meters.counted` for some values."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Q

from ingest.limits import estimated_usd
from ingest.models import Limit, LimitAdjustment, Meter
from opsmeter_site.lib.periods import Period, window_of

_ZERO = Decimal(0)


def counted_values(
    asked: Mapping[UUID, tuple[Limit, Collection[str]]], now: datetime
) -> dict[tuple[UUID, str], Decimal]:
    """What each of the limits counts of each of these scope values in its running period, in USD or requests.

    Estimates and adjustments are included. A limit that is not on each value has one value, its own.
    """
    meters = _meters(asked, now)
    adjusted = _adjusted(asked, now)
    counted = {}
    for pk, (limit, values) in asked.items():
        for value in values:
            spent, tokens = meters.get(
                (limit.workspace_id, limit.measure, limit.period, limit.scope_kind, value), (_ZERO, 0)
            )
            estimate = estimated_usd(tokens, limit.estimate_usd_per_1m)
            counted[pk, value] = spent + estimate + adjusted[pk, value if limit.is_each_value else ""]
    return counted


def _meters(
    asked: Mapping[UUID, tuple[Limit, Collection[str]]], now: datetime
) -> dict[tuple[Any, ...], tuple[Decimal, int]]:
    """Value and unpriced tokens by workspace, measure, period and scope."""
    rows = Meter.objects.filter(
        _current("", now),
        workspace__in={limit.workspace_id for limit, _ in asked.values()},
        scope_kind__in={limit.scope_kind for limit, _ in asked.values()},
        scope_value__in={value for _, values in asked.values() for value in values},
    ).values_list("workspace_id", "measure", "period", "scope_kind", "scope_value", "value", "unpriced_tokens")
    return {tuple(key): (value, tokens) for *key, value, tokens in rows}


def _adjusted(asked: Mapping[UUID, tuple[Limit, Collection[str]]], now: datetime) -> dict[tuple[UUID, str], Decimal]:
    """Adjustments by limit and value; the value is empty for a limit that is not on each value."""
    rows = LimitAdjustment.objects.filter(_current("limit__", now), limit__in=asked)
    sums: dict[tuple[UUID, str], Decimal] = defaultdict(Decimal)
    for pk, value, usd in rows.values_list("limit_id", "scope_value", "usd"):
        limit, _ = asked[pk]
        sums[pk, value if limit.is_each_value else ""] += usd
    return sums


def _current(prefix: str, now: datetime) -> Q:
    """The running periods."""
    current = Q()
    for period in Period:
        current |= Q(**{f"{prefix}period": period, "period_start": window_of(period, now).start})
    return current
