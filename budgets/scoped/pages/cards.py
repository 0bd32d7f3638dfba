"""A budget made ready for a page: the drawing, the words, and what people may do with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.urls import reverse
from django.utils.safestring import SafeString

from budgets.gauges import moment_in_words
from budgets.models import Budget, Enforcement
from budgets.scoped import words
from budgets.scoped.gauges import budget_gauge, state_of
from budgets.scoped.outlook import Outlook
from budgets.scoped.selectors import BudgetStanding, ValueStanding
from budgets.selectors import BudgetValues
from ingest.limits import OVER, Level, levels_of
from ingest.scope_words import scope_in_words, value_in_words
from opsmeter_site.lib.formats import usd
from workspaces.models import Workspace


@dataclass(frozen=True, slots=True)
class ValueRow:
    """One value of a budget on each value. `share` of the limit that is used."""

    name: str
    standing: ValueStanding
    share: Decimal


@dataclass(frozen=True, slots=True)
class Card:
    """A budget as the list and its own page show it. `facts` are labels and texts."""

    budget: Budget
    standing: BudgetStanding
    state: str
    url: str
    scope: str
    top_value: str
    enforcement: str
    raised: str
    drawing: SafeString
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    values: Sequence[ValueRow]
    method: str

    @property
    def near_values(self) -> int:
        """How many values of a budget on each are past a threshold, and not over the limit."""
        return self.standing.warning_values - self.standing.exceeded_values


@dataclass(frozen=True, slots=True)
class Setting:
    """What cards need to know beside the budgets themselves."""

    workspace: Workspace
    values: BudgetValues
    keys: Mapping[str, str]
    now: datetime


def card(setting: Setting, standing: BudgetStanding, outlook: Outlook | None) -> Card:
    """One budget; without an `outlook` nothing is said of what is to come."""
    budget, zone = standing.budget, setting.workspace.timezone
    scope = scope_in_words(budget, setting.keys)
    rows = [_row(budget, standing, each, setting.keys) for each in standing.values]
    return Card(
        budget=budget,
        standing=standing,
        state=state_of(standing).value,
        url=reverse("budget", args=[setting.workspace.slug, budget.pk]),
        scope=scope,
        top_value=rows[0].name if rows else "",
        enforcement=enforcement_in_words(budget, setting.values),
        raised=_raised(standing, setting),
        drawing=budget_gauge(f"b-{budget.pk}", budget.name, standing, levels(standing, setting.values)),
        facts=_facts(standing, outlook, setting),
        notes=[
            *words.notes(standing, zone),
            *([words.record_in_words(outlook.record)] if outlook and outlook.record else []),
        ],
        values=rows,
        method=outlook.forecast.method if outlook and outlook.forecast else "",
    )


def levels(standing: BudgetStanding, values: BudgetValues) -> Sequence[Level]:
    """The thresholds of a budget at the limit in force; those of the workspace's two are set together."""
    budget = standing.budget
    shares = [values.warning_threshold_ratio] if budget.is_of_workspace else budget.thresholds
    return levels_of(standing.limit_usd, [share for share in shares if share < OVER], budget.thresholds_usd)


def is_hard(budget: Budget, values: BudgetValues) -> bool:
    """Whether it is meant to refuse telemetry; the kill switch may be on."""
    return (values.enforcement if budget.is_of_workspace else budget.enforcement) == Enforcement.HARD


def enforcement_in_words(budget: Budget, values: BudgetValues) -> str:
    """What it does once it is exceeded, in two words."""
    if not is_hard(budget, values):
        return "Soft stop"
    return "Hard stop, only observed" if values.observe_mode else "Hard stop"


def _raised(standing: BudgetStanding, setting: Setting) -> str:
    until = standing.budget.raised_until
    if not standing.is_raised or until is None:
        return ""
    return f"Raised until {words.about(until, setting.workspace.timezone, setting.now)}"


def _facts(standing: BudgetStanding, outlook: Outlook | None, setting: Setting) -> list[tuple[str, str]]:
    zone = setting.workspace.timezone
    facts = [("Left", _left(standing))]
    if outlook is not None:
        facts.append(("Burn rate", f"{usd(outlook.burn_usd_per_hour)} an hour, over the last 24 hours"))
        facts.append(("Forecast", words.forecast_in_words(outlook)))
        exhausted = words.exhausted_in_words(outlook, zone, setting.now)
        facts += [("Exhausted", exhausted)] if exhausted else []
    facts.append(("Resets", f"at {moment_in_words(standing.window.end, zone)}"))
    return facts


def _left(standing: BudgetStanding) -> str:
    over, left = standing.spend_usd - standing.limit_usd, standing.remaining_usd
    if over > 0:
        return f"Nothing, {usd(over)} over"
    return usd(left) if left >= 0 else f"Nothing: leases hold {usd(-left)} more"


def _row(budget: Budget, standing: BudgetStanding, value: ValueStanding, keys: Mapping[str, str]) -> ValueRow:
    name = value_in_words(budget.scope_kind, value.scope_value, keys)
    return ValueRow(name, value, value.spend_usd / standing.limit_usd)
