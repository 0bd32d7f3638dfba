"""Replays by hand-made events. That they are what the gateway would have done: `test_replays_are_reality`."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from budgets.scoped.drafts import BudgetDraft
from budgets.scoped.replays import BudgetReplay, replay_budget
from ingest.models import Event, LedgerCoverage, WorkspacePolicy
from tests.budgets.rollups import DIMENSIONS, spend
from tests.ledger import make_workspace, new_event, store_events

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 10, 12, 7, tzinfo=UTC)
TODAY = datetime(2026, 11, 10, tzinfo=UTC)
START = datetime(2026, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
PROVIDER, MODEL = DIMENSIONS[:2]


@pytest.fixture
def workspace():
    return make_workspace()


def sent(workspace: Any, *events: tuple[datetime, Decimal | int | None], **fields: Any) -> None:
    """Events at these times and costs, in this order."""
    store_events([new_event(workspace, occurred_at=at, cost_usd=usd, **fields) for at, usd in events])


def draft(**changes: Any) -> BudgetDraft:
    """A hard stop at 10 USD for the whole workspace, told at the limit only."""
    said = {"scope_kind": "", "limit_usd": Decimal(10), "enforcement": "hard", "thresholds": ()}
    return BudgetDraft(**said | changes)


def replay(workspace: Any, days: int = 30, **changes: Any) -> BudgetReplay:
    return replay_budget(workspace.pk, draft(**changes), NOW, days)


def purge_raw(workspace: Any, before: datetime) -> datetime:
    """Remove raw rows as retention does; answers from when on they are all there."""
    Event.objects.filter(workspace=workspace, received_at__lt=before).delete()
    coverage = LedgerCoverage.objects.create(workspace=workspace, events_purged_before=before)
    assert coverage.raw_from is not None
    return coverage.raw_from


def test_nothing_came(workspace):
    found = replay(workspace)
    assert (found.start, found.end, found.exact_from, found.known_from) == (START, NOW, None, None)
    assert (found.sent_requests, found.sent_usd, found.refused_requests, found.alerts, found.periods) == (
        0,
        0,
        0,
        0,
        (),
    )
    assert replay(workspace, days=90).start == TODAY - 89 * DAY


def test_each_threshold_is_told_once_and_what_comes_after_the_limit_is_refused(workspace):
    sent(workspace, *((TODAY + n * HOUR, 4) for n in range(6)))
    found = replay(workspace, thresholds=(Decimal("0.8"),), thresholds_usd=(Decimal(4), Decimal(99)))
    (day,) = found.periods
    assert [(each.crossed_at - TODAY, each.share, each.level_usd, each.spend_usd) for each in day.crossings] == [
        (0 * HOUR, Decimal("0.4"), 4, 4),
        (1 * HOUR, Decimal("0.8"), 8, 8),
        (2 * HOUR, 1, 10, 12),
    ]
    assert (day.sent_requests, day.sent_usd, day.refused_requests, day.refused_usd) == (6, 24, 3, 12)
    assert (found.sent_requests, found.sent_usd, found.refused_requests, found.refused_usd) == (6, 24, 3, 12)
    assert found.alerts == 3


def test_thresholds_that_one_event_passes_are_told_once_as_the_highest(workspace):
    sent(workspace, (TODAY, 1), (TODAY + HOUR, 11))
    found = replay(workspace, thresholds=(Decimal("0.5"), Decimal("0.8")), thresholds_usd=(Decimal(5),))
    (day,) = found.periods
    assert [(each.share, each.threshold_usd) for each in day.crossings] == [
        (Decimal("0.5"), 5),
        (Decimal("0.5"), None),
        (Decimal("0.8"), None),
        (1, None),
    ]
    assert [each.share for each in day.told] == [1]
    assert found.alerts == 1


def test_a_soft_stop_tells_the_same_and_refuses_nothing(workspace):
    sent(workspace, *((TODAY + n * HOUR, 4) for n in range(6)))
    found = replay(workspace, enforcement="soft")
    assert (found.alerts, found.refused_requests, found.refused_usd) == (1, 0, 0)


@pytest.mark.parametrize(("limit", "alerts"), [("8", 0), ("7.999999999999", 1)])
def test_the_limit_itself_is_not_over_it(workspace, limit, alerts):
    sent(workspace, (TODAY, 4), (TODAY + HOUR, 4))
    assert replay(workspace, limit_usd=Decimal(limit)).alerts == alerts


def test_events_are_taken_in_the_order_in_which_they_were_stored(workspace):
    """The second one comes late: it counts in its own day, and is told when it is received."""
    yesterday = TODAY - HOUR
    events = [
        new_event(workspace, occurred_at=TODAY - 2 * HOUR, cost_usd=6),
        new_event(workspace, occurred_at=TODAY + HOUR, cost_usd=6),
        new_event(workspace, occurred_at=yesterday - 9 * HOUR, received_at=TODAY + 2 * HOUR, cost_usd=7),
        new_event(workspace, occurred_at=yesterday, received_at=TODAY + 3 * HOUR, cost_usd=1),
    ]
    store_events(events)
    (day,) = replay(workspace).periods
    assert (day.window.start, day.sent_usd) == (TODAY - DAY, 14)
    assert [(each.crossed_at, each.spend_usd) for each in day.crossings] == [(TODAY + 2 * HOUR, 13)]
    assert (day.refused_requests, day.refused_usd) == (1, 1)


def test_a_month_counts_from_its_own_beginning_and_the_sums_are_of_the_days(workspace):
    october = START.replace(day=1)
    sent(workspace, (october - HOUR, 50), (october, 6), (october + DAY, 6), (october + 2 * DAY, 7), (START, 8))
    found = replay(workspace, period="month", thresholds=(Decimal("0.6"),))
    (month,) = found.periods
    assert (month.window.start, month.sent_usd, month.refused_requests) == (october, 27, 2)
    assert [each.crossed_at for each in month.crossings] == [october, october + DAY]
    # Both alerts came before these days.
    assert (found.sent_usd, found.refused_requests, found.refused_usd, found.alerts) == (8, 1, 8, 0)


def test_each_value_is_held_to_the_limit_by_itself(workspace):
    for tenant, usd in (("acme", 6), ("umbrella", 4), ("hooli", 20)):
        sent(workspace, (TODAY, usd), (TODAY + HOUR, usd), (TODAY + 2 * HOUR, usd), tenant_id=tenant)
    found = replay(workspace, scope_kind="tenant_id", is_each_value=True)
    assert {each.scope_value: each.refused_requests for each in found.periods} == {"acme": 1, "hooli": 2, "umbrella": 0}
    assert (found.sent_requests, found.alerts) == (9, 3)
    one = replay(workspace, scope_kind="tenant_id", scope_value="acme")
    assert (one.sent_requests, one.sent_usd, one.refused_requests) == (3, 18, 1)


def test_the_api_key_is_a_scope_like_others(workspace):
    sent(workspace, (TODAY, 12), (TODAY + HOUR, 3), api_key_id=7)
    sent(workspace, (TODAY, 12), api_key_id=77)
    sent(workspace, (TODAY, 12))
    (day,) = replay(workspace, scope_kind="api_key_id", scope_value="7").periods
    assert (day.scope_value, day.sent_usd, day.refused_usd) == ("7", 15, 3)
    each = replay(workspace, scope_kind="api_key_id", is_each_value=True)
    assert [period.scope_value for period in each.periods] == ["7", "77"]


def test_events_without_a_price_count_as_the_budget_says(workspace):
    # Each has 150 tokens.
    sent(workspace, (TODAY, None), (TODAY + HOUR, 9), (TODAY + 2 * HOUR, None), (TODAY + 3 * HOUR, 1))
    assert replay(workspace, unpriced="ignore").periods == ()
    estimated = replay(workspace, unpriced="estimate", estimate_usd_per_1m=Decimal(20_000))
    assert (estimated.sent_usd, estimated.refused_requests, estimated.refused_usd) == (16, 2, 4)
    (blocked,) = replay(workspace, unpriced="block").periods
    assert (blocked.refused_requests, blocked.refused_usd, blocked.crossings) == (2, 0, ())
    assert replay(workspace, unpriced="block", enforcement="soft").periods == ()


def test_only_counted_data_modes_and_this_workspace_count(workspace):
    sent(workspace, (TODAY, 20), data_mode="test")
    sent(make_workspace(), (TODAY, 20))
    assert replay(workspace).sent_requests == 0
    WorkspacePolicy.objects.filter(pk=workspace.pk).update(counted_data_modes=["real", "test"])
    assert replay(workspace).alerts == 1


# --- Where events are no longer stored one by one -------------------------------------------------------------------


def test_older_days_are_replayed_by_quarter_hours(workspace):
    """A quarter hour is taken as one event; from the first stored event on it goes on with what they left."""
    long_ago = TODAY - 20 * DAY
    minute = timedelta(minutes=1)
    sent(workspace, *((long_ago + n * minute, 6) for n in range(3)), (long_ago + HOUR, 5))
    sent(workspace, (TODAY - 6 * DAY, 8), (TODAY - 6 * DAY + 12 * HOUR, 3), (TODAY - 6 * DAY + 13 * HOUR, 1))
    before = replay(workspace)
    raw_from = purge_raw(workspace, TODAY - 6 * DAY + 6 * HOUR)
    found = replay(workspace)
    assert (before.exact_from, found.exact_from, found.known_from) == (None, raw_from, None)
    old, new = found.periods
    assert [(each.crossed_at, each.spend_usd) for each in old.crossings] == [(long_ago, 18)]
    assert (old.refused_requests, before.periods[0].refused_requests) == (1, 2)
    assert new == before.periods[1]
    assert (new.refused_requests, new.refused_usd) == (1, 1)
    assert (found.sent_requests, found.sent_usd) == (before.sent_requests, before.sent_usd)


def test_dimensions_with_rollups_are_replayed_by_quarter_hours_too(workspace):
    spend(workspace.pk, {TODAY - 20 * DAY + n * HOUR: 6 for n in range(4)})
    purge_raw(workspace, TODAY - 10 * DAY)
    for value, refused in ((MODEL, 2), ("other", 0)):
        assert replay(workspace, scope_kind="model", scope_value=value).refused_requests == refused
    (period,) = replay(workspace, scope_kind="provider", is_each_value=True).periods
    assert (period.scope_value, period.refused_usd) == (PROVIDER, 12)


def test_other_dimensions_are_known_only_as_long_as_events_are(workspace):
    sent(workspace, (TODAY - 20 * DAY, 20), (TODAY - DAY, 20), tenant_id="acme")
    raw_from = purge_raw(workspace, TODAY - 10 * DAY)
    found = replay(workspace, scope_kind="tenant_id", scope_value="acme")
    assert (found.exact_from, found.known_from) == (raw_from, raw_from)
    assert (found.sent_usd, [each.window.start for each in found.periods]) == (20, [TODAY - DAY])


def test_retention_that_has_removed_nothing_takes_nothing_away(workspace):
    sent(workspace, (TODAY - 2 * DAY, 20))
    purge_raw(workspace, TODAY - 10 * DAY)
    found = replay(workspace, scope_kind="tenant_id", is_each_value=True)
    assert (found.exact_from, found.known_from, found.alerts) == (None, None, 1)


def test_without_rollups_nothing_is_known(workspace):
    sent(workspace, (TODAY - 2 * DAY, 20))
    purge_raw(workspace, TODAY - 10 * DAY)
    LedgerCoverage.objects.filter(workspace=workspace).update(rollups_purged_before=TODAY - 15 * DAY)
    assert replay(workspace).known_from == TODAY - 15 * DAY


def test_five_statements_whatever_came(workspace, django_assert_num_queries):
    for tenant in range(12):
        sent(workspace, (TODAY, 20), (TODAY - DAY, 20), tenant_id=f"t{tenant}")
    with django_assert_num_queries(5):
        assert replay(workspace, scope_kind="tenant_id", is_each_value=True).alerts == 24
