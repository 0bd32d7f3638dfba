"""The decision about each event, in arrival order, on the totals that the commit's transaction has locked.

Pure: no database, no clock. `store` fills a `WorkspaceLedger`, `walk` decides and adds, `store` writes the difference.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

import msgspec

from ingest.gateway.priced import PricedEvent
from ingest.limit_sets import WORKSPACE, ZERO, LimitRow, LimitSet, Match, ScopeKey, Terms
from ingest.limits import Level, estimated_usd, is_over
from ingest.models import DataMode, LeaseOutcome, Measure, RefusalReason, ScopeKind
from ingest.scopes import Scoped
from opsmeter_site.lib.periods import Period

ONE = Decimal(1)
_MAX_REMEMBERED_SCOPES = 5_000
_DAY = Period.DAY.value
_MONTH = Period.MONTH.value
_REQUESTS = Measure.REQUESTS.value
_USD = Measure.USD.value
_DEMO = DataMode.DEMO.value
_API_KEY = ScopeKind.API_KEY_ID.value


class MeterKey(NamedTuple):
    """Which meter of a workspace; without a scope that of the whole workspace."""

    measure: str
    period: str
    period_start: datetime
    scope_kind: str = ""
    scope_value: str = ""

    @property
    def scope(self) -> ScopeKey:
        """Whose meter it is."""
        return ScopeKey(self.scope_kind, self.scope_value)


class KnownEvent(NamedTuple):
    """What a repeat needs to know of the stored row."""

    cost_usd: Decimal | None
    fingerprint: int


class Ask(msgspec.Struct, gc=False, kw_only=True):
    """A question about a call to come: may it be made (check), hold its estimate (lease), give that up (release).

    The estimate is `usd`, or, if the model has no price, `unpriced_tokens`. `seconds` is how long a lease lasts.
    """

    what: str
    external_request_id: str
    api_key_id: int
    provider: str
    model: str
    endpoint_tag: str
    prompt_version: str
    environment: str
    data_mode: str
    user_id: str
    tenant_id: str
    usd: Decimal = ZERO
    unpriced_tokens: int = 0
    is_unpriced: bool = False
    seconds: int = 0

    def scope_value(self, kind: str) -> str:
        """Its value of a dimension that limits can be set on."""
        value: str = str(self.api_key_id) if kind == _API_KEY else getattr(self, kind)
        return value


@dataclass(slots=True)
class Submission:
    """What one request wants of one workspace's ledger: events stored, or a question answered."""

    workspace_id: UUID
    events: list[PricedEvent]
    ask: Ask | None = None


class LeaseRow(msgspec.Struct, gc=False, kw_only=True):
    """A lease as a commit reads or writes it. Live while it is not closed and `expires_at` is ahead."""

    ask: Ask
    created_at: datetime
    expires_at: datetime
    closed_at: datetime | None = None
    outcome: str = ""
    settled_usd: Decimal | None = None

    def is_live(self, now: datetime) -> bool:
        """Whether its estimate is held at `now`."""
        return self.closed_at is None and self.expires_at > now


class BudgetNotice(msgspec.Struct, gc=False, frozen=True):
    """Where one budget stands, for an answer. USD.

    `held_usd` is what live leases hold besides; `remaining_usd` is what is left of the limit after both, below 0 if it
    is exceeded. `unpriced` says what the budget makes of events without a price.
    """

    id: str
    name: str
    scope_kind: str
    scope_value: str
    period: str
    limit_usd: Decimal
    current_spend_usd: Decimal
    held_usd: Decimal
    period_start: datetime
    is_enforced: bool
    unpriced: str

    @property
    def remaining_usd(self) -> Decimal:
        """What is left; below 0 if it is exceeded."""
        return self.limit_usd - self.current_spend_usd - self.held_usd


class Verdict(msgspec.Struct, gc=False):
    """What became of one event. `reason` is set when it was refused.

    `unpriced_model` (provider/model) is set when the only fault of the event was that it has no price.
    """

    cost_usd: Decimal | None
    is_duplicate: bool = False
    differs: bool = False
    reason: str | None = None
    budget: BudgetNotice | None = None
    unpriced_model: str | None = None


