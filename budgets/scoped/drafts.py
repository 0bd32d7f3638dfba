"""A budget as somebody wants it: what the API, the editor and the simulator pass around before it is stored."""

from dataclasses import dataclass
from decimal import Decimal

from budgets.models import DEFAULT_THRESHOLDS, Budget, BudgetPeriod, Enforcement
from ingest.models import UnpricedPolicy


@dataclass(frozen=True, slots=True)
class BudgetDraft:
    """All that can be set about a budget on one scope; fields as those of `budgets.models.Budget`.

    `scope_value` is "" for each value. An empty `name` stands for the one made from scope and period.
    """

    scope_kind: str
    limit_usd: Decimal
    scope_value: str = ""
    is_each_value: bool = False
    period: str = BudgetPeriod.DAY.value
    name: str = ""
    enforcement: str = Enforcement.SOFT.value
    thresholds: tuple[Decimal, ...] = DEFAULT_THRESHOLDS
    thresholds_usd: tuple[Decimal, ...] = ()
    unpriced: str = UnpricedPolicy.IGNORE.value
    estimate_usd_per_1m: Decimal | None = None


def draft_of(budget: Budget) -> BudgetDraft:
    """What a stored budget says."""
    return BudgetDraft(
        scope_kind=budget.scope_kind,
        limit_usd=budget.limit_usd,
        scope_value=budget.scope_value,
        is_each_value=budget.is_each_value,
        period=budget.period,
        name=budget.name,
        enforcement=budget.enforcement,
        thresholds=tuple(budget.thresholds),
        thresholds_usd=tuple(budget.thresholds_usd),
        unpriced=budget.unpriced,
        estimate_usd_per_1m=budget.estimate_usd_per_1m,
    )
