"""The times that summaries cover: hours, six hours, days and weeks by a workspace's own clocks. Pure."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from ingest.models import SpanLevel
from opsmeter_site.lib.periods import QUARTER_HOUR, day_start

# No span is longer, also where clocks change: who looks for the spans around a moment need not look further back.
LONGEST = {
    SpanLevel.HOUR: timedelta(hours=1),
    SpanLevel.SIX_HOURS: timedelta(hours=7),
    SpanLevel.DAY: timedelta(hours=26),
    SpanLevel.WEEK: timedelta(days=8),
}

_DAY = timedelta(days=1)


class Span(NamedTuple):
    """The UTC range `[start, end)`."""

    level: SpanLevel
    start: datetime
    end: datetime


def spans_around(zone: ZoneInfo, moment: datetime) -> Iterator[Span]:
    """The span of every level that holds `moment` (aware), by the clocks of `zone`."""
    for span in _calendar(zone, moment.astimezone(zone).date()):
        if span.start <= moment < span.end <= span.start + LONGEST[span.level]:
            yield span


def local_hours(zone: ZoneInfo, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """`[start, end)` cut where clocks in `zone` show a full hour, or are changed."""
    cuts = [start]
    moment = start + QUARTER_HOUR
    while moment < end:
        local, earlier = moment.astimezone(zone), (moment - QUARTER_HOUR).astimezone(zone)
        if local.minute == 0 or local.utcoffset() != earlier.utcoffset():
            cuts.append(moment)
        moment += QUARTER_HOUR
    return list(zip(cuts, [*cuts[1:], end], strict=True)) if start < end else []


@lru_cache(maxsize=1_000)
def _calendar(zone: ZoneInfo, day: date) -> tuple[Span, ...]:
    """The spans of a local day, and its week."""
    start, end = day_start(zone, day), day_start(zone, day + _DAY)
    hours = local_hours(zone, start, end)
    sixes = [start, *(hour for hour, _ in hours[1:] if _is_six_oclock(hour.astimezone(zone))), end]
    monday = day - day.weekday() * _DAY
    return (
        *(Span(SpanLevel.HOUR, *hour) for hour in hours),
        *(Span(SpanLevel.SIX_HOURS, *six) for six in pairwise(sixes)),
        Span(SpanLevel.DAY, start, end),
        Span(SpanLevel.WEEK, day_start(zone, monday), day_start(zone, monday + 7 * _DAY)),
    )


def _is_six_oclock(local: datetime) -> bool:
    return local.hour in {6, 12, 18} and local.minute == 0 and local.fold == 0
