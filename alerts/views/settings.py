"""How alerts are told: modes, cooldown and quiet hours."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import path, reverse
from django.views.decorators.http import require_http_methods

from alerts.kinds import KINDS
from alerts.models import AlertKind
from alerts.preferences import Preferences, preferences_of
from alerts.settings_checks import gaps, next_quiet_hours, plan_note
from alerts.settings_forms import (
    AlertSettingsForm,
    cooldown_in_words,
    described,
    filled_form,
    form_data,
    mode_field,
    quiet_hours_in_words,
)
from alerts.settings_services import SettingsChanged, change_alert_settings, version_of
from billing.selectors import PlanFeatures, plan_features
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput
from opsmeter_site.lib.forms import add_refusal
from opsmeter_site.lib.toasts import toast_with_undo
from workspaces.access import WorkspaceAccess, require_role
from workspaces.models import AuditEntry, Role
from workspaces.pages import workspace_page

_CHANGED = "alert_settings.changed"


@workspace_page()
@require_http_methods(["GET", "HEAD", "POST"])
def alert_settings(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """GET shows them to everyone; POST changes them, for admins and owners."""
    if request.method == "POST":
        require_role(access, Role.ADMIN)
        return _save(request, access)
    return _page(request, access)


def _save(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    form = AlertSettingsForm(request.POST)
    if not form.is_valid():
        return _page(request, access, form, status=422)
    try:
        change = change_alert_settings(
            access.workspace, acting_user=access.user, seen=form.cleaned_data["version"], **form.changes
        )
    except SettingsChanged as error:
        return _conflict(request, access, error)
    except InvalidInput as refusal:
        add_refusal(form, refusal)
        return _page(request, access, form, status=422)
    address = reverse("settings-alerts", args=[access.workspace.slug])
    if change.is_one:
        undo = form_data(change.old, version_of(change.new))
        toast_with_undo(request, "Saved. Alerts are told like this from now on.", url=address, values=undo)
    else:
        messages.info(request, "These are the settings already; nothing was changed.")
    return redirect(address)


def _conflict(request: HttpRequest, access: WorkspaceAccess, error: SettingsChanged) -> HttpResponse:
    """The form as it was sent, beside what somebody else has saved meanwhile. Saving again overwrites it."""
    form = AlertSettingsForm({**request.POST.dict(), "version": version_of(error.now)})
    form.full_clean()
    rows = [
        (label, theirs, yours)
        for (label, theirs), (_, yours) in zip(described(error.now), described(error.wanted), strict=True)
        if theirs != yours
    ]
    entries = AuditEntry.objects.filter(workspace=access.workspace, action=_CHANGED)
    latest = entries.select_related("actor").order_by("-created_at").first()
    return _page(request, access, form, status=409, conflict={"rows": rows, "entry": latest})


def _page(
    request: HttpRequest,
    access: WorkspaceAccess,
    form: AlertSettingsForm | None = None,
    *,
    status: int = 200,
    **context: Any,
) -> HttpResponse:
    """The whole page; without a `form`, with one that has the stored values."""
    workspace = access.workspace
    preferences, plan = preferences_of(workspace.pk), plan_features(workspace.pk)
    form = form or filled_form(preferences)
    hours = preferences.quiet_hours
    context |= {
        "form": form,
        "rows": _rows(form, preferences, plan),
        "cooldown": cooldown_in_words(preferences),
        "quiet_hours": quiet_hours_in_words(preferences),
        "plan": plan,
        "gaps": gaps(workspace.pk, preferences, plan),
        "quiet": next_quiet_hours(hours, workspace.timezone, utc_now()) if hours else None,
        "now": utc_now(),
    }
    return render(request, "alerts/settings.html", context, status=status)


def _rows(form: AlertSettingsForm, preferences: Preferences, plan: PlanFeatures) -> list[dict[str, Any]]:
    """The kinds, each with its field and what the plan makes of the stored mode."""
    return [
        {
            "kind": kind.label,
            "meaning": KINDS[kind].meaning,
            "mode": preferences.modes[kind].label,
            "field": form[mode_field(kind)],
            "note": plan_note(kind, preferences, plan),
        }
        for kind in AlertKind
    ]


page_urlpatterns = [path("settings/alerts/", alert_settings, name="settings-alerts")]
