"""What all workspaces together sent lately.

Nothing indexes sums by time alone. So every statement here walks the workspaces and reads one index range of each; the
grouping inside the LATERAL keeps the planner from reading the whole table instead.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection

_TOKENS = "uncached_input_tokens + cache_read_tokens + cache_write_tokens + output_tokens"

_QUARTER_HOURS = f"""
SELECT sums.bucket_start, sum(sums.requests)::bigint, sum(sums.unpriced_requests)::bigint, sum(sums.tokens)::bigint,
    sum(sums.unpriced_tokens)::bigint, sum(sums.cost_usd)
FROM ingest_workspacepolicy AS policy
CROSS JOIN LATERAL (
    SELECT bucket_start, sum(requests) AS requests,
        coalesce(sum(requests) FILTER (WHERE NOT is_priced), 0) AS unpriced_requests, sum({_TOKENS}) AS tokens,
        coalesce(sum({_TOKENS}) FILTER (WHERE NOT is_priced), 0) AS unpriced_tokens, sum(cost_usd) AS cost_usd
    FROM ingest_rollup
    WHERE workspace_id = policy.workspace_id AND bucket_start >= %(since)s
    GROUP BY bucket_start
) AS sums
GROUP BY sums.bucket_start
ORDER BY sums.bucket_start
"""  # noqa: S608 (only a constant is put in)

_REFUSED = """
SELECT sums.reason, sum(sums.requests)::bigint
FROM ingest_workspacepolicy AS policy
CROSS JOIN LATERAL (
    SELECT reason, sum(requests) AS requests
    FROM ingest_refusal
    WHERE workspace_id = policy.workspace_id AND bucket_start >= %(since)s
    GROUP BY reason
) AS sums
GROUP BY sums.reason
"""

_BUSIEST = """
SELECT workspace.id, workspace.name, policy.plan_name, sums.requests::bigint, sums.errors::bigint,
    sums.unpriced_requests::bigint, coalesce(refused.requests, 0)::bigint AS refused_requests, sums.cost_usd
FROM ingest_workspacepolicy AS policy
JOIN workspaces_workspace AS workspace ON workspace.id = policy.workspace_id
CROSS JOIN LATERAL (
    SELECT coalesce(sum(requests), 0) AS requests, coalesce(sum(errors), 0) AS errors,
        coalesce(sum(requests) FILTER (WHERE NOT is_priced), 0) AS unpriced_requests,
        coalesce(sum(cost_usd), 0) AS cost_usd
    FROM ingest_rollup
    WHERE workspace_id = policy.workspace_id AND bucket_start >= %(since)s
) AS sums
CROSS JOIN LATERAL (
    SELECT sum(requests) AS requests
    FROM ingest_refusal
    WHERE workspace_id = policy.workspace_id AND bucket_start >= %(since)s
) AS refused
WHERE sums.requests > 0 OR refused.requests > 0
ORDER BY {order} DESC, workspace.id
LIMIT %(limit)s
"""

_UNPRICED = f"""
SELECT sums.provider, sums.model, count(*), sum(sums.requests)::bigint, sum(sums.tokens)::bigint, max(sums.last_seen)
FROM ingest_workspacepolicy AS policy
CROSS JOIN LATERAL (
    SELECT provider, model, sum(requests) AS requests, sum({_TOKENS}) AS tokens, max(bucket_start) AS last_seen
    FROM ingest_rollup
    WHERE workspace_id = policy.workspace_id AND bucket_start >= %(since)s AND NOT is_priced
    GROUP BY provider, model
) AS sums
GROUP BY sums.provider, sums.model
ORDER BY 5 DESC, 1, 2
LIMIT %(limit)s
"""  # noqa: S608 (only a constant is put in)

_FINDS_REQUEST = """
SELECT policy.workspace_id
FROM ingest_workspacepolicy AS policy
CROSS JOIN LATERAL (
    SELECT FROM ingest_event
    WHERE workspace_id = policy.workspace_id AND external_request_id = %(id)s
    LIMIT 1
) AS found
LIMIT %(limit)s
"""

# What the list of workspaces can be ordered by: the name in the address, and the column.
ORDERS = {
    "requests": "sums.requests",
    "refused": "refused_requests",
    "unpriced": "sums.unpriced_requests",
    "errors": "sums.errors",
    "cost": "sums.cost_usd",
}


@dataclass(frozen=True, slots=True)
class QuarterHour:
    """What all workspaces together sent in one quarter hour, by when the calls happened."""

    start: datetime
    requests: int
    unpriced_requests: int
    tokens: int
    unpriced_tokens: int
    cost_usd: Decimal


@dataclass(frozen=True, slots=True)
class Activity:
    """What one workspace sent, and had refused, since some moment."""

    workspace_id: UUID
    name: str
    plan_name: str
    requests: int
    errors: int
    unpriced_requests: int
    refused_requests: int
    cost_usd: Decimal


@dataclass(frozen=True, slots=True)
class UnpricedModel:
    """A model without a price, and how much of it came, over all workspaces."""

    provider: str
    model: str
    workspaces: int
    requests: int
    tokens: int
    last_seen: datetime


def quarter_hours(since: datetime) -> list[QuarterHour]:
    """The quarter hours from `since` on in which anything was sent, in order."""
    return [QuarterHour(*row) for row in _rows(_QUARTER_HOURS, since=since)]


def refused_by_reason(since: datetime) -> dict[str, int]:
    """Well-formed events that a limit refused from `since` on, by `RefusalReason`."""
    return dict(_rows(_REFUSED, since=since))


def busiest(since: datetime, order: str, limit: int) -> list[Activity]:
    """The first `limit` workspaces by `order` (a key of `ORDERS`), the highest first."""
    return [Activity(*row) for row in _rows(_BUSIEST.format(order=ORDERS[order]), since=since, limit=limit)]


def unpriced_models(since: datetime, limit: int) -> list[UnpricedModel]:
    """What came without a price from `since` on, by tokens."""
    return [UnpricedModel(*row) for row in _rows(_UNPRICED, since=since, limit=limit)]


def workspaces_with_request(external_request_id: str, limit: int) -> list[UUID]:
    """The workspaces that hold an event under this id."""
    return [workspace_id for (workspace_id,) in _rows(_FINDS_REQUEST, id=external_request_id, limit=limit)]


def _rows(statement: str, **parameters: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())
