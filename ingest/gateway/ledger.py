"""The decision about each event, in arrival order, on the totals that the commit's transaction has locked.

Pure: no database, no clock. `store` fills a `WorkspaceLedger`, `walk` decides and adds, `store` writes the difference.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

import msgspec

from ingest.gateway.priced import PricedEvent
from ingest.limits import has_crossed, has_reached, is_over
from ingest.models import DataMode, Measure, RefusalReason
from opsmeter_site.lib.periods import Period

ZERO = Decimal(0)
ONE = Decimal(1)
_DAY = Period.DAY.value
_MONTH = Period.MONTH.value
_REQUESTS = Measure.REQUESTS.value
_USD = Measure.USD.value
_DEMO = DataMode.DEMO.value


@dataclass(slots=True)
class Submission:
    """The events that one request wants stored for one workspace."""

    workspace_id: UUID
    events: list[PricedEvent]


class MeterKey(NamedTuple):
    """Which meter of a workspace."""

    measure: str
    period: str
    period_start: datetime


class KnownEvent(NamedTuple):
    """What a repeat needs to know of the stored row."""

    cost_usd: Decimal | None
    fingerprint: int


@dataclass(frozen=True, slots=True)
class LimitRow:
    """A limit as the commit read it."""

    id: UUID
    source_id: str
    name: str
    measure: str
    period: str
    amount: Decimal
    thresholds: tuple[Decimal, ...]
    enforce: bool

    @property
    def meter(self) -> tuple[str, str]:
        """Which meters it is held against."""
        return (self.measure, self.period)


@dataclass(frozen=True, slots=True)
class BudgetNotice:
    """The budget that refused an event, for the answer. USD; `resets_at` is the end of its period."""

    id: str
    name: str
    period: str
    limit_usd: Decimal
    current_spend_usd: Decimal
    period_start: datetime


class Verdict(msgspec.Struct, gc=False):
    """What became of one event. `reason` is set when it was refused."""

    cost_usd: Decimal | None
    is_duplicate: bool = False
    differs: bool = False
    reason: str | None = None
    budget: BudgetNotice | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a workspace stands after its last event of a commit."""

    plan_tier: str
    plan_name: str
    plan_limit_requests: int | None
    remaining_requests: int | None
    is_plan_limit_reached: bool
    is_budget_warning: bool
    is_budget_exceeded: bool


@dataclass(slots=True)
class Sums:
    """Sums of events that share a roll-up row or a refusal row."""

    first: PricedEvent
    requests: int = 0
    errors: int = 0
    uncached_input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: Decimal = ZERO
    latency_ms_sum: int = 0
    latency_count: int = 0

    def add(self, priced: PricedEvent) -> None:
        """Count one event."""
        event = priced.event
        self.requests += 1
        self.uncached_input_tokens += event.uncached_input_tokens
        self.cache_read_tokens += event.cache_read_tokens
        self.cache_write_tokens += event.cache_write_tokens
        self.output_tokens += event.output_tokens
        self.reasoning_tokens += event.reasoning_tokens
        if event.status == "error":
            self.errors += 1
        if event.latency_ms is not None:
            self.latency_ms_sum += event.latency_ms
            self.latency_count += 1
        if priced.quote.cost_usd is not None:
            self.cost_usd += priced.quote.cost_usd


@dataclass(slots=True)
class WorkspaceLedger:
    """One workspace inside one commit: what was read under its lock, and what is to be written."""

    workspace_id: UUID
    plan_tier: str
    plan_name: str
    observe_mode: bool
    counted_data_modes: frozenset[str]
    limits: list[LimitRow]
    known: dict[str, KnownEvent] = field(default_factory=dict)
    opening: dict[MeterKey, Decimal] = field(default_factory=dict)
    meters: dict[MeterKey, Decimal] = field(default_factory=dict)
    accepted: list[PricedEvent] = field(default_factory=list)
    rollups: dict[tuple[datetime, UUID], Sums] = field(default_factory=dict)
    refusals: dict[tuple[datetime, str], Sums] = field(default_factory=dict)

    def value(self, key: MeterKey) -> Decimal:
        """The meter's value at this point of the walk."""
        return self.meters.get(key, ZERO)

    def standing(self, now: datetime) -> Standing:
        """Where the workspace stands in the periods that hold `now` (aware UTC)."""
        keys = meter_keys(now)
        limit = remaining = None
        reached = warning = exceeded = False
        for row in self.limits:
            value = self.value(keys[row.meter])
            is_used_up = is_over(row.measure, row.amount, value)
            if row.measure == _REQUESTS:
                limit, remaining, reached = int(row.amount), max(0, int(row.amount - value)), is_used_up
            else:
                warning = warning or has_reached(row.amount, row.thresholds[0], value)
                exceeded = exceeded or is_used_up
        return Standing(self.plan_tier, self.plan_name, limit, remaining, reached, warning, exceeded)

    def crossings(self) -> list[tuple[LimitRow, MeterKey, Decimal]]:
        """Thresholds that this commit has crossed: the limit, the meter and the threshold."""
        return [
            (row, key, threshold)
            for key, after in self.changed_meters()
            for row in self.limits
            if row.measure == key.measure and row.period == key.period
            for threshold in row.thresholds
            if has_crossed(row.measure, row.amount, threshold, after)
            and not has_crossed(row.measure, row.amount, threshold, self.opening.get(key, ZERO))
        ]

    def changed_meters(self) -> list[tuple[MeterKey, Decimal]]:
        """The meters that this commit moves or opens, with their new values."""
        opening = self.opening
        return [(key, value) for key, value in self.meters.items() if opening.get(key) != value]


