"""What a budget asks of the ledger: the one translation for budgets of the whole workspace and of a scope."""

from decimal import Decimal

from budgets.models import Budget, Enforcement
from ingest.limits import OVER
from ingest.models import Measure
from ingest.services import LimitSpec

SOURCE = "budgets"


def limit_spec(budget: Budget) -> LimitSpec:
    """The limit that `budget` sets, its raise included."""
    return LimitSpec(
        source_id=str(budget.pk),
        name=budget.name,
        measure=Measure.USD.value,
        period=budget.period,
        amount=budget.limit_usd,
        thresholds=(*budget.thresholds, OVER),
        enforce=budget.enforcement == Enforcement.HARD,
        scope_kind=budget.scope_kind,
        scope_value=budget.scope_value,
        is_each_value=budget.is_each_value,
        thresholds_usd=tuple(budget.thresholds_usd),
        unpriced=budget.unpriced,
        estimate_usd_per_1m=budget.estimate_usd_per_1m or Decimal(0),
        raised_amount=budget.raised_limit_usd,
        raised_until=budget.raised_until,
    )
