"""A workspace's limits as commits use them: compiled once for each version, and found by what an event says."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple
from uuid import UUID

from ingest.limits import Level, levels_of
from ingest.models import UnpricedPolicy
from ingest.scopes import Scoped

ZERO = Decimal(0)
# A limit on each value must not fill the memory.
_MOST_REMEMBERED = 20_000


class ScopeKey(NamedTuple):
    """A scope: one value of one dimension; both empty for the whole workspace."""

    kind: str
    value: str


WORKSPACE = ScopeKey("", "")


@dataclass(frozen=True)
class LimitRow:
    """A limit as commits read it; see `ingest.models.Limit`. `adjustments` in USD, by period start and scope value."""

    id: UUID
    source_id: str
    name: str
    measure: str
    period: str
    amount: Decimal
    thresholds: tuple[Decimal, ...]
    enforce: bool
    scope_kind: str = ""
    scope_value: str = ""
    is_each_value: bool = False
    thresholds_usd: tuple[Decimal, ...] = ()
    unpriced: str = UnpricedPolicy.IGNORE.value
    estimate_usd_per_1m: Decimal = ZERO
    raised_amount: Decimal | None = None
    raised_until: datetime | None = None
    adjustments: Mapping[tuple[datetime, str], Decimal] | None = None

    @cached_property
    def blocks_unpriced(self) -> bool:
        """Whether it refuses events without a price."""
        return self.enforce and self.unpriced == UnpricedPolicy.BLOCK

    @cached_property
    def counts_as_it_is(self) -> bool:
        """Whether it counts exactly what the meter says: nothing estimated, nothing adjusted."""
        return not self.estimate_usd_per_1m and not self.adjustments

    def terms(self, now: datetime) -> "Terms":
        """What it says at `now`: a raise ends by the clock."""
        raised_until = self.raised_until
        return self._plain if raised_until is None or now >= raised_until else self._raised

    @cached_property
    def _plain(self) -> "Terms":
        return self._terms_of(self.amount)

    @cached_property
    def _raised(self) -> "Terms":
        return self._terms_of(self.amount if self.raised_amount is None else self.raised_amount)

    def _terms_of(self, amount: Decimal) -> "Terms":
        levels = levels_of(amount, self.thresholds, self.thresholds_usd)
        return Terms(self, amount, levels, levels[0].amount)


class Terms(NamedTuple):
    """What a limit says at one moment: its amount, its thresholds, and the lowest of them."""

    row: LimitRow
    amount: Decimal
    levels: tuple[Level, ...]
    warns_at: Decimal


class Match(NamedTuple):
    """A scope that an event belongs to, and the limits that hold there."""

    scope: ScopeKey
    limits: tuple[LimitRow, ...]


class LimitSet:
    """The limits of one workspace at one version."""

    __slots__ = ("_by_value", "_each", "_matches", "_terms", "version", "workspace")

    def __init__(self, version: int, rows: Iterable[LimitRow] = ()) -> None:
        self.version = version
        # A fixed order, so that of several budgets that are as tight the same one is always named.
        ordered = sorted(rows, key=lambda row: (row.period, row.source_id))
        self.workspace = tuple(row for row in ordered if not row.scope_kind)
        self._each: dict[str, tuple[LimitRow, ...]] = {}
        self._by_value: dict[str, dict[str, tuple[LimitRow, ...]]] = {}
        for row in ordered:
            if row.scope_kind:
                self._put(row)
        self._terms: dict[tuple[str, str, ScopeKey], tuple[Terms, ...]] = {}
        self._matches = {
            kind: {value: Match(ScopeKey(kind, value), rows) for value, rows in values.items()}
            for kind, values in self._by_value.items()
        }

    def _put(self, row: LimitRow) -> None:
        values = self._by_value.setdefault(row.scope_kind, {})
        each = self._each.setdefault(row.scope_kind, ())
        if row.is_each_value:
            self._each[row.scope_kind] = (*each, row)
            for value in values:
                values[value] = (*values[value], row)
        else:
            # Whoever asks for this value finds the limits on each value here, too.
            values[row.scope_value] = (*values.get(row.scope_value, each), row)

    def matching(self, scoped: Scoped) -> list[Match]:
        """The scopes of `scoped` that have limits, besides the whole workspace."""
        found = []
        for kind, matches in self._matches.items():
            value = scoped.scope_value(kind)
            match = matches.get(value)
            if match is not None:
                found.append(match)
            elif self._each[kind]:
                found.append(Match(ScopeKey(kind, value), self._each[kind]))
        return found

    def rows(self, kind: str, value: str) -> tuple[LimitRow, ...]:
        """The limits of one scope."""
        if not kind:
            return self.workspace
        return self._by_value.get(kind, {}).get(value) or self._each.get(kind, ())

    def terms(self, measure: str, period: str, scope: ScopeKey, now: datetime) -> tuple[Terms, ...]:
        """What the limits on one meter say at `now`."""
        place = (measure, period, scope)
        found = self._terms.get(place)
        if found is not None:
            return found
        rows = [row for row in self.rows(*scope) if row.measure == measure and row.period == period]
        found = tuple([row.terms(now) for row in rows])
        # What ends by the clock is asked for again.
        if len(self._terms) < _MOST_REMEMBERED and not any(row.raised_until for row in rows):
            self._terms[place] = found
        return found


NO_LIMITS = LimitSet(-1)