class Standing(msgspec.Struct, gc=False, frozen=True):
    """Where a workspace stands after the last event of a submission, now; `budget` is the tightest that applies."""

    plan_tier: str
    plan_name: str
    plan_limit_requests: int | None
    remaining_requests: int | None
    is_plan_limit_reached: bool
    is_budget_warning: bool
    is_budget_exceeded: bool
    budget: BudgetNotice | None = None


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
    """One workspace inside one commit: what was read under its lock, and what is to be written.

    `meters` and `unpriced` (tokens of events without a price) are the meters' two figures, `opening` and
    `opening_unpriced` what they were before. `holds` are the live leases by scope: USD and tokens without a price.
    """

    workspace_id: UUID
    now: datetime
    plan_tier: str
    plan_name: str
    observe_mode: bool
    counted_data_modes: frozenset[str]
    limits: LimitSet
    known: dict[str, KnownEvent] = field(default_factory=dict)
    opening: dict[MeterKey, Decimal] = field(default_factory=dict)
    meters: dict[MeterKey, Decimal] = field(default_factory=dict)
    opening_unpriced: dict[MeterKey, int] = field(default_factory=dict)
    unpriced: dict[MeterKey, int] = field(default_factory=dict)
    accepted: list[PricedEvent] = field(default_factory=list)
    rollups: dict[tuple[datetime, UUID], Sums] = field(default_factory=dict)
    refusals: dict[tuple[datetime, str], Sums] = field(default_factory=dict)
    leases: dict[str, LeaseRow] = field(default_factory=dict)
    changed_leases: dict[str, LeaseRow] = field(default_factory=dict)
    holds: dict[ScopeKey, tuple[Decimal, int]] = field(default_factory=dict)
    hold_changes: dict[tuple[ScopeKey, datetime], tuple[Decimal, int]] = field(default_factory=dict)

    def spend(self, row: LimitRow, key: MeterKey) -> Decimal:
        """What `row` counts on the meter `key` at this point of the walk: USD, or requests."""
        if row.counts_as_it_is:
            return self.meters.get(key, ZERO)
        return _counted(row, key, self.meters, self.unpriced)

    def held(self, row: LimitRow, key: MeterKey) -> Decimal:
        """What live leases hold of `row` in the scope of `key`, in USD."""
        if not self.holds:
            return ZERO
        usd, tokens = self.holds.get(key.scope, (ZERO, 0))
        return usd + estimated_usd(tokens, row.estimate_usd_per_1m) if tokens else usd

    def notice(self, row: LimitRow, terms: Terms, key: MeterKey, spend: Decimal) -> BudgetNotice:
        """The budget behind `row` as an answer tells it."""
        return BudgetNotice(
            id=row.source_id,
            name=row.name,
            scope_kind=key.scope_kind,
            scope_value=key.scope_value,
            period=row.period,
            limit_usd=terms.amount,
            current_spend_usd=spend,
            held_usd=self.held(row, key),
            period_start=key.period_start,
            is_enforced=row.enforce and not self.observe_mode,
            unpriced=row.unpriced,
        )

    def matching(self, scoped: Scoped, data_mode: str) -> list[Match] | None:
        """The limited scopes of an event or a question; None if budgets do not count its data mode."""
        return self.limits.matching(scoped) if data_mode in self.counted_data_modes else None

    def budgets(self, matches: Iterable[Match], moment: datetime) -> Iterator[tuple[LimitRow, Terms, MeterKey]]:
        """The USD limits of the whole workspace and of `matches`, with their meters in the periods of `moment`."""
        of_day = day_keys(moment)
        for scope, rows in (Match(WORKSPACE, self.limits.workspace), *matches):
            keys = of_day[scope]
            for row in rows:
                if row.measure == _USD:
                    yield row, row.terms(self.now), keys[row.meter]

    def standing(self, matches: Iterable[Match] = ()) -> Standing:
        """Where the workspace stands in the periods that hold now, with the budgets of `matches`."""
        limit, remaining, reached = self._quota()
        warning = exceeded = False
        tightest: tuple[LimitRow, Terms, MeterKey, Decimal] | None = None
        least = ZERO
        for row, terms, key in self.budgets(matches, self.now):
            spend = self.spend(row, key)
            warning = warning or spend >= terms.levels[0].amount
            exceeded = exceeded or is_over(_USD, terms.amount, spend)
            left = terms.amount - spend - self.held(row, key)
            if tightest is None or left < least:
                tightest, least = (row, terms, key, spend), left
        budget = self.notice(*tightest) if tightest is not None else None
        return Standing(self.plan_tier, self.plan_name, limit, remaining, reached, warning, exceeded, budget)

    def _quota(self) -> tuple[int | None, int | None, bool]:
        limit = remaining = None
        is_reached = False
        for row in self.limits.workspace:
            if row.measure == _REQUESTS:
                used = self.meters.get(day_keys(self.now)[WORKSPACE][row.meter], ZERO)
                limit, remaining = int(row.amount), max(0, int(row.amount - used))
                is_reached = is_over(_REQUESTS, row.amount, used)
        return limit, remaining, is_reached

    def crossings(self) -> Iterator[tuple[LimitRow, MeterKey, Terms, Level, Decimal]]:
        """The thresholds that this commit has crossed, and what the limit counted then."""
        for key in self.changed_meters():
            for row in self.limits.rows(key.scope_kind, key.scope_value):
                if row.meter != (key.measure, key.period):
                    continue
                terms = row.terms(self.now)
                after = self.spend(row, key)
                if after < terms.levels[0].amount:
                    continue
                before = _counted(row, key, self.opening, self.opening_unpriced)
                for level in terms.levels:
                    if level.is_crossed(row.measure, after) and not level.is_crossed(row.measure, before):
                        yield row, key, terms, level, after

    def changed_meters(self) -> list[MeterKey]:
        """The meters that this commit moves or opens."""
        opening, opening_unpriced = self.opening, self.opening_unpriced
        return [
            key
            for key, value in self.meters.items()
            if opening.get(key) != value or self.unpriced.get(key, 0) != opening_unpriced.get(key, 0)
        ]

    def put_lease(self, lease: LeaseRow) -> None:
        """Hold a new lease's estimate, or store that one is closed; then nothing is held any more."""
        ask = lease.ask
        self.leases[ask.external_request_id] = self.changed_leases[ask.external_request_id] = lease
        matches = self.matching(ask, ask.data_mode)
        if matches is None:
            return
        sign = -1 if lease.closed_at is not None else 1
        usd, tokens = sign * ask.usd, sign * ask.unpriced_tokens
        for scope in (WORKSPACE, *(match.scope for match in matches)):
            held_usd, held_tokens = self.holds.get(scope, (ZERO, 0))
            self.holds[scope] = (held_usd + usd, held_tokens + tokens)
            slot = (scope, lease.expires_at)
            slot_usd, slot_tokens = self.hold_changes.get(slot, (ZERO, 0))
            self.hold_changes[slot] = (slot_usd + usd, slot_tokens + tokens)

    def close_lease(self, lease: LeaseRow, outcome: LeaseOutcome, settled_usd: Decimal | None = None) -> LeaseRow:
        """End a live lease; the lease as it is then."""
        closed = msgspec.structs.replace(lease, closed_at=self.now, outcome=outcome.value, settled_usd=settled_usd)
        self.put_lease(closed)
        return closed


