"""What exports are made of: the columns of each kind, and their rows, read a part at a time from a place on."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db.models import BooleanField, Case, Count, ExpressionWrapper, F, Q, QuerySet, Sum, When

from ingest.explorer import Cursor, Filters, find
from ingest.models import Event, LedgerCoverage, Outcome, Rollup
from ingest.models.exports import ExportWhat
from ingest.ranges import DayRange
from ingest.reports import totals
from opsmeter_site.lib.periods import QUARTER_HOUR, day_start, quarter_hour_of

PART_ROWS = 5_000
# How long one part may search for rows that hardly any match.
PART_SECONDS = 1.0
_DAY = timedelta(days=1)

DIMENSIONS = {
    "provider": "provider",
    "model": "model",
    "endpoint_tag": "endpointTag",
    "prompt_version": "promptVersion",
    "environment": "environment",
    "data_mode": "dataMode",
}
_SUMS = {
    "requests": "requests",
    "errors": "errors",
    "uncached_input_tokens": "uncachedInputTokens",
    "cache_read_tokens": "cachedInputTokens",
    "cache_write_tokens": "cacheWriteTokens",
    "output_tokens": "outputTokens",
    "reasoning_tokens": "reasoningTokens",
    "latency_ms_sum": "latencyMsSum",
    "latency_count": "latencyCount",
    "cost_usd": "costUsd",
}
# What the rows of a request export are read from, and under which name they are written.
_FACTS = {
    "id": "id",
    "external_request_id": "externalRequestId",
    **DIMENSIONS,
    "service_tier": "serviceTier",
    "status": "status",
    "error_code": "errorCode",
    "user_id": "userId",
    "tenant_id": "tenantId",
    "feature_tag": "featureTag",
    "uncached_input_tokens": "uncachedInputTokens",
    "cache_read_tokens": "cachedInputTokens",
    "cache_write_tokens": "cacheWriteTokens",
    "output_tokens": "outputTokens",
    "reasoning_tokens": "reasoningTokens",
    "total_tokens": "totalTokens",
    "latency_ms": "latencyMs",
    "cost_usd": "costUsd",
    "reported_cost_usd": "reportedCostUsd",
    "price_id": "priceId",
    "api_key_id": "apiKeyId",
    "metadata": "metadata",
}
# Derived: the cost before any re-pricing, and whether there was one.
_AS_CHARGED = {"as_charged_usd": "asChargedUsd", "was_repriced": "repriced"}
COLUMNS: Mapping[str, tuple[str, ...]] = {
    ExportWhat.REQUESTS: (
        "occurredAtUtc",
        "occurredAtLocal",
        "timezone",
        "receivedAtUtc",
        *_FACTS.values(),
        *_AS_CHARGED.values(),
    ),
    ExportWhat.QUARTER_HOURS: (
        "quarterHourUtc",
        "quarterHourLocal",
        "localDay",
        "timezone",
        *DIMENSIONS.values(),
        "isPriced",
        *_SUMS.values(),
    ),
    ExportWhat.DAYS: (
        "localDay",
        "fromUtc",
        "untilUtc",
        "fromLocal",
        "untilLocal",
        "timezone",
        *DIMENSIONS.values(),
        "isPriced",
        *_SUMS.values(),
    ),
}
# The filters that roll-ups know, and how many columns of theirs come before the sums.
ROLLUP_FILTERS = frozenset({*DIMENSIONS, "is_priced"})
_LABELS = len(ROLLUP_FILTERS)

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be exported: a `what` of `ExportWhat`, the rows that `filters` name, local times in `zone`."""

    workspace_id: UUID
    what: str
    zone: ZoneInfo
    filters: Filters


class Part(NamedTuple):
    """Rows in the order of `COLUMNS`, and the place where reading goes on; empty at the end."""

    rows: list[Row]
    position: str


