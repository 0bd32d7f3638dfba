"""Where in a range rows that match some filters can be, as far as summaries know: the rest need not be searched."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from ingest.covers import Window
from ingest.models import AttributionKind, SpanLevel
from ingest.snapshots import fetch

# Further away than this nothing is looked up at once: that time is answered as it is.
HORIZON = timedelta(weeks=26)
_LEVELS = (SpanLevel.WEEK, SpanLevel.DAY, SpanLevel.SIX_HOURS)

# Filter → what is true of a sum that holds a row which passes it. Every summary has these columns.
_OF_ALL: Mapping[str, str] = {
    "environment": "environment = %(environment)s",
    "data_mode": "data_mode = %(data_mode)s",
    "is_priced": "CASE WHEN %(is_priced)s::boolean THEN requests > unpriced_requests ELSE unpriced_requests > 0 END",
    "status": "CASE WHEN %(status)s = 'error' THEN errors > 0 ELSE requests > errors END",
}
_OF_USAGE: Mapping[str, str] = {
    name: f"{name} = %({name})s" for name in ("provider", "model", "endpoint_tag", "prompt_version")
}
_KINDS = frozenset(AttributionKind.values)
KNOWN_FILTERS = frozenset({*_OF_ALL, *_OF_USAGE, *_KINDS})

# One look-up in an index for each span and table; nothing is joined.
_SKIPPED = """
SELECT span.starts_at, span.ends_at
FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS place (starts, ends)
CROSS JOIN LATERAL (
    SELECT id, starts_at, ends_at
    FROM ingest_summaryspan
    WHERE workspace_id = %(workspace)s AND level = %(level)s AND starts_at >= place.starts AND ends_at <= place.ends
        AND NOT is_stale AND built_at IS NOT NULL
    OFFSET 0
) AS span
WHERE NOT ({matches})
"""


def places(workspace_id: UUID, where: Mapping[str, str], range_: Window, *, is_oldest_first: bool) -> list[Window]:
    """The parts of `range_` that can hold rows which match `where`, in the order of the search.

    Only the nearest `HORIZON` is looked up; what lies beyond is one part, whatever it holds.
    """
    near, far = _split(range_, is_oldest_first=is_oldest_first)
    parts = [near]
    matches = " AND ".join(_matches(where))
    for level in _LEVELS if matches else ():
        parameters: dict[str, Any] = {
            **where,
            "workspace": workspace_id,
            "level": level.value,
            "starts": [part.start for part in parts],
            "ends": [part.end for part in parts],
        }
        skipped = fetch(_SKIPPED.format(matches=matches), parameters)
        parts = list(_without(parts, sorted(Window(*row) for row in skipped)))
        if not parts:
            break
    everything = sorted([*parts, *far])
    return everything if is_oldest_first else everything[::-1]


def _split(range_: Window, *, is_oldest_first: bool) -> tuple[Window, list[Window]]:
    """What is looked up, and what is not."""
    start, end = range_
    if end - start <= HORIZON:
        return range_, []
    if is_oldest_first:
        return Window(start, start + HORIZON), [Window(start + HORIZON, end)]
    return Window(end - HORIZON, end), [Window(start, end - HORIZON)]


def _matches(where: Mapping[str, str]) -> Iterator[str]:
    """SQL that is true for a span which may hold a matching row: one condition for each kind of summary."""
    usage = [sql for name, sql in {**_OF_ALL, **_OF_USAGE}.items() if name in where]
    if usage:
        yield _exists("ingest_usagesummary", usage)
    for kind in sorted(_KINDS & where.keys()):
        of_all = [sql for name, sql in _OF_ALL.items() if name in where]
        yield _exists("ingest_attributionsummary", [f"kind = '{kind}'", f"value = %({kind})s", *of_all])


def _exists(table: str, conditions: Sequence[str]) -> str:
    joined = " AND ".join(conditions)
    return f"EXISTS (SELECT FROM {table} WHERE workspace_id = %(workspace)s AND span_id = span.id AND {joined})"


def _without(parts: Sequence[Window], skipped: Sequence[Window]) -> Iterator[Window]:
    """`parts` without what is skipped; both in order, and each skipped time inside a part."""
    for part in parts:
        at = part.start
        for gone in skipped:
            if part.start <= gone.start and gone.end <= part.end:
                if at < gone.start:
                    yield Window(at, gone.start)
                at = max(at, gone.end)
        if at < part.end:
            yield Window(at, part.end)
