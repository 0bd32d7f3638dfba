"""The editor of budgets on scopes, with the simulator beside it."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from budgets.models import Budget
from budgets.scoped import forms, services
from budgets.scoped.drafts import draft_of
from budgets.scoped.forms import REPLAY_DAYS, VALUES_ID, DraftForm, KeptForm
from budgets.scoped.pages.found import budget_of
from budgets.scoped.pages.saving import store
from budgets.scoped.pages.simulation import simulated
from budgets.scoped.selectors import BudgetStanding
from budgets.scoped.words import described, raise_in_words
from ingest.explorer import suggestions
from ingest.models import Environment, ScopeKind
from ingest.scope_words import key_names, scope_in_words
from ingest.snapshots import snapshot
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import Conflict, InvalidInput, NotAllowed
from opsmeter_site.lib.htmx import wants_part
from opsmeter_site.lib.toasts import toast_with_undo
from workspaces.access import WorkspaceAccess
from workspaces.models import ApiKey, Role
from workspaces.pages import workspace_page


@workspace_page(Role.ADMIN)
@require_http_methods(["GET", "HEAD", "POST"])
def budget_new(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """A new budget on a scope; a POST with `simulate` stores nothing."""
    workspace = access.workspace
    if request.method != "POST":
        form = DraftForm(workspace, initial=forms.suggested_initial(request.GET.dict()))
        return _page(request, access, form)
    form = DraftForm(workspace, request.POST)
    if "simulate" in request.POST:
        return _simulated(request, access, form)
    if not form.is_valid():
        return _page(request, access, form, status=422)
    try:
        outcome = store(
            workspace,
            None,
            lambda: services.create_budget(workspace, form.draft, acting_user=access.user),
            utc_now(),
            confirmed=form.cleaned_data["confirmed"],
        )
    except (InvalidInput, Conflict, NotAllowed) as refusal:
        form.refuse(refusal)
        return _page(request, access, form, status=422)
    if outcome.consequences:
        return _second_question(request, outcome.consequences)
    budget = outcome.standing.budget
    undo = reverse("budget-delete", args=[workspace.slug, budget.pk])
    toast_with_undo(request, "The budget is saved and holds from now on.", url=undo, values={})
    return _saved(request, access, outcome.standing)


@workspace_page(Role.ADMIN)
@require_http_methods(["GET", "HEAD", "POST"])
def budget_edit(request: HttpRequest, access: WorkspaceAccess, budget_id: UUID) -> HttpResponse:
    """Other values for a budget on a scope; a POST with `simulate` stores nothing."""
    budget = budget_of(access, budget_id)
    if budget.is_of_workspace:
        return redirect("settings-budgets", access.workspace.slug)
    draft = draft_of(budget)
    if request.method != "POST":
        initial = forms.form_initial(draft, services.version_of(budget))
        return _page(request, access, DraftForm(access.workspace, initial=initial, stored=draft), budget)
    form = DraftForm(access.workspace, request.POST, stored=draft)
    if "simulate" in request.POST:
        return _simulated(request, access, form, budget)
    if not form.is_valid():
        return _page(request, access, form, budget, status=422)
    return _change(request, access, form, budget)


@workspace_page(Role.ADMIN)
@require_GET
def budget_values_seen(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """The values of a dimension that were really seen, for the editor's list to choose from."""
    context = {"values": _seen(access, request.GET.get("scope_kind", ""))}
    return render(request, "budgets/_values.html", context)


def _change(request: HttpRequest, access: WorkspaceAccess, form: DraftForm, budget: Budget) -> HttpResponse:
    workspace, seen, old = access.workspace, form.cleaned_data["version"], draft_of(budget)
    if form.draft == old:
        messages.info(request, "This is the budget already; nothing was changed.")
        return redirect("budget", workspace.slug, budget.pk)
    if seen != services.version_of(budget):
        return _conflict(request, access, form, budget)
    try:
        outcome = store(
            workspace,
            Budget.objects.get(pk=budget.pk),
            lambda: services.change_budget(budget, form.draft, acting_user=access.user, seen=seen),
            utc_now(),
            confirmed=form.cleaned_data["confirmed"],
        )
    except services.BudgetChanged:
        return _conflict(request, access, form, budget_of(access, budget.pk))
    except (InvalidInput, Conflict) as refusal:
        form.refuse(refusal)
        return _page(request, access, form, budget_of(access, budget.pk), status=422)
    if outcome.consequences:
        return _second_question(request, outcome.consequences)
    undo = forms.form_data(old, services.version_of(outcome.standing.budget))
    toast_with_undo(request, "The budget is saved and holds from now on.", url=request.path, values=undo)
    return _saved(request, access, outcome.standing)


