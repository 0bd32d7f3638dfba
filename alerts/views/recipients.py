"""Who gets mail: roles, named addresses, opt-outs, and what the reader gets."""

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import path, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from alerts import recipient_services, recipients, settings_services, unsubscribing
from alerts.models import MailTopic, Recipient
from alerts.recipient_forms import RecipientForm, RolesForm
from billing.selectors import plan_features
from opsmeter_site.lib.errors import InvalidInput, OpsmeterError
from opsmeter_site.lib.forms import add_refusal
from opsmeter_site.lib.toasts import toast_with_undo
from workspaces.access import WorkspaceAccess, require_role
from workspaces.models import Role
from workspaces.pages import workspace_page


@workspace_page()
@require_http_methods(["GET", "POST"])
def settings_recipients(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Everybody who gets mail; admins add a named address."""
    if request.method == "POST":
        require_role(access, Role.ADMIN)
        return _add(request, access)
    return _page(request, access, RecipientForm())


def _page(request: HttpRequest, access: WorkspaceAccess, form: RecipientForm) -> HttpResponse:
    workspace = access.workspace
    roles = recipients.recipient_roles(workspace.pk)
    context = {
        "form": form,
        "roles_form": RolesForm(initial={"roles": roles}),
        "role_labels": [role.label for role in Role if role in roles],
        "readers": recipients.readers_for(access),
        "topics": MailTopic,
        "own": recipients.topics_of(workspace, access.user),
        "is_recipient": recipients.is_recipient(workspace, access.user),
        "plan": plan_features(workspace.pk),
        "most": recipient_services.MOST_ADDRESSES,
    }
    return render(request, "alerts/recipients.html", context, status=422 if form.errors else 200)


def _back(access: WorkspaceAccess) -> HttpResponse:
    return redirect("settings-recipients", slug=access.workspace.slug)


# --- Roles ------------------------------------------------------------------------------------------------------------


@workspace_page(Role.ADMIN)
@require_POST
def recipient_roles(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Choose the roles whose members get mail."""
    form = RolesForm(request.POST)
    if not form.is_valid():
        messages.error(request, "There is no such role. Nothing was changed.")
        return _back(access)
    before = recipients.recipient_roles(access.workspace.pk)
    wanted = form.cleaned_data["roles"]
    try:
        settings_services.update_alert_settings(access.workspace, acting_user=access.user, recipient_roles=wanted)
    except OpsmeterError as refusal:
        messages.error(request, refusal.message)
    else:
        toast_with_undo(request, "The roles that get mail were saved.", url=request.path, values={"roles": before})
    return _back(access)


# --- Named addresses --------------------------------------------------------------------------------------------------


def _add(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    form = RecipientForm(request.POST)
    if not form.is_valid():
        return _page(request, access, form)
    try:
        added = recipient_services.add_recipient(access.workspace, form.cleaned_data["email"], acting_user=access.user)
    except InvalidInput as refusal:
        add_refusal(form, refusal)
        return _page(request, access, form)
    _ask(request, access, added)
    return _back(access)


@workspace_page(Role.ADMIN)
@require_POST
def recipient_resend(request: HttpRequest, access: WorkspaceAccess, recipient_id: int) -> HttpResponse:
    """Ask a named address once more."""
    named = get_object_or_404(access.workspace.recipients, pk=recipient_id)
    try:
        asked = recipient_services.ask_again(named, acting_user=access.user)
    except OpsmeterError as refusal:
        messages.error(request, refusal.message)
    else:
        _ask(request, access, asked)
    return _back(access)


def _ask(request: HttpRequest, access: WorkspaceAccess, named: Recipient) -> None:
    if recipient_services.ask_to_confirm(named, asked_by=access.user):
        messages.success(request, f"{named.email} was asked by mail. It gets nothing until its reader confirms.")
    else:
        messages.error(request, f"{named.email} is listed, but the mail could not be sent. Ask again in a few minutes.")


@workspace_page(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def recipient_remove(request: HttpRequest, access: WorkspaceAccess, recipient_id: int) -> HttpResponse:
    """Send an address nothing more, after a second question."""
    named = get_object_or_404(access.workspace.recipients, pk=recipient_id)
    if request.method == "POST":
        recipient_services.remove_recipient(named, acting_user=access.user)
        messages.success(request, f"{named.email} gets no more mail.")
        return _back(access)
    context = {
        "title": f"Remove {named.email}?",
        "consequences": [
            "It gets no more alerts and summaries; what waits to be sent to it is not sent.",
            "To get mail again, it has to be added and confirm anew.",
        ],
        "confirm_label": "Remove",
        "section": "Recipients",
        "cancel_url": reverse("settings-recipients", args=[access.workspace.slug]),
    }
    return render(request, "workspaces/confirm.html", context)


@login_not_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def recipient_confirm(request: HttpRequest, token: str) -> HttpResponse:
    """What the link in the question's mail opens. Only the button confirms, because scanners open links."""
    named = recipient_services.recipient_for_token(token)
    if named is None:
        return render(request, "alerts/recipients_confirm_unknown.html", status=404)
    if request.method == "POST":
        recipient_services.confirm(named)
        return redirect("recipient-confirm", token=token)
    return render(request, "alerts/recipients_confirm.html", {"recipient": named})


# --- Opt-outs ---------------------------------------------------------------------------------------------------------


@workspace_page(Role.ADMIN)
@require_POST
def recipient_lift(request: HttpRequest, access: WorkspaceAccess, opt_out_id: int) -> HttpResponse:
    """Try an address again that its mail server refused."""
    opt_out = get_object_or_404(access.workspace.mail_opt_outs, pk=opt_out_id)
    try:
        recipient_services.lift(opt_out, acting_user=access.user)
    except OpsmeterError as refusal:
        messages.error(request, refusal.message)
    else:
        messages.success(request, f"{opt_out.get_topic_display()} are sent to {opt_out.email} again.")
    return _back(access)


@workspace_page()
@require_POST
def recipients_mine(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """End, or take up again, mail of one topic to one's own address."""
    topic, wish = request.POST.get("topic", ""), request.POST.get("wish", "")
    if topic not in MailTopic.values or wish not in {"on", "off"}:
        messages.error(request, "Nothing was changed.")
        return _back(access)
    mine = unsubscribing.Subscription(access.workspace, access.user.email, MailTopic(topic))
    if wish == "off":
        unsubscribing.unsubscribe(mine, acting_user=access.user)
        text, undo = f"You get no more {mine.topic.label.lower()} by e-mail.", "on"
    else:
        unsubscribing.subscribe_again(mine, acting_user=access.user)
        text, undo = f"You get {mine.topic.label.lower()} by e-mail again.", "off"
    toast_with_undo(request, text, url=request.path, values={"topic": topic, "wish": undo})
    return _back(access)


page_urlpatterns = [
    path("settings/recipients/", settings_recipients, name="settings-recipients"),
    path("settings/recipients/roles/", recipient_roles, name="settings-recipient-roles"),
    path("settings/recipients/mine/", recipients_mine, name="settings-recipients-mine"),
    path("settings/recipients/<int:recipient_id>/ask/", recipient_resend, name="settings-recipient-ask"),
    path("settings/recipients/<int:recipient_id>/remove/", recipient_remove, name="settings-recipient-remove"),
    path("settings/recipients/opt-outs/<int:opt_out_id>/lift/", recipient_lift, name="settings-recipient-lift"),
]
site_urlpatterns = [path("mail/confirm/<str:token>/", recipient_confirm, name="recipient-confirm")]
