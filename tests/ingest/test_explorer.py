from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest

from ingest.explorer import FIRST_STEP_ROWS, Cursor, Filters, Position, find, page_of, suggestions
from ingest.models import Event
from tests.ledger import NOON, make_event, make_events, make_key, make_user, make_workspace, new_event
from workspaces.models import Workspace

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)
EVERYTHING = Filters()


@pytest.fixture
def workspace() -> Workspace:
    return make_workspace()


def _walk(workspace: Workspace, filters: Filters, limit: int) -> list[int]:
    """Every row by way of the cursors towards the oldest."""
    rows, cursor = [], None
    while True:
        page = page_of(workspace.pk, filters, cursor, limit=limit)
        assert len(page.rows) <= limit
        rows += [event.pk for event in page.rows]
        if page.older is None:
            return rows
        cursor = Cursor.decode(page.older.encode())


def _newest_first(workspace: Workspace) -> list[int]:
    rows = Event.objects.filter(workspace=workspace).order_by("-occurred_at", "-pk")
    return list(rows.values_list("pk", flat=True))


# --- Pages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 7, 12, 50])
def test_the_pages_hold_every_row_once_newest_first_also_among_equal_times(workspace: Workspace, limit: int) -> None:
    make_events(workspace, 7, occurred_at=NOON)
    make_events(workspace, 5, occurred_at=NOON - SECOND, apart=SECOND)
    assert _walk(workspace, EVERYTHING, limit) == _newest_first(workspace)


def test_other_workspaces_are_not_seen(workspace: Workspace) -> None:
    make_events(make_workspace(), 3)
    mine = make_events(workspace, 2)
    make_events(make_workspace(), 3)
    assert sorted(_walk(workspace, EVERYTHING, 2)) == sorted(event.pk for event in mine)


def test_the_way_back_shows_the_same_pages(workspace: Workspace) -> None:
    make_events(workspace, 10, apart=SECOND)
    rows = _newest_first(workspace)
    first = page_of(workspace.pk, EVERYTHING, None, limit=3)
    second = page_of(workspace.pk, EVERYTHING, first.older, limit=3)
    third = page_of(workspace.pk, EVERYTHING, second.older, limit=3)
    assert first.newer is None
    assert [event.pk for event in third.rows] == rows[6:9]

    back = page_of(workspace.pk, EVERYTHING, third.newer, limit=3)
    assert [event.pk for event in back.rows] == rows[3:6]
    assert back.older == second.older


def test_going_back_to_the_newest_shows_what_came_meanwhile(workspace: Workspace) -> None:
    make_events(workspace, 6, apart=SECOND)
    first = page_of(workspace.pk, EVERYTHING, None, limit=3)
    second = page_of(workspace.pk, EVERYTHING, first.older, limit=3)
    newest = make_event(workspace, occurred_at=NOON + timedelta(hours=1))

    # There are four newer ones now: one page of them, and then the newest page.
    back = page_of(workspace.pk, EVERYTHING, second.newer, limit=3)
    assert back.newer is not None
    top = page_of(workspace.pk, EVERYTHING, back.newer, limit=3)
    assert top.newer is None
    assert top.rows[0].pk == newest.pk


def test_a_page_that_is_exactly_full_has_nothing_after_it(workspace: Workspace) -> None:
    make_events(workspace, 3, apart=SECOND)
    page = page_of(workspace.pk, EVERYTHING, None, limit=3)
    assert (len(page.rows), page.older, page.searched_to) == (3, None, None)


def test_an_empty_workspace_is_one_empty_page(workspace: Workspace) -> None:
    page = page_of(workspace.pk, EVERYTHING, None)
    assert (page.rows, page.older, page.newer) == ([], None, None)


# --- Filters --------------------------------------------------------------------------------------------------------

