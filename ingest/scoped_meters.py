"""Meters and holds of scopes: begun when a limit is set on one, given up with the last limit, made again when needed.

What ingest adds to them is in `ingest.gateway`. All functions that write run in the caller's transaction, and under the
lock, but for `prepare`. Every stored event is in the meters of its metered scopes: that is why deltas can be applied to
them. Meters of a scope that is no longer metered may be left over; nobody reads or adds to them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import F, Q, Sum
from django.db.models.functions import Greatest
from django.db.transaction import TransactionManagementError

from ingest.limit_sets import LimitRow, LimitSet
from ingest.models import Lease, LedgerCoverage, Limit, LimitAdjustment, MeteredScope, ScopeKind, WorkspacePolicy
from ingest.scope_sums import (
    SOURCES,
    Scope,
    expected_sql,
    is_metered_sql,
    scopes_sql,
    source_from,
    state_of,
)
from ingest.sums_ahead import COLUMNS, SumsAhead, wait_for_turn
from opsmeter_site.lib.clock import utc_now

# By the clock of another process a lease that has just expired here may still be live.
_CLOCKS_DIFFER_BY = timedelta(minutes=1)

_CHANGED_SCOPES = """
WITH wanted AS (
    SELECT DISTINCT scope_kind AS kind, scope_value AS value, is_each_value FROM ingest_limit
    WHERE workspace_id = %(workspace)s AND scope_kind <> ''
), metered AS (
    SELECT kind, value, is_each_value FROM ingest_meteredscope WHERE workspace_id = %(workspace)s
)
SELECT kind, value, is_each_value, wanted.kind IS NOT NULL AS is_new
FROM wanted FULL JOIN metered USING (kind, value, is_each_value)
WHERE wanted.kind IS NULL OR metered.kind IS NULL
"""

# A delete of so many is not felt by ingest, which waits for the lock. What is more is left to the hourly purge.
FEW_METERS = 20_000
_IS_METERED = is_metered_sql("scope_kind", "scope_value")
_OF_SCOPE = "workspace_id = %(workspace)s AND scope_kind = %(kind)s AND (%(is_each_value)s OR scope_value = %(value)s)"
# Whoever prepares a scope may be deleting the same ones and waits for the lock with them.
_DELETE_FEW_METERS = f"""
DELETE FROM ingest_meter WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM ingest_meter WHERE {_OF_SCOPE} AND NOT {_IS_METERED} LIMIT %(few)s FOR UPDATE SKIP LOCKED
))
"""  # noqa: S608 (only constants are put in, also below)
_DELETE_UNMETERED_HOLDS = f"DELETE FROM ingest_hold WHERE {_OF_SCOPE} AND NOT {_IS_METERED}"  # noqa: S608

# The values that other limits have had metered already are left out: their meters may know more.
_DELETE_LEFT_OVER = f"""
DELETE FROM ingest_meter WHERE {_OF_SCOPE} AND scope_value <> ALL(%(metered)s::text[])
"""  # noqa: S608

_DELETE_COVERED = f"""
DELETE FROM ingest_meter
WHERE workspace_id = %(workspace)s AND scope_kind = ANY(%(kinds)s) AND {_IS_METERED}
    AND period_start >= CASE period WHEN 'day' THEN %(first_day)s::timestamptz ELSE %(first_month)s::timestamptz END
"""  # noqa: S608
_INSERT_EXPECTED = f"""
WITH {{expected}}
INSERT INTO ingest_meter ({COLUMNS})
SELECT %(workspace)s, 'usd', period, period_start, kind, value, usd, tokens FROM periods
"""  # noqa: S608

# What must be held at `now`, by scope and second. Also read by the audit.
EXPECTED_HOLDS_SQL = f"""
    SELECT scope.kind, scope.value, expires_at, sum(usd) AS usd, sum(unpriced_tokens)::bigint AS tokens
    FROM ingest_lease CROSS JOIN LATERAL {scopes_sql(ScopeKind.values)}
    WHERE workspace_id = %(workspace)s AND expires_at > %(now)s AND closed_at IS NULL
        AND data_mode = ANY(%(counted)s::text[]) AND (scope.kind = '' OR {is_metered_sql("scope.kind", "scope.value")})
    GROUP BY 1, 2, 3
