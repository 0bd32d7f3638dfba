"""One budget: where it stands, what was done to it, what leases hold, and what admins can do about it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from budgets.limit_specs import SOURCE
from budgets.models import Budget
from budgets.scoped import services
from budgets.scoped.forms import AdjustForm, KeptForm, RaiseForm
from budgets.scoped.history import changes
from budgets.scoped.outlook import outlooks
from budgets.scoped.pages.cards import Setting, card
from budgets.scoped.pages.found import budget_of
from budgets.scoped.pages.saving import store
from budgets.scoped.selectors import standings
from budgets.scoped.words import unpriced_in_words
from budgets.selectors import budget_values
from ingest.leases import LiveLeases, live_leases, release_lease
from ingest.models import LimitAdjustment
from ingest.scope_words import key_names, scope_in_words, value_in_words
from ingest.snapshots import snapshot
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import Conflict, InvalidInput, NotFound
from opsmeter_site.lib.formats import usd
from opsmeter_site.lib.forms import add_refusal
from workspaces.access import WorkspaceAccess
from workspaces.audit_words import deed, name_of
from workspaces.models import Role
from workspaces.pages import workspace_page

MOST_ENTRIES = 50
MOST_LEASES = 20
MOST_ADJUSTMENTS = 20


@workspace_page()
@require_GET
def budget_page(request: HttpRequest, access: WorkspaceAccess, budget_id: UUID) -> HttpResponse:
    """One budget, for everyone; the forms are for admins and owners."""
    return _page(request, access, budget_of(access, budget_id))


@workspace_page(Role.ADMIN)
@require_POST
def budget_raise(request: HttpRequest, access: WorkspaceAccess, budget_id: UUID) -> HttpResponse:
    """Another limit until a moment, with the reason why."""
    budget = budget_of(access, budget_id)
    form = RaiseForm(access.workspace, request.POST)
    if form.is_valid():
        data = form.cleaned_data
        try:
            services.raise_budget(budget, data["limit_usd"], data["until"], data["reason"], acting_user=access.user)
        except InvalidInput as refusal:
            add_refusal(form, refusal)
        else:
            messages.success(request, "The limit is raised from now on, and falls back by itself.")
            return _back(access, budget)
    return _page(request, access, budget, status=422, raise_form=form)


@workspace_page(Role.ADMIN)
@require_POST
def budget_raise_end(request: HttpRequest, access: WorkspaceAccess, budget_id: UUID) -> HttpResponse:
    """The end of a raise before its time, after a second question if the limit is exceeded without it."""
    budget = budget_of(access, budget_id)

    def end() -> Budget:
        return services.end_raise(budget, acting_user=access.user)

    if not budget.is_raised_at(utc_now()):
        messages.info(request, "The limit is not raised; nothing was changed.")
        return _back(access, budget)
    return _guarded(request, access, budget, end, "End the raise", "The raise is ended; the usual limit holds again.")


@workspace_page(Role.ADMIN)
@require_POST
def budget_adjust(request: HttpRequest, access: WorkspaceAccess, budget_id: UUID) -> HttpResponse:
    """USD to be counted besides (or not), after a second question if that exceeds the limit."""
    budget = budget_of(access, budget_id)
    form = _adjust_form(access, budget, request.POST)
    if form.is_valid():
        data = form.cleaned_data

        def adjust() -> Budget:
            services.adjust_budget(
                budget,
                data["usd"],
                data["reason"],
                acting_user=access.user,
                scope_value=data.get("scope_value", ""),
            )
            return budget

        try:
            return _guarded(request, access, budget, adjust, "Adjust the budget", "The adjustment counts from now on.")
        except InvalidInput as refusal:
            add_refusal(form, refusal)
    return _page(request, access, budget, status=422, adjust_form=form)


@workspace_page(Role.ADMIN)
@require_http_methods(["GET", "HEAD", "POST"])
def budget_delete(request: HttpRequest, access: WorkspaceAccess, budget_id: UUID) -> HttpResponse:
    """The end of a budget on a scope, after a second question that names the leases."""
    budget = budget_of(access, budget_id)
    if budget.is_of_workspace:
        return redirect("settings-budgets", access.workspace.slug)
    if request.method == "POST":
        services.delete_budget(budget, acting_user=access.user)
        messages.success(request, f"The budget “{budget.name}” is deleted.")
        return redirect("budgets", access.workspace.slug)
    leases = live_leases(access.workspace.pk, budget.scope_kind, budget.scope_value, utc_now(), most=3)
    context = {
        "title": "Delete this budget?",
        "consequences": [
            f"{scope_in_words(budget, key_names(access.workspace.pk))}: nobody is told any more what is spent, and "
            "nothing is refused because of it.",
            *_leases_in_words(leases),
            "Its adjustments are deleted with it. Alerts it has made stay in the inbox, and its history in the audit "
            "trail.",
        ],
        "confirm_label": "Delete the budget",
        "cancel_url": reverse("budget", args=[access.workspace.slug, budget.pk]),
        "form": None,
    }
    return render(request, "budgets/confirm.html", context)


def _leases_in_words(leases: LiveLeases) -> list[str]:
    if not leases.number:
        return []
    named = ", ".join(lease.external_request_id for lease in leases.next_to_end)
    more = leases.number - len(leases.next_to_end)
    many = f"{leases.number} live leases hold" if leases.number > 1 else "One live lease holds"
    return [
        f"{many} {usd(leases.usd)} in its scope: {named}{f' and {more} more' if more else ''}. "
        "They go on, as they belong to calls that are under way."
    ]


@workspace_page(Role.ADMIN)
@require_POST
def budget_lease_release(request: HttpRequest, access: WorkspaceAccess, budget_id: UUID) -> HttpResponse:
    """Give up one live lease."""
    budget = budget_of(access, budget_id)
    try:
        lease = release_lease(access.workspace.pk, request.POST.get("lease", ""), acting_user=access.user)
    except NotFound as gone:
        messages.info(request, gone.message)
    else:
        messages.success(request, f"The lease is released: {usd(lease.usd)} is free again.")
    return _back(access, budget)


def _guarded(
    request: HttpRequest, access: WorkspaceAccess, budget: Budget, change: Callable[[], Budget], label: str, done: str
) -> HttpResponse:
    """Make the change and say that it is `done`, or ask about what it would do at once."""
    before = budget_of(access, budget.pk)
    try:
        outcome = store(access.workspace, before, change, utc_now(), confirmed="confirmed" in request.POST)
    except Conflict as refusal:
        messages.error(request, refusal.message)
        return _back(access, budget)
    if not outcome.consequences:
        messages.success(request, done)
        return _back(access, budget)
    context = {
        "title": f"{label}?",
        "consequences": outcome.consequences,
        "confirm_label": label,
        "cancel_url": reverse("budget", args=[access.workspace.slug, budget.pk]),
        "form": KeptForm(request.POST),
    }
    return render(request, "budgets/confirm.html", context)


def _back(access: WorkspaceAccess, budget: Budget) -> HttpResponse:
    return redirect("budget", access.workspace.slug, budget.pk)


def _adjust_form(access: WorkspaceAccess, budget: Budget, data: Any = None) -> AdjustForm:
    return AdjustForm(access.workspace, budget.scope_kind, data, is_each_value=budget.is_each_value)


def _page(
    request: HttpRequest, access: WorkspaceAccess, budget: Budget, *, status: int = 200, **forms: Any
) -> HttpResponse:
    workspace, now = access.workspace, utc_now()
    with snapshot():
        keys = key_names(workspace.pk)
        setting = Setting(workspace, budget_values(workspace.pk), keys, now)
        (standing,) = standings(workspace.pk, [budget], now)
        (outlook,) = outlooks(workspace.pk, [standing], now)
        shown = card(setting, standing, outlook)
        context = {
            "card": replace(shown, facts=[*shown.facts, ("Without a price", unpriced_in_words(budget))]),
            "budget": budget,
            "values": setting.values,
            "leases": live_leases(workspace.pk, budget.scope_kind, budget.scope_value, now, most=MOST_LEASES),
            "adjustments": _adjustments(budget, keys),
            "history": _history(access, budget),
            "raise_form": RaiseForm(workspace),
            "adjust_form": _adjust_form(access, budget),
            "now": now,
        } | forms
    return render(request, "budgets/detail.html", context, status=status)


def _adjustments(budget: Budget, keys: dict[str, str]) -> list[dict[str, Any]]:
    rows = LimitAdjustment.objects.filter(
        limit__workspace_id=budget.workspace_id,
        limit__source=SOURCE,
        limit__source_id=str(budget.pk),
    ).select_related("created_by")
    return [
        {
            "row": row,
            "value": value_in_words(budget.scope_kind, row.scope_value, keys) if budget.is_each_value else "",
            "person": name_of(row.created_by),
        }
        for row in rows.order_by("-created_at", "-pk")[:MOST_ADJUSTMENTS]
    ]


def _history(access: WorkspaceAccess, budget: Budget) -> list[dict[str, Any]]:
    entries = services.history(budget.pk, access.workspace.pk)[:MOST_ENTRIES]
    return [
        {
            "entry": entry,
            "person": name_of(entry.actor),
            "deed": deed(entry),
            "values": changes(entry, access.workspace.timezone),
        }
        for entry in entries
    ]
