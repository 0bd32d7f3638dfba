"""Name and timezone."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput
from opsmeter_site.lib.forms import add_refusal
from opsmeter_site.lib.toasts import toast_with_undo
from workspaces.access import WorkspaceAccess, require_role
from workspaces.forms import GeneralForm
from workspaces.models import Role
from workspaces.pages import workspace_page
from workspaces.services import update_workspace


@workspace_page()
@require_http_methods(["GET", "POST"])
def general(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """The workspace's facts; owners and admins change them."""
    if request.method == "POST":
        require_role(access, Role.ADMIN)
        return _save(request, access)
    return _page(request, access, GeneralForm(access.workspace))


def _page(request: HttpRequest, access: WorkspaceAccess, form: GeneralForm) -> HttpResponse:
    context = {"form": form, "now": utc_now()}
    return render(request, "workspaces/general.html", context, status=422 if form.errors else 200)


def _save(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    form = GeneralForm(access.workspace, request.POST)
    if not form.is_valid():
        return _page(request, access, form)
    changes = form.changes()
    before = {"name": access.workspace.name, "timezone": str(access.workspace.timezone)}
    if changes.get("timezone", before["timezone"]) != before["timezone"] and not form.cleaned_data["confirmed"]:
        return _ask(request, access, form)
    try:
        stored = update_workspace(access.workspace, acting_user=access.user, **changes)
    except InvalidInput as refusal:
        add_refusal(form, refusal)
        return _page(request, access, form)
    after = {"name": stored.name, "timezone": str(stored.timezone)}
    if before == after:
        messages.info(request, "Nothing was different, so nothing was saved.")
    else:
        _offer_undo(request, before, after)
    return redirect("settings-general", slug=stored.slug)


def _offer_undo(request: HttpRequest, before: dict[str, str], after: dict[str, str]) -> None:
    changed = [name for name in after if before[name] != after[name]]
    values = {**before, **{f"initial-{name}": value for name, value in after.items()}, "confirmed": "yes"}
    toast_with_undo(request, f"Saved: {' and '.join(changed)}.", url=request.path, values=values)


def _ask(request: HttpRequest, access: WorkspaceAccess, form: GeneralForm) -> HttpResponse:
    old, new = access.workspace.timezone, form.cleaned_data["timezone"]
    context = {
        "title": "Change the timezone?",
        "consequences": [
            f"Days begin at midnight in {new} instead of {old}, in every chart, table and summary, also of the past.",
            "Figures by user, tenant and feature are rebuilt for these days from raw rows. "
            "Where raw rows have expired, that detail may be lost.",
            "Budgets and plan limits go on counting UTC days and months.",
        ],
        "confirm_label": "Change the timezone",
        "section": "General",
        "cancel_url": reverse("settings-general", kwargs={"slug": access.workspace.slug}),
        "danger": False,
        "form": form.confirmed_on_return(),
    }
    return render(request, "workspaces/confirm.html", context)