"""  # noqa: S608
_DELETE_HOLDS = "DELETE FROM ingest_hold WHERE workspace_id = %(workspace)s AND expires_at > %(now)s"
_INSERT_HOLDS = f"""
INSERT INTO ingest_hold (workspace_id, scope_kind, scope_value, expires_at, usd, unpriced_tokens)
SELECT %(workspace)s, kind, value, expires_at, usd, tokens FROM ({EXPECTED_HOLDS_SQL}) AS held
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class PreparedScope:
    """A scope whose meters this transaction has written, and of what state of the ledger they are.

    They are right, but for newer events, as long as that state holds.
    """

    scope: Scope
    sums: SumsAhead
    counts_from: datetime | None
    state: tuple[Any, ...]


def prepare(workspace_id: UUID, scope: Scope) -> PreparedScope | None:
    """Write the meters of a scope that a limit is about to be set on, while ingest goes on; None if they are kept.

    In the transaction that sets the limit, before that takes the lock: nobody sees the meters until it commits, and
    nothing is left of one that fails. Takes some 20 s for a million meters. Waits for its turn.
    """
    if not connection.in_atomic_block:
        raise TransactionManagementError("A scope is prepared in the transaction that sets its limit.")
    wait_for_turn(workspace_id)
    metered = MeteredScope.objects.filter(workspace_id=workspace_id, kind=scope.kind)
    if metered.filter(Q(is_each_value=True) | Q(value=scope.value, is_each_value=scope.is_each_value)).exists():
        return None
    return _write(workspace_id, scope)


def follow_limits(workspace_id: UUID, policy: WorkspacePolicy, prepared: PreparedScope | None = None) -> None:
    """Keep meters and holds of exactly the scopes that the workspace's limits are set on.

    `prepared` spares writing all meters of its scope under the lock, if it still holds.
    """
    with connection.cursor() as cursor:
        cursor.execute(_CHANGED_SCOPES, {"workspace": workspace_id})
        changed = [(Scope(*fields), is_new) for *fields, is_new in cursor.fetchall()]
    if not changed:
        return
    for scope in sorted(scope for scope, is_new in changed if is_new):
        _begin(workspace_id, policy, scope, prepared)
    _end(workspace_id, [scope for scope, is_new in changed if not is_new])
    rebuild_holds(workspace_id, policy)


def rebuild(workspace_id: UUID, policy: WorkspacePolicy) -> None:
    """Make the scoped meters again, for every period that the ledger still covers; others are left alone."""
    for kinds in SOURCES:
        expected, parameters = expected_sql(workspace_id, policy, kinds)
        with connection.cursor() as cursor:
            cursor.execute(_DELETE_COVERED, parameters)
            cursor.execute(_INSERT_EXPECTED.format(expected=expected), parameters)
        note_missing(workspace_id, kinds)


def note_missing(workspace_id: UUID, kinds: Collection[str]) -> None:
    """Say of the scopes of `kinds` (one of `SOURCES`) that meters of periods that have partly expired may lack events.

    Their meters have just been made to count something else; of such periods that is not known any more.
    """
    since = source_from(next(iter(kinds)), LedgerCoverage.of(workspace_id))
    if since is not None:
        scopes = MeteredScope.objects.filter(workspace_id=workspace_id, kind__in=kinds)
        scopes.update(counts_from=Greatest(F("counts_from"), since))


def rebuild_holds(workspace_id: UUID, policy: WorkspacePolicy) -> None:
    """Make all holds of the workspace again from its live leases."""
    now = utc_now() - _CLOCKS_DIFFER_BY
    if policy.leases_until is None or policy.leases_until <= now:
        return
    parameters: dict[str, Any] = {"workspace": workspace_id, "counted": policy.counted_data_modes, "now": now}
    with connection.cursor() as cursor:
        cursor.execute(_DELETE_HOLDS, parameters)
        cursor.execute(_INSERT_HOLDS, parameters)


def recount_holds(workspace_id: UUID, policy: WorkspacePolicy, changed: Collection[str]) -> None:
    """Make the holds again if there are leases of the data modes `changed`, which are counted from now on, or not."""
    leases = Lease.objects.filter(workspace_id=workspace_id, expires_at__gt=utc_now() - _CLOCKS_DIFFER_BY)
    if leases.filter(data_mode__in=changed, closed_at=None).exists():
        rebuild_holds(workspace_id, policy)