def fixed(wish: Wish) -> Wish:
    """`wish` as of now: what is stored from now on does not belong to it; sums are of whole quarter hours."""
    if wish.what != ExportWhat.REQUESTS:
        return replace(wish, filters=_by_quarter_hours(wish.filters))
    last = Event.objects.filter(workspace_id=wish.workspace_id).order_by("-pk").values_list("pk", flat=True).first()
    return replace(wish, filters=replace(wish.filters, last_id=last or 0))


def _by_quarter_hours(filters: Filters) -> Filters:
    """The range widened to whole quarter hours."""
    return replace(
        filters,
        start=filters.start and quarter_hour_of(filters.start),
        end=filters.end and quarter_hour_of(filters.end + QUARTER_HOUR - timedelta(microseconds=1)),
    )


def read(wish: Wish, position: str, limit: int = PART_ROWS) -> Part:
    """The part at `position` (empty: the first one), of at most `limit` rows, or of one whole day of sums.

    A part may be empty although more follow.
    """
    return _READERS[wish.what](wish, position, limit)


# --- Requests -------------------------------------------------------------------------------------------------------


def _read_requests(wish: Wish, position: str, limit: int) -> Part:
    # Within a workspace, ids are given in the order of commits: `last_id` is a clean cut although ingest goes on.
    cursor = Cursor.decode(position) if position else None
    found = find(
        wish.workspace_id,
        wish.filters,
        after=cursor.position if cursor else None,
        limit=limit,
        is_oldest_first=True,
        seconds=PART_SECONDS,
    )
    events = Event.objects.filter(workspace_id=wish.workspace_id, pk__in=found.ids).annotate(
        as_charged_usd=Case(When(repricing_id=None, then=F("cost_usd")), default=F("charged_cost_usd")),
        was_repriced=ExpressionWrapper(Q(repricing_id__isnull=False), output_field=BooleanField()),
    )
    facts = events.order_by("occurred_at", "pk").values_list("occurred_at", "received_at", *_FACTS, *_AS_CHARGED)
    rows = [
        (utc_text(occurred_at), local_text(occurred_at, wish.zone), wish.zone.key, utc_text(received_at), *rest)
        for occurred_at, received_at, *rest in facts
    ]
    return Part(rows, Cursor(found.stopped_at, is_newer=True).encode() if found.stopped_at else "")


# --- Sums -----------------------------------------------------------------------------------------------------------


def _rollups(wish: Wish) -> "QuerySet[Rollup]":
    filters = wish.filters
    rollups = filters.slice().of(Rollup.objects.filter(workspace_id=wish.workspace_id))
    if filters.start is not None:
        rollups = rollups.filter(bucket_start__gte=filters.start)
    if filters.end is not None:
        rollups = rollups.filter(bucket_start__lt=filters.end)
    if "is_priced" in filters.where:
        rollups = rollups.filter(is_priced=filters.where["is_priced"] == "true")
    return rollups


def _span(wish: Wish) -> tuple[datetime, datetime] | None:
    """The first and the last quarter hour with sums in the wish's range, whatever its other filters; None if none."""
    everything = _rollups(replace(wish, filters=replace(wish.filters, where={}))).order_by("bucket_start")
    starts = everything.values_list("bucket_start", flat=True)
    first, last = starts.first(), starts.last()
    return None if first is None or last is None else (first, last)


def _read_quarter_hours(wish: Wish, position: str, limit: int) -> Part:
    rollups = _rollups(wish).order_by("bucket_start", "dimensions_key")
    if position:
        moment, _, key = position.partition(" ")
        start = datetime.fromisoformat(moment)
        rollups = rollups.filter(Q(bucket_start__gt=start) | Q(bucket_start=start, dimensions_key__gt=UUID(key)))
        rollups = rollups.filter(bucket_start__gte=start)
    columns = ("bucket_start", "dimensions_key", *DIMENSIONS, "is_priced", *_SUMS)
    # One more than asked for, to know whether there is more.
    found = list(rollups.values_list(*columns)[: limit + 1])
    has_more = len(found) > limit
    del found[limit:]
    rows = [
        (utc_text(start), local_text(start, wish.zone), _day_of(start, wish.zone), wish.zone.key, *rest)
        for start, _key, *rest in found
    ]
    return Part(rows, f"{found[-1][0].isoformat()} {found[-1][1]}" if has_more else "")


