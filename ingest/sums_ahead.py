"""Sums of stored events, made while ingest goes on and brought up to date under the ledger lock.

They hold as long as nobody else rewrites what is stored. So, of one workspace, those who make such sums and re-pricing
take turns; whoever does not must be noticed (see `scope_sums.state_of`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from django.db import connection

from ingest.meters import first_whole_periods
from ingest.scope_sums import periods_sql

COLUMNS = "workspace_id, measure, period, period_start, scope_kind, scope_value, value, unpriced_tokens"

_TURN = "hashtext('ledger_turn'), hashtext(%(workspace)s)"
_WAIT_FOR_TURN = f"SELECT pg_advisory_xact_lock({_TURN})"
_TRY_TURN = f"SELECT pg_try_advisory_xact_lock({_TURN})"

# The sums of a large workspace fit into memory, and compiling takes longer than it saves.
_SETTINGS = "SET LOCAL work_mem = '64MB'; SET LOCAL jit = off"

_SUMS = f"""
    INSERT INTO {{table}} ({COLUMNS})
    SELECT %(workspace)s, 'usd', period, period_start, kind, value, usd, tokens
    FROM periods WHERE value <> ALL(%(left_out)s::text[])
"""  # noqa: S608 (only constants are put in, also below)
# One statement, so that the sums are those of exactly the rows up to the id that it answers: of one workspace, ids grow
# in the order of commits.
_WRITE = f"""
WITH {{periods}}, written AS ({_SUMS})
SELECT coalesce(max(id), 0) FROM ingest_event WHERE workspace_id = %(workspace)s
"""  # noqa: S608
_ADD_NEWER = f"""
WITH {{periods}} {_SUMS.format(table="ingest_meter AS meter")}
ON CONFLICT (workspace_id, period_start, scope_kind, scope_value, period, measure) DO UPDATE SET
    value = meter.value + excluded.value, unpriced_tokens = meter.unpriced_tokens + excluded.unpriced_tokens
"""


def wait_for_turn(workspace_id: UUID) -> None:
    """Be the only one, until the transaction ends, who makes sums of the workspace; before the ledger lock is taken."""
    with connection.cursor() as cursor:
        cursor.execute(_WAIT_FOR_TURN, {"workspace": str(workspace_id)})


def try_turn(workspace_id: UUID) -> bool:
    """The same without waiting; False if somebody else is at it."""
    with connection.cursor() as cursor:
        cursor.execute(_TRY_TURN, {"workspace": str(workspace_id)})
        (is_ours,) = cursor.fetchone()
    return bool(is_ours)


@dataclass(frozen=True, slots=True)
class SumsAhead:
    """The USD sums of what `values` names, by dimension (None: all of its values; "": the whole workspace).

    Of the data modes `modes` minus those of `less`, in the periods that begin at `since` or later, of values that are
    not `left_out`. `last_id`: the last event that is in what has been written.
    """

    workspace_id: UUID
    values: Mapping[str, Collection[str] | None]
    modes: Collection[str]
    less: Collection[str] = ()
    since: datetime | None = None
    left_out: Sequence[str] = ()
    last_id: int = 0

    def written_to(self, table: str) -> Self:
        """Insert the sums of all that is stored into a table like that of the meters; needs no lock."""
        sql, parameters = self._periods(is_newer=False)
        with connection.cursor() as cursor:
            cursor.execute(_SETTINGS)
            cursor.execute(_WRITE.format(periods=sql, table=table), parameters)
            (last_id,) = cursor.fetchone()
        return replace(self, last_id=last_id)

    def add_newer(self) -> None:
        """Add what has been stored since to the meters; under the ledger lock."""
        sql, parameters = self._periods(is_newer=True)
        with connection.cursor() as cursor:
            cursor.execute(_ADD_NEWER.format(periods=sql), parameters)

    def _periods(self, *, is_newer: bool) -> tuple[str, dict[str, Any]]:
        sql, values = periods_sql(self.values, is_difference=bool(self.less), is_newer=is_newer)
        parameters: dict[str, Any] = {
            "workspace": self.workspace_id,
            "counted": [*self.modes, *self.less],
            "less": list(self.less),
            "left_out": list(self.left_out),
            "last_id": self.last_id,
        }
        return sql, parameters | values | first_whole_periods(self.since)
