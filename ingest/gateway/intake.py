"""Rounds: what arrived while the last one was under way is counted in Redis and committed to PostgreSQL together.

Each request waits once. Every wait hands the interpreter from thread to thread, and with dozens of threads that is what
a request costs most; so the rate limit and the commit share one round.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import DatabaseError, InterfaceError

from ingest.gateway.committer import Committer, Receipt, UnavailableError, UnstorableError
from ingest.gateway.keys import Caller, KeyCache
from ingest.gateway.ledger import Ask, Submission
from ingest.gateway.priced import PricedEvent
from ingest.metrics import RATE_LIMIT_SKIPPED
from opsmeter_site.lib.groups import GroupRunner, GroupTimeoutError
from opsmeter_site.lib.ratelimit import Hit, Lane, RateWindows

MAX_EVENTS_PER_ROUND = 2_000
WAIT_SECONDS = 8.0
DATABASE_AWAY = (UnavailableError, DatabaseError, InterfaceError)


@dataclass(slots=True)
class Entry:
    """One request's part in a round. Without `events` and `ask` it only counts for the rate, as a bad payload does.

    `lane` names the rate that it counts for; without one it counts for none.
    """

    plain_key: str
    caller: Caller
    lane: str
    events: list[PricedEvent] | None = None
    ask: Ask | None = None

    @property
    def submission(self) -> Submission | None:
        """What it wants of the ledger; None if nothing."""
        if self.events is None and self.ask is None:
            return None
        return Submission(self.caller.workspace_id, self.events or [], self.ask)


@dataclass(slots=True)
class Result:
    """What a round made of an entry.

    `caller` None: the key is no longer valid. `receipt` None: nothing was stored, because of the rate, because there
    was nothing to store, or because of `error`.
    """

    hit: Hit | None
    caller: Caller | None
    receipt: Receipt | None = None
    error: Exception | None = None

    @property
    def is_rate_limited(self) -> bool:
        """Whether this request is one too many in its window."""
        return bool(self.hit and self.caller and self.hit.count > self.caller.requests_per_minute)


class Intake:
    """Takes requests in rounds; safe to call from any thread."""

    def __init__(self, conninfo: str) -> None:
        self.keys = KeyCache()
        self.committer = Committer(conninfo)
        self._windows = RateWindows(RATE_LIMIT_SKIPPED.inc)
        self._runner: GroupRunner[Entry, Result] = GroupRunner(
            self._round,
            timeout=WAIT_SECONDS,
            weight=lambda entry: len(entry.events or ()),
            max_weight=MAX_EVENTS_PER_ROUND,
        )

    def take(self, entry: Entry) -> Result:
        """Have the entry done; returns after its commit. Raises `UnavailableError` if the database hangs."""
        try:
            return self._runner.run(entry)
        except GroupTimeoutError:
            raise UnavailableError from None

    def _round(self, entries: Sequence[Entry]) -> list[Result]:
        hits = iter(
            self._windows.hit_all([Lane(entry.caller.workspace_id, entry.lane) for entry in entries if entry.lane])
        )
        results = [self._admit(entry, next(hits) if entry.lane else None) for entry in entries]
        waiting = [
            (result, submission)
            for entry, result in zip(entries, results, strict=True)
            if (submission := entry.submission) and result.caller and not result.error and not result.is_rate_limited
        ]
        self._commit(waiting)
        return results

    def _admit(self, entry: Entry, hit: Hit | None) -> Result:
        try:
            return Result(hit, self.keys.confirm(entry.plain_key, entry.caller, hit.epoch if hit else None))
        except DATABASE_AWAY as error:
            return Result(hit, entry.caller, error=error)

    def _commit(self, waiting: Sequence[tuple[Result, Submission]]) -> None:
        if not waiting:
            return
        try:
            receipts = self.committer.commit([submission for _, submission in waiting])
        except UnavailableError as error:
            for result, _ in waiting:
                result.error = error
            return
        for (result, _), receipt in zip(waiting, receipts, strict=True):
            if isinstance(receipt, UnstorableError):
                result.error = receipt
            else:
                result.receipt = receipt
