"""The list of single requests: what it is narrowed to, places in it, and a search that never reads much at once.

Rows are in the order of (occurred_at, id). A search walks that order from a place on, in steps of a bounded number of
rows; when its time is up before a page is full, it says how far it came, and the next one goes on from there.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any, NamedTuple, Self
from uuid import UUID

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from ingest.covers import Window
from ingest.models import Event
from ingest.search_places import KNOWN_FILTERS, places
from ingest.selectors import Slice

PAGE_ROWS = 50
# What one page may spend on searching; the step that is under way then is finished, and is about as long again.
SEARCH_SECONDS = 0.025
FIRST_STEP_ROWS = 5_000
# After a step of so many rows it is worth asking where matches can be at all.
LAST_BLIND_STEP_ROWS = 10_000
LONGEST_STEP_ROWS = 40_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BEGINNING = datetime(1, 1, 2, tzinfo=UTC)
_END = datetime(9999, 12, 30, tzinfo=UTC)
_HIGHEST_ID = 2**63 - 1

_TEXTS = (
    "provider",
    "model",
    "endpoint_tag",
    "prompt_version",
    "user_id",
    "tenant_id",
    "feature_tag",
    "error_code",
)
_ENUMS = ("environment", "data_mode", "service_tier", "status")
# Filter → what is true of a row that passes. Values are texts; PostgreSQL reads them.
_CONDITIONS: Mapping[str, str] = {
    **{name: f"{name} = %({name})s" for name in (*_TEXTS, *_ENUMS, "external_request_id")},
    "api_key_id": "api_key_id = %(api_key_id)s::bigint",
    "api_key_ids": "api_key_id = ANY(%(api_key_ids)s::bigint[])",
    "is_priced": "(cost_usd IS NOT NULL) = %(is_priced)s::boolean",
    "min_cost_usd": "cost_usd >= %(min_cost_usd)s::numeric",
    "min_latency_ms": "latency_ms >= %(min_latency_ms)s::bigint",
    "min_tokens": "total_tokens >= %(min_tokens)s::bigint",
}


class Position(NamedTuple):
    """A place in the order of requests: just at one of them."""

    occurred_at: datetime
    id: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page begins: after `position`, towards older or newer requests."""

    position: Position
    is_newer: bool = False

    def encode(self) -> str:
        """As it stands in an address."""
        microseconds = (self.position.occurred_at - _EPOCH) // _MICROSECOND
        plain = f"{'n' if self.is_newer else 'o'}{microseconds}.{self.position.id}"
        return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self | None:
        """The cursor of an address; None if it is none."""
        try:
            plain = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode("ascii")
            microseconds, event_id = (int(part) for part in plain[1:].split("."))
            occurred_at = _EPOCH + microseconds * _MICROSECOND
        except (ValueError, binascii.Error, OverflowError):
            return None
        is_known = plain[0] in "no" and _BEGINNING <= occurred_at <= _END and 0 <= event_id <= _HIGHEST_ID
        return cls(Position(occurred_at, event_id), is_newer=plain[0] == "n") if is_known else None