def _counted(
    row: LimitRow, key: MeterKey, meters: Mapping[MeterKey, Decimal], unpriced: Mapping[MeterKey, int]
) -> Decimal:
    value = meters.get(key, ZERO)
    if row.estimate_usd_per_1m and (tokens := unpriced.get(key, 0)):
        value += estimated_usd(tokens, row.estimate_usd_per_1m)
    if row.adjustments:
        value += row.adjustments.get((key.period_start, key.scope_value if row.is_each_value else ""), ZERO)
    return value


class DayKeys(dict[ScopeKey, dict[tuple[str, str], MeterKey]]):
    """The meters of one UTC day and its month: of each scope, by measure and period. Made when first asked for."""

    def __init__(self, year: int, month: int, day: int) -> None:
        super().__init__()
        self.starts = {_DAY: datetime(year, month, day, tzinfo=UTC), _MONTH: datetime(year, month, 1, tzinfo=UTC)}

    def __missing__(self, scope: ScopeKey) -> dict[tuple[str, str], MeterKey]:
        if len(self) >= _MAX_REMEMBERED_SCOPES:
            self.clear()
        keys = self[scope] = {
            (measure, period): MeterKey(measure, period, start, *scope)
            for measure in (_REQUESTS, _USD)
            for period, start in self.starts.items()
        }
        return keys


