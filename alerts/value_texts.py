"""Crossings of limits on each value, many in one finding: a thousand tenants over their limit are one alert."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from alerts.findings import Finding
from alerts.limit_texts import (
    Scene,
    called,
    crossing_finding,
    finding_of,
    plain,
    scope_value,
    threshold_facts,
    what_holds,
    window_words,
)
from alerts.lists import listed
from alerts.scope_texts import how_many, plural
from ingest.limits import OVER, utilization
from ingest.models import LimitCrossing
from opsmeter_site.lib.formats import usd
from opsmeter_site.lib.periods import Period, window_of

# So many alerts of one limit and kind are sent in a UTC day; what comes after them is told in the inbox only.
MOST_SENT_A_DAY = 20
# So many values stand in the text, and so many in an alert's facts.
MOST_NAMED = 10
MOST_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class Before:
    """How many alerts of the same limit, period and kind there are: all, and those of the running UTC day."""

    alerts: int = 0
    today: int = 0


def values_finding(crossings: Sequence[LimitCrossing], scene: Scene, before: Before) -> Finding:
    """What crossings of one limit, period, amount and kind have to tell together."""
    worst = _worst_of_each(crossings)
    values = [scope_value(crossing) for crossing in worst[:MOST_KEPT]]
    promise = f"{plain(worst[0].amount)}@values"
    if before.today >= MOST_SENT_A_DAY:
        return _rest(worst, values, scene, promise=f"{promise}#rest")
    promise = f"{promise}#{before.alerts + 1}"
    if len(worst) == 1:
        finding = crossing_finding(worst[0], scene)
        return replace(finding, promise=promise, facts={**finding.facts, "scope_values": values})
    return _several(worst, values, scene, promise=promise)


def with_more_values(facts: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The facts of the alert that stands for the rest, once it stands for further values."""
    values = dict.fromkeys([*facts["scope_values"], *more["scope_values"]])
    return {**facts, "scope_values": list(values)[:MOST_KEPT]}


def _worst_of_each(crossings: Sequence[LimitCrossing]) -> list[LimitCrossing]:
    """The highest threshold that each value has crossed, the largest spend first."""
    by_value = {scope_value(each): each for each in sorted(crossings, key=lambda each: each.threshold)}
    return sorted(by_value.values(), key=lambda each: (-each.value, scope_value(each)))


def _several(worst: Sequence[LimitCrossing], values: Sequence[str], scene: Scene, *, promise: str) -> Finding:
    first = worst[0]
    limit = first.limit
    names = [scene.names.value(limit.scope_kind, scope_value(each)) for each in worst]
    number = how_many(limit.scope_kind, len(worst))
    lines = [f"{name} {usd(each.value)}" for name, each in zip(names, worst, strict=True)]
    window = window_of(Period(limit.period), first.period_start)
    what = f"Spend in the {window_words(window, limit.period)} {_predicate(first)}"
    return finding_of(
        first,
        scene,
        promise=promise,
        title=f"{_title(first, number)}, most by {names[0]} ({usd(first.value)} of {usd(first.amount)})",
        text=chain([f"{what} for {number}: {listed(lines, MOST_NAMED)}."], what_holds(first, window, scene)),
        facts=_facts(worst, values) | {"scope": number},
    )


def _rest(worst: Sequence[LimitCrossing], values: Sequence[str], scene: Scene, *, promise: str) -> Finding:
    """The one alert that stands for all that come after the last that was sent."""
    first = worst[0]
    limit = first.limit
    values_word = plural(limit.scope_kind)
    window = window_of(Period(limit.period), first.period_start)
    return finding_of(
        first,
        scene,
        promise=promise,
        title=_title(first, f"more {values_word}"),
        text=[
            f"Spend in the {window_words(window, limit.period)} {_predicate(first)} for more {values_word}.",
            f"{MOST_SENT_A_DAY} alerts about this limit were sent today, so that these stand in the inbox only.",
            *what_holds(first, window, scene),
        ],
        facts=_facts(worst, values) | {"scope": f"More {values_word}"},
        is_quiet=True,
    )


def _title(crossing: LimitCrossing, whose: str) -> str:
    name = crossing.limit.name
    return f"{name} exceeded by {whose}" if crossing.threshold >= OVER else f"{name}: threshold reached by {whose}"


def _predicate(crossing: LimitCrossing) -> str:
    limit = f"{called(crossing.limit)} of {usd(crossing.amount)}"
    return f"is above {limit}" if crossing.threshold >= OVER else f"has reached a threshold of {limit}"


def _facts(worst: Sequence[LimitCrossing], values: Sequence[str]) -> dict[str, object]:
    """The figures of the value that has spent most; the alert holds while any value is above the lowest threshold."""
    first = worst[0]
    return {
        "spend": plain(first.value),
        "share": plain(round(utilization(first.amount, first.value), 4)),
        **threshold_facts(min(worst, key=lambda each: each.threshold)),
        "scope_values": list(values),
        "drill": {},
    }