# Filter and value → what the one row that passes has; the other one has what `new_event` gives.
FILTERS = {
    ("provider", "anthropic"): {"provider": "anthropic"},
    ("model", "gpt-4o"): {"model": "gpt-4o"},
    ("endpoint_tag", "a/b.c:d"): {"endpoint_tag": "a/b.c:d"},
    ("prompt_version", "v2"): {"prompt_version": "v2"},
    ("user_id", "ümit'; --"): {"user_id": "ümit'; --"},
    ("tenant_id", "100%"): {"tenant_id": "100%"},
    ("feature_tag", "search"): {"feature_tag": "search"},
    ("environment", "dev"): {"environment": "dev"},
    ("data_mode", "test"): {"data_mode": "test"},
    ("service_tier", "flex"): {"service_tier": "flex"},
    ("status", "error"): {"status": "error"},
    ("error_code", "429"): {"error_code": "429"},
    ("external_request_id", "the-one"): {"external_request_id": "the-one"},
    ("api_key_id", "77"): {"api_key_id": 77},
    ("api_key_ids", "{76,77}"): {"api_key_id": 77},
    ("is_priced", "false"): {"cost_usd": None},
    ("min_cost_usd", "0.5"): {"cost_usd": Decimal("0.5")},
    ("min_latency_ms", "901"): {"latency_ms": 901},
    ("min_tokens", "151"): {"total_tokens": 151},
}


@pytest.mark.parametrize(("wanted", "facts"), FILTERS.items(), ids=lambda value: str(value))
def test_each_filter_passes_exactly_what_has_its_value(
    workspace: Workspace, wanted: tuple[str, str], facts: dict[str, object]
) -> None:
    make_event(workspace)
    the_one = make_event(workspace, **facts)
    make_event(make_workspace(), **facts)
    assert _walk(workspace, Filters(where=dict([wanted])), 10) == [the_one.pk]


def test_all_filters_must_be_met(workspace: Workspace) -> None:
    make_event(workspace, model="a", user_id="x")
    both = make_event(workspace, model="a", user_id="y")
    make_event(workspace, model="b", user_id="y")
    assert _walk(workspace, Filters(where={"model": "a", "user_id": "y"}), 10) == [both.pk]


def test_the_id_of_another_time_or_with_another_model_is_not_found(workspace: Workspace) -> None:
    event = make_event(workspace, external_request_id="mine")
    assert _walk(workspace, Filters(where={"external_request_id": "mine"}), 10) == [event.pk]
    assert _walk(workspace, Filters(start=NOON + SECOND, where={"external_request_id": "mine"}), 10) == []
    assert _walk(workspace, Filters(where={"external_request_id": "mine", "model": "other"}), 10) == []


def test_a_range_has_its_start_and_not_its_end(workspace: Workspace) -> None:
    events = make_events(workspace, 4, apart=SECOND)
    found = _walk(workspace, Filters(NOON + SECOND, NOON + 3 * SECOND), 10)
    assert found == [events[2].pk, events[1].pk]


def test_rows_stored_after_the_last_one_are_left_out_wherever_they_are_in_time(workspace: Workspace) -> None:
    before = make_events(workspace, 2, apart=SECOND)
    last = max(event.pk for event in before)
    make_event(workspace, occurred_at=NOON - SECOND)
    make_event(workspace, occurred_at=NOON + SECOND)
    assert sorted(_walk(workspace, Filters(last_id=last), 10)) == sorted(event.pk for event in before)


# --- Searching no further than is affordable ------------------------------------------------------------------------


@pytest.fixture
def long_history(workspace: Workspace) -> Workspace:
    """More rows than two steps of a search read; the newest and the oldest one are of one user."""
    rows = 2 * FIRST_STEP_ROWS + 2
    rare = {0: "rare", rows - 1: "rare"}
    Event.objects.bulk_create(
        new_event(workspace, occurred_at=NOON - n * SECOND, user_id=rare.get(n, "often")) for n in range(rows)
    )
    return workspace