def meter_keys(moment: datetime) -> dict[tuple[str, str], MeterKey]:
    """The meters of the UTC day and month of `moment` (aware UTC), by measure and period."""
    return _meter_keys_of_day(moment.year, moment.month, moment.day)


@lru_cache(maxsize=1_000)
def _meter_keys_of_day(year: int, month: int, day: int) -> dict[tuple[str, str], MeterKey]:
    starts = {_DAY: datetime(year, month, day, tzinfo=UTC), _MONTH: datetime(year, month, 1, tzinfo=UTC)}
    return {
        (measure, period): MeterKey(measure, period, start)
        for measure in (_REQUESTS, _USD)
        for period, start in starts.items()
    }


_MONTHLY_REQUESTS, _DAILY_USD, _MONTHLY_USD = (_REQUESTS, _MONTH), (_USD, _DAY), (_USD, _MONTH)


def walk(ledger: WorkspaceLedger, priced: PricedEvent) -> Verdict:
    """Decide about one event and, if it is accepted, add it to everything that counts it.

    Refused if and only if what was recorded before it, in its own period, is already over a limit that is enforced.
    """
    event = priced.event
    known = ledger.known.get(event.external_request_id)
    if known is not None:
        return Verdict(known.cost_usd, is_duplicate=True, differs=known.fingerprint != event.fingerprint)
    keys = meter_keys(event.occurred_at)
    uses_quota = event.data_mode != _DEMO
    is_counted = event.data_mode in ledger.counted_data_modes
    verdict = _refusal(ledger, priced, keys, uses_quota=uses_quota, is_counted=is_counted)
    if verdict is not None:
        _tally_refusal(ledger, priced, verdict)
        return verdict
    _accept(ledger, priced)
    if uses_quota:
        _add(ledger, keys[_MONTHLY_REQUESTS], ONE)
    if is_counted:
        cost = priced.quote.cost_usd or ZERO
        _add(ledger, keys[_DAILY_USD], cost)
        _add(ledger, keys[_MONTHLY_USD], cost)
    return Verdict(priced.quote.cost_usd)


def _refusal(
    ledger: WorkspaceLedger,
    priced: PricedEvent,
    keys: dict[tuple[str, str], MeterKey],
    *,
    uses_quota: bool,
    is_counted: bool,
) -> Verdict | None:
    stop = None
    for row in ledger.limits:
        if not row.enforce or not (uses_quota if row.measure == _REQUESTS else is_counted):
            continue
        key = keys[row.meter]
        value = ledger.value(key)
        if not is_over(row.measure, row.amount, value):
            continue
        if row.measure == _REQUESTS:
            return Verdict(priced.quote.cost_usd, reason=RefusalReason.PLAN_LIMIT_REACHED.value)
        if stop is None and not ledger.observe_mode:
            notice = BudgetNotice(row.source_id, row.name, row.period, row.amount, value, key.period_start)
            stop = Verdict(priced.quote.cost_usd, reason=RefusalReason.BUDGET_EXCEEDED.value, budget=notice)
    return stop


def _accept(ledger: WorkspaceLedger, priced: PricedEvent) -> None:
    event = priced.event
    ledger.accepted.append(priced)
    ledger.known[event.external_request_id] = KnownEvent(priced.quote.cost_usd, event.fingerprint)
    slot = (_bucket(event.occurred_at), priced.rollup_key)
    sums = ledger.rollups.get(slot)
    if sums is None:
        sums = ledger.rollups[slot] = Sums(priced)
    sums.add(priced)


def _tally_refusal(ledger: WorkspaceLedger, priced: PricedEvent, verdict: Verdict) -> None:
    slot = (_bucket(priced.event.occurred_at), verdict.reason or "")
    sums = ledger.refusals.get(slot)
    if sums is None:
        sums = ledger.refusals[slot] = Sums(priced)
    sums.add(priced)


def _add(ledger: WorkspaceLedger, key: MeterKey, amount: Decimal) -> None:
    ledger.meters[key] = ledger.meters.get(key, ZERO) + amount


def _bucket(moment: datetime) -> datetime:
    return moment.replace(minute=moment.minute - moment.minute % 15, second=0, microsecond=0)
