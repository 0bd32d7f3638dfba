"""Other data modes count from now on: each USD meter moves by what they add, and by what is no longer counted.

By how much is worked out before the ledger lock is taken, so that ingest waits only until the meters have moved.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.transaction import TransactionManagementError

from ingest.models import LedgerCoverage, MeteredScope, WorkspacePolicy
from ingest.scope_sums import SOURCES, metered_values, source_from, state_of
from ingest.scoped_meters import note_missing
from ingest.scopes import ROLLED_UP
from ingest.sums_ahead import COLUMNS, SumsAhead, wait_for_turn

_TABLE = "moved_meter"
_CREATE = f"""
DROP TABLE IF EXISTS pg_temp.{_TABLE};
CREATE TEMPORARY TABLE {_TABLE} ON COMMIT DROP AS SELECT {COLUMNS} FROM ingest_meter WITH NO DATA
"""  # noqa: S608 (only constants are put in, also below)
_ANALYZE = f"ANALYZE {_TABLE}"
# A meter that nothing is left of goes.
_MOVE = f"""
MERGE INTO ingest_meter AS meter
USING {_TABLE} AS moved
ON meter.workspace_id = %(workspace)s AND meter.measure = moved.measure AND meter.period = moved.period
    AND meter.period_start = moved.period_start AND meter.scope_kind = moved.scope_kind
    AND meter.scope_value = moved.scope_value
WHEN MATCHED AND meter.value + moved.value = 0 AND meter.unpriced_tokens + moved.unpriced_tokens = 0 THEN DELETE
WHEN MATCHED THEN UPDATE SET
    value = meter.value + moved.value, unpriced_tokens = meter.unpriced_tokens + moved.unpriced_tokens
WHEN NOT MATCHED THEN INSERT ({COLUMNS}) VALUES (
    moved.workspace_id, moved.measure, moved.period, moved.period_start, moved.scope_kind, moved.scope_value,
    moved.value, moved.unpriced_tokens
)
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class PreparedModes:
    """By how much the meters move when `modes` are counted, and of what state of the ledger that is.

    Right, but for newer events, as long as that state holds. In a table of this transaction.
    """

    modes: frozenset[str]
    sums: list[SumsAhead]
    state: tuple[Any, ...]


def prepare(workspace_id: UUID, modes: Collection[str]) -> PreparedModes | None:
    """Work out what counting `modes` changes, while ingest goes on; None if they are counted already.

    In the transaction that sets them, before that takes the lock. Raises `WorkspacePolicy.DoesNotExist`.
    """
    if not connection.in_atomic_block:
        raise TransactionManagementError("Data modes are prepared in the transaction that sets them.")
    if set(_counted(workspace_id)) == set(modes):
        return None
    wait_for_turn(workspace_id)
    return _add_up(workspace_id, modes)


def recount(
    workspace_id: UUID, policy: WorkspacePolicy, modes: Collection[str], prepared: PreparedModes | None
) -> None:
    """Make the USD meters count `modes`, in every period that the ledger still covers; others are left alone.

    Under the ledger lock; `policy` says what has been counted until now. `prepared` spares adding up under it.
    """
    if prepared is None or prepared.modes != set(modes) or prepared.state != _state(policy):
        prepared = _add_up(workspace_id, modes)
    for sums in prepared.sums:
        sums.add_newer()
    with connection.cursor() as cursor:
        cursor.execute(_MOVE, {"workspace": workspace_id})
    for kinds in SOURCES:
        note_missing(workspace_id, kinds)


def _add_up(workspace_id: UUID, modes: Collection[str]) -> PreparedModes:
    # What the sums depend on is read before: if it moves on meanwhile, they are void.
    policy = WorkspacePolicy.objects.get(workspace_id=workspace_id)
    state, coverage = _state(policy), LedgerCoverage.of(workspace_id)
    counted = set(policy.counted_data_modes)
    sums = []
    with connection.cursor() as cursor:
        cursor.execute(_CREATE)
        for kinds in SOURCES:
            values = metered_values(workspace_id, kinds) | ({"": None} if kinds == ROLLED_UP else {})
            since = source_from(next(iter(kinds)), coverage)
            difference = SumsAhead(workspace_id, values, set(modes) - counted, counted - set(modes), since)
            sums.append(difference.written_to(_TABLE))
        cursor.execute(_ANALYZE)
    return PreparedModes(frozenset(modes), sums, state)


def _counted(workspace_id: UUID) -> list[str]:
    return WorkspacePolicy.objects.values_list("counted_data_modes", flat=True).get(workspace_id=workspace_id)


def _state(policy: WorkspacePolicy) -> tuple[Any, ...]:
    scopes = MeteredScope.objects.filter(workspace_id=policy.workspace_id).order_by("pk")
    coverage = LedgerCoverage.of(policy.workspace_id)
    return (*state_of(policy, coverage), *scopes.values_list("pk", flat=True))
