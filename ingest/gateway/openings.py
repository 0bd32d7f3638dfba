"""What a commit reads under the lock: one pipeline, and a second one only when limits have changed meanwhile."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from ingest.gateway.accounts import MeterKey, period_starts
from ingest.gateway.ledger import Ask, KnownEvent, LeaseRow, Submission, WorkspaceLedger
from ingest.gateway.store import as_json
from ingest.limit_sets import NO_LIMITS, WORKSPACE, ZERO, LimitRow, LimitSet, Match, ScopeKey

_LOCK = """
SELECT workspace_id, plan_tier, plan_name, observe_mode, counted_data_modes, limits_version FROM ingest_workspacepolicy
WHERE workspace_id = ANY(%s) ORDER BY workspace_id FOR NO KEY UPDATE
"""

# Holds and leases are looked at only in workspaces that can have live ones; where there are none, not at all.
_LEASING = """
WITH leasing AS MATERIALIZED (
  SELECT workspace_id FROM ingest_workspacepolicy WHERE workspace_id = ANY(%(workspaces)s) AND leases_until > %(now)s
)
"""
# JSON lists: fewer statements and no row-by-row conversion.
_METERS = """(
  SELECT json_agg(json_build_array(k.w, read.meters))
  FROM json_to_recordset(%(scopes)s::json) AS k(w uuid, t timestamptz[], s text, v text[])
  CROSS JOIN LATERAL (
    SELECT json_agg(json_build_array(
      json_build_array(measure, period, period_start, scope_kind, scope_value), value::text, unpriced_tokens)) AS meters
    FROM ingest_meter
    WHERE workspace_id = k.w AND period_start = ANY(k.t) AND scope_kind = k.s AND scope_value = ANY(k.v)
  ) AS read
  WHERE read.meters IS NOT NULL
)::text"""
_HOLDS = """(
  SELECT json_agg(json_build_array(k.w, k.s, scope.v, held.usd::text, held.tokens))
  FROM leasing JOIN json_to_recordset(%(scopes)s::json) AS k(w uuid, s text, v text[]) ON k.w = leasing.workspace_id
  CROSS JOIN LATERAL unnest(k.v) AS scope(v)
  CROSS JOIN LATERAL (
    SELECT sum(usd) AS usd, sum(unpriced_tokens)::bigint AS tokens FROM ingest_hold
    WHERE workspace_id = k.w AND scope_kind = k.s AND scope_value = scope.v AND expires_at > %(now)s
  ) held
  WHERE EXISTS (SELECT FROM leasing) AND held.usd IS NOT NULL
)::text"""
# Limits: only those of workspaces whose version has moved on since this process last read them.
# Events and leases: the range and the order say "equal" in a way that only the index on the id can serve. On a table
# without statistics the planner may otherwise take any index that begins with the workspace, and read all of its rows.
_READ = f"""
{_LEASING}
SELECT (
  SELECT json_agg(json_build_array(l.workspace_id, l.id, l.source_id, l.name, l.measure, l.period, l.amount::text,
    l.thresholds::text[], l.enforce, l.scope_kind, l.scope_value, l.is_each_value, l.thresholds_usd::text[], l.unpriced,
    l.estimate_usd_per_1m::text, l.raised_amount::text, l.raised_until, (
      SELECT json_agg(json_build_array(a.period_start, a.scope_value, a.usd::text))
      FROM ingest_limitadjustment a WHERE a.limit_id = l.id
    )))
  FROM json_to_recordset(%(versions)s::json) AS k(w uuid, v bigint)
  JOIN ingest_workspacepolicy p ON p.workspace_id = k.w AND p.limits_version <> k.v
  JOIN ingest_limit l ON l.workspace_id = k.w
)::text, {_METERS}, {_HOLDS}, (
  SELECT json_agg(json_build_array(k.w, k.i, e.cost_usd::text, e.fingerprint))
  FROM json_to_recordset(%(ids)s::json) AS k(w uuid, i text)
  CROSS JOIN LATERAL (
    SELECT cost_usd, fingerprint FROM ingest_event
    WHERE workspace_id = k.w AND external_request_id >= k.i AND external_request_id <= k.i
    ORDER BY external_request_id LIMIT 1
  ) e
)::text, (
  SELECT json_agg(json_build_array(l.workspace_id, l.external_request_id, l.api_key_id, l.provider, l.model,
    l.endpoint_tag, l.prompt_version, l.environment, l.data_mode, l.user_id, l.tenant_id, l.usd::text,
    l.unpriced_tokens, l.created_at, l.expires_at))
  FROM leasing JOIN json_to_recordset(%(ids)s::json) AS k(w uuid, i text) ON k.w = leasing.workspace_id
  CROSS JOIN LATERAL (
    SELECT * FROM ingest_lease
    WHERE workspace_id = k.w AND external_request_id >= k.i AND external_request_id <= k.i
    ORDER BY external_request_id LIMIT 1
  ) l
  WHERE EXISTS (SELECT FROM leasing) AND l.closed_at IS NULL AND l.expires_at > %(now)s
)::text
"""  # noqa: S608 (only the constants above are put in)
_READ_AGAIN = f"{_LEASING} SELECT {_METERS}, {_HOLDS}"
_read_limits = msgspec.json.Decoder(
    list[
        tuple[
            UUID, UUID, str, str, str, str, Decimal, tuple[Decimal, ...], bool, str, str, bool, tuple[Decimal, ...],
            str, Decimal, Decimal | None, datetime | None, list[tuple[datetime, str, Decimal]] | None,
        ]
    ]
).decode  # fmt: skip
_read_meters = msgspec.json.Decoder(list[tuple[UUID, list[tuple[MeterKey, Decimal, int]]]]).decode
_read_holds = msgspec.json.Decoder(list[tuple[UUID, str, str, Decimal, int]]).decode
_read_known = msgspec.json.Decoder(list[tuple[UUID, str, Decimal | None, int]]).decode
_read_leases = msgspec.json.Decoder(
    list[tuple[UUID, str, int, str, str, str, str, str, str, str, str, Decimal, int, datetime, datetime]]
).decode


_MAX_CACHED_WORKSPACES = 50_000


class LimitCache:
    """The limits of each workspace as this process last read them, compiled."""

    def __init__(self) -> None:
        self._limits: dict[UUID, LimitSet] = {}

    def get(self, workspace_id: UUID) -> LimitSet:
        """What is held; `NO_LIMITS`, of a version that there never is, if nothing is."""
        return self._limits.get(workspace_id, NO_LIMITS)

    def put(self, workspace_id: UUID, limits: LimitSet) -> LimitSet:
        """Hold these from now on."""
        if len(self._limits) >= _MAX_CACHED_WORKSPACES:
            self._limits.clear()
        self._limits[workspace_id] = limits
        return limits


def open_ledgers(
    connection: psycopg.Connection, limits: LimitCache, group: Sequence[Submission], now: datetime
) -> dict[UUID, WorkspaceLedger]:
    """Begin the transaction, lock the group's workspaces and read what deciding needs.

    The lock is a statement of its own: the ones after it see everything that its former holder committed.
    A workspace that no longer exists has no ledger in the answer.
    """
    workspace_ids = sorted({submission.workspace_id for submission in group})
    held = {one: limits.get(one) for one in workspace_ids}
    scopes = _scopes(group, held, {}, now)
    parameters = {
        "workspaces": workspace_ids,
        "now": now,
        "versions": as_json([{"w": one, "v": held[one].version} for one in workspace_ids]),
        "scopes": _as_json(scopes),
        "ids": as_json(_ids(group)),
    }
    with connection.pipeline():
        connection.execute("BEGIN")
        policies = connection.execute(_LOCK, [workspace_ids])
        read = connection.execute(_READ, parameters)
    changed, meters, holds, known, leases = (text or "[]" for text in read.fetchall()[0])
    changed_rows = defaultdict(list)
    for workspace_id, *fields in _read_limits(changed):
        changed_rows[workspace_id].append(_limit_row(fields))
    ledgers = {}
    for workspace_id, tier, name, observes, modes, version in policies.fetchall():
        current = held[workspace_id]
        if current.version != version:
            held[workspace_id] = current = limits.put(workspace_id, LimitSet(version, changed_rows[workspace_id]))
        ledgers[workspace_id] = WorkspaceLedger(workspace_id, now, tier, name, observes, frozenset(modes), current)
    for workspace_id, external_id, cost, fingerprint in _read_known(known):
        ledgers[workspace_id].known[external_id] = KnownEvent(cost, fingerprint)
    for workspace_id, *fields in _read_leases(leases):
        lease = _lease_row(fields)
        ledgers[workspace_id].leases[lease.ask.external_request_id] = lease
    if changed_rows or any(ledger.leases for ledger in ledgers.values()):
        needed = _scopes(group, held, ledgers, now)
        if needed != scopes:
            meters, holds = _read_again(connection, parameters | {"scopes": _as_json(needed)})
    _fill(ledgers, meters, holds)
    return ledgers


def _read_again(connection: psycopg.Connection, parameters: dict[str, Any]) -> tuple[str, str]:
    """Which scopes are needed was worked out with other limits, or without the labels of a lease."""
    row = connection.execute(_READ_AGAIN, parameters).fetchone()
    meters, holds = row if row is not None else (None, None)
    return meters or "[]", holds or "[]"


def _fill(ledgers: dict[UUID, WorkspaceLedger], meters: str, holds: str) -> None:
    for workspace_id, rows in _read_meters(meters):
        if workspace_id not in ledgers:
            continue
        read = ledgers[workspace_id].accounts.read
        for key, amount, tokens in rows:
            read(key, amount, tokens)
    for workspace_id, kind, value, usd, tokens in _read_holds(holds):
        ledgers[workspace_id].holds[ScopeKey(kind, value)] = (usd, tokens)


def _limit_row(fields: list[Any]) -> LimitRow:
    *columns, adjusted = fields
    adjustments: dict[tuple[datetime, str], Decimal] = {}
    for period_start, scope_value, usd in adjusted or ():
        place = (period_start, scope_value)
        adjustments[place] = adjustments.get(place, ZERO) + usd
    row = [*columns, adjustments or None]
    return LimitRow(*row)


def _lease_row(fields: list[Any]) -> LeaseRow:
    external_id, api_key_id, *labels, usd, tokens, created_at, expires_at = fields
    names = ("provider", "model", "endpoint_tag", "prompt_version", "environment", "data_mode", "user_id", "tenant_id")
    ask = Ask(
        what="lease",
        external_request_id=external_id,
        api_key_id=api_key_id,
        usd=usd,
        unpriced_tokens=tokens,
        **dict(zip(names, labels, strict=True)),
    )
    return LeaseRow(ask=ask, created_at=created_at, expires_at=expires_at)


_Scopes = dict[tuple[UUID, ScopeKey], set[datetime]]


def _scopes(
    group: Sequence[Submission],
    limits: Mapping[UUID, LimitSet],
    ledgers: Mapping[UUID, WorkspaceLedger],
    now: datetime,
) -> _Scopes:
    """Every scope that the group touches, with the starts of the periods in which it does.

    Those of leases that it asks about are known once their `ledgers` are.
    """
    found: _Scopes = {}
    current = _starts(now)
    for submission in group:
        owner = submission.workspace_id
        whole = found.setdefault((owner, WORKSPACE), set(current))
        for matches, moment in _matches(submission, limits[owner], ledgers.get(owner), now):
            starts = _starts(moment)
            whole |= starts
            for match in matches:
                found.setdefault((owner, match.scope), set(current)).update(starts)
    return found


def _matches(
    submission: Submission, limits: LimitSet, ledger: WorkspaceLedger | None, now: datetime
) -> Iterator[tuple[list[Match], datetime]]:
    for priced in submission.events:
        yield priced.matches(limits), priced.event.occurred_at
    if submission.ask is not None:
        yield limits.matching(submission.ask), now
        lease = ledger.leases.get(submission.ask.external_request_id) if ledger is not None else None
        if lease is not None:
            yield limits.matching(lease.ask), now


def _starts(moment: datetime) -> set[datetime]:
    return set(period_starts(moment.toordinal()))


def _as_json(scopes: _Scopes) -> str:
    """The scopes as lists of values, one for all that share kind and periods: one look through the index for each."""
    lists: dict[tuple[UUID, frozenset[datetime], str], list[str]] = {}
    for (owner, scope), starts in scopes.items():
        lists.setdefault((owner, frozenset(starts), scope.kind), []).append(scope.value)
    return as_json(
        [{"w": owner, "t": list(starts), "s": kind, "v": values} for (owner, starts, kind), values in lists.items()]
    )


def _ids(group: Sequence[Submission]) -> list[dict[str, Any]]:
    """The externalRequestIds that the group names."""
    events = [
        {"w": submission.workspace_id, "i": priced.event.external_request_id}
        for submission in group
        for priced in submission.events
    ]
    asks = [
        {"w": submission.workspace_id, "i": submission.ask.external_request_id}
        for submission in group
        if submission.ask is not None and submission.ask.external_request_id
    ]
    return events + asks
