"""The decision about each event, in arrival order, on the totals that the commit's transaction has locked.

Pure: no database, no clock. `openings` fills a `WorkspaceLedger`, `walk` decides and adds, `store` writes what changed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import msgspec

from ingest.gateway.accounts import Account, Accounts, Counter, MeterKey
from ingest.gateway.priced import PricedEvent
from ingest.limit_sets import WORKSPACE, ZERO, LimitRow, LimitSet, Match, ScopeKey, Terms
from ingest.limits import estimated_usd, is_over
from ingest.models import DataMode, LeaseOutcome, Measure, RefusalReason, ScopeKind

ONE = Decimal(1)
_REQUESTS = Measure.REQUESTS.value
_USD = Measure.USD.value
_DEMO = DataMode.DEMO.value
_API_KEY = ScopeKind.API_KEY_ID.value


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

    `holds` are the live leases by scope: USD and tokens without a price.
    """

    workspace_id: UUID
    now: datetime
    plan_tier: str
    plan_name: str
    observe_mode: bool
    counted_data_modes: frozenset[str]
    limits: LimitSet
    known: dict[str, KnownEvent] = field(default_factory=dict)
    accepted: list[PricedEvent] = field(default_factory=list)
    rollups: dict[tuple[datetime, UUID], Sums] = field(default_factory=dict)
    refusals: dict[tuple[datetime, str], Sums] = field(default_factory=dict)
    leases: dict[str, LeaseRow] = field(default_factory=dict)
    changed_leases: dict[str, LeaseRow] = field(default_factory=dict)
    holds: dict[ScopeKey, tuple[Decimal, int]] = field(default_factory=dict)
    hold_changes: dict[tuple[ScopeKey, datetime], tuple[Decimal, int]] = field(default_factory=dict)
    accounts: Accounts = field(init=False)

    def __post_init__(self) -> None:
        """Open the books."""
        self.accounts = Accounts(self.limits, self.now)

    def held(self, row: LimitRow, key: MeterKey) -> Decimal:
        """What live leases hold of a limit in the scope of `key`, in USD."""
        usd, tokens = self.holds.get(key.scope, (ZERO, 0))
        return usd + estimated_usd(tokens, row.estimate_usd_per_1m) if tokens else usd

    def notice(self, terms: Terms, counter: Counter) -> BudgetNotice:
        """The budget behind a limit as an answer tells it."""
        row, key = terms.row, counter.key
        return BudgetNotice(
            id=row.source_id,
            name=row.name,
            scope_kind=key.scope_kind,
            scope_value=key.scope_value,
            period=row.period,
            limit_usd=terms.amount,
            current_spend_usd=counter.counted(row),
            held_usd=self.held(row, key),
            period_start=key.period_start,
            is_enforced=row.enforce and not self.observe_mode,
            unpriced=row.unpriced,
        )

    def accounts_of(self, matches: Iterable[Match], moment: datetime) -> list[Account]:
        """Those of the whole workspace and of `matches` on the day of `moment`."""
        of = self.accounts.of
        return [of(WORKSPACE, moment), *[of(match.scope, moment) for match in matches]]

    def accounts_of_ask(self, ask: Ask) -> list[Account]:
        """Those that a call now would be counted in; none if budgets do not count its data mode."""
        if ask.data_mode not in self.counted_data_modes:
            return []
        return self.accounts_of(self.limits.matching(ask), self.now)

    def standing(self, accounts: Iterable[Account]) -> Standing:
        """Where the workspace stands in the periods that hold now; `accounts` are those of now."""
        limit, remaining, reached = self._quota()
        warning = exceeded = False
        tightest: tuple[Terms, Counter] | None = None
        least = ZERO
        holds = bool(self.holds)
        for account in accounts:
            for terms, counter in account.limits:
                spend = counter.counted(terms.row)
                if spend >= terms.warns_at:
                    warning = True
                    exceeded = exceeded or is_over(_USD, terms.amount, spend)
                left = terms.amount - spend
                if holds:
                    left -= self.held(terms.row, counter.key)
                if tightest is None or left < least:
                    tightest, least = (terms, counter), left
        budget = None if tightest is None else self.notice(*tightest)
        return Standing(self.plan_tier, self.plan_name, limit, remaining, reached, warning, exceeded, budget)

    def _quota(self) -> tuple[int | None, int | None, bool]:
        limit = remaining = None
        is_reached = False
        requests = self.accounts.of(WORKSPACE, self.now).requests
        for terms in requests.terms:
            limit, remaining = int(terms.amount), max(0, int(terms.amount - requests.value))
            is_reached = is_over(_REQUESTS, terms.amount, requests.value)
        return limit, remaining, is_reached

    def put_lease(self, lease: LeaseRow) -> None:
        """Hold a new lease's estimate, or store that one is closed; then nothing is held any more."""
        ask = lease.ask
        self.leases[ask.external_request_id] = self.changed_leases[ask.external_request_id] = lease
        if ask.data_mode not in self.counted_data_modes:
            return
        sign = -1 if lease.closed_at is not None else 1
        usd, tokens = sign * ask.usd, sign * ask.unpriced_tokens
        for scope in (WORKSPACE, *(match.scope for match in self.limits.matching(ask))):
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


