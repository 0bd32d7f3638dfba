"""What scopes add up to by UTC day: from roll-ups where these have the dimension, from raw rows where they have not.

Only events count whose data mode the policy counts, unpriced ones as nothing and by their tokens.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from ingest.meters import first_whole_periods
from ingest.models import LedgerCoverage, MeteredScope, ScopeKind, WorkspacePolicy
from ingest.scopes import ROLLED_UP

# Whether a row's scope has meters of its own; takes `workspace`.
_IS_METERED = """(
    {kind} IN (SELECT kind FROM ingest_meteredscope WHERE workspace_id = %(workspace)s AND is_each_value)
    OR ({kind}, {value}) IN (SELECT kind, value FROM ingest_meteredscope WHERE workspace_id = %(workspace)s)
)"""

# Scopes that roll-ups know, and scopes that only raw rows know: what is done for one source is done for the other.
SOURCES = (ROLLED_UP, frozenset(ScopeKind.values) - ROLLED_UP)

# Input and output tokens, of a row as of a roll-up.
TOKENS_SQL = "uncached_input_tokens::bigint + cache_read_tokens + cache_write_tokens + output_tokens"
_DAY = "date_bin('1 day', {moment}, TIMESTAMPTZ '2000-01-01 00:00:00+00')"
_FROM_ROLLUPS = f"""
    SELECT '{{kind}}' AS kind, {{value}} AS value, {_DAY.format(moment="bucket_start")} AS day,
        sum(cost_usd{{times}}) AS usd,
        coalesce(sum(({TOKENS_SQL}){{times}}) FILTER (WHERE NOT is_priced), 0)::bigint AS tokens
    FROM ingest_rollup
    WHERE workspace_id = %(workspace)s AND data_mode = ANY(%(counted)s::text[]) AND bucket_start >= %(first_day)s
        AND {{condition}}
    GROUP BY 2, 3
"""  # noqa: S608 (only constants are put in, also below)
_FROM_ROWS = f"""
    SELECT '{{kind}}' AS kind, {{value}} AS value, {_DAY.format(moment="occurred_at")} AS day,
        coalesce(sum(cost_usd{{times}}), 0) AS usd,
        coalesce(sum(({TOKENS_SQL}){{times}}) FILTER (WHERE cost_usd IS NULL), 0)::bigint AS tokens
    FROM ingest_event
    WHERE workspace_id = %(workspace)s AND data_mode = ANY(%(counted)s::text[]) AND {{since}} AND {{condition}}
    GROUP BY 2, 3
"""  # noqa: S608
_OR_LESS = " * CASE WHEN data_mode = ANY(%(less)s::text[]) THEN -1 ELSE 1 END"
_SINCE_DAY = "occurred_at >= %(first_day)s"
_SINCE_ID = f"id > %(last_id)s AND {_SINCE_DAY}"
_NOTHING = "SELECT '' AS kind, '' AS value, now() AS day, 0::numeric AS usd, 0::bigint AS tokens WHERE FALSE"

# Days and months (period, period_start, kind, value, usd, tokens) of the relation `days`.
_PERIODS = """
    SELECT 'day' AS period, day AS period_start, kind, value, usd, tokens FROM days
    UNION ALL
    SELECT 'month', date_trunc('month', day, 'UTC'), kind, value, sum(usd), sum(tokens)::bigint
    FROM days WHERE day >= %(first_month)s GROUP BY 2, 3, 4
"""


class Scope(NamedTuple):
    """What limits are set on: one value of a dimension (a `ScopeKind`), or, with an empty value, each of them."""

    kind: str
    value: str
    is_each_value: bool

    @property
    def values(self) -> list[str] | None:
        """The values in it; None for all."""
        return None if self.is_each_value else [self.value]


def state_of(policy: WorkspacePolicy, coverage: LedgerCoverage) -> tuple[Any, ...]:
    """What sums depend on besides new rows; everything in it only ever moves on, or is given to the sums."""
    marks = (coverage.events_purged_before, coverage.rollups_purged_before)
    return (policy.rewrites, sorted(policy.counted_data_modes), *marks)


def source_from(kind: str, coverage: LedgerCoverage) -> datetime | None:
    """From when on everything is stored that the meters of `kind` are made from; None: from the first event on."""
    return coverage.rollups_from if kind in ROLLED_UP else coverage.complete_from


def is_metered_sql(kind: str, value: str) -> str:
    """Whether the scope that two columns name has meters of its own."""
    return _IS_METERED.format(kind=kind, value=value)


def scopes_sql(kinds: Collection[str]) -> str:
    """A relation `scope` (kind, value) for a LATERAL join: the scopes of a row, of the whole workspace first."""
    rows = ", ".join(f"('{kind}', {_value_sql(kind)})" for kind in sorted(kinds))
    return f"(VALUES ('', ''), {rows}) AS scope (kind, value)"


def metered_values(workspace_id: UUID, kinds: Collection[str]) -> dict[str, list[str] | None]:
    """The values of `kinds` whose meters are kept, by kind; None for each value."""
    found: dict[str, list[str] | None] = {}
    for scope in MeteredScope.objects.filter(workspace_id=workspace_id, kind__in=kinds):
        values = found.setdefault(scope.kind, [])
        if scope.is_each_value:
            found[scope.kind] = None
        elif values is not None:
            values.append(scope.value)
    return found


def periods_sql(
    wanted: Mapping[str, Collection[str] | None], *, is_difference: bool = False, is_newer: bool = False
) -> tuple[str, dict[str, Any]]:
    """The sums of the wanted values by kind (None for all; kind "": the whole workspace), and their parameters.

    Relations for a WITH, of which `periods` (period, period_start, kind, value, usd, tokens) is it. They also take
    `workspace`, `counted`, `first_day` and `first_month`; of a difference `less`, the data modes to take away; of
    `is_newer`, which reads raw rows only, `last_id`.
    """
    branches = []
    for kind, values in wanted.items():
        is_rolled_up = not is_newer and (kind in ROLLED_UP or not kind)
        value = _value_sql(kind)
        branch = (_FROM_ROLLUPS if is_rolled_up else _FROM_ROWS).format(
            kind=kind,
            value=value,
            condition=f"{value} IS NOT NULL" if values is None else f"{value} = ANY(%({kind}_values)s::text[])",
            since=_SINCE_ID if is_newer else _SINCE_DAY,
            times=_OR_LESS if is_difference else "",
        )
        branches.append(branch)
    parameters = {f"{kind}_values": list(values) for kind, values in wanted.items() if values is not None}
    return f"days AS ({' UNION ALL '.join(branches) or _NOTHING}), periods AS ({_PERIODS})", parameters


def expected_sql(workspace_id: UUID, policy: WorkspacePolicy, kinds: Collection[str]) -> tuple[str, dict[str, Any]]:
    """What the meters of `kinds` (one of `SOURCES`) must say of the periods that are stored from end to end.

    `periods_sql` and all of its parameters, with `kinds` besides.
    """
    sql, values = periods_sql(metered_values(workspace_id, kinds))
    since = source_from(next(iter(kinds)), LedgerCoverage.of(workspace_id))
    parameters = {"workspace": workspace_id, "counted": policy.counted_data_modes, "kinds": list(kinds)}
    return sql, parameters | values | first_whole_periods(since)


def _value_sql(kind: str) -> str:
    return f"{kind}::text" if kind == ScopeKind.API_KEY_ID else kind or "''::text"