def limit_set_of(workspace_id: UUID) -> LimitSet:
    """The workspace's limits as commits use them; under the lock they are the ones in force.

    Raises `WorkspacePolicy.DoesNotExist`.
    """
    version = WorkspacePolicy.objects.values_list("limits_version", flat=True).get(workspace_id=workspace_id)
    adjusted: dict[UUID, dict[tuple[datetime, str], Decimal]] = {}
    sums = LimitAdjustment.objects.filter(limit__workspace_id=workspace_id)
    for limit_id, start, value, usd in sums.values_list("limit_id", "period_start", "scope_value").annotate(Sum("usd")):
        adjusted.setdefault(limit_id, {})[start, value] = usd
    limits = Limit.objects.filter(workspace_id=workspace_id)
    return LimitSet(version, [_row(limit, adjusted.get(limit.id)) for limit in limits])


def _row(limit: Limit, adjustments: Mapping[tuple[datetime, str], Decimal] | None) -> LimitRow:
    columns = {field.name: getattr(limit, field.name) for field in fields(LimitRow) if field.name != "adjustments"}
    shares = {name: tuple(columns[name]) for name in ("thresholds", "thresholds_usd")}
    return LimitRow(**columns | shares, adjustments=adjustments)


def _begin(workspace_id: UUID, policy: WorkspacePolicy, scope: Scope, prepared: PreparedScope | None) -> None:
    """Meter one more scope: from another that includes it, or else from all that is stored."""
    wider = MeteredScope.objects.filter(workspace_id=workspace_id, kind=scope.kind, is_each_value=True).first()
    if wider is not None:
        counts_from = wider.counts_from
    elif prepared is not None and prepared.scope == scope and prepared.state == _state(workspace_id, policy, scope):
        prepared.sums.add_newer()
        counts_from = prepared.counts_from
    else:
        counts_from = _write(workspace_id, scope).counts_from
    MeteredScope.objects.create(workspace_id=workspace_id, counts_from=counts_from, **scope._asdict())


def _write(workspace_id: UUID, scope: Scope) -> PreparedScope:
    """Make all meters of the scope; what was left over of it goes."""
    # What the sums depend on is read before: if it moves on meanwhile, they are void.
    policy = WorkspacePolicy.objects.get(workspace_id=workspace_id)
    state = _state(workspace_id, policy, scope)
    counts_from = source_from(scope.kind, LedgerCoverage.of(workspace_id))
    metered = _metered_values(workspace_id, scope.kind)
    parameters: dict[str, Any] = {"workspace": workspace_id, "metered": metered} | scope._asdict()
    with connection.cursor() as cursor:
        cursor.execute(_DELETE_LEFT_OVER, parameters)
    sums = SumsAhead(workspace_id, {scope.kind: scope.values}, policy.counted_data_modes, left_out=metered)
    return PreparedScope(scope, sums.written_to("ingest_meter"), counts_from, state)


def _state(workspace_id: UUID, policy: WorkspacePolicy, scope: Scope) -> tuple[Any, ...]:
    coverage = LedgerCoverage.of(workspace_id)
    return (*state_of(policy, coverage), *_metered_values(workspace_id, scope.kind))


def _metered_values(workspace_id: UUID, kind: str) -> list[str]:
    scopes = MeteredScope.objects.filter(workspace_id=workspace_id, kind=kind, is_each_value=False)
    return sorted(scopes.values_list("value", flat=True))


def _end(workspace_id: UUID, scopes: list[Scope]) -> None:
    """Give up the meters and holds of scopes, but for what other scopes still need; some meters may be left over."""
    for scope in scopes:
        MeteredScope.objects.filter(workspace_id=workspace_id, **scope._asdict()).delete()
    with connection.cursor() as cursor:
        for scope in scopes:
            parameters: dict[str, Any] = {"workspace": workspace_id, "few": FEW_METERS} | scope._asdict()
            cursor.execute(_DELETE_FEW_METERS, parameters)
            cursor.execute(_DELETE_UNMETERED_HOLDS, parameters)
