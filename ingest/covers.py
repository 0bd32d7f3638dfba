"""How a time is read: by as few usable summaries as possible, and what they leave over by what is below them."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Q

from ingest.models import LedgerCoverage, SpanLevel, SummarySpan
from ingest.snapshots import fetch, remembered


class Window(NamedTuple):
    """The UTC range `[start, end)`."""

    start: datetime
    end: datetime


class Built(NamedTuple):
    """A span whose sums may be used."""

    start: datetime
    end: datetime
    id: int


class Gap(NamedTuple):
    """A time inside the window at `place` that no span covers."""

    start: datetime
    end: datetime
    place: int


@dataclass(frozen=True, slots=True)
class Cover:
    """How some windows are read: spans as (id, place), and gaps, of which the raw rows are all there, or `lost`."""

    workspace_id: UUID
    spans: Sequence[tuple[int, int]]
    gaps: Sequence[Gap]
    raw: Sequence[Gap]
    lost: Sequence[Gap]

    def parameters(self) -> dict[str, Any]:
        """The cover as parameters of the SQL in `report_sources`."""
        parameters: dict[str, Any] = {
            "workspace": self.workspace_id,
            "span_ids": [span_id for span_id, _ in self.spans],
            "span_places": [place for _, place in self.spans],
        }
        for name, gaps in (("gaps", self.gaps), ("raw", self.raw), ("lost", self.lost)):
            parameters[f"{name}_starts"] = [gap.start for gap in gaps]
            parameters[f"{name}_ends"] = [gap.end for gap in gaps]
            parameters[f"{name}_places"] = [gap.place for gap in gaps]
        return parameters

    def lost_until(self) -> datetime | None:
        """The end of the last gap in which something happened of which the raw rows are gone; None if there is none."""
        if not self.lost:
            return None
        known = remembered(("lost until", self.workspace_id))
        key = tuple(self.lost)
        if key not in known:
            ((known[key],),) = fetch(_LOST_UNTIL, self.parameters())
        until: datetime | None = known[key]
        return until


_LOST_UNTIL = """
SELECT max(gap.ends)
FROM unnest(%(lost_starts)s::timestamptz[], %(lost_ends)s::timestamptz[]) AS gap (starts, ends)
WHERE EXISTS (
    SELECT FROM ingest_rollup
    WHERE workspace_id = %(workspace)s AND bucket_start >= gap.starts AND bucket_start < gap.ends
)
"""

_SHORT = (SpanLevel.HOUR, SpanLevel.SIX_HOURS)
_LONG = (SpanLevel.DAY, SpanLevel.WEEK)


def cover(workspace_id: UUID, windows: Iterable[Window], below: SpanLevel | None = None) -> Cover:
    """How `windows` are read best; the place of each is its number. `below`: only by spans of lower levels.

    Long spans first, and the short ones only where these leave gaps: a year has few days and many hours.
    """
    spans: list[tuple[int, int]] = []
    gaps = [Gap(*window, place) for place, window in enumerate(windows) if window.start < window.end]
    for levels in (_LONG, _SHORT):
        allowed = tuple(level for level in levels if below is None or level < below)
        if allowed and gaps:
            built = _Built(workspace_id, allowed, [Window(gap.start, gap.end) for gap in gaps])
            left: list[Gap] = []
            for gap in gaps:
                used, open_gaps = built.fill(gap)
                spans += [(span.id, gap.place) for span in used]
                left += open_gaps
            gaps = left
    raw_from = _raw_from(workspace_id)
    if raw_from is None:
        return Cover(workspace_id, spans, gaps, gaps, [])
    raw = [Gap(max(gap.start, raw_from), gap.end, gap.place) for gap in gaps if gap.end > raw_from]
    lost = [Gap(gap.start, min(gap.end, raw_from), gap.place) for gap in gaps if gap.start < raw_from]
    return Cover(workspace_id, spans, gaps, raw, lost)


def _raw_from(workspace_id: UUID) -> datetime | None:
    known = remembered("raw from")
    if workspace_id not in known:
        known[workspace_id] = LedgerCoverage.of(workspace_id).raw_from
    raw_from: datetime | None = known[workspace_id]
    return raw_from


class _Built:
    """The usable spans of some levels inside some windows, the longest first where several begin."""

    def __init__(self, workspace_id: UUID, levels: tuple[SpanLevel, ...], windows: Sequence[Window]) -> None:
        known: dict[Window, list[Built]] = remembered(("spans", workspace_id, levels))
        asked = _merged(windows)
        missing = [one for one in asked if not any(_holds(had, one) for had in known)]
        if missing:
            found = _read_spans(workspace_id, levels, missing)
            known |= dict.fromkeys(missing, found)
        lists = {id(known[had]): known[had] for one in asked for had in known if _holds(had, one)}
        self._spans = sorted((span for spans in lists.values() for span in spans), key=_starts_first_longest_first)

    def fill(self, gap: Gap) -> tuple[list[Built], list[Gap]]:
        """Spans that lie in the gap side by side, and what they leave open."""
        used: list[Built] = []
        left: list[Gap] = []
        at = gap.start
        for span in self._spans[bisect_left(self._spans, gap.start, key=lambda span: span.start) :]:
            if span.start >= gap.end:
                break
            if span.start >= at and span.end <= gap.end:
                if at < span.start:
                    left.append(Gap(at, span.start, gap.place))
                used.append(span)
                at = span.end
        if at < gap.end:
            left.append(Gap(at, gap.end, gap.place))
        return used, left


def _starts_first_longest_first(span: Built) -> tuple[float, float]:
    return span.start.timestamp(), -span.end.timestamp()


def _read_spans(workspace_id: UUID, levels: tuple[SpanLevel, ...], windows: Sequence[Window]) -> list[Built]:
    inside = Q()
    for window in windows:
        inside |= Q(starts_at__gte=window.start, starts_at__lt=window.end, ends_at__lte=window.end)
    rows = SummarySpan.objects.filter(
        inside, workspace_id=workspace_id, level__in=levels, is_stale=False, built_at__isnull=False
    ).values_list("starts_at", "ends_at", "id")
    return [Built(*row) for row in rows]


def _merged(windows: Sequence[Window]) -> list[Window]:
    """`windows` with neighbours and overlaps put together."""
    merged: list[Window] = []
    for window in sorted(windows):
        if merged and window.start <= merged[-1].end:
            merged[-1] = Window(merged[-1].start, max(merged[-1].end, window.end))
        else:
            merged.append(window)
    return merged


def _holds(outer: Window, inner: Window) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end