def _saved(request: HttpRequest, access: WorkspaceAccess, standing: BudgetStanding) -> HttpResponse:
    if standing.last_seen is None:
        messages.warning(
            request,
            "No traffic of the last 30 days matches this scope. Values are compared letter by letter.",
        )
    return redirect("budget", access.workspace.slug, standing.budget.pk)


def _second_question(request: HttpRequest, consequences: list[str]) -> HttpResponse:
    context = {
        "title": "Save this budget?",
        "consequences": consequences,
        "confirm_label": "Save the budget",
        "form_url": request.path,
        "form": KeptForm(request.POST),
    }
    return render(request, "budgets/confirm.html", context)


def _conflict(request: HttpRequest, access: WorkspaceAccess, form: DraftForm, now: Budget) -> HttpResponse:
    """The form as it was typed, beside what somebody else has saved meanwhile. Saving again overwrites it."""
    data = request.POST.copy()
    data["version"] = services.version_of(now)
    data.pop("confirmed", None)
    again = DraftForm(access.workspace, data, stored=draft_of(now))
    rows = [
        (label, theirs, yours)
        for (label, theirs), (_, yours) in zip(described(draft_of(now)), described(form.draft), strict=True)
        if theirs != yours
    ]
    raised = raise_in_words(now, access.workspace.timezone, utc_now())
    if raised or not rows:
        rows.append(("Raise", raised or "None", "Stays as it is now"))
    entries = services.history(now.pk, access.workspace.pk)
    conflict = {"rows": rows, "entry": entries[0] if entries else None}
    return _page(request, access, again, now, status=409, conflict=conflict)


def _simulated(
    request: HttpRequest, access: WorkspaceAccess, form: DraftForm, budget: Budget | None = None
) -> HttpResponse:
    if not form.is_valid():
        # Half a number is no mistake while somebody is typing it; browsers would log anything but 200 as an error.
        if wants_part(request):
            return render(request, "budgets/_preview_refused.html", {"form": form})
        return _page(request, access, form, budget, status=422)
    with snapshot():
        keys = key_names(access.workspace.pk)
        shown = simulated(access.workspace, form.draft, _days(request), keys, utc_now())
    if wants_part(request):
        return render(request, "budgets/_simulation.html", {"simulated": shown, "workspace": access.workspace})
    return _page(request, access, form, budget, simulated=shown)


def _days(request: HttpRequest) -> int:
    given = request.POST.get("days", "")
    return int(given) if given in {str(days) for days in REPLAY_DAYS} else REPLAY_DAYS[0]


def _page(
    request: HttpRequest,
    access: WorkspaceAccess,
    form: DraftForm,
    budget: Budget | None = None,
    *,
    status: int = 200,
    **context: Any,
) -> HttpResponse:
    slug = access.workspace.slug
    context |= {
        "form": form,
        "budget": budget,
        "scope": scope_in_words(budget, key_names(access.workspace.pk)) if budget else "",
        "values_id": VALUES_ID,
        "values": [] if budget else _seen(access, str(form["scope_kind"].value() or "")),
        "days": REPLAY_DAYS,
        "chosen_days": _days(request),
        "replays_at_once": budget is not None,
        "cancel_url": reverse("budget", args=[slug, budget.pk]) if budget else reverse("budgets", args=[slug]),
    }
    return render(request, "budgets/edit.html", context, status=status)


def _seen(access: WorkspaceAccess, kind: str) -> list[str]:
    """What to choose from, the most used first."""
    if kind == ScopeKind.API_KEY_ID:
        keys = ApiKey.objects.filter(workspace=access.workspace, revoked_at=None)
        return list(keys.order_by("name").values_list("name", flat=True))
    if kind == ScopeKind.ENVIRONMENT:
        return list(Environment.values)
    return suggestions(access.workspace.pk, kind) if kind in ScopeKind.values else []
