"""The list of budgets: the two of the workspace first, then those on scopes, the tightest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from budgets.models import WORKSPACE_NAMES, Budget, BudgetPeriod
from budgets.scoped.forms import FilterForm
from budgets.scoped.outlook import outlooks
from budgets.scoped.pages.cards import Card, Setting, card
from budgets.scoped.selectors import BudgetStanding, standings
from budgets.selectors import budget_values
from ingest.models import ScopeKind
from ingest.scope_words import key_names, scope_in_words
from ingest.snapshots import snapshot
from opsmeter_site.lib.clock import utc_now
from workspaces.access import WorkspaceAccess
from workspaces.pages import workspace_page

PAGE_BUDGETS = 20
# What the empty list suggests: title, why, and what the editor is filled with.
EXAMPLES = (
    ("One tenant", "A customer who may cost so much a month, and no more.", "kind=tenant_id"),
    ("Each tenant", "The same limit for every customer, also for those who come tomorrow.", "kind=tenant_id&each=1"),
    ("One model", "An expensive model, so that a wrong default is noticed on the same day.", "kind=model"),
)


@dataclass(frozen=True, slots=True)
class _Found:
    """One page of budgets; `first` counts from 0 among the `number` on scopes that pass the filters."""

    of_workspace: Sequence[Card]
    scoped: Sequence[Card]
    first: int
    number: int
    has_scoped: bool
    observes: bool
    missing: Sequence[str]

    @property
    def last(self) -> int:
        """The place of the last one that is shown, counted from 1."""
        return self.first + len(self.scoped)


@workspace_page()
@require_GET
def budgets(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Every budget with its gauge and what is to come, 20 a page."""
    now, form = utc_now(), FilterForm(request.GET)
    with snapshot():
        found = _find(access, form, _page_number(request.GET.get("page", "")), now)
    chosen = request.GET.copy()
    chosen.pop("page", None)
    page = found.first // PAGE_BUDGETS + 1
    context = {
        "form": form,
        "found": found,
        "is_filtered": any(form.wanted),
        "chosen": chosen.urlencode(),
        "previous_page": page - 1,
        "next_page": page + 1 if found.last < found.number else None,
        "examples": EXAMPLES,
        "now": now,
    }
    return render(request, "budgets/list.html", context)


def _page_number(text: str) -> int:
    return max(1, int(text)) if text.isdecimal() and len(text) < 6 else 1


def _find(access: WorkspaceAccess, form: FilterForm, page: int, now: datetime) -> _Found:
    workspace = access.workspace
    stored = list(Budget.objects.filter(workspace=workspace).order_by("period", "name"))
    has_keys = any(budget.scope_kind == ScopeKind.API_KEY_ID for budget in stored)
    setting = Setting(workspace, budget_values(workspace.pk), key_names(workspace.pk) if has_keys else {}, now)
    wanted = [budget for budget in stored if _passes(budget, form.wanted, setting)]
    standing = standings(workspace.pk, wanted, now)
    of_workspace = [each for each in standing if each.budget.is_of_workspace]
    scoped = sorted((each for each in standing if not each.budget.is_of_workspace), key=_tightness)
    first = min((page - 1) * PAGE_BUDGETS, max(0, len(scoped) - 1) // PAGE_BUDGETS * PAGE_BUDGETS)
    shown = [*of_workspace, *scoped[first : first + PAGE_BUDGETS]]
    cards = [card(setting, *pair) for pair in zip(shown, outlooks(workspace.pk, shown, now), strict=True)]
    set_periods = {budget.period for budget in stored if budget.is_of_workspace}
    return _Found(
        of_workspace=cards[: len(of_workspace)],
        scoped=cards[len(of_workspace) :],
        first=first,
        number=len(scoped),
        has_scoped=any(not budget.is_of_workspace for budget in stored),
        observes=setting.values.observe_mode,
        missing=[WORKSPACE_NAMES[period] for period in BudgetPeriod if period not in set_periods],
    )


def _passes(budget: Budget, wanted: tuple[str, str], setting: Setting) -> bool:
    kind, text = wanted
    if kind and (budget.scope_kind or "workspace") != kind:
        return False
    return text in f"{budget.name}\n{scope_in_words(budget, setting.keys)}".casefold()


def _tightness(standing: BudgetStanding) -> tuple[Decimal, str]:
    """The least left first, as a share of the limit."""
    return standing.remaining_usd / standing.limit_usd, standing.budget.name