def walk(ledger: WorkspaceLedger, priced: PricedEvent, accounts: Sequence[Account]) -> Verdict:
    """Decide about one event and, if it is accepted, add it to everything that counts it.

    `accounts` count its spend: that of the whole workspace first; none if budgets do not count its data mode.
    Refused if and only if what was recorded before it, in its own period, is already over a limit that is enforced, or
    if it has no price and a hard stop blocks such events. Leases of others never refuse an event: its call was made.
    """
    event = priced.event
    known = ledger.known.get(event.external_request_id)
    if known is not None:
        return Verdict(known.cost_usd, is_duplicate=True, differs=known.fingerprint != event.fingerprint)
    requests = None if event.data_mode == _DEMO else ledger.accounts.of(WORKSPACE, event.occurred_at).requests
    verdict = _refusal(ledger, priced, accounts, requests)
    if verdict is not None:
        _tally_refusal(ledger, priced, verdict)
        return verdict
    _accept(ledger, priced)
    cost = priced.quote.cost_usd
    if requests is not None:
        requests.add(ONE)
    for account in accounts:
        account.add(cost, event.tokens if cost is None else 0)
    return Verdict(cost)


def _refusal(
    ledger: WorkspaceLedger, priced: PricedEvent, accounts: Sequence[Account], requests: Counter | None
) -> Verdict | None:
    """Why the event is refused: `accounts` count its spend, `requests` (unless it uses no quota) its number."""
    cost = priced.quote.cost_usd
    if requests is not None and any(
        terms.row.enforce and is_over(_REQUESTS, terms.amount, requests.value) for terms in requests.terms
    ):
        return Verdict(cost, reason=RefusalReason.PLAN_LIMIT_REACHED.value)
    if ledger.observe_mode:
        return None
    stop: tuple[Terms, Counter] | None = None
    least = ZERO
    for account in accounts:
        for terms, counter in account.hard:
            spend = counter.counted(terms.row)
            if is_over(_USD, terms.amount, spend) or (cost is None and terms.row.blocks_unpriced):
                left = terms.amount - spend
                if stop is None or left < least:
                    stop, least = (terms, counter), left
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


def _tally_refusal(ledger: WorkspaceLedger, priced: PricedEvent, verdict: Verdict) -> None:
    slot = (_bucket(priced.event.occurred_at), verdict.reason or "")
    sums = ledger.refusals.get(slot)
    if sums is None:
        sums = ledger.refusals[slot] = Sums(priced)
    sums.add(priced)


def _bucket(moment: datetime) -> datetime:
    return moment.replace(minute=moment.minute - moment.minute % 15, second=0, microsecond=0)
