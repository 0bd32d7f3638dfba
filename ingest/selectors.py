"""What of the roll-ups to read, and what they add up to."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

from django.db.models import Q, QuerySet, Sum

from ingest.models import Rollup


@dataclass(frozen=True, slots=True)
class Slice:
    """Which roll-ups to read: those whose value is among the given ones; none given means any."""

    data_mode: tuple[str, ...] = ()
    provider: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    endpoint_tag: tuple[str, ...] = ()
    prompt_version: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()

    def of(self, rollups: "QuerySet[Rollup]") -> "QuerySet[Rollup]":
        """`rollups` narrowed to this slice."""
        asked = {field.name: getattr(self, field.name) for field in fields(self)}
        return rollups.filter(**{f"{name}__in": values for name, values in asked.items() if values})


EVERYTHING = Slice()


@dataclass(frozen=True, slots=True)
class Sums:
    """What some events add up to; `cost_usd` in USD counts the `unpriced_requests` as nothing."""

    requests: int = 0
    unpriced_requests: int = 0
    errors: int = 0
    uncached_input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    latency_ms_sum: int = 0
    latency_count: int = 0
    cost_usd: Decimal = Decimal(0)

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> Self:
        """Database sums, of which those over nothing are null."""
        counts = {field.name: int(columns[field.name] or 0) for field in fields(cls) if field.name != "cost_usd"}
        return cls(**counts, cost_usd=columns["cost_usd"] or Decimal(0))


def range_sums(workspace_id: UUID, start: datetime, end: datetime, where: Slice = EVERYTHING) -> Sums:
    """What the UTC range `[start, end)`, cut at quarter hours, adds up to."""
    return Sums.of(_between(workspace_id, start, end, where).aggregate(**_aggregates()))


def _between(workspace_id: UUID, start: datetime, end: datetime, where: Slice) -> "QuerySet[Rollup]":
    return where.of(Rollup.objects.filter(workspace_id=workspace_id, bucket_start__gte=start, bucket_start__lt=end))


def _aggregates() -> dict[str, Sum]:
    # Before the others: these take over the name "requests".
    unpriced = {"unpriced_requests": Sum("requests", filter=Q(is_priced=False))}
    return unpriced | {field.name: Sum(field.name) for field in fields(Sums) if field.name not in unpriced}