@pytest.mark.parametrize("is_oldest_first", [False, True])
def test_a_search_whose_time_is_up_says_where_it_stopped_and_goes_on_there(
    long_history: Workspace, is_oldest_first: bool
) -> None:
    filters = Filters(where={"user_id": "rare"})

    def search(after: Position | None) -> tuple[list[int], Position | None, bool]:
        found = find(long_history.pk, filters, after=after, limit=10, is_oldest_first=is_oldest_first, seconds=0)
        return found.ids, found.stopped_at, found.is_short

    ids, stopped_at, is_short = search(None)
    assert (len(ids), is_short) == (1, True)
    all_ids, places = list(ids), [stopped_at]
    while stopped_at is not None:
        ids, stopped_at, is_short = search(stopped_at)
        all_ids += ids
        places.append(stopped_at)
    rare = Event.objects.filter(workspace=long_history, user_id="rare").order_by("occurred_at")
    expected = list(rare.values_list("pk", flat=True))
    assert all_ids == (expected if is_oldest_first else expected[::-1])
    assert not is_short
    # Every search comes further, and none reads everything.
    assert len(places) > 2
    for before, after in pairwise(places[:-1]):
        assert (after > before) is is_oldest_first


def test_a_page_says_how_far_it_has_searched(long_history: Workspace) -> None:
    page = page_of(long_history.pk, Filters(where={"user_id": "rare"}), None, seconds=0)
    assert len(page.rows) == 1
    assert page.searched_to is not None
    assert page.searched_to < page.rows[0].occurred_at
    assert page.older is not None
    assert page.older.position.occurred_at == page.searched_to


def test_a_search_with_time_finds_all_at_once(long_history: Workspace) -> None:
    found = find(long_history.pk, Filters(where={"user_id": "rare"}), after=None, limit=10, seconds=60)
    assert (len(found.ids), found.stopped_at) == (2, None)


# --- Cursors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_newer", [False, True])
@pytest.mark.parametrize(
    "moment",
    [
        NOON,
        NOON + timedelta(microseconds=1),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(2262, 1, 1, tzinfo=UTC),
    ],
)
def test_a_cursor_survives_the_address(moment: datetime, is_newer: bool) -> None:
    cursor = Cursor(Position(moment, 2**63 - 1), is_newer)
    assert Cursor.decode(cursor.encode()) == cursor
    assert cursor.encode().replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "%%%",
        "ü",
        "bzE",
        "bzEu",  # "o1."
        "eDEuMQ",  # "x1.1"
        "bzEuLTE",  # "o1.-1"
        "bzEuOTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk",  # "o1.99999999999999999999999"
        "bzk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5LjE",  # "o99999999999999999999999.1"
        "bzEuMS4x",  # "o1.1.1"
        "A" * 5_000,
    ],
)
def test_what_is_no_cursor_is_none(text: str) -> None:
    assert Cursor.decode(text) is None


# --- Suggestions ----------------------------------------------------------------------------------------------------


def test_the_most_used_values_of_the_latest_requests_are_suggested(workspace: Workspace) -> None:
    make_events(workspace, 2, model="often")
    make_event(workspace, model="once", error_code="timeout")
    make_event(make_workspace(), model="foreign")
    assert suggestions(workspace.pk, "model") == ["often", "once"]
    assert suggestions(workspace.pk, "error_code") == ["timeout"]


def test_only_texts_have_suggestions(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="is_priced"):
        suggestions(workspace.pk, "is_priced")


def test_own_rows_are_those_of_own_keys(workspace: Workspace) -> None:
    me, other = make_user(), make_user()
    mine, theirs = make_key(workspace, me), make_key(workspace, other)
    own = make_event(workspace, api_key_id=mine.pk)
    make_event(workspace, api_key_id=theirs.pk)
    make_event(workspace, api_key_id=None)
    assert _walk(workspace, Filters(where={"api_key_ids": f"{{{mine.pk}}}"}), 10) == [own.pk]
