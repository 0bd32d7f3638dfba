"""Meters inside one commit: counters that the walk moves, and the limits that they are held against.

Plain objects, looked up once for each scope of an event: this is the innermost loop of ingest.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from ingest.limit_sets import WORKSPACE, ZERO, LimitRow, LimitSet, ScopeKey, Terms
from ingest.limits import Level, estimated_usd
from ingest.models import Measure
from opsmeter_site.lib.periods import Period

_DAY, _MONTH = Period.DAY.value, Period.MONTH.value
_REQUESTS, _USD = Measure.REQUESTS.value, Measure.USD.value


class MeterKey(NamedTuple):
    """Which meter of a workspace; the kind of its scope is empty for the whole workspace."""

    measure: str
    period: str
    period_start: datetime
    scope_kind: str
    scope_value: str

    @property
    def scope(self) -> ScopeKey:
        """Whose meter it is."""
        return ScopeKey(self.scope_kind, self.scope_value)


class Counter:
    """One meter: what it said before the commit (None: there was no row), and what it says now.

    `value` in USD or requests, `unpriced` in tokens of events without a price; `terms` are those of the limits on it.
    """

    __slots__ = ("is_touched", "key", "opening", "opening_unpriced", "terms", "unpriced", "value")

    def __init__(
        self, key: MeterKey, terms: tuple[Terms, ...], opening: Decimal | None = None, unpriced: int = 0
    ) -> None:
        self.key, self.terms = key, terms
        self.opening, self.opening_unpriced = opening, unpriced
        self.value, self.unpriced = ZERO if opening is None else opening, unpriced
        self.is_touched = False

    def add(self, amount: Decimal) -> None:
        """Count USD or requests more."""
        self.value += amount
        self.is_touched = True

    @property
    def is_changed(self) -> bool:
        """Whether a row has to be written."""
        return self.is_touched and (self.value != self.opening or self.unpriced != self.opening_unpriced)

    def counted(self, row: LimitRow) -> Decimal:
        """What a limit counts at this point of the walk."""
        return self.value if row.counts_as_it_is else _counted(row, self.key, self.value, self.unpriced)

    def crossed(self) -> Iterator[tuple[Terms, Level, Decimal]]:
        """The thresholds that this commit has crossed, and what their limits count now."""
        for terms in self.terms:
            row = terms.row
            after = self.counted(row)
            if after < terms.warns_at:
                continue
            before = _counted(row, self.key, self.opening or ZERO, self.opening_unpriced)
            for level in terms.levels:
                if level.is_crossed(row.measure, after) and not level.is_crossed(row.measure, before):
                    yield terms, level, after


def _counted(row: LimitRow, key: MeterKey, value: Decimal, unpriced: int) -> Decimal:
    if unpriced:
        value += estimated_usd(unpriced, row.estimate_usd_per_1m)
    if row.adjustments:
        value += row.adjustments.get((key.period_start, key.scope_value if row.is_each_value else ""), ZERO)
    return value


class Account:
    """One scope on one UTC day: the USD counters of the day and of its month, and all limits on them.

    `hard` are those that are enforced. `requests` is the whole workspace's counter of the month, whatever the scope.
    """

    __slots__ = ("day", "hard", "limits", "month", "requests")

    def __init__(self, day: Counter, month: Counter, requests: Counter) -> None:
        self.day, self.month, self.requests = day, month, requests
        self.limits = [(terms, day) for terms in day.terms] + [(terms, month) for terms in month.terms]
        self.hard = [pair for pair in self.limits if pair[0].row.enforce]

    def add(self, usd: Decimal | None, tokens: int) -> None:
        """Count the cost of an event, or, if it has none, its tokens."""
        if usd is not None:
            self.day.add(usd)
            self.month.add(usd)
            return
        for counter in (self.day, self.month):
            counter.add(ZERO)
            counter.unpriced += tokens


class Accounts:
    """All counters of one workspace in one commit, by what events ask for."""

    def __init__(self, limits: LimitSet, now: datetime) -> None:
        self.limits, self.now = limits, now
        self.counters: dict[MeterKey, Counter] = {}
        self._by_day: dict[int, dict[ScopeKey, Account]] = {}

    def of(self, scope: ScopeKey, moment: datetime) -> Account:
        """The account of a scope on the day of `moment` (aware UTC)."""
        ordinal = moment.toordinal()
        of_day = self._by_day.get(ordinal)
        if of_day is None:
            of_day = self._by_day[ordinal] = {}
        account = of_day.get(scope)
        if account is None:
            account = of_day[scope] = self._open(scope, ordinal)
        return account

    def _open(self, scope: ScopeKey, ordinal: int) -> Account:
        day, month = period_starts(ordinal)
        return Account(
            self._counter(MeterKey(_USD, _DAY, day, *scope)),
            self._counter(MeterKey(_USD, _MONTH, month, *scope)),
            self._counter(MeterKey(_REQUESTS, _MONTH, month, *WORKSPACE)),
        )

    def read(self, key: MeterKey, opening: Decimal, unpriced: int) -> None:
        """Take over a stored row; before anything is counted."""
        self.counters[key] = Counter(key, self._terms(key), opening, unpriced)

    def _counter(self, key: MeterKey) -> Counter:
        counter = self.counters.get(key)
        if counter is None:
            counter = self.counters[key] = Counter(key, self._terms(key))
        return counter

    def _terms(self, key: MeterKey) -> tuple[Terms, ...]:
        return self.limits.terms(key[0], key[1], ScopeKey(key[3], key[4]), self.now)

    def changed(self) -> list[Counter]:
        """The counters that this commit moves or opens."""
        return [counter for counter in self.counters.values() if counter.is_changed]


@lru_cache(maxsize=100)
def period_starts(ordinal: int) -> tuple[datetime, datetime]:
    """The starts of the UTC day with that ordinal and of its month."""
    day = date.fromordinal(ordinal)
    return datetime(day.year, day.month, day.day, tzinfo=UTC), datetime(day.year, day.month, 1, tzinfo=UTC)
