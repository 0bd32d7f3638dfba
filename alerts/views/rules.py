"""Rules: what is watched beside limits, with what each rule would say right now."""

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import path, reverse
from django.views.decorators.http import require_http_methods

from alerts.models import Rule, RuleKind
from alerts.rule_forms import FORMS, SUGGESTIONS_ID, RuleForm, SpikesForm, described
from alerts.rule_selectors import Standing, has_traffic, spike_comparison, standings, suggestions
from alerts.rule_services import (
    MOST_RULES,
    create_rule,
    delete_rule,
    set_spikes,
    update_rule,
    values_of,
)
from alerts.rules.spikes import SpikeRule, hours_in_words, spike_rules
from billing.selectors import PlanFeatures, plan_features
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput, NotFound
from opsmeter_site.lib.forms import add_refusal
from opsmeter_site.lib.toasts import toast_with_undo
from opsmeter_site.lib.wire import plain_number
from workspaces.access import WorkspaceAccess, require_role, role_includes
from workspaces.models import Role
from workspaces.pages import workspace_page


@workspace_page()
@require_http_methods(["GET", "HEAD", "POST"])
def rules(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """GET shows every rule to everyone; POST changes when spend is a spike, for admins and owners."""
    if request.method != "POST":
        return _page(request, access)
    require_role(access, Role.ADMIN)
    form = SpikesForm(request.POST)
    if not form.is_valid():
        return _page(request, access, form)
    before = spike_rules([access.workspace.pk])[access.workspace.pk]
    try:
        has_changed = set_spikes(access.workspace, form.values, acting_user=access.user)
    except InvalidInput as refusal:
        add_refusal(form, refusal)
        return _page(request, access, form)
    if has_changed:
        toast_with_undo(request, "The watch for spend spikes is saved.", url=request.path, values=_spikes_data(before))
    else:
        messages.info(request, "Nothing was different, so nothing was saved.")
    return _back(access)


def _spikes_data(rule: SpikeRule) -> dict[str, str]:
    """What the form posts to make `rule` hold."""
    numbers = {"factor": f"{plain_number(rule.factor)}", "minimum_usd": f"{plain_number(rule.minimum_usd)}"}
    return {**numbers, **({"is_on": "on"} if rule.is_on else {})}


def _page(request: HttpRequest, access: WorkspaceAccess, form: SpikesForm | None = None) -> HttpResponse:
    workspace, now = access.workspace, utc_now()
    plan, spike_rule = plan_features(workspace.pk), spike_rules([workspace.pk])[workspace.pk]
    compared = spike_comparison(workspace, now)
    found = standings(workspace, now)
    context = {
        "form": form or SpikesForm(initial={name: getattr(spike_rule, name) for name in SpikesForm.base_fields}),
        "plan": plan,
        "spike_rule": spike_rule,
        "compared": compared,
        "hours": hours_in_words(compared, workspace.timezone),
        "is_spike": compared.is_spike(spike_rule),
        "groups": [
            {"kind": kind, "rows": [_row(each, plan) for each in found if each.rule.kind == kind]} for kind in RuleKind
        ],
        "has_rules": bool(found),
        "may_add": role_includes(access.role, Role.ADMIN) and len(found) < MOST_RULES,
        "most": MOST_RULES,
    }
    return render(request, "alerts/rules.html", context, status=422 if form else 200)


def _row(standing: Standing, plan: PlanFeatures) -> dict[str, Any]:
    """A rule in a table. `state`: what becomes of it, before any figure is looked at."""
    rule = standing.rule
    is_in_plan = plan.has_integrations or rule.kind != RuleKind.UNIT_COST
    state = "off" if not rule.is_enabled else "on" if is_in_plan else "plan"
    return {"standing": standing, "rule": rule, "words": described(rule), "state": state}


@workspace_page(Role.ADMIN)
@require_http_methods(["GET", "HEAD", "POST"])
def rule_new(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """A new rule of the kind that the address asks for."""
    kind = _kind(request)
    form = FORMS[kind](request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            rule = create_rule(access.workspace, form.values, acting_user=access.user)
        except InvalidInput as refusal:
            add_refusal(form, refusal)
        else:
            messages.success(request, "The rule is saved and holds from now on.")
            _warn_without_traffic(request, rule)
            return _back(access)
    return _form_page(request, access, form, {"title": f"New rule: {kind.label.lower()}", "label": "Add the rule"})


def _kind(request: HttpRequest) -> RuleKind:
    kind = request.GET.get("kind") or RuleKind.UNIT_COST.value
    if kind not in RuleKind.values:
        raise NotFound("There is no such kind of rule.")
    return RuleKind(kind)


@workspace_page(Role.ADMIN)
@require_http_methods(["GET", "HEAD", "POST"])
def rule_edit(request: HttpRequest, access: WorkspaceAccess, rule_id: int) -> HttpResponse:
    """Other values for a rule."""
    rule = _rule(access, rule_id)
    form_class, values = FORMS[RuleKind(rule.kind)], values_of(rule)
    initial = {name: getattr(values, name) for name in form_class.base_fields}
    form = form_class(request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            has_changed = update_rule(rule, form.values, acting_user=access.user)
        except InvalidInput as refusal:
            add_refusal(form, refusal)
        else:
            _say_changed(request, access, rule.pk, has_changed=has_changed)
            return _back(access)
    context = {"title": f"Change the rule: {rule.get_kind_display().lower()}", "label": "Save", "rule": rule}
    return _form_page(request, access, form, context)


def _say_changed(request: HttpRequest, access: WorkspaceAccess, rule_id: int, *, has_changed: bool) -> None:
    if has_changed:
        messages.success(request, "The rule is saved and holds from now on.")
        _warn_without_traffic(request, _rule(access, rule_id))
    else:
        messages.info(request, "Nothing was different, so nothing was saved.")


@workspace_page(Role.ADMIN)
@require_http_methods(["GET", "HEAD", "POST"])
def rule_delete(request: HttpRequest, access: WorkspaceAccess, rule_id: int) -> HttpResponse:
    """The end of a rule, after a second question."""
    rule = _rule(access, rule_id)
    if request.method == "POST":
        delete_rule(rule, acting_user=access.user)
        messages.success(request, "The rule is deleted.")
        return _back(access)
    context = {
        "title": "Delete this rule?",
        "consequences": [
            f"Nothing is said any more about {described(rule)}.",
            "Alerts that the rule has made stay in the inbox.",
        ],
        "confirm_label": "Delete the rule",
        "cancel_url": _address(access),
    }
    return render(request, "alerts/rules_confirm.html", context)


def _rule(access: WorkspaceAccess, rule_id: int) -> Rule:
    rule = Rule.objects.select_related("workspace").filter(workspace=access.workspace, pk=rule_id).first()
    if rule is None:
        raise NotFound("There is no such rule.")
    return rule


def _warn_without_traffic(request: HttpRequest, rule: Rule) -> None:
    if not has_traffic(rule, utc_now()):
        messages.warning(
            request,
            f"No traffic of the last 30 days matches this yet: {rule.get_dimension_display().lower()} {rule.value}. "
            "Names are compared letter by letter.",
        )


def _form_page(
    request: HttpRequest, access: WorkspaceAccess, form: RuleForm, context: Mapping[str, Any]
) -> HttpResponse:
    context = {
        **context,
        "form": form,
        "plan": plan_features(access.workspace.pk),
        "needs_plan": form.kind == RuleKind.UNIT_COST,
        "suggestions": suggestions(access.workspace.pk, utc_now()) if "value" in form.fields else {},
        "suggestions_id": SUGGESTIONS_ID,
        "cancel_url": _address(access),
    }
    return render(request, "alerts/rules_edit.html", context, status=422 if form.errors else 200)


def _address(access: WorkspaceAccess) -> str:
    return reverse("settings-rules", kwargs={"slug": access.workspace.slug})


def _back(access: WorkspaceAccess) -> HttpResponse:
    return redirect(_address(access))


page_urlpatterns = [
    path("settings/alerts/rules/", rules, name="settings-rules"),
    path("settings/alerts/rules/new/", rule_new, name="settings-rule-new"),
    path("settings/alerts/rules/<int:rule_id>/", rule_edit, name="settings-rule"),
    path("settings/alerts/rules/<int:rule_id>/delete/", rule_delete, name="settings-rule-delete"),
]