@dataclass(frozen=True, slots=True)
class Filters:
    """Which requests are asked for: those of the UTC range `[start, end)` that match each entry of `where`.

    `where` maps names of `_CONDITIONS` to texts. `last_id` leaves out what was stored after that row.
    """

    start: datetime | None = None
    end: datetime | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    last_id: int | None = None

    def condition(self) -> str:
        """SQL that is true for the rows of `ingest_event` that match `where`."""
        parts = [_CONDITIONS[name] for name in self.where]
        if self.last_id is not None:
            parts.append("id <= %(last_id)s")
        return " AND ".join(parts) or "TRUE"

    def parameters(self) -> dict[str, Any]:
        """The parameters of `condition`, and the range."""
        return {
            **self.where,
            "last_id": self.last_id,
            "start": self.start or _BEGINNING,
            "end": self.end or _END,
        }

    def slice(self) -> Slice:
        """What of `where` roll-ups know, too."""
        return Slice(**{name: (value,) for name, value in self.where.items() if name in Slice.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class Found:
    """Ids in the order of the search. `stopped_at`: where to go on; None at the end.

    `is_short`: the time was up before as many were found as were asked for.
    """

    ids: list[int]
    stopped_at: Position | None
    is_short: bool = False


# One plan, always along the index on time: statistics of a small or new table must not choose another one. The row at
# the end of a step is answered even if it does not match, since it says where the step ended.
_ALONG_THE_INDEX = "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off; SET LOCAL jit = off"
_STEP = """
SELECT id, occurred_at, is_match, place = %(rows)s
FROM (
    SELECT id, occurred_at, is_match, row_number() OVER () AS place
    FROM (
        SELECT id, occurred_at, ({condition}) IS TRUE AS is_match
        FROM ingest_event
        WHERE workspace_id = %(workspace)s AND occurred_at >= %(start)s AND occurred_at < %(end)s
            AND (occurred_at, id) {beyond} (%(occurred_at)s, %(id)s)
        ORDER BY occurred_at {order}, id {order}
        LIMIT %(rows)s
    ) AS walked
) AS numbered
WHERE is_match OR place = %(rows)s
LIMIT %(limit)s
"""


def find(
    workspace_id: UUID,
    filters: Filters,
    *,
    after: Position | None,
    limit: int,
    is_oldest_first: bool = False,
    seconds: float = SEARCH_SECONDS,
) -> Found:
    """The next `limit` requests beyond `after` (None: from the beginning), searched for about `seconds` at most."""
    if "external_request_id" in filters.where:
        return Found(_by_external_id(workspace_id, filters), None)
    search = _Search(workspace_id, filters, limit, is_oldest_first=is_oldest_first)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_ALONG_THE_INDEX)
        return search.run(cursor, after or search.beginning, perf_counter() + seconds)


class _Search:
    """One search along the order of requests, in one direction."""

    def __init__(self, workspace_id: UUID, filters: Filters, limit: int, *, is_oldest_first: bool) -> None:
        self.beginning = Position(_BEGINNING if is_oldest_first else _END, 0)
        self._workspace_id = workspace_id
        self._where = filters.where
        self._limit = limit
        self._is_oldest_first = is_oldest_first
        self._windows = [Window(filters.start or _BEGINNING, filters.end or _END)]
        self._parameters = filters.parameters() | {"workspace": workspace_id}
        order, beyond = ("ASC", ">") if is_oldest_first else ("DESC", "<")
        self._statement = _STEP.format(condition=filters.condition(), order=order, beyond=beyond)
        self._ids: list[int] = []

    def run(self, cursor: CursorWrapper, position: Position, until: float) -> Found:
        """Search from `position` on, until `until` (of the performance counter)."""
        rows = FIRST_STEP_ROWS
        while (here := self._next(position)) is not None:
            position, is_full = self._step(cursor, *here, rows)
            if is_full:
                return Found(self._ids, position)
            if perf_counter() > until and self._next(position) is not None:
                return Found(self._ids, position, is_short=len(self._ids) < self._limit)
            if rows == LAST_BLIND_STEP_ROWS:
                self._look_up(position)
            rows = min(2 * rows, LONGEST_STEP_ROWS)
        return Found(self._ids, None)

    def _next(self, position: Position) -> tuple[Window, Position] | None:
        """The window in which the search goes on from `position`, and where; None at the end."""
        for window in self._windows:
            if self._is_oldest_first:
                if position.occurred_at < window.end:
                    return window, max(position, Position(window.start, 0))
            elif Position(window.start, 0) < position:
                return window, min(position, Position(window.end, 0))
        return None

    def _step(self, cursor: CursorWrapper, window: Window, position: Position, rows: int) -> tuple[Position, bool]:
        """Read at most `rows` rows of a window; where that ends, and whether the page is full and there are more."""
        cursor.execute(
            self._statement,
            self._parameters
            | {
                "start": window.start,
                "end": window.end,
                "occurred_at": position.occurred_at,
                "id": position.id,
                "rows": rows,
                # One more than asked for, to know whether there is more.
                "limit": self._limit - len(self._ids) + 1,
            },
        )
        is_cut = False
        for event_id, occurred_at, is_match, is_last in cursor.fetchall():
            if is_match and len(self._ids) == self._limit:
                return position, True
            position = Position(occurred_at, event_id)
            if is_match:
                self._ids.append(event_id)
            is_cut = is_last
        if is_cut:
            return position, False
        return Position(window.end if self._is_oldest_first else window.start, 0), False

    def _look_up(self, position: Position) -> None:
        """Leave out what cannot hold a match: there are few, so that reading everything would take long."""
        if not KNOWN_FILTERS & self._where.keys():
            return
        (whole,) = self._windows
        start, end = whole
        if self._is_oldest_first:
            start = max(start, position.occurred_at)
        else:
            end = min(end, position.occurred_at + _MICROSECOND)
        self._windows = places(
            self._workspace_id, self._where, Window(start, end), is_oldest_first=self._is_oldest_first
        )


def _by_external_id(workspace_id: UUID, filters: Filters) -> list[int]:
    statement = f"""
        SELECT id FROM ingest_event
        WHERE workspace_id = %(workspace)s AND occurred_at >= %(start)s AND occurred_at < %(end)s
            AND {filters.condition()}
    """  # noqa: S608 (only conditions of this module are put in)
    with connection.cursor() as cursor:
        cursor.execute(statement, filters.parameters() | {"workspace": workspace_id})
        return [event_id for (event_id,) in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Page:
    """Requests, newest first, and where the pages beside this one begin (None: there is none).

    `searched_to`: the page is not full because the search stopped at this moment; going on is `older` or `newer`.
    """

    rows: list[Event]
    older: Cursor | None
    newer: Cursor | None
    searched_to: datetime | None = None


def page_of(
    workspace_id: UUID,
    filters: Filters,
    at: Cursor | None,
    *,
    limit: int = PAGE_ROWS,
    seconds: float = SEARCH_SECONDS,
) -> Page:
    """The page of at most `limit` requests that begins at a cursor, or the newest one; see `find` for `seconds`."""
    if at is not None and at.is_newer:
        return _newer_page(workspace_id, filters, at, limit, seconds)
    found = find(workspace_id, filters, after=at.position if at else None, limit=limit, seconds=seconds)
    rows = events_of(workspace_id, found.ids)
    newer = None
    if at is not None:
        newer = Cursor(_position_of(rows[0]) if rows else at.position, is_newer=True)
    return Page(rows, _cursor(found.stopped_at), newer, _searched_to(found))


def _newer_page(workspace_id: UUID, filters: Filters, at: Cursor, limit: int, seconds: float) -> Page:
    found = find(workspace_id, filters, after=at.position, limit=limit, is_oldest_first=True, seconds=seconds)
    if found.stopped_at is None:
        # Nothing is newer than these: this is the first page, which may have grown since.
        return page_of(workspace_id, filters, None, limit=limit, seconds=seconds)
    rows = events_of(workspace_id, found.ids)[::-1]
    older = Cursor(_position_of(rows[-1]) if rows else at.position)
    return Page(rows, older, _cursor(found.stopped_at, is_newer=True), _searched_to(found))


def _position_of(event: Event) -> Position:
    return Position(event.occurred_at, event.pk)


def _cursor(position: Position | None, *, is_newer: bool = False) -> Cursor | None:
    return None if position is None else Cursor(position, is_newer=is_newer)


def _searched_to(found: Found) -> datetime | None:
    return found.stopped_at.occurred_at if found.is_short and found.stopped_at else None


def events_of(workspace_id: UUID, ids: Sequence[int]) -> list[Event]:
    """The rows with these ids, in their order; those deleted meanwhile are left out."""
    rows = {event.pk: event for event in Event.objects.filter(workspace_id=workspace_id, pk__in=ids)}
    return [rows[event_id] for event_id in ids if event_id in rows]


# --- Values to choose from ------------------------------------------------------------------------------------------

_LOOKED_AT_ROWS = 20_000
_MOST_SUGGESTIONS = 200

_SUGGEST = """
SELECT value
FROM (
    SELECT {name} AS value
    FROM ingest_event
    WHERE workspace_id = %(workspace)s
    ORDER BY occurred_at DESC
    LIMIT %(rows)s
) AS latest
WHERE value IS NOT NULL
GROUP BY value
ORDER BY count(*) DESC, value
LIMIT %(most)s
"""


def suggestions(workspace_id: UUID, name: str) -> list[str]:
    """The values of a text filter (`name` as in `Filters.where`) among the latest requests, most used first."""
    if name not in _TEXTS:
        raise ValueError(f"No values are suggested for {name!r}.")
    parameters: dict[str, Any] = {"workspace": workspace_id, "rows": _LOOKED_AT_ROWS, "most": _MOST_SUGGESTIONS}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_ALONG_THE_INDEX)
        cursor.execute(_SUGGEST.format(name=name), parameters)
        return [value for (value,) in cursor.fetchall()]