def _read_days(wish: Wish, position: str, _limit: int) -> Part:
    span = _span(wish)
    if span is None:
        return Part([], "")
    first, last = (moment.astimezone(wish.zone).date() for moment in span)
    day = date.fromisoformat(position) if position else first
    return Part(list(_day_rows(wish, day)), (day + _DAY).isoformat() if day < last else "")


def _day_rows(wish: Wish, day: date) -> Iterator[Row]:
    zone, filters = wish.zone, wish.filters
    start, end = day_start(zone, day), day_start(zone, day + _DAY)
    # The first and the last day of the range may be asked for in part.
    start = max(start, filters.start) if filters.start else start
    end = min(end, filters.end) if filters.end else end
    bounds = (utc_text(start), utc_text(end), local_text(start, zone), local_text(end, zone), zone.key)
    sums = (
        _rollups(wish)
        .filter(bucket_start__gte=start, bucket_start__lt=end)
        .values_list(*DIMENSIONS, "is_priced")
        .annotate(**{f"sum_{name}": Sum(name) for name in _SUMS})
        .order_by(*DIMENSIONS, "is_priced")
    )
    for row in sums:
        *labels, cost = row
        yield (day.isoformat(), *bounds, *labels[:_LABELS], *(int(count) for count in labels[_LABELS:]), cost)


_READERS: Mapping[str, Callable[[Wish, str, int], Part]] = {
    ExportWhat.REQUESTS: _read_requests,
    ExportWhat.QUARTER_HOURS: _read_quarter_hours,
    ExportWhat.DAYS: _read_days,
}


# --- As text --------------------------------------------------------------------------------------------------------


def utc_text(moment: datetime) -> str:
    """ISO 8601 in UTC, as exact as it is stored: 2026-06-15T12:00:00.000000Z."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def local_text(moment: datetime, zone: ZoneInfo) -> str:
    """ISO 8601 in `zone` with its offset: 2026-06-15T14:00:00.000000+02:00."""
    return moment.astimezone(zone).isoformat(timespec="microseconds")


def _day_of(moment: datetime, zone: ZoneInfo) -> str:
    return moment.astimezone(zone).date().isoformat()


# --- How much it is -------------------------------------------------------------------------------------------------


def expected_rows(wish: Wish) -> int:
    """About how many rows an export will have; of requests rather too many, as sums do not know every filter."""
    if wish.what == ExportWhat.QUARTER_HOURS:
        return _rollups(wish).count()
    if wish.what == ExportWhat.REQUESTS:
        return _expected_requests(wish)
    span = _span(wish)
    if span is None:
        return 0
    first, last = span
    days = (last.astimezone(wish.zone).date() - first.astimezone(wish.zone).date()).days + 1
    latest = _rollups(wish).filter(bucket_start__gt=last - _DAY)
    return days * int(latest.aggregate(kinds=Count("dimensions_key", distinct=True))["kinds"])


def _expected_requests(wish: Wish) -> int:
    where = wish.filters.where
    if "external_request_id" in where:
        return 1
    raw_from = LedgerCoverage.of(wish.workspace_id).raw_from
    filters = _by_quarter_hours(wish.filters)
    if raw_from is not None and (filters.start is None or filters.start < raw_from):
        filters = replace(filters, start=raw_from)
    span = _span(replace(wish, filters=filters))
    if span is None:
        return 0
    first, last = span
    covered = DayRange(wish.zone, first.date(), last.date(), first, last + QUARTER_HOUR)
    figures = totals(wish.workspace_id, covered, filters.slice())
    if where.get("status") == Outcome.ERROR:
        return figures.errors
    priced = figures.requests - figures.unpriced_requests
    return {"true": priced, "false": figures.unpriced_requests}.get(where.get("is_priced", ""), figures.requests)
