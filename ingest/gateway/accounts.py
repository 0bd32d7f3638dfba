"""Meters inside one commit: counters that the walk moves, and the limits that they are held against.

Plain objects, looked up once for each scope of an event: this is the innermost loop of ingest.
"""

from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from ingest.limit_sets import WORKSPACE, ZERO, LimitRow, LimitSet, ScopeKey
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

    `value` in USD or requests, `unpriced` in tokens of events without a price.
    """

    __slots__ = ("checks", "is_touched", "key", "opening", "opening_unpriced", "unpriced", "value")

    def __init__(self, key: MeterKey, opening: Decimal | None = None, unpriced: int = 0) -> None:
        self.key = key
        self.opening, self.opening_unpriced = opening, unpriced
        self.value, self.unpriced = ZERO if opening is None else opening, unpriced
        self.is_touched = False
        self.checks: tuple[Check, ...] = ()

    def add(self, amount: Decimal) -> None:
        """Count USD or requests more."""
        self.value += amount
        self.is_touched = True

    @property
    def is_changed(self) -> bool:
        """Whether a row has to be written."""
        return self.is_touched and (self.value != self.opening or self.unpriced != self.opening_unpriced)


class Check:
    """One limit held against one counter, on the terms in force."""

    __slots__ = ("amount", "counter", "levels", "row", "warns_at")

    def __init__(self, row: LimitRow, counter: Counter, now: datetime) -> None:
        self.row, self.counter = row, counter
        self.amount, self.levels = row.terms(now)
        self.warns_at = self.levels[0].amount

    def spend(self) -> Decimal:
        """What the limit counts at this point of the walk."""
        counter = self.counter
        if self.row.counts_as_it_is:
            return counter.value
        return _counted(self.row, counter.key, counter.value, counter.unpriced)

    def crossed(self) -> list[Level]:
        """The thresholds that this commit has crossed."""
        after = self.spend()
        if after < self.warns_at:
            return []
        counter = self.counter
        before = _counted(self.row, counter.key, counter.opening or ZERO, counter.opening_unpriced)
        measure = self.row.measure
        return [
            level for level in self.levels if level.is_crossed(measure, after) and not level.is_crossed(measure, before)
        ]


def _counted(row: LimitRow, key: MeterKey, value: Decimal, unpriced: int) -> Decimal:
    if unpriced:
        value += estimated_usd(unpriced, row.estimate_usd_per_1m)
    if row.adjustments:
        value += row.adjustments.get((key.period_start, key.scope_value if row.is_each_value else ""), ZERO)
    return value


class Account:
    """One scope on one UTC day: the USD counters of the day and of its month, and all limits on them.

    `requests` is the whole workspace's counter of the month, whatever the scope.
    """

    __slots__ = ("checks", "day", "hard_checks", "month", "requests")

    def __init__(self, day: Counter, month: Counter, requests: Counter) -> None:
        self.day, self.month, self.requests = day, month, requests
        self.checks = day.checks + month.checks
        self.hard_checks = tuple(check for check in self.checks if check.row.enforce)

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
        self._begin(Counter(key, opening, unpriced))

    def _counter(self, key: MeterKey) -> Counter:
        return self.counters.get(key) or self._begin(Counter(key))

    def _begin(self, counter: Counter) -> Counter:
        key = counter.key
        measure, period, _, kind, value = key
        rows = self.limits.rows(kind, value)
        counter.checks = tuple(
            [Check(row, counter, self.now) for row in rows if row.period == period and row.measure == measure]
        )
        self.counters[key] = counter
        return counter

    def changed(self) -> list[Counter]:
        """The counters that this commit moves or opens."""
        return [counter for counter in self.counters.values() if counter.is_changed]


@lru_cache(maxsize=100)
def period_starts(ordinal: int) -> tuple[datetime, datetime]:
    """The starts of the UTC day with that ordinal and of its month."""
    day = date.fromordinal(ordinal)
    return datetime(day.year, day.month, day.day, tzinfo=UTC), datetime(day.year, day.month, 1, tzinfo=UTC)
