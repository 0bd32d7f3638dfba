"""Workspaces whose events arrive at a moment of the test's choosing, and what has been summed of them."""

import json
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.db import connection, transaction

from ingest import meters
from ingest.models import AttributionSummary, Event, LatencySummary, SpanLevel, SummarySpan, UsageSummary
from ingest.ranges import DayRange, day_range
from ingest.report_rows import Figures
from ingest.rollups import rebuild_rollups
from ingest.selectors import Slice
from ingest.services import lock_ledger
from ingest.staleness import MARK_LATE, late_from
from opsmeter_site.lib.periods import QUARTER_HOUR, quarter_hour_of
from tests.ingest.plain_sums import figures
from tests.ledger import NOON, new_event
from workspaces.models import Workspace

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
UTC_ZONE = ZoneInfo("UTC")
REAL_PROD = Slice(data_mode=("real",), environment=("prod",))


@transaction.atomic
def arrive(events: Sequence[Event], now: datetime) -> None:
    """Store events of one workspace at `now` as the gateway's commit does."""
    workspace_id = events[0].workspace_id
    policy = lock_ledger(workspace_id)
    Event.objects.bulk_create(events)
    buckets = sorted({quarter_hour_of(event.occurred_at) for event in events})
    for bucket in buckets:
        rebuild_rollups(workspace_id, bucket, bucket + QUARTER_HOUR)
    meters.rebuild(workspace_id, policy)
    late = [{"w": str(workspace_id), "t": bucket.isoformat()} for bucket in buckets if bucket <= late_from(now)]
    with connection.cursor() as cursor:
        cursor.execute(MARK_LATE, [json.dumps(late)])


def stored(workspace: Workspace) -> list[Event]:
    return list(Event.objects.filter(workspace=workspace))


def usable(workspace: Workspace, *levels: SpanLevel) -> list[tuple[datetime, datetime]]:
    """The spans of these levels whose sums may be used, in order of time."""
    spans = SummarySpan.objects.filter(workspace=workspace, is_stale=False, built_at__isnull=False)
    return sorted(spans.filter(level__in=levels or SpanLevel.values).values_list("starts_at", "ends_at"))


def assert_spans_exact(workspace: Workspace) -> None:
    """Whatever sums may be used are those of the raw rows under them."""
    events = stored(workspace)
    for span in SummarySpan.objects.filter(workspace=workspace, is_stale=False, built_at__isnull=False):
        rows = [event for event in events if span.starts_at <= event.occurred_at < span.ends_at]
        usage = UsageSummary.objects.filter(workspace=workspace, span_id=span.id)
        assert Figures.total(Figures.of(vars(row)) for row in usage) == figures(rows), span
        users = AttributionSummary.objects.filter(workspace=workspace, span_id=span.id, kind="user_id")
        assert Figures.total(Figures.of(vars(row)) for row in users) == figures(rows), span
        bins = LatencySummary.objects.filter(workspace=workspace, span_id=span.id, endpoint_tag="")
        assert sum(sum(row.counts) for row in bins) == figures(rows).latency_count, span


def days_of(zone: ZoneInfo, first: date, number: int) -> DayRange:
    return day_range(zone, first, first + timedelta(days=number - 1))


def spread(workspace: Workspace, number: int, *, apart: timedelta = HOUR, **fields: Any) -> None:
    """`number` events of several users, the last one at `NOON`."""
    arrive(
        [
            new_event(workspace, occurred_at=NOON - n * apart, user_id=f"user-{n % 3}", latency_ms=50 + n, **fields)
            for n in range(number)
        ],
        NOON,
    )
