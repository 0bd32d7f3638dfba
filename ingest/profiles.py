"""What some windows add up to, along every dimension at once: the figures that most of a page is made of."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from uuid import UUID

from ingest import report_sources as sources
from ingest.covers import Cover, Window, cover
from ingest.report_rows import FIGURE_COLUMNS, Figures
from ingest.selectors import Slice
from ingest.snapshots import fetch, remembered

SUMS_SQL = ", ".join(f"sum({name}){'' if name == 'cost_usd' else '::bigint'} AS {name}" for name in FIGURE_COLUMNS)


class Value(NamedTuple):
    """A value of a dimension; models have their provider beside them."""

    value: str
    provider: str = ""


@dataclass(slots=True)
class Profile:
    """A window's figures: of everything, and by value of each dimension that roll-ups have."""

    whole: Figures = field(default_factory=Figures)
    by: dict[str, dict[Value, Figures]] = field(default_factory=lambda: defaultdict(dict))


# What each grouping set of the statement below is about, and the columns of its value.
_SETS = {
    "whole": (),
    "provider": ("provider",),
    "model": ("model", "provider"),
    "endpoint_tag": ("endpoint_tag",),
    "prompt_version": ("prompt_version",),
    "environment": ("environment",),
}
_COLUMNS = ("provider", "model", "endpoint_tag", "prompt_version", "environment")
_WHICH = {
    sum(2 ** (len(_COLUMNS) - 1 - place) for place, name in enumerate(_COLUMNS) if name not in columns): dimension
    for dimension, columns in _SETS.items()
}


def profiles(workspace_id: UUID, windows: Sequence[Window], where: Slice) -> list[Profile]:
    """The profile of each window; all that are not known yet are read together."""
    known = remembered(("profiles", workspace_id, where))
    missing = [window for window in dict.fromkeys(windows) if window not in known]
    if missing:
        known |= zip(missing, _read_profiles(cover(workspace_id, missing), len(missing), where), strict=True)
    return [known[window] for window in windows]


def _read_profiles(covered: Cover, windows: int, where: Slice) -> list[Profile]:
    source = sources.usage(covered, {name: name for name in _COLUMNS}, where)
    columns = ", ".join(_COLUMNS)
    sets = ", ".join(f"(place, {', '.join(names)})" if names else "(place)" for names in _SETS.values())
    # Summed twice: the dimensions' combinations are few against the rows, and each is in every set.
    rows = fetch(
        f"""
        WITH cells AS (SELECT place, {columns}, {SUMS_SQL} FROM ({source.sql}) AS usage GROUP BY place, {columns})
        SELECT place, grouping({columns}), {columns}, {SUMS_SQL} FROM cells GROUP BY GROUPING SETS ({sets})
        """,  # noqa: S608 (only names of this project's modules are put in)
        source.parameters,
    )
    found = [Profile() for _ in range(windows)]
    for place, which, *columns_and_sums in rows:
        labels = dict(zip(_COLUMNS, columns_and_sums, strict=False))
        figures = figures_of(columns_and_sums[len(_COLUMNS) :])
        dimension = _WHICH[which]
        if dimension == "whole":
            found[place].whole = figures
        else:
            found[place].by[dimension][Value(*(labels[name] for name in _SETS[dimension]))] = figures
    return found


def figures_of(sums: Sequence[object]) -> Figures:
    """The answer to `SUMS_SQL`."""
    return Figures.of(dict(zip(FIGURE_COLUMNS, sums, strict=True)))


@dataclass(slots=True)
class Attributed:
    """Users, tenants or features: figures of the costliest ones in each window, and two facts of the first window.

    `whole` is everything in it that is attributed at all, `distinct` the number of its values.
    """

    windows: list[dict[Value, Figures]]
    whole: Figures
    distinct: int = 0


def attribution(workspace_id: UUID, windows: Sequence[Window], where: Slice, keep: int) -> dict[str, Attributed]:
    """By kind: the `keep` values that cost most in the first window; after all of these, those of the later ones."""
    known = remembered(("attribution", workspace_id, where, keep))
    key = tuple(windows)
    if key not in known:
        known[key] = _read_attribution(workspace_id, windows, where, keep)
    found: dict[str, Attributed] = known[key]
    return found


def _read_attribution(workspace_id: UUID, windows: Sequence[Window], where: Slice, keep: int) -> dict[str, Attributed]:
    values: dict[str, list[str]] = {kind: [] for kind in sources.KINDS}
    distinct = dict.fromkeys(sources.KINDS, 0)
    for window in windows:
        # Most often the first window has enough of every kind, and the others need not be ranked.
        wanting = [kind for kind, kept in values.items() if len(kept) < keep]
        if not wanting:
            break
        for kind, value, number in _costliest(cover(workspace_id, [window]), wanting, where, keep):
            if window == windows[0]:
                distinct[kind] = number
            if len(values[kind]) < keep and value not in values[kind]:
                values[kind].append(value)
    whole = _attributed_whole(workspace_id, windows[0], where)
    found = {kind: Attributed([{} for _ in windows], whole, distinct[kind]) for kind in sources.KINDS}
    for place, kind, value, figures in _figures_of_values(cover(workspace_id, windows), values, where):
        found[kind].windows[place][Value(value)] = figures
    return found


