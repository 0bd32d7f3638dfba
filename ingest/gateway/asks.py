"""What is decided about a call before it is made: on the same locked totals as events, in the same commit.

A call may be made if recorded spend, what live leases hold, and its own estimate together are not over any hard stop
that matches it. A lease then holds the estimate, so that calls at the same time cannot all count on what is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from ingest.gateway.ledger import Ask, BudgetNotice, LeaseRow, WorkspaceLedger
from ingest.limits import estimated_usd, is_over
from ingest.models import LeaseOutcome, Measure


class What(StrEnum):
    """What is asked."""

    CHECK = "check"
    LEASE = "lease"
    RELEASE = "release"


class Denial(StrEnum):
    """Why a call should not be made, or why nothing is held for it."""

    BUDGET_EXCEEDED = "budget_exceeded"
    UNPRICED = "unpriced"
    ALREADY_RECORDED = "already_recorded"
    NO_LEASE = "no_lease"


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to an `Ask`.

    `budgets` are all that match, the tightest first; with a new lease they include its estimate. `budget` is the one
    that says no, else the tightest. `lease` is the one that is held or was released; `is_repeat`: it was held already,
    and `differs`: for another estimate. `estimate_usd` is None if nothing was estimated in USD.
    """

    is_allowed: bool
    reason: str | None
    budget: BudgetNotice | None
    budgets: Sequence[BudgetNotice]
    estimate_usd: Decimal | None
    is_counted: bool
    observe_mode: bool
    lease: LeaseRow | None = None
    is_repeat: bool = False
    differs: bool = False


def decide(ledger: WorkspaceLedger, ask: Ask) -> Decision:
    """Answer the question, and hold or release what it asks for."""
    held = ledger.leases.get(ask.external_request_id)
    if held is not None and not held.is_live(ledger.now):
        held = None
    if ask.what == What.RELEASE:
        if held is None:
            return _decision(ledger, ask, reason=Denial.NO_LEASE)
        return _decision(ledger, held.ask, lease=ledger.close_lease(held, LeaseOutcome.RELEASED))
    if ask.what == What.LEASE and ask.external_request_id in ledger.known:
        return _decision(ledger, ask, reason=Denial.ALREADY_RECORDED)
    if held is not None:
        return _decision(ledger, held.ask, lease=held, is_repeat=True, differs=_differs(held.ask, ask))
    stop, reason = _stop(ledger, ask)
    if reason is not None or ask.what == What.CHECK:
        return _decision(ledger, ask, reason=reason, stop=stop)
    lease = LeaseRow(ask=ask, created_at=ledger.now, expires_at=expiry(ledger.now, ask.seconds))
    ledger.put_lease(lease)
    return _decision(ledger, ask, lease=lease)


def expiry(now: datetime, seconds: int) -> datetime:
    """When a lease of `seconds` ends: a whole second, never earlier than asked."""
    end = now + timedelta(seconds=seconds)
    return end if not end.microsecond else end.replace(microsecond=0) + timedelta(seconds=1)


def _stop(ledger: WorkspaceLedger, ask: Ask) -> tuple[BudgetNotice | None, Denial | None]:
    """The hard stop that forbids the call, the tightest of them, and why; nothing while nothing is enforced."""
    if ledger.observe_mode:
        return None, None
    stop, reason = None, None
    for terms, counter in (pair for account in ledger.accounts_of_ask(ask) for pair in account.hard):
        row, notice = terms.row, ledger.notice(terms, counter)
        wanted = ask.usd + estimated_usd(ask.unpriced_tokens, row.estimate_usd_per_1m)
        is_exceeded = is_over(Measure.USD, notice.limit_usd, notice.current_spend_usd + notice.held_usd + wanted)
        if not is_exceeded and not (ask.is_unpriced and row.blocks_unpriced):
            continue
        if stop is None or notice.remaining_usd < stop.remaining_usd:
            stop, reason = notice, Denial.BUDGET_EXCEEDED if is_exceeded else Denial.UNPRICED
    return stop, reason


def _decision(
    ledger: WorkspaceLedger,
    ask: Ask,
    *,
    reason: Denial | None = None,
    stop: BudgetNotice | None = None,
    lease: LeaseRow | None = None,
    is_repeat: bool = False,
    differs: bool = False,
) -> Decision:
    notices = [ledger.notice(*pair) for account in ledger.accounts_of_ask(ask) for pair in account.limits]
    notices.sort(key=lambda notice: notice.remaining_usd)
    return Decision(
        # Nothing speaks against a call because there was nothing to give up.
        is_allowed=reason in {None, Denial.NO_LEASE},
        reason=reason.value if reason is not None else None,
        budget=stop or (notices[0] if notices else None),
        budgets=notices,
        estimate_usd=None if ask.is_unpriced and not ask.usd else ask.usd,
        is_counted=ask.data_mode in ledger.counted_data_modes,
        observe_mode=ledger.observe_mode,
        lease=lease,
        is_repeat=is_repeat,
        differs=differs,
    )


def _differs(held: Ask, asked: Ask) -> bool:
    def essence(ask: Ask) -> tuple[Decimal, int, str, str]:
        return ask.usd, ask.unpriced_tokens, ask.provider, ask.model

    return essence(held) != essence(asked)
