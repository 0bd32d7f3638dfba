"""Channels: where messages go, setting one up, and trying it."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import path, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from alerts import channel_services
from alerts.channel_forms import AddressForm, NewChannelForm, WishesForm, filled_form
from alerts.channel_sets import all_channels
from alerts.delivery_log import DeliveryFilters, log_page
from alerts.models import Action, Attempt, AttemptOutcome, Channel, ChannelKind
from billing.selectors import plan_features
from opsmeter_site.lib import once
from opsmeter_site.lib.errors import InvalidInput, OpsmeterError
from opsmeter_site.lib.forms import add_refusal
from opsmeter_site.lib.toasts import toast_with_undo
from workspaces.access import WorkspaceAccess, require_role, role_includes
from workspaces.models import Role
from workspaces.pages import workspace_page

# Of every kind but e-mail, which is always there: what it is for.
KINDS = {
    ChannelKind.SLACK: "Messages in a channel of Slack, by an incoming webhook.",
    ChannelKind.TEAMS: "Messages in a chat or channel of Microsoft Teams, by a workflow.",
    ChannelKind.PAGERDUTY: "An incident for each alert, resolved when the alert is. Takes no summaries.",
    ChannelKind.WEBHOOK: "JSON to a program of yours, signed by Standard Webhooks.",
}
_SHOWN_MESSAGES = 10


# --- The list, and a new one ----------------------------------------------------------------------------------------


@workspace_page()
@require_GET
def channels(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Every channel, with its state and how it fared."""
    found = all_channels(access.workspace.pk)
    plan = plan_features(access.workspace.pk)
    context = {
        "channels": found,
        "plan": plan,
        "has_unused": not plan.has_integrations and len(found) > 1,
        "may_change": _may_change(access),
    }
    return render(request, "alerts/channels.html", context)


