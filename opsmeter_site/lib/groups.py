"""Leader and followers: work that arrived while the last round was under way shares the next round.

No thread of its own and no timer. A thread that finds nobody working becomes the leader, takes everything that waits,
does one round for all of it and hands the lead to the first that arrived meanwhile. Alone on the line, work starts at
once.
"""

import threading
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupTimeoutError(Exception):
    """The round that should have included this item did not end in time; whether it took effect is unknown."""


class _Ticket(Generic[Item, Result]):
    __slots__ = ("error", "item", "leads", "result", "wake")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.leads = False
        self.wake = threading.Lock()
        self.wake.acquire()


class GroupRunner(Generic[Item, Result]):
    """Runs `work` on groups of items. `work` gets the items in arrival order and returns one result for each.

    If `work` raises, every item of the group raises the same error. `weight` and `max_weight` bound a group; one
    item is always taken. `timeout` (seconds) bounds how long an item waits for others; once a round has lasted that
    long, further items do not wait at all.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        timeout: float,
        weight: Callable[[Item], int] = lambda _item: 1,
        max_weight: int = 2_000,
    ) -> None:
        self._work = work
        self._timeout = timeout
        self._weight = weight
        self._max_weight = max_weight
        self._mutex = threading.Lock()
        self._waiting: list[_Ticket[Item, Result]] = []
        self._is_led = False
        self._round_started = 0.0

    def run(self, item: Item) -> Result:
        """Have `item` done in the next round; its result. Raises what the round raised, or `GroupTimeoutError`."""
        ticket: _Ticket[Item, Result] = _Ticket(item)
        with self._mutex:
            if self._is_led and monotonic() - self._round_started > self._timeout:
                raise GroupTimeoutError
            self._waiting.append(ticket)
            leads, self._is_led = not self._is_led, True
            if leads:
                self._round_started = monotonic()
        if leads or self._wait(ticket):
            self._lead()
        if ticket.error is not None:
            raise ticket.error
        return ticket.result  # type: ignore[return-value]  # set by the round, of whatever type `work` returns

    def _wait(self, ticket: _Ticket[Item, Result]) -> bool:
        """Wait for a result (False) or for the lead (True)."""
        if ticket.wake.acquire(timeout=self._timeout):
            return ticket.leads
        with self._mutex:
            if ticket in self._waiting and not ticket.leads:
                self._waiting.remove(ticket)
        if ticket.wake.acquire(blocking=False):
            return ticket.leads
        raise GroupTimeoutError

    def _lead(self) -> None:
        # Requests that have arrived but not been read yet are other threads that wait for this one to let them run.
        sleep(0)
        group = self._take_group()
        try:
            for ticket, result in zip(group, self._work([ticket.item for ticket in group]), strict=True):
                ticket.result = result
        except BaseException as error:
            for ticket in group:
                ticket.error = error
        finally:
            self._hand_over()
            for ticket in group:
                ticket.wake.release()

    def _take_group(self) -> list[_Ticket[Item, Result]]:
        with self._mutex:
            total = count = 0
            for ticket in self._waiting:
                total += self._weight(ticket.item)
                if count and total > self._max_weight:
                    break
                count += 1
            group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    def _hand_over(self) -> None:
        with self._mutex:
            if self._waiting:
                self._round_started = monotonic()
                self._waiting[0].leads = True
                self._waiting[0].wake.release()
            else:
                self._is_led = False
