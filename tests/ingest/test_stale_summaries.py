"""Whatever changes raw rows makes the sums over them unusable; and what is left when raw rows are gone."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db.models import F

from ingest import cleanup, reports, retention
from ingest.models import AttributionSummary, Event, LatencySummary, SpanLevel, SummarySpan, UsageSummary
from ingest.report_rows import Figures
from ingest.selectors import EVERYTHING
from ingest.summaries import summarise_workspace
from opsmeter_site.lib.clock import utc_now
from tests.conftest import Client, payload
from tests.ingest.plain_sums import assert_reports_exact, figures, inside
from tests.ingest.summing import DAY, HOUR, REAL_PROD, UTC_ZONE, assert_spans_exact, days_of, spread, stored, usable
from tests.ledger import NOON, make_workspace


@pytest.mark.django_db(transaction=True)
class TestDeletions:
    def test_deleted_rows_are_in_no_sum(self) -> None:
        workspace = make_workspace()
        spread(workspace, 60)
        spread(workspace, 20, data_mode="demo")
        now = NOON + DAY
        summarise_workspace(workspace.id, now)
        days = days_of(UTC_ZONE, NOON.date() - 2 * DAY, 3)

        cleanup.delete_rows(workspace.id, "demo", created_by_id=None, acting_user=None)

        for _ in range(2):
            assert_spans_exact(workspace)
            assert_reports_exact(workspace, stored(workspace), days, days.previous(now), EVERYTHING)
            summarise_workspace(workspace.id, now)
        # What had no demo row was not touched, and what had one is built again.
        assert not SummarySpan.objects.filter(is_stale=True, ends_at__lte=NOON).exists()

    def test_of_a_data_mode_that_has_no_rows_nothing_is_built_again(self) -> None:
        workspace = make_workspace()
        spread(workspace, 24)
        now = NOON + DAY
        summarise_workspace(workspace.id, now)
        cleanup.delete_rows(workspace.id, "test", created_by_id=None, acting_user=None)
        assert summarise_workspace(workspace.id, now) == 0


@pytest.mark.django_db(transaction=True)
class TestRetention:
    def test_users_are_still_known_when_their_rows_are_gone(self) -> None:
        workspace = make_workspace(raw_retention_days=14)
        spread(workspace, 24 * 20)
        events = stored(workspace)
        summarise_workspace(workspace.id, NOON + HOUR)
        now = NOON + 6 * DAY
        days, before = days_of(UTC_ZONE, NOON.date() - 9 * DAY, 9), days_of(UTC_ZONE, NOON.date() - 18 * DAY, 9)
        shown = [
            reports.top(workspace.id, days, before, REAL_PROD, "user_id"),
            reports.latency(workspace.id, before, REAL_PROD),
            reports.cells(workspace.id, before, REAL_PROD),
            reports.version_stats(workspace.id, before, "unknown", REAL_PROD),
        ]

        purged = retention.purge_workspace(workspace.id, now)

        assert purged.events > 0
        assert purged.summaries > 0
        assert shown == [
            reports.top(workspace.id, days, before, REAL_PROD, "user_id"),
            reports.latency(workspace.id, before, REAL_PROD),
            reports.cells(workspace.id, before, REAL_PROD),
            reports.version_stats(workspace.id, before, "unknown", REAL_PROD),
        ]
        assert reports.totals(workspace.id, before, REAL_PROD) == figures(inside(events, before, REAL_PROD))

    def test_short_spans_go_with_the_raw_rows_and_all_of_them_with_the_roll_ups(self) -> None:
        workspace = make_workspace(raw_retention_days=14, rollup_retention_days=30)
        spread(workspace, 24 * 3)
        summarise_workspace(workspace.id, NOON + DAY)

        retention.purge_workspace(workspace.id, NOON + 20 * DAY)
        assert usable(workspace, SpanLevel.HOUR, SpanLevel.SIX_HOURS) == []
        assert len(usable(workspace, SpanLevel.DAY)) == 4

        retention.purge_workspace(workspace.id, NOON + 40 * DAY)
        for table in (SummarySpan, UsageSummary, AttributionSummary, LatencySummary):
            assert not table.objects.exists()


def calls(number: int, *, apart: timedelta, since: datetime, **fields: Any) -> list[dict[str, Any]]:
    """Payloads of calls at `since` and each `apart` before."""
    return [
        payload(createdAt=(since - n * apart).isoformat(), userId=f"user-{n % 3}", latencyMs=50 + n, **fields)
        for n in range(number)
    ]


class TestThroughTheGateway:
    """Events as they arrive, at this very moment."""

    def test_live_events_touch_no_sums(self, meter: Client) -> None:
        now = utc_now()
        meter.send_batch(calls(40, apart=2 * HOUR, since=now - 2 * HOUR))
        summarise_workspace(meter.workspace_id, now)
        before = _span_states(meter)

        meter.send()
        meter.send(createdAt=(utc_now() - timedelta(minutes=4)).isoformat())

        assert _span_states(meter) == before
        assert _exact(meter, 5)

    @pytest.mark.parametrize("is_batch", [False, True])
    def test_late_events_make_the_sums_over_them_unusable_and_no_others(self, meter: Client, is_batch: bool) -> None:
        now = utc_now()
        meter.send_batch(calls(100, apart=HOUR, since=now - 2 * HOUR))
        summarise_workspace(meter.workspace_id, now)
        before = _span_states(meter)
        late = now - 40 * HOUR

        if is_batch:
            meter.send_batch(calls(3, apart=timedelta(0), since=late))
        else:
            meter.send(createdAt=late.isoformat())

        changed = {span for span, state in _span_states(meter).items() if state != before[span]}
        assert changed == {
            (start, end) for start, end in before if start <= late < end and before[start, end] == (False, True)
        }
        assert len(changed) >= 3
        assert _exact(meter, 5)
        assert summarise_workspace(meter.workspace_id, now) == len(changed)
        assert _exact(meter, 5)

    def test_a_backfill_of_days_that_had_no_events(self, meter: Client) -> None:
        now = utc_now()
        meter.send(createdAt=(now - DAY).isoformat())
        summarise_workspace(meter.workspace_id, now)

        meter.send_batch(calls(300, apart=timedelta(minutes=97), since=now - 2 * DAY))

        assert _exact(meter, 30)
        assert summarise_workspace(meter.workspace_id, now) > 60
        assert _exact(meter, 30)

    def test_a_day_that_cannot_be_summed_again_is_counted_by_its_roll_ups(self, client_of: Any) -> None:
        client = client_of("free")  # 14 days of raw rows
        now = utc_now()
        client.send_batch(calls(250, apart=2 * HOUR, since=now - DAY))
        Event.objects.filter(workspace_id=client.workspace_id).update(received_at=F("occurred_at"))
        summarise_workspace(client.workspace_id, now)
        retention.purge_workspace(client.workspace_id, now)
        days = days_of(UTC_ZONE, now.date() - 20 * DAY, 18)
        whole = reports.totals(client.workspace_id, days, EVERYTHING)
        assert reports.top(client.workspace_id, days, days, EVERYTHING, "user_id").known_from is None

        client.send(createdAt=(now - 17 * DAY).isoformat(), userId="late")
        summarise_workspace(client.workspace_id, now)

        assert reports.totals(client.workspace_id, days, EVERYTHING).requests == whole.requests + 1
        top = reports.top(client.workspace_id, days, days, EVERYTHING, "user_id")
        assert top.known_from == now.date() - 16 * DAY
        lost = reports.totals(client.workspace_id, days_of(UTC_ZONE, now.date() - 17 * DAY, 1), EVERYTHING)
        known = Figures.total([*(row.now for row in top.rows), top.others])
        assert known == reports.totals(client.workspace_id, days, EVERYTHING) - lost
        assert not reports.latency(client.workspace_id, days, EVERYTHING).is_complete
        series = reports.series(client.workspace_id, days, EVERYTHING, "user_id")
        assert series.known_from == top.known_from
        assert series.bars[3].parts == {"other": lost.cost_usd}


def _span_states(client: Client) -> dict[tuple[datetime, datetime], tuple[bool, bool]]:
    """Whether each span is stale, and whether it is built."""
    spans = SummarySpan.objects.filter(workspace_id=client.workspace_id)
    return {(span.starts_at, span.ends_at): (span.is_stale, span.built_at is not None) for span in spans}


def _exact(client: Client, number: int) -> bool:
    """Reports of the last `number` days are those of the raw rows."""
    workspace, now = client.opened.workspace, utc_now()
    days = days_of(UTC_ZONE, now.date() - timedelta(days=number - 1), number)
    assert_reports_exact(workspace, stored(workspace), days, days.previous(now), EVERYTHING)
    return True
