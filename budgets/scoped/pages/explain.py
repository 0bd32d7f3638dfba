"""Which budgets apply to a request, and why the others do not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from budgets.scoped.forms import RequestForm
from budgets.scoped.pages.cards import Setting, card, enforcement_in_words
from budgets.scoped.selectors import Applied, explain
from budgets.scoped.words import outcome_in_words
from budgets.selectors import BudgetValues, budget_values
from ingest.models import UNKNOWN, DataMode, Environment, Event, ScopeKind
from ingest.scope_words import key_names, scope_in_words
from ingest.snapshots import snapshot
from opsmeter_site.lib.clock import utc_now
from workspaces.access import WorkspaceAccess
from workspaces.models import Workspace
from workspaces.pages import workspace_page

# What the gateway stores where a request says nothing.
_SAID_NOTHING: Mapping[str, str] = {
    ScopeKind.ENDPOINT_TAG.value: UNKNOWN,
    ScopeKind.TENANT_ID.value: UNKNOWN,
    ScopeKind.USER_ID.value: UNKNOWN,
    ScopeKind.PROMPT_VERSION.value: UNKNOWN,
    ScopeKind.ENVIRONMENT.value: Environment.PROD.value,
}


@dataclass(frozen=True, slots=True)
class _Described:
    """A request as it was stored or typed in."""

    values: Mapping[str, str]
    data_mode: str
    event: Event | None = None

    def scope_value(self, kind: str) -> str:
        """Its value of the dimension."""
        return self.values.get(kind) or _SAID_NOTHING.get(kind, "")


@workspace_page()
@require_GET
def budgets_explain(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """`?request=` names a stored request; otherwise the dimensions say what one would carry."""
    workspace, now = access.workspace, utc_now()
    form = RequestForm(workspace, request.GET or None)
    context: dict[str, Any] = {"form": form, "now": now, "wanted": request.GET.get("request", "")}
    if form.is_valid():
        with snapshot():
            described = _described(workspace, form.cleaned_data)
            if described is not None:
                values, keys = budget_values(workspace.pk), key_names(workspace.pk)
                found = explain(workspace.pk, described, now, data_mode=described.data_mode)
                setting = Setting(workspace, values, keys, now)
                context |= {
                    "described": described,
                    "facts": _facts(described, keys),
                    "applied": [_row(setting, each) for each in found if each.applies],
                    "others": [_row(setting, each) for each in found if not each.applies],
                    "outcome": outcome_in_words([each.standing for each in found if each.standing]),
                    "is_counted": described.data_mode in values.counted_data_modes,
                    "observes": values.observe_mode,
                }
    status = 422 if form.errors else 404 if context["wanted"] and "described" not in context else 200
    return render(request, "budgets/explain.html", context, status=status)


def _described(workspace: Workspace, data: Mapping[str, str]) -> _Described | None:
    """The request that the form describes; None if it names one that is not stored."""
    if not data["request"]:
        return _Described({kind: data[kind] for kind in ScopeKind.values}, data["data_mode"] or DataMode.REAL.value)
    event = Event.objects.filter(workspace=workspace, external_request_id=data["request"]).first()
    if event is None:
        return None
    values = {kind: str(getattr(event, kind) or "") for kind in ScopeKind.values}
    return _Described(values, event.data_mode, event)


def _facts(described: _Described, keys: Mapping[str, str]) -> list[tuple[str, str]]:
    facts = []
    for kind in ScopeKind:
        value = described.scope_value(kind.value)
        facts.append((str(kind.label), keys.get(value, value) if kind == ScopeKind.API_KEY_ID else value))
    return [*((label, value or "–") for label, value in facts), ("Data mode", described.data_mode)]


def _row(setting: Setting, applied: Applied) -> dict[str, Any]:
    values: BudgetValues = setting.values
    return {
        "applied": applied,
        "scope": scope_in_words(applied.budget, setting.keys),
        "enforcement": enforcement_in_words(applied.budget, values),
        "card": card(setting, applied.standing, None) if applied.standing else None,
    }
