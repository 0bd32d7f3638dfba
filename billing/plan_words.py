"""Plans in words: what each includes, what differs between two, and what a workspace loses by a smaller one."""

from collections.abc import Iterator
from dataclasses import dataclass

from billing.entitlements import RETENTION_NOTICE
from billing.models import Plan
from billing.plans import EffectiveNumbers

FEATURES = (
    ("has_summaries", "Daily and weekly summaries by e-mail"),
    ("has_immediate_alerts", "Immediate budget alerts"),
    ("has_integrations", "Slack, Teams, PagerDuty, webhooks; unit-cost and spike rules"),
    ("has_executive_report", "Weekly executive report"),
    ("has_price_overrides", "Own prices"),
)
_NUMBERS = (
    ("monthly_requests", "Requests a month"),
    ("requests_per_minute", "Requests a minute"),
    ("raw_retention_days", "Days that single requests are kept"),
    ("rollup_retention_days", "Days that sums are kept"),
    ("members", "Members"),
)
NO_LIMIT = "no limit"
BY_CONTRACT = "by contract"


@dataclass(frozen=True, slots=True)
class Held:
    """A plan as one workspace has it, or would: with its own numbers where it has some."""

    plan: Plan
    numbers: EffectiveNumbers


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact that is another one afterwards."""

    label: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What a smaller plan would have to hold."""

    requests: int
    members: int


def is_by_contract(plan: Plan) -> bool:
    """Whether the plan's numbers are agreed with each customer."""
    return plan.members is None


def number_facts(held: Held, *, in_force: bool) -> list[tuple[str, str]]:
    """The numbers of a plan with their labels. `in_force`: as they hold now, also where they were agreed."""
    if is_by_contract(held.plan) and not in_force:
        return [(label, BY_CONTRACT) for _, label in _NUMBERS]
    return [(label, _amount(getattr(held.numbers, name))) for name, label in _NUMBERS]


def feature_facts(plan: Plan) -> list[tuple[str, bool]]:
    """What a plan can and cannot do."""
    return [(label, getattr(plan, name)) for name, label in FEATURES]


def differences(before: Held, after: Held) -> list[Difference]:
    """The facts that differ, as a reader compares them."""
    rows = []
    for name, label in _NUMBERS:
        old, new = _amount(getattr(before.numbers, name)), _amount(getattr(after.numbers, name))
        rows.append(Difference(label, old, new))
    for name, label in FEATURES:
        rows.append(Difference(label, _yes(getattr(before.plan, name)), _yes(getattr(after.plan, name))))
    return [row for row in rows if row.before != row.after]


def losses(before: Held, after: Held, usage: Usage) -> list[str]:
    """What becomes less and what follows from it, in sentences; empty for a plan that has everything of the other."""
    return [*_lost_numbers(before.numbers, after.numbers, usage), *_lost_features(before.plan, after.plan)]


def _lost_numbers(before: EffectiveNumbers, after: EffectiveNumbers, usage: Usage) -> Iterator[str]:
    if _is_less(after.monthly_requests, before.monthly_requests):
        yield _fewer_requests(after.monthly_requests or 0, usage.requests)
    if after.requests_per_minute < before.requests_per_minute:
        yield f"More than {after.requests_per_minute:,} ingest requests a minute are answered with 429."
    yield from _shorter_retention(before, after)
    if _is_less(after.members, before.members) and usage.members > (after.members or 0):
        yield (
            f"The workspace has {usage.members:,} members, and {after.members:,} {_are(after.members)} "
            "included. Nobody is removed, but nobody can be invited until there is room."
        )


def _fewer_requests(limit: int, used: int) -> str:
    text = f"{limit:,} requests a month are included. When they are used up, telemetry pauses until the next UTC month."
    if used >= limit:
        return f"{text} This month already has {used:,}: telemetry would pause at once. Your LLM calls keep running."
    return f"{text} This month has {used:,} so far."


def _shorter_retention(before: EffectiveNumbers, after: EffectiveNumbers) -> Iterator[str]:
    parts = []
    if after.raw_retention_days < before.raw_retention_days:
        parts.append(f"single requests older than {after.raw_retention_days:,} days")
    if after.rollup_retention_days < before.rollup_retention_days:
        parts.append(f"sums older than {after.rollup_retention_days:,} days")
    if parts:
        yield (
            f"{' and '.join(parts).capitalize()} will be deleted, {RETENTION_NOTICE.days} days after the change at the "
            "earliest. Every page will say from when on; export before what you want to keep."
        )


def _lost_features(before: Plan, after: Plan) -> Iterator[str]:
    if before.has_summaries and not after.has_summaries:
        yield "Messages and summaries by e-mail stop: every alert is in the inbox only."
    elif before.has_immediate_alerts and not after.has_immediate_alerts:
        yield "Nothing is sent at once: what is set to be told immediately is told in the daily summary."
    if before.has_integrations and not after.has_integrations:
        yield (
            "Slack, Teams, PagerDuty and webhooks stop sending, and unit-cost and spike rules stop watching. "
            "Their settings are kept."
        )
    if before.has_executive_report and not after.has_executive_report:
        yield "The weekly executive report stops."
    if before.has_price_overrides and not after.has_price_overrides:
        yield "Own prices hold until they are withdrawn, and new ones cannot be added."


def _is_less(after: int | None, before: int | None) -> bool:
    return after is not None and (before is None or after < before)


def _are(number: int | None) -> str:
    return "is" if number == 1 else "are"


def _amount(number: int | None) -> str:
    return NO_LIMIT if number is None else f"{number:,}"


def _yes(included: object) -> str:
    return "included" if included else "not included"
