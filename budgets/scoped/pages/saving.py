"""Storing a change of a budget, unless it would do something at once that nobody has been asked about."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from budgets.gauges import moment_in_words
from budgets.models import Budget
from budgets.scoped.pages.cards import is_hard
from budgets.scoped.selectors import BudgetStanding, standings
from budgets.selectors import budget_values
from ingest.models import UnpricedPolicy
from ingest.scope_words import key_names, scope_in_words, value_in_words
from ingest.services import lock_ledger
from opsmeter_site.lib.formats import usd, usd_exact
from opsmeter_site.lib.wire import plain_number
from workspaces.models import Workspace

_NAMED_VALUES = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """A change that was stored, or, if there are `consequences`, one that was not."""

    standing: BudgetStanding
    consequences: list[str]


def store(
    workspace: Workspace, before: Budget | None, change: Callable[[], Budget], now: datetime, *, confirmed: bool
) -> Outcome:
    """Make the change; take it back if it refuses or alerts at once and nobody has `confirmed` that.

    What it does is read from the changed ledger itself, so the answer is that of the first event after it.
    """
    old: BudgetStanding | None = None
    with transaction.atomic():
        # A new budget adds up its scope before it takes the lock by itself: ingest must not wait for that.
        if before is not None:
            lock_ledger(workspace.pk)
            (old,) = standings(workspace.pk, [before], now)
        (standing,) = standings(workspace.pk, [change()], now)
        found = [] if confirmed else list(_consequences(workspace, old, standing))
        if found:
            transaction.set_rollback(True)
    return Outcome(standing, found)


def _consequences(workspace: Workspace, old: BudgetStanding | None, new: BudgetStanding) -> Iterator[str]:
    """In sentences; nothing for a change that may wait."""
    values = budget_values(workspace.pk)
    refuses = is_hard(new.budget, values) and not values.observe_mode
    refused = old is not None and is_hard(old.budget, values) and not values.observe_mode
    told_already = old is not None and old.is_exceeded and new.exceeded_values <= old.exceeded_values
    if new.is_exceeded and not (told_already and refused >= refuses):
        yield _exceeded(workspace, new, refuses=refuses)
    elif refuses and not refused:
        yield (
            "From now on telemetry of what it covers is refused (402) whenever spend is above the limit, until that "
            f"{new.budget.period} is over. What is refused is counted, but not stored."
        )
    blocked = old is not None and old.budget.unpriced == UnpricedPolicy.BLOCK
    if refuses and new.budget.unpriced == UnpricedPolicy.BLOCK and not (blocked and refused):
        yield "Requests whose model has no price are refused at once, however little is spent."
    elif not refuses:
        return
    if not refused or new.is_exceeded:
        yield "Calls to your providers always continue."


def _exceeded(workspace: Workspace, new: BudgetStanding, *, refuses: bool) -> str:
    budget = new.budget
    until = moment_in_words(new.window.end, workspace.timezone)
    limit = usd_exact(plain_number(new.limit_usd))
    keys = key_names(workspace.pk)
    who, whose = scope_in_words(budget, keys), ""
    if not budget.is_each_value:
        standing = f"{usd(new.spend_usd)} of {limit} is spent this {budget.period}"
    else:
        names = [
            f"{value_in_words(budget.scope_kind, each.scope_value, keys)} ({usd(each.spend_usd)})"
            for each in new.values
            if each.is_exceeded
        ][:_NAMED_VALUES]
        rest = new.exceeded_values - len(names)
        whose, verb = f" of {new.exceeded_values} of them", "is" if new.exceeded_values == 1 else "are"
        more = f" and {rest} more" if rest > 0 else ""
        standing = f"{', '.join(names)}{more} {verb} above {limit} this {budget.period}"
    if refuses:
        return f"{who}: telemetry{whose} would be refused (402) from now until {until}. {standing}."
    return f"{who}: exceeded at once. {standing}. Alerts and answers say so until {until}; nothing is refused."
