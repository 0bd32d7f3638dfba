"""What budgets count, in one statement for any number of them: meters, estimates, adjustments and live leases."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection

from ingest.limits import levels_of
from ingest.models import Limit
from opsmeter_site.lib.periods import Period, day_of, window_of
from opsmeter_site.lib.wire import encode

MOST_VALUES = 10
SEEN_DAYS = 30

# Each kind of scope on its own, so that either is found by the key of meters and holds.
_FIGURES = """
WITH asked AS (
    SELECT * FROM json_to_recordset(%(asked)s::json) AS k(
        id uuid, kind text, value text, is_each boolean, adjusted text, period text, start timestamptz,
        estimate numeric, warning numeric, amount numeric
    )
), parts AS (
    SELECT k.id, m.scope_value AS value, m.value AS usd, m.unpriced_tokens AS tokens, 0 AS adjusted, 0 AS held,
        0 AS held_tokens
    FROM asked k JOIN ingest_meter m ON m.workspace_id = %(workspace)s AND m.period_start = k.start
        AND m.scope_kind = k.kind AND m.scope_value = k.value AND m.period = k.period AND m.measure = 'usd'
    WHERE NOT k.is_each
    UNION ALL
    SELECT k.id, m.scope_value, m.value, m.unpriced_tokens, 0, 0, 0
    FROM asked k JOIN ingest_meter m ON m.workspace_id = %(workspace)s AND m.period_start = k.start
        AND m.scope_kind = k.kind AND m.period = k.period AND m.measure = 'usd'
    WHERE k.is_each
    UNION ALL
    SELECT k.id, CASE WHEN k.is_each THEN a.scope_value ELSE k.value END, 0, 0, a.usd, 0, 0
    FROM asked k JOIN ingest_limitadjustment a ON a.limit_id = k.id AND a.period_start = k.start
    WHERE k.is_each OR a.scope_value = k.adjusted
    UNION ALL
    SELECT k.id, h.scope_value, 0, 0, 0, h.usd, h.unpriced_tokens
    FROM asked k JOIN ingest_hold h ON h.workspace_id = %(workspace)s AND h.scope_kind = k.kind
        AND h.scope_value = k.value AND h.expires_at > %(now)s
    WHERE NOT k.is_each AND %(has_leases)s
    UNION ALL
    SELECT k.id, h.scope_value, 0, 0, 0, h.usd, h.unpriced_tokens
    FROM asked k JOIN ingest_hold h ON h.workspace_id = %(workspace)s AND h.scope_kind = k.kind
        AND h.expires_at > %(now)s
    WHERE k.is_each AND %(has_leases)s
), sums AS (
    SELECT id, value, sum(usd) AS usd, sum(tokens) AS tokens, sum(adjusted) AS adjusted, sum(held) AS held,
        sum(held_tokens) AS held_tokens
    FROM parts GROUP BY id, value
), counted AS (
    SELECT id, s.value, s.usd + s.adjusted + s.tokens * k.estimate * 0.000001 AS spend,
        s.held + s.held_tokens * k.estimate * 0.000001 AS held, s.adjusted, s.tokens, k.warning, k.amount
    FROM sums s JOIN asked k USING (id)
), ranked AS (
    SELECT id, value, spend, held, adjusted, tokens::bigint AS tokens,
        row_number() OVER (PARTITION BY id ORDER BY spend DESC, held DESC, value) AS place,
        count(*) OVER (PARTITION BY id) AS seen,
        count(*) FILTER (WHERE spend >= warning) OVER (PARTITION BY id) AS near,
        count(*) FILTER (WHERE spend > amount) OVER (PARTITION BY id) AS over
    FROM counted
)
SELECT id, value, spend, held, adjusted, tokens, seen, near, over FROM ranked WHERE place <= %(most)s
ORDER BY id, place
"""

# Backwards day by day for each value: the first that has traffic ends the search.
_LAST_SEEN = """
SELECT k.id, CASE WHEN k.is_each THEN (
    SELECT day FROM unnest(%(days)s::timestamptz[]) AS day
    WHERE EXISTS (
        SELECT FROM ingest_meter m WHERE m.workspace_id = %(workspace)s AND m.period_start = day
            AND m.scope_kind = k.kind AND m.period = 'day' AND m.measure = 'usd'
            AND (m.value > 0 OR m.unpriced_tokens > 0)
    ) ORDER BY day DESC LIMIT 1
) ELSE (
    SELECT max(m.period_start) FROM ingest_meter m
    WHERE m.workspace_id = %(workspace)s AND m.period_start = ANY(%(days)s::timestamptz[]) AND m.scope_kind = k.kind
        AND m.scope_value = k.value AND m.period = 'day' AND m.measure = 'usd'
        AND (m.value > 0 OR m.unpriced_tokens > 0)
) END
FROM json_to_recordset(%(asked)s::json) AS k(id uuid, kind text, value text, is_each boolean)
"""


@dataclass(frozen=True, slots=True)
class Question:
    """A limit, and the one value of it that is asked about; None: all that it holds."""

    limit: Limit
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """What a limit counts of one value in its running period. USD; `spend` has estimates and adjustments in it."""

    value: str
    spend: Decimal
    held: Decimal
    adjusted: Decimal
    tokens: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What a limit counts: the values that have spent most, how many there are, near and over the limit."""

    top: tuple[Figure, ...]
    seen: int
    near: int
    over: int


