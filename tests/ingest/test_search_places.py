"""Where a search need not look: the summaries say so, and it finds the same as without them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import transaction

from ingest.covers import Window
from ingest.explorer import FIRST_STEP_ROWS, Filters, find
from ingest.models import Event, SummarySpan
from ingest.rollups import rebuild_rollups
from ingest.search_places import HORIZON, places
from ingest.services import lock_ledger
from ingest.summaries import summarise_workspace
from tests.ledger import make_workspace, new_event
from workspaces.models import Workspace

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
DAYS = 40
APART = timedelta(minutes=3)
# Number of the row, from the newest → how it differs.
RARE = {
    7_000: {"user_id": "rare"},
    9_000: {"model": "rare", "cost_usd": None},
    11_111: {"user_id": "rare", "status": "error"},
    15_000: {"tenant_id": "rare", "data_mode": "test"},
    17_000: {"endpoint_tag": "rare", "environment": "dev"},
    18_500: {"user_id": "rare"},
}
WANTED = [
    {"user_id": "rare"},
    {"user_id": "rare", "status": "error"},
    {"user_id": "rare", "data_mode": "test"},
    {"tenant_id": "rare", "data_mode": "test"},
    {"model": "rare"},
    {"model": "rare", "is_priced": "true"},
    {"is_priced": "false"},
    {"status": "error"},
    {"endpoint_tag": "rare", "environment": "dev"},
    {"environment": "dev", "user_id": "rare"},
    {"data_mode": "test", "min_tokens": "1"},
    {"model": "never"},
    {"feature_tag": "never"},
]
WHOLE = Window(NOW - timedelta(days=DAYS), NOW)


def _history(apart: timedelta) -> Workspace:
    """Forty days of requests, summed up, and a few rare ones among them."""
    workspace = make_workspace()
    places = {number * APART // apart: facts for number, facts in RARE.items()}
    Event.objects.bulk_create(
        new_event(workspace, occurred_at=NOW - (n + 1) * apart, **places.get(n, {}))
        for n in range(DAYS * timedelta(days=1) // apart)
    )
    with transaction.atomic():
        lock_ledger(workspace.pk)
        rebuild_rollups(workspace.pk, *WHOLE)
    summarise_workspace(workspace.pk, NOW)
    return workspace


@pytest.fixture
def history() -> Workspace:
    """A request every three hours."""
    return _history(timedelta(hours=3))


def _length(windows: list[Window]) -> timedelta:
    return sum((window.end - window.start for window in windows), timedelta())


def test_searches_find_what_is_there() -> None:
    """In both directions, in a history that is long enough for summaries to be asked."""
    assert min(RARE) > FIRST_STEP_ROWS
    history = _history(APART)
    columns = {"is_priced": "cost_usd__isnull", "min_tokens": "total_tokens__gte"}
    for where in WANTED:
        given = {columns.get(name, name): value for name, value in where.items()}
        if "cost_usd__isnull" in given:
            given["cost_usd__isnull"] = given["cost_usd__isnull"] == "false"
        expected = list(
            Event.objects.filter(workspace=history, **given).order_by("occurred_at").values_list("pk", flat=True)
        )
        for is_oldest_first in (False, True):
            found, after = [], None
            while True:
                step = find(
                    history.pk,
                    Filters(where=where),
                    after=after,
                    limit=2,
                    is_oldest_first=is_oldest_first,
                    seconds=1,
                )
                found += step.ids
                after = step.stopped_at
                if after is None:
                    break
            assert found == (expected if is_oldest_first else expected[::-1]), where


def test_what_holds_no_match_is_left_out(history: Workspace) -> None:
    parts = places(history.pk, {"user_id": "rare"}, WHOLE, is_oldest_first=False)
    moments = Event.objects.filter(user_id="rare").values_list("occurred_at", flat=True)
    assert all(any(part.start <= moment < part.end for part in parts) for moment in moments)
    # Three quarters of a day, and what is too new, or too old, to be a whole one.
    assert _length(parts) < timedelta(days=4)
    assert parts == sorted(parts, reverse=True)
    assert places(history.pk, {"user_id": "rare"}, WHOLE, is_oldest_first=True) == parts[::-1]


def test_a_span_that_is_stale_is_searched(history: Workspace) -> None:
    assert _length(places(history.pk, {"model": "never"}, WHOLE, is_oldest_first=False)) < timedelta(days=2)
    SummarySpan.objects.filter(workspace_id=history.pk).update(is_stale=True)
    assert places(history.pk, {"model": "never"}, WHOLE, is_oldest_first=False) == [WHOLE]


def test_filters_that_no_summary_knows_leave_nothing_out(history: Workspace) -> None:
    assert places(history.pk, {"min_cost_usd": str(Decimal(1))}, WHOLE, is_oldest_first=False) == [WHOLE]


@pytest.mark.parametrize("is_oldest_first", [False, True])
def test_what_is_further_away_is_one_part(is_oldest_first: bool) -> None:
    workspace = make_workspace()
    long = Window(NOW - 3 * HORIZON, NOW)
    parts = places(workspace.pk, {"model": "any"}, long, is_oldest_first=is_oldest_first)
    assert [part.end - part.start for part in parts] == [HORIZON, 2 * HORIZON]
    assert (parts[0].start if is_oldest_first else parts[0].end) == (long.start if is_oldest_first else long.end)
