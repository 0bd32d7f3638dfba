"""The five plans as they ship, what a workspace may change of them, and which numbers make sense."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

from billing.models import Plan, WorkspacePlan
from opsmeter_site.lib.errors import FieldError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """What a plan includes; the fields of `billing.models.Plan`. None means by contract, without a number here."""

    tier: str
    name: str
    rank: int
    monthly_requests: int | None
    requests_per_minute: int
    raw_retention_days: int
    rollup_retention_days: int
    members: int | None
    has_summaries: bool
    has_immediate_alerts: bool
    has_integrations: bool
    has_executive_report: bool
    has_price_overrides: bool


# What a new installation starts with. Operators edit the rows; nothing here overwrites them.
DEFAULT_PLANS = (
    PlanFacts(
        tier="free",
        name="Free",
        rank=1,
        monthly_requests=10_000,
        requests_per_minute=120,
        raw_retention_days=14,
        rollup_retention_days=90,
        members=2,
        has_summaries=False,
        has_immediate_alerts=False,
        has_integrations=False,
        has_executive_report=False,
        has_price_overrides=False,
    ),
    PlanFacts(
        tier="starter",
        name="Starter",
        rank=2,
        monthly_requests=100_000,
        requests_per_minute=300,
        raw_retention_days=30,
        rollup_retention_days=180,
        members=5,
        has_summaries=True,
        has_immediate_alerts=False,
        has_integrations=False,
        has_executive_report=False,
        has_price_overrides=False,
    ),
    PlanFacts(
        tier="pro",
        name="Pro",
        rank=3,
        monthly_requests=1_000_000,
        requests_per_minute=600,
        raw_retention_days=90,
        rollup_retention_days=365,
        members=15,
        has_summaries=True,
        has_immediate_alerts=True,
        has_integrations=True,
        has_executive_report=False,
        has_price_overrides=False,
    ),
    PlanFacts(
        tier="team",
        name="Team",
        rank=4,
        monthly_requests=5_000_000,
        requests_per_minute=3_000,
        raw_retention_days=180,
        rollup_retention_days=730,
        members=50,
        has_summaries=True,
        has_immediate_alerts=True,
        has_integrations=True,
        has_executive_report=True,
        has_price_overrides=False,
    ),
    PlanFacts(
        tier="enterprise",
        name="Enterprise",
        rank=5,
        monthly_requests=None,
        requests_per_minute=6_000,
        raw_retention_days=730,
        rollup_retention_days=1_095,
        members=None,
        has_summaries=True,
        has_immediate_alerts=True,
        has_integrations=True,
        has_executive_report=True,
        has_price_overrides=True,
    ),
)


# Lowest and highest sensible value. The highest are what ledger columns and dates can hold with room to spare.
NUMBER_RANGES: Mapping[str, tuple[int, int]] = {
    "monthly_requests": (0, 999_999_999_999),
    "requests_per_minute": (1, 1_000_000_000),
    "raw_retention_days": (1, 36_500),
    "rollup_retention_days": (1, 36_500),
    "members": (1, 1_000_000),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """A workspace's own numbers; None leaves the plan's."""

    monthly_requests: int | None = None
    requests_per_minute: int | None = None
    raw_retention_days: int | None = None
    rollup_retention_days: int | None = None
    members: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveNumbers:
    """What applies to a workspace. `monthly_requests` and `members` None mean no limit."""

    monthly_requests: int | None
    requests_per_minute: int
    raw_retention_days: int
    rollup_retention_days: int
    members: int | None


def overrides_of(holding: WorkspacePlan) -> Overrides:
    """The workspace's own numbers as stored."""
    return Overrides(**{item.name: getattr(holding, f"{item.name}_override") for item in fields(Overrides)})


def effective_numbers(plan: Plan, overrides: Overrides) -> EffectiveNumbers:
    """The plan's numbers with the workspace's own in their place. Sums are never kept for less time than raw rows."""
    raw_days = _first(overrides.raw_retention_days, plan.raw_retention_days)
    rollup_days = _first(overrides.rollup_retention_days, plan.rollup_retention_days)
    return EffectiveNumbers(
        monthly_requests=_first(overrides.monthly_requests, plan.monthly_requests),
        requests_per_minute=_first(overrides.requests_per_minute, plan.requests_per_minute),
        raw_retention_days=raw_days,
        rollup_retention_days=max(raw_days, rollup_days),
        members=_first(overrides.members, plan.members),
    )


_Number = TypeVar("_Number", int, int | None)


def _first(own: int | None, of_plan: _Number) -> _Number:
    return of_plan if own is None else own


def check_numbers(numbers: Mapping[str, int | None]) -> list[FieldError]:
    """What is wrong with each of these numbers (keys of `NUMBER_RANGES`); None is left to the model to judge."""
    errors = []
    for name, number in numbers.items():
        lowest, highest = NUMBER_RANGES[name]
        if number is not None and not lowest <= number <= highest:
            errors.append(FieldError(name, f"Between {lowest:,} and {highest:,}."))
    return errors