@workspace_page(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def channel_new(request: HttpRequest, access: WorkspaceAccess, kind: str = "") -> HttpResponse:
    """First the kind, then where it goes."""
    context: dict[str, Any] = {"kinds": KINDS.items(), "plan": plan_features(access.workspace.pk)}
    if not kind:
        return render(request, "alerts/channel_kinds.html", context)
    if kind not in KINDS:
        raise Http404("There is no such kind of channel.")
    chosen = ChannelKind(kind)
    form = NewChannelForm(request.POST or None, kind=chosen)
    if request.method == "POST" and form.is_valid():
        answer = _create(request, access, chosen, form)
        if answer:
            return answer
    context |= {"kind": chosen, "form": form, "steps": f"alerts/channel_steps_{chosen}.html"}
    return render(request, "alerts/channel_new.html", context, status=422 if form.errors else 200)


def _create(
    request: HttpRequest, access: WorkspaceAccess, kind: ChannelKind, form: NewChannelForm
) -> HttpResponse | None:
    """The answer; None leaves errors in the form."""
    try:
        channel, secret = channel_services.create_channel(
            access.workspace, kind, form.wishes, form.typed, acting_user=access.user
        )
    except OpsmeterError as refusal:
        add_refusal(form, refusal)
        return None
    if secret:
        once.keep(request, _secret_name(channel), secret)
    messages.success(request, f"The channel {channel.name} is set up. Send a test message to see that it works.")
    return _back(channel, access)


# --- One of them ----------------------------------------------------------------------------------------------------


@workspace_page()
@never_cache
@require_http_methods(["GET", "POST"])
def channel(request: HttpRequest, access: WorkspaceAccess, channel_id: UUID) -> HttpResponse:
    """GET shows a channel to everyone; POST changes it, for admins and owners."""
    stored = _channel(access, channel_id)
    if request.method == "POST":
        require_role(access, Role.ADMIN)
        return _update(request, access, stored)
    return _page(request, access, stored, filled_form(stored))


def _update(request: HttpRequest, access: WorkspaceAccess, stored: Channel) -> HttpResponse:
    form = WishesForm(request.POST, kind=ChannelKind(stored.kind))
    if not form.is_valid():
        return _page(request, access, stored, form)
    try:
        changed = channel_services.update_channel(stored, form.wishes, acting_user=access.user)
    except InvalidInput as refusal:
        add_refusal(form, refusal)
        return _page(request, access, stored, form)
    messages.success(request, f"{changed.name} is saved.")
    return _back(stored, access)


def _page(request: HttpRequest, access: WorkspaceAccess, stored: Channel, form: WishesForm) -> HttpResponse:
    plan = plan_features(access.workspace.pk)
    last_test = Attempt.objects.filter(delivery__channel=stored, delivery__action=Action.TEST).order_by("-started_at")
    context = {
        "channel": stored,
        "form": form,
        "is_mail": stored.kind == ChannelKind.EMAIL,
        "is_webhook": stored.kind == ChannelKind.WEBHOOK,
        "is_unused": stored.kind != ChannelKind.EMAIL and not plan.has_integrations,
        "plan": plan,
        "fresh": once.take(request, _secret_name(stored)) if _may_change(access) else None,
        "last_test": last_test.select_related("delivery__requested_by").first(),
        "lines": log_page(access, DeliveryFilters(channel_id=stored.pk)).lines[:_SHOWN_MESSAGES],
        "may_change": _may_change(access),
    }
    return render(request, "alerts/channel.html", context, status=422 if form.errors else 200)


@workspace_page(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def channel_address(request: HttpRequest, access: WorkspaceAccess, channel_id: UUID) -> HttpResponse:
    """Another place to send to."""
    stored = _channel(access, channel_id)
    if stored.kind == ChannelKind.EMAIL:
        return redirect("settings-recipients", access.workspace.slug)
    kind = ChannelKind(stored.kind)
    form = AddressForm(request.POST or None, kind=kind)
    if request.method == "POST" and form.is_valid():
        try:
            channel_services.replace_address(stored, form.typed, acting_user=access.user)
        except OpsmeterError as refusal:
            add_refusal(form, refusal)
        else:
            messages.success(request, f"{stored.name} has another address. Send a test message to see that it works.")
            return _back(stored, access)
    context = {"channel": stored, "kind": kind, "form": form, "steps": f"alerts/channel_steps_{kind}.html"}
    return render(request, "alerts/channel_new.html", context, status=422 if form.errors else 200)


@workspace_page(Role.ADMIN)
@require_POST
def channel_test(request: HttpRequest, access: WorkspaceAccess, channel_id: UUID) -> HttpResponse:
    """Send a message now; the channel's page shows what was answered."""
    stored = _channel(access, channel_id)
    try:
        answer = channel_services.send_test(stored, access.user)
    except OpsmeterError as refusal:
        messages.error(request, refusal.message)
        return _back(stored, access)
    if answer.outcome == AttemptOutcome.SENT:
        messages.success(request, "The test message was accepted.")
    else:
        messages.error(request, "The test message was not accepted. What was answered is shown below.")
    return _back(stored, access)


@workspace_page(Role.ADMIN)
@require_POST
def channel_pause(request: HttpRequest, access: WorkspaceAccess, channel_id: UUID) -> HttpResponse:
    """Send nothing there for now."""
    stored = _channel(access, channel_id)
    if _done(request, lambda: channel_services.pause(stored, acting_user=access.user)):
        text = f"{stored.name} is paused. Nothing is sent there until it is resumed."
        toast_with_undo(request, text, url=_address("settings-channel-resume", stored, access), values={})
    return _back(stored, access)


@workspace_page(Role.ADMIN)
@require_POST
def channel_resume(request: HttpRequest, access: WorkspaceAccess, channel_id: UUID) -> HttpResponse:
    """Send there again."""
    stored = _channel(access, channel_id)
    if _done(request, lambda: channel_services.resume(stored, acting_user=access.user)):
        messages.success(request, f"{stored.name} takes messages again.")
    return _back(stored, access)


@workspace_page(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def channel_rotate(request: HttpRequest, access: WorkspaceAccess, channel_id: UUID) -> HttpResponse:
    """A webhook's new signing secret, after a second question."""
    stored = get_object_or_404(access.workspace.channels, pk=channel_id, kind=ChannelKind.WEBHOOK)
    if request.method == "GET":
        consequences = [
            "The new secret is shown once, on the next page.",
            "For 24 hours every message carries two signatures, one of each secret, so that you can change over at "
            "your own pace. A secret from before the old one stops at once.",
        ]
        return _ask(request, access, stored, "Give {} a new signing secret?", consequences, "Make a new secret")
    try:
        secret = channel_services.rotate_secret(stored, acting_user=access.user)
    except OpsmeterError as refusal:
        messages.error(request, refusal.message)
    else:
        once.keep(request, _secret_name(stored), secret)
        messages.success(request, f"{stored.name} has a new signing secret.")
    return _back(stored, access)


@workspace_page(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def channel_delete(request: HttpRequest, access: WorkspaceAccess, channel_id: UUID) -> HttpResponse:
    """Remove a channel, after a second question."""
    stored = _channel(access, channel_id)
    if request.method == "GET":
        consequences = [
            "Messages that wait for it are cancelled, and nothing is sent there any more.",
            "What was sent stays in the log. The channel cannot be brought back, only set up again.",
        ]
        return _ask(request, access, stored, "Delete {}?", consequences, "Delete the channel", danger=True)
    if not _done(request, lambda: channel_services.delete_channel(stored, acting_user=access.user)):
        return _back(stored, access)
    messages.success(request, f"{stored.name} is deleted.")
    return redirect("settings-channels", access.workspace.slug)


# --- What all share -------------------------------------------------------------------------------------------------


def _channel(access: WorkspaceAccess, channel_id: UUID) -> Channel:
    return get_object_or_404(access.workspace.channels.select_related("workspace", "created_by"), pk=channel_id)


def _may_change(access: WorkspaceAccess) -> bool:
    return role_includes(access.role, Role.ADMIN)


def _done(request: HttpRequest, change: Callable[[], None]) -> bool:
    """Whether `change` was made; a refusal is told."""
    try:
        change()
    except OpsmeterError as refusal:
        messages.error(request, refusal.message)
        return False
    return True


def _ask(
    request: HttpRequest,
    access: WorkspaceAccess,
    stored: Channel,
    title: str,
    consequences: list[str],
    confirm_label: str,
    *,
    danger: bool = False,
) -> HttpResponse:
    context = {
        "title": title.format(stored.name),
        "consequences": consequences,
        "confirm_label": confirm_label,
        "danger": danger,
        "section": "Channels",
        "cancel_url": _address("settings-channel", stored, access),
    }
    return render(request, "workspaces/confirm.html", context)


def _address(name: str, stored: Channel, access: WorkspaceAccess) -> str:
    return reverse(name, args=[access.workspace.slug, stored.pk])


def _back(stored: Channel, access: WorkspaceAccess) -> HttpResponse:
    return redirect(_address("settings-channel", stored, access))


def _secret_name(stored: Channel) -> str:
    return f"settings-channel:{stored.pk}"


page_urlpatterns = [
    path("settings/channels/", channels, name="settings-channels"),
    path("settings/channels/new/", channel_new, name="settings-channel-new"),
    path("settings/channels/new/<str:kind>/", channel_new, name="settings-channel-new"),
    path("settings/channels/<uuid:channel_id>/", channel, name="settings-channel"),
    path("settings/channels/<uuid:channel_id>/address/", channel_address, name="settings-channel-address"),
    path("settings/channels/<uuid:channel_id>/test/", channel_test, name="settings-channel-test"),
    path("settings/channels/<uuid:channel_id>/pause/", channel_pause, name="settings-channel-pause"),
    path("settings/channels/<uuid:channel_id>/resume/", channel_resume, name="settings-channel-resume"),
    path("settings/channels/<uuid:channel_id>/rotate/", channel_rotate, name="settings-channel-rotate"),
    path("settings/channels/<uuid:channel_id>/delete/", channel_delete, name="settings-channel-delete"),
]
