"""What the gateway says about a call to come: the answers to checks, leases and releases."""

from decimal import Decimal
from typing import Any

from ingest.gateway import answers
from ingest.gateway.answers import Answer, number
from ingest.gateway.ask_payload import Question
from ingest.gateway.asks import Decision, Denial, What
from ingest.gateway.ledger import BudgetNotice, LeaseRow
from ingest.limit_sets import ZERO
from ingest.scopes import wire_name
from opsmeter_site.lib.periods import Period, to_wire
from opsmeter_site.lib.wire import plain_number


def answer(question: Question, decision: Decision) -> Answer:
    """200: the question was understood, whatever is said to it."""
    notice = decision.budget
    body: dict[str, Any] = {
        "ok": True,
        "allowed": decision.is_allowed,
        "reason": decision.reason,
        "message": _message(question, decision),
        "providerCallsContinue": True,
        "estimatedCostUsd": number(decision.estimate_usd) if question.estimate or decision.lease else None,
        "remainingUsd": notice and number(max(notice.remaining_usd, ZERO)),
        "resetsAt": notice and answers.resets_at(notice),
        "budget": notice and answers.budget(notice),
        "budgets": [answers.budget(one) for one in decision.budgets],
        "observeMode": decision.observe_mode,
        "warnings": _warnings(question, decision),
    }
    if question.what != What.CHECK:
        body |= {
            "externalRequestId": question.external_request_id,
            "lease": decision.lease and _lease(decision.lease),
            "duplicate": decision.is_repeat,
        }
    if question.what == What.RELEASE:
        body["released"] = decision.lease is not None
    return Answer(200, answers.encode(body), outcome=decision.reason or "allowed")


def _lease(lease: LeaseRow) -> dict[str, Any]:
    return {
        "state": "held" if lease.closed_at is None else "released",
        "heldUsd": number(lease.ask.usd),
        "expiresAt": to_wire(lease.expires_at),
        "createdAt": to_wire(lease.created_at),
    }


def _warnings(question: Question, decision: Decision) -> list[str]:
    warnings = list(question.warnings)
    if decision.differs:
        warnings.append("A lease with another estimate is held under this externalRequestId; it was kept.")
    if not decision.is_counted:
        warnings.append(f"Budgets of this workspace do not count calls with dataMode {question.data_mode}.")
    return warnings


def _message(question: Question, decision: Decision) -> str | None:
    if decision.reason == Denial.NO_LEASE:
        return "No lease is held under this externalRequestId: it expired, was settled or released, or never was."
    if decision.reason == Denial.ALREADY_RECORDED:
        return "The event of this externalRequestId is stored already; nothing is held for it."
    if decision.budget is None or decision.reason is None:
        return None
    if decision.reason == Denial.UNPRICED:
        return (
            f"{_named(decision.budget)} refuses calls without a known price, and none is known for "
            f"{question.provider}/{question.model}."
        )
    return f"{_left(decision.budget)}{_wanted(question, decision)} It resets at {answers.resets_at(decision.budget)}."


def _named(notice: BudgetNotice) -> str:
    period = "daily" if notice.period == Period.DAY else "monthly"
    scope = f", {wire_name(notice.scope_kind)} {notice.scope_value}" if notice.scope_kind else ""
    return f'The budget "{notice.name}" ({period}{scope})'


def _left(notice: BudgetNotice) -> str:
    held = f", and live leases hold {_usd(notice.held_usd)} USD" if notice.held_usd else ""
    left = max(notice.remaining_usd, ZERO)
    return (
        f"{_named(notice)} has {_usd(left)} of {_usd(notice.limit_usd)} USD left: "
        f"{_usd(notice.current_spend_usd)} USD are spent{held}."
    )


def _wanted(question: Question, decision: Decision) -> str:
    if decision.estimate_usd:
        return f" This call may cost {_usd(decision.estimate_usd)} USD."
    if question.estimate is None or decision.estimate_usd is not None:
        return ""
    return f" This call has no known price; {question.estimate.tokens:,} tokens count at the price the budget assumes."


def _usd(amount: Decimal) -> str:
    return f"{plain_number(amount):f}"