def _costliest(covered: Cover, kinds: Sequence[str], where: Slice, keep: int) -> list[tuple[str, str, int]]:
    """Kind, value and the number of values of that kind, for the `keep` values of each kind that cost most."""
    source = sources.attribution(covered, kinds, {"kind": "kind", "value": "value"}, where)
    return fetch(
        f"""
        SELECT kind, value, number FROM (
            SELECT kind, value, count(*) OVER (PARTITION BY kind) AS number, row_number() OVER (
                PARTITION BY kind ORDER BY sum(cost_usd) DESC, sum(requests) DESC, value
            ) AS rank
            FROM ({source.sql}) AS usage GROUP BY kind, value
        ) AS ranked WHERE rank <= %(keep)s ORDER BY kind, rank
        """,  # noqa: S608 (only names of this project's modules are put in)
        {**source.parameters, "keep": keep},
    )


def _attributed_whole(workspace_id: UUID, window: Window, where: Slice) -> Figures:
    """What everything adds up to whose user, tenant and feature is known: all of it, unless raw rows are lost."""
    covered = cover(workspace_id, [window])
    if covered.lost_until() is None:
        return profiles(workspace_id, [window], where)[0].whole
    source = sources.usage(replace(covered, gaps=covered.raw), {}, where)
    (sums,) = fetch(f"SELECT {SUMS_SQL} FROM ({source.sql}) AS usage", source.parameters)  # noqa: S608
    return figures_of(sums)


@dataclass(slots=True)
class Changed:
    """Users, tenants or features whose cost differs most between two windows, in both; and how many came and went."""

    now: dict[Value, Figures] = field(default_factory=dict)
    then: dict[Value, Figures] = field(default_factory=dict)
    new: int = 0
    gone: int = 0


def changed_most(workspace_id: UUID, windows: tuple[Window, Window], where: Slice, keep: int) -> dict[str, Changed]:
    """By kind: the `keep` values whose cost in the first window differs most from that in the second."""
    known = remembered(("changed", workspace_id, where, keep))
    if windows not in known:
        known[windows] = _read_changed(cover(workspace_id, windows), where, keep)
    found: dict[str, Changed] = known[windows]
    return found


def _read_changed(covered: Cover, where: Slice, keep: int) -> dict[str, Changed]:
    source = sources.attribution(covered, sources.KINDS, {"kind": "kind", "value": "value"}, where)
    rows = fetch(
        f"""
        SELECT kind, value, came, went FROM (
            SELECT kind, value,
                count(*) FILTER (WHERE then_usd IS NULL) OVER of_kind AS came,
                count(*) FILTER (WHERE now_usd IS NULL) OVER of_kind AS went,
                row_number() OVER (
                    PARTITION BY kind ORDER BY abs(coalesce(now_usd, 0) - coalesce(then_usd, 0)) DESC, value
                ) AS rank
            FROM (
                SELECT kind, value, sum(cost_usd) FILTER (WHERE place = 0) AS now_usd,
                    sum(cost_usd) FILTER (WHERE place = 1) AS then_usd
                FROM ({source.sql}) AS usage GROUP BY kind, value
            ) AS compared
            WINDOW of_kind AS (PARTITION BY kind)
        ) AS ranked WHERE rank <= %(keep)s
        """,  # noqa: S608 (only names of this project's modules are put in)
        {**source.parameters, "keep": keep},
    )
    found = {kind: Changed() for kind in sources.KINDS}
    values: dict[str, list[str]] = defaultdict(list)
    for kind, value, came, went in rows:
        values[kind].append(value)
        found[kind].new, found[kind].gone = came, went
    for place, kind, value, figures in _figures_of_values(covered, values, where):
        (found[kind].then if place else found[kind].now)[Value(value)] = figures
    return found


def _figures_of_values(
    covered: Cover, values: Mapping[str, Sequence[str]], where: Slice
) -> Iterator[tuple[int, str, str, Figures]]:
    """Place, kind, value and figures, where there are any."""
    source = sources.attribution_of(covered, values, where)
    rows = fetch(
        f"SELECT place, kind, value, {SUMS_SQL} FROM ({source.sql}) AS usage GROUP BY place, kind, value",  # noqa: S608
        source.parameters,
    )
    for place, kind, value, *sums in rows:
        yield place, kind, value, figures_of(sums)
