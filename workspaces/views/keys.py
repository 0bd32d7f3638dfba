"""API keys: what programs send telemetry with."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from opsmeter_site.lib import once
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput, NotAllowed, OpsmeterError
from opsmeter_site.lib.formats import ago
from opsmeter_site.lib.forms import add_refusal
from opsmeter_site.lib.toasts import toast_with_undo
from workspaces import services
from workspaces.access import WorkspaceAccess, require_role, role_includes
from workspaces.forms import ExpiryForm, KeyForm, RotationForm
from workspaces.models import ApiKey, Role
from workspaces.pages import workspace_page
from workspaces.selectors import keys_of, may_change_key


@workspace_page()
@never_cache
@require_http_methods(["GET", "POST"])
def keys(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Every key without its secret; members make keys of their own."""
    if request.method == "POST":
        require_role(access, Role.MEMBER)
        return _create(request, access)
    return _page(request, access, KeyForm(_zone(access)))


def _page(request: HttpRequest, access: WorkspaceAccess, form: KeyForm) -> HttpResponse:
    found = keys_of(access.workspace)
    fresh = once.take(request, _fresh_name(access))
    address = request.build_absolute_uri("/").rstrip("/")
    context = {
        "usable": [(key, may_change_key(access, key)) for key in found.usable],
        "revoked": found.revoked,
        "form": form,
        "may_create": role_includes(access.role, Role.MEMBER),
        "fresh": fresh,
        "curl": render_to_string("console/snippets/curl.txt", {"address": address, "api_key": fresh}) if fresh else "",
    }
    return render(request, "workspaces/keys.html", context, status=422 if form.errors else 200)


def _create(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    form = KeyForm(_zone(access), request.POST)
    if not form.is_valid():
        return _page(request, access, form)
    try:
        key, plain = services.create_api_key(
            access.workspace, created_by=access.user, acting_user=access.user, **form.cleaned_data
        )
    except InvalidInput as refusal:
        add_refusal(form, refusal)
        return _page(request, access, form)
    once.keep(request, _fresh_name(access), plain)
    messages.success(request, f"The API key {key.name} is ready.")
    return _back(access)


@workspace_page(Role.MEMBER)
@require_http_methods(["GET", "POST"])
def key_rotate(request: HttpRequest, access: WorkspaceAccess, key_id: int) -> HttpResponse:
    """A new secret for a key, after a second question."""
    key = _key(access, key_id)
    sent = request.POST if request.method == "POST" else None
    form = RotationForm(sent, initial={"lookup": key.lookup})
    if sent is not None and form.is_valid():
        return _rotate(request, access, key, form)
    context = {
        "title": f"Give {key.name} a new secret?",
        "consequences": [
            "The new secret is shown once, on the next page.",
            "Name, creator and figures of the key stay; the old secret stops after the time below.",
            *(["The secret before the last change stops now: a key keeps one old secret."] if key.is_in_grace else []),
        ],
        "confirm_label": "Make a new secret",
        "danger": False,
        "form": form,
    }
    return _ask(request, access, context)


def _rotate(request: HttpRequest, access: WorkspaceAccess, key: ApiKey, form: RotationForm) -> HttpResponse:
    try:
        if form.cleaned_data["lookup"] != key.lookup:
            raise NotAllowed("This key has been given a new secret since you opened that page. Nothing was changed.")
        plain = services.rotate_api_key(key, form.cleaned_data["grace"], acting_user=access.user)
    except OpsmeterError as refusal:
        messages.error(request, refusal.message)
        return _back(access)
    once.keep(request, _fresh_name(access), plain)
    messages.success(request, f"{key.name} has a new secret.")
    return _back(access)


@workspace_page(Role.MEMBER)
@require_http_methods(["GET", "POST"])
def key_expiry(request: HttpRequest, access: WorkspaceAccess, key_id: int) -> HttpResponse:
    """Another end for a key, or none."""
    key = _key(access, key_id)
    sent = request.POST if request.method == "POST" else None
    form = ExpiryForm(_zone(access), sent, initial={"expires_at": key.expires_at})
    if sent is not None and form.is_valid() and _change_expiry(request, access, key, form):
        return _back(access)
    context = {
        "title": f"When should {key.name} stop?",
        "consequences": ["From that moment on, programs that send with it get 401 and their telemetry is not stored."],
        "confirm_label": "Save",
        "danger": False,
        "form": form,
    }
    return _ask(request, access, context)


def _change_expiry(request: HttpRequest, access: WorkspaceAccess, key: ApiKey, form: ExpiryForm) -> bool:
    """Whether that is settled; False leaves errors in the form."""
    before, after = key.expires_at, form.cleaned_data["expires_at"]
    if before == after:
        messages.info(request, "Nothing was different, so nothing was saved.")
        return True
    try:
        services.change_api_key_expiry(key, after, acting_user=access.user)
    except InvalidInput as refusal:
        add_refusal(form, refusal)
        return False
    except NotAllowed as refusal:
        messages.error(request, refusal.message)
        return True
    text = f"{key.name} {_end(after, _zone(access))}."
    if before is None or before > utc_now():
        toast_with_undo(request, text, url=request.path, values={"expires_at": before.isoformat() if before else ""})
    else:
        messages.success(request, text)
    return True


def _end(moment: datetime | None, zone: ZoneInfo) -> str:
    return "never expires" if moment is None else f"expires on {moment.astimezone(zone):%-d %b %Y, %H:%M}"


@workspace_page(Role.MEMBER)
@require_http_methods(["GET", "POST"])
def key_revoke(request: HttpRequest, access: WorkspaceAccess, key_id: int) -> HttpResponse:
    """The end of a key, after a second question."""
    key = _key(access, key_id)
    if request.method == "POST":
        services.revoke_api_key(key, acting_user=access.user)
        messages.success(request, f"{key.name} is revoked.")
        return _back(access)
    used = f"It was last used {ago(key.last_used_at, utc_now())}." if key.last_used_at else "It has never been used."
    context = {
        "title": f"Revoke {key.name}?",
        "consequences": [
            used,
            "Programs that send with it get 401 at once, and their telemetry is not stored. Their calls to providers "
            "go on.",
            "What was sent with it stays. A revoked key cannot be brought back.",
        ],
        "confirm_label": "Revoke the key",
    }
    return _ask(request, access, context)


def _key(access: WorkspaceAccess, key_id: int) -> ApiKey:
    key = get_object_or_404(access.workspace.api_keys, pk=key_id)
    if not may_change_key(access, key):
        raise NotAllowed("Members change the keys that they created; owners and admins change every key.")
    return key


def _ask(request: HttpRequest, access: WorkspaceAccess, context: Mapping[str, Any]) -> HttpResponse:
    form = context.get("form")
    where = {"section": "API keys", "cancel_url": reverse("settings-keys", kwargs={"slug": access.workspace.slug})}
    status = 422 if form is not None and form.errors else 200
    return render(request, "workspaces/confirm.html", {**context, **where}, status=status)


def _back(access: WorkspaceAccess) -> HttpResponse:
    return redirect("settings-keys", slug=access.workspace.slug)


def _fresh_name(access: WorkspaceAccess) -> str:
    return f"settings-keys:{access.workspace.pk}"


def _zone(access: WorkspaceAccess) -> ZoneInfo:
    return ZoneInfo(str(access.workspace.timezone))