def day_keys(moment: datetime) -> DayKeys:
    """The meters of the day of `moment` (aware UTC)."""
    return _day_keys(moment.year, moment.month, moment.day)


_day_keys = lru_cache(maxsize=100)(DayKeys)


_MONTHLY_REQUESTS, _DAILY_USD, _MONTHLY_USD = (_REQUESTS, _MONTH), (_USD, _DAY), (_USD, _MONTH)


def walk(ledger: WorkspaceLedger, priced: PricedEvent, matches: list[Match] | None) -> Verdict:
    """Decide about one event and, if it is accepted, add it to everything that counts it; `matches` are its scopes.

    Refused if and only if what was recorded before it, in its own period, is already over a limit that is enforced, or
    if it has no price and a hard stop blocks such events. Leases of others never refuse an event: its call was made.
    """
    event = priced.event
    known = ledger.known.get(event.external_request_id)
    if known is not None:
        return Verdict(known.cost_usd, is_duplicate=True, differs=known.fingerprint != event.fingerprint)
    keys = day_keys(event.occurred_at)[WORKSPACE]
    uses_quota = event.data_mode != _DEMO
    verdict = _refusal(ledger, priced, keys, matches, uses_quota=uses_quota)
    if verdict is not None:
        _tally_refusal(ledger, priced, verdict)
        return verdict
    _accept(ledger, priced)
    if uses_quota:
        _add(ledger, keys[_MONTHLY_REQUESTS], ONE)
    if matches is not None:
        _add_spend(ledger, priced, matches)
    return Verdict(priced.quote.cost_usd)


def _refusal(
    ledger: WorkspaceLedger,
    priced: PricedEvent,
    keys: dict[tuple[str, str], MeterKey],
    matches: list[Match] | None,
    *,
    uses_quota: bool,
) -> Verdict | None:
    cost = priced.quote.cost_usd
    if uses_quota and any(
        row.measure == _REQUESTS
        and row.enforce
        and is_over(_REQUESTS, row.amount, ledger.meters.get(keys[row.meter], ZERO))
        for row in ledger.limits.workspace
    ):
        return Verdict(cost, reason=RefusalReason.PLAN_LIMIT_REACHED.value)
    if matches is None or ledger.observe_mode:
        return None
    stop: tuple[LimitRow, Terms, MeterKey, Decimal] | None = None
    least = ZERO
    for row, terms, key in ledger.budgets(matches, priced.event.occurred_at):
        if not row.enforce:
            continue
        spend = ledger.spend(row, key)
        if is_over(_USD, terms.amount, spend) or (cost is None and row.blocks_unpriced):
            left = terms.amount - spend
            if stop is None or left < least:
                stop, least = (row, terms, key, spend), left
    if stop is None:
        return None
    return Verdict(
        cost,
        reason=RefusalReason.BUDGET_EXCEEDED.value,
        budget=ledger.notice(*stop),
        # Whatever is exceeded has less than nothing left, and would have been named.
        unpriced_model=None if least < 0 else f"{priced.event.provider}/{priced.event.model}",
    )


def _accept(ledger: WorkspaceLedger, priced: PricedEvent) -> None:
    event = priced.event
    ledger.accepted.append(priced)
    ledger.known[event.external_request_id] = KnownEvent(priced.quote.cost_usd, event.fingerprint)
    slot = (_bucket(event.occurred_at), priced.rollup_key)
    sums = ledger.rollups.get(slot)
    if sums is None:
        sums = ledger.rollups[slot] = Sums(priced)
    sums.add(priced)
    if ledger.leases:
        lease = ledger.leases.get(event.external_request_id)
        if lease is not None and lease.is_live(ledger.now):
            ledger.close_lease(lease, LeaseOutcome.SETTLED, priced.quote.cost_usd)


def _add_spend(ledger: WorkspaceLedger, priced: PricedEvent, matches: list[Match]) -> None:
    cost = priced.quote.cost_usd
    of_day = day_keys(priced.event.occurred_at)
    for scope in (WORKSPACE, *(match.scope for match in matches)):
        keys = of_day[scope]
        for key in (keys[_DAILY_USD], keys[_MONTHLY_USD]):
            _add(ledger, key, cost or ZERO)
            if cost is None:
                ledger.unpriced[key] = ledger.unpriced.get(key, 0) + priced.event.tokens


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