NO_FIGURES = Figures((), 0, 0, 0)


def warning_amount(limit: Limit, now: datetime) -> Decimal:
    """From which amount on a limit is near: its lowest threshold at `now` (aware). USD."""
    return levels_of(limit.amount_at(now), limit.thresholds, limit.thresholds_usd)[0].amount


def figures(
    workspace_id: UUID, questions: Iterable[Question], now: datetime, *, has_leases: bool
) -> dict[UUID, Figures]:
    """What each limit counts at `now` (aware), by its id; one that nothing was counted for is left out."""
    found: dict[UUID, list[Figure]] = defaultdict(list)
    numbers: dict[UUID, tuple[int, int, int]] = {}
    parameters: dict[str, Any] = {
        "workspace": workspace_id,
        "asked": _as_json([_asked(question, now) for question in questions]),
        "now": now,
        "has_leases": has_leases,
        "most": MOST_VALUES,
    }
    with connection.cursor() as cursor:
        cursor.execute(_FIGURES, parameters)
        for limit_id, value, spend, held, adjusted, tokens, *counts in cursor.fetchall():
            found[limit_id].append(Figure(value, spend, held, adjusted, tokens))
            seen, near, over = counts
            numbers[limit_id] = (seen, near, over)
    return {limit_id: Figures(tuple(top), *numbers[limit_id]) for limit_id, top in found.items()}


def last_seen(workspace_id: UUID, limits: Sequence[Limit], now: datetime) -> dict[UUID, datetime | None]:
    """The start of the last UTC day with counted traffic in each limit's scope, of the last 30; None if there is none.

    Read from the meters of the scopes, so it is as fast with millions of rows.
    """
    today = day_of(now).start
    parameters: dict[str, Any] = {
        "workspace": workspace_id,
        "asked": _as_json([_scope(Question(limit)) for limit in limits]),
        "days": [today - timedelta(days=number) for number in range(SEEN_DAYS)],
    }
    with connection.cursor() as cursor:
        cursor.execute(_LAST_SEEN, parameters)
        return dict(cursor.fetchall())


def _asked(question: Question, now: datetime) -> dict[str, Any]:
    limit = question.limit
    scope = _scope(question)
    return scope | {
        "adjusted": scope["value"] if limit.is_each_value else "",
        "period": limit.period,
        "start": window_of(Period(limit.period), now).start,
        "estimate": limit.estimate_usd_per_1m,
        "warning": warning_amount(limit, now),
        "amount": limit.amount_at(now),
    }


def _scope(question: Question) -> dict[str, Any]:
    limit = question.limit
    is_each = limit.is_each_value and question.value is None
    value = limit.scope_value if question.value is None else question.value
    return {"id": limit.pk, "kind": limit.scope_kind, "value": value, "is_each": is_each}


def _as_json(rows: list[dict[str, Any]]) -> str:
    return encode(rows).decode()
