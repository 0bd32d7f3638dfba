"""Group commit: the one place where events enter the ledger.

A submission is what one request wants stored: one event, or the events of a batch. `Committer.commit` puts a group of
submissions into PostgreSQL in one transaction and returns, for each, what became of every event and where its workspace
stands then. Nothing is answered before that transaction has committed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import psycopg
import structlog

from ingest.gateway import openings, store
from ingest.gateway.asks import Decision, decide
from ingest.gateway.ledger import Standing, Submission, Verdict, WorkspaceLedger, walk
from ingest.limit_sets import Match, ScopeKey
from ingest.metrics import COMMIT_EVENTS, COMMIT_SECONDS
from opsmeter_site.lib.clock import utc_now

logger = structlog.get_logger(__name__)


class UnavailableError(Exception):
    """The database cannot take rows now. Nothing of the submission was acknowledged."""


class UnstorableError(Exception):
    """The database refuses this very submission; others are not affected."""


class WorkspaceGoneError(UnstorableError):
    """The workspace has been deleted since its key was last looked up."""


@dataclass(slots=True)
class Receipt:
    """What became of a submission: one verdict an event, in order, the standing after the last, and the answer."""

    verdicts: list[Verdict]
    standing: Standing
    decision: Decision | None = None


class Committer:
    """Commits groups of submissions on one connection of its own; one caller at a time."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: psycopg.Connection | None = None
        self._limits = openings.LimitCache()

    def commit(self, group: Sequence[Submission]) -> list[Receipt | UnstorableError]:
        """Store the group; returns after the commit. Raises `UnavailableError` if nothing of it was acknowledged."""
        started = perf_counter()
        try:
            receipts = self._commit_once_more_after_restart(group)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self.close()
            logger.warning("commit_failed", error=type(error).__name__, submissions=len(group))
            raise UnavailableError from error
        COMMIT_SECONDS.observe(perf_counter() - started)
        COMMIT_EVENTS.observe(sum(len(submission.events) for submission in group))
        return receipts

    def connect(self) -> psycopg.Connection:
        """The connection, opened if there is none. Raises `psycopg.OperationalError` when the database is away."""
        if self._connection is None or self._connection.closed:
            self._connection = store.connect(self._conninfo)
        return self._connection

    def _commit_once_more_after_restart(self, group: Sequence[Submission]) -> list[Receipt | UnstorableError]:
        """A restarted database is noticed on the first use of the old connection: that one failure is ours to hide.

        Repeating is safe even if the lost answer was that of the COMMIT: the ids are known then, and count once.
        """
        if self._connection is None:
            return self._commit_or_split(group)
        try:
            return self._commit_or_split(group)
        except (psycopg.OperationalError, psycopg.InterfaceError):
            self.close()
            return self._commit_or_split(group)

    def _commit_or_split(self, group: Sequence[Submission]) -> list[Receipt | UnstorableError]:
        """Commit the group; if the database refuses a row of it, find the submission at fault by halves."""
        try:
            return self._commit_in_one_transaction(group)
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.NotSupportedError) as error:
            self.connect().rollback()
            if len(group) == 1:
                logger.error("submission_unstorable", error=str(error), workspace_id=str(group[0].workspace_id))
                return [UnstorableError(str(error))]
            middle = len(group) // 2
            return self._commit_or_split(group[:middle]) + self._commit_or_split(group[middle:])

    def _commit_in_one_transaction(self, group: Sequence[Submission]) -> list[Receipt | UnstorableError]:
        connection = self.connect()
        now = utc_now()
        ledgers = openings.open_ledgers(connection, self._limits, group, now)
        receipts = [_receipt(ledgers.get(submission.workspace_id), submission) for submission in group]
        store.write(connection, ledgers.values(), now)
        return receipts

    def close(self) -> None:
        """Close the connection; the next commit opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _receipt(ledger: WorkspaceLedger | None, submission: Submission) -> Receipt | UnstorableError:
    if ledger is None:
        return WorkspaceGoneError()
    verdicts = []
    touched: dict[ScopeKey, Match] = {}
    for priced in submission.events:
        is_counted = priced.event.data_mode in ledger.counted_data_modes
        matches = priced.matches(ledger.limits) if is_counted else []
        accounts = ledger.accounts_of(matches, priced.event.occurred_at) if is_counted else []
        verdicts.append(walk(ledger, priced, accounts))
        touched.update((match.scope, match) for match in matches)
    decision = None if submission.ask is None else decide(ledger, submission.ask)
    return Receipt(verdicts, ledger.standing(ledger.accounts_of(touched.values(), ledger.now)), decision)
