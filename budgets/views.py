"""The budgets page of a workspace: where it stands, what is set, and what other settings would have done."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from budgets.changes import BudgetsChanged, change_budgets, consequences, version_of
from budgets.forecast import forecasts
from budgets.forms import BudgetsForm, ConfirmationForm, described, filled_form, form_data
from budgets.gauges import budget_gauges
from budgets.preview import preview
from budgets.selectors import BudgetValues, budget_values, workspace_status
from ingest.snapshots import snapshot
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput
from opsmeter_site.lib.forms import add_refusal
from opsmeter_site.lib.htmx import wants_part
from opsmeter_site.lib.toasts import toast_with_undo
from workspaces.access import WorkspaceAccess, require_role
from workspaces.models import AuditEntry, Role, Workspace
from workspaces.pages import workspace_page

_CHANGED = "budgets.changed"


@workspace_page()
@require_http_methods(["GET", "HEAD", "POST"])
def budgets_page(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """GET shows the budgets to everyone; POST changes them, for admins and owners."""
    if request.method == "POST":
        require_role(access, Role.ADMIN)
        return _save(request, access)
    return _page(request, access)


@workspace_page()
@require_http_methods(["GET", "HEAD", "POST"])
def budgets_preview(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """What the last 30 days would have done: GET under the stored budgets, POST under those of the form.

    For htmx only that part; otherwise the page with it, which is how it works without scripts.
    """
    values = budget_values(access.workspace.pk)
    form = None
    if request.method == "POST":
        require_role(access, Role.ADMIN)
        form = BudgetsForm(_with_suggestion(request.POST))
        if not form.is_valid():
            return _refused_preview(request, access, form)
        values = form.values
    with snapshot():
        shown = preview(access.workspace.pk, values, utc_now())
    if wants_part(request):
        return render(request, "budgets/_preview.html", {"preview": shown})
    return _page(request, access, form, preview=shown)


def _save(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    form = BudgetsForm(request.POST)
    if not form.is_valid():
        return _page(request, access, form, status=422)
    workspace = access.workspace
    try:
        stored = budget_values(workspace.pk)
        if version_of(stored) not in (form.cleaned_data["version"], version_of(form.values)):
            raise BudgetsChanged(stored)
        at_once = consequences(workspace.pk, stored, form.values, workspace.timezone, utc_now())
        if at_once and not form.cleaned_data["confirmed"]:
            return _second_question(request, workspace, at_once)
        change = change_budgets(
            workspace, acting_user=access.user, seen=form.cleaned_data["version"], values=form.values
        )
    except BudgetsChanged as error:
        return _conflict(request, access, error.now)
    except InvalidInput as refusal:
        add_refusal(form, refusal)
        return _page(request, access, form, status=422)
    address = reverse("settings-budgets", args=[workspace.slug])
    if change.is_one:
        undo = form_data(change.old, version_of(change.new))
        toast_with_undo(request, "The budgets are saved and hold from now on.", url=address, values=undo)
    else:
        messages.info(request, "These are the budgets already; nothing was changed.")
    return redirect(address)


def _second_question(request: HttpRequest, workspace: Workspace, at_once: list[str]) -> HttpResponse:
    data = request.POST.copy()
    data["confirmed"] = "on"
    context = {
        "title": "Save these budgets?",
        "consequences": at_once,
        "confirm_label": "Save the budgets",
        "form_url": reverse("settings-budgets-preview", args=[workspace.slug]),
        "form": ConfirmationForm(data),
    }
    return render(request, "console/confirm.html", context)


def _conflict(request: HttpRequest, access: WorkspaceAccess, now: BudgetValues) -> HttpResponse:
    """The form as it was typed, beside what somebody else has saved meanwhile. Saving again overwrites it."""
    data = request.POST.copy()
    data["version"] = version_of(now)
    data.pop("confirmed", None)
    form = BudgetsForm(data)
    form.full_clean()
    rows = [
        (label, theirs, yours)
        for (label, theirs), (_, yours) in zip(described(now), described(form.values), strict=True)
        if theirs != yours
    ]
    latest = (
        AuditEntry.objects.filter(workspace=access.workspace, action=_CHANGED)
        .select_related("actor")
        .order_by("-created_at")
        .first()
    )
    return _page(request, access, form, status=409, conflict={"rows": rows, "entry": latest})


def _refused_preview(request: HttpRequest, access: WorkspaceAccess, form: BudgetsForm) -> HttpResponse:
    # Half a number is no mistake while somebody is typing it; browsers would log anything but 200 as an error.
    if wants_part(request):
        return render(request, "budgets/_preview_refused.html", {"form": form})
    return _page(request, access, form, status=422)


def _with_suggestion(data: QueryDict) -> QueryDict:
    """`data` with the suggestion filled in whose button was pressed: `take=daily_limit_usd:52`."""
    name, _, amount = data.get("take", "").partition(":")
    if name not in {"daily_limit_usd", "monthly_limit_usd"}:
        return data
    filled = data.copy()
    filled[name] = amount
    return filled


def _page(
    request: HttpRequest, access: WorkspaceAccess, form: BudgetsForm | None = None, *, status: int = 200, **context: Any
) -> HttpResponse:
    """The whole page; without a `form`, with one that has the stored values."""
    now, workspace = utc_now(), access.workspace
    with snapshot():
        values = budget_values(workspace.pk)
        standing = workspace_status(workspace.pk, now)
        ahead = forecasts(workspace.pk, now)
    gauges = budget_gauges(standing, ahead, workspace.timezone, now)
    context |= {"form": form or filled_form(values), "values": described(values), "gauges": gauges, "now": now}
    return render(request, "budgets/settings.html", context, status=status)
