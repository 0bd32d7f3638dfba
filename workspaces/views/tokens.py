"""Personal access tokens: what scripts of a person read and change with."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from opsmeter_site.lib import once
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput
from opsmeter_site.lib.formats import ago
from opsmeter_site.lib.forms import add_refusal
from workspaces import selectors, services
from workspaces.access import WorkspaceAccess, require_role, role_includes
from workspaces.forms import TokenForm
from workspaces.models import Role
from workspaces.pages import workspace_page


@workspace_page()
@never_cache
@require_http_methods(["GET", "POST"])
def tokens(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """One's own tokens; owners and admins see everybody's."""
    if request.method == "POST":
        return _create(request, access)
    return _page(request, access, TokenForm())


def _page(request: HttpRequest, access: WorkspaceAccess, form: TokenForm) -> HttpResponse:
    sees_all = role_includes(access.role, Role.ADMIN)
    context = {
        "own": selectors.tokens_of(access.workspace, access.user),
        "others": selectors.tokens_of_others(access.workspace, access.user) if sees_all else [],
        "form": form,
        "fresh": once.take(request, _fresh_name(access)),
        "address": request.build_absolute_uri("/").rstrip("/"),
    }
    return render(request, "workspaces/tokens.html", context, status=422 if form.errors else 200)


def _create(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _page(request, access, form)
    if selectors.has_live_token(access.workspace, access.user, form.cleaned_data["name"]):
        form.add_error("name", "Another token of yours has this name.")
        return _page(request, access, form)
    try:
        token, plain = services.create_access_token(
            user=access.user,
            workspace=access.workspace,
            name=form.cleaned_data["name"],
            scopes=form.cleaned_data["scopes"],
            expires_at=form.expires_at(),
            acting_user=access.user,
        )
    except InvalidInput as refusal:
        add_refusal(form, refusal)
        return _page(request, access, form)
    once.keep(request, _fresh_name(access), plain)
    messages.success(request, f"The access token {token.name} is ready.")
    return _back(access)


@workspace_page()
@require_http_methods(["GET", "POST"])
def token_revoke(request: HttpRequest, access: WorkspaceAccess, token_id: int) -> HttpResponse:
    """The end of a token, after a second question; of somebody else's for owners and admins only."""
    token = get_object_or_404(access.workspace.access_tokens.select_related("user"), pk=token_id)
    is_own = token.user_id == access.user.pk
    if not is_own:
        require_role(access, Role.ADMIN)
    if request.method == "POST":
        services.revoke_access_token(token, acting_user=access.user)
        messages.success(request, f"{token.name} is revoked.")
        return _back(access)
    used = f"It was last used {ago(token.last_used_at, utc_now())}." if token.last_used_at else "It was never used."
    context = {
        "title": f"Revoke {token.name}?",
        "consequences": [
            *([] if is_own else [f"It belongs to {token.user.email}."]),
            used,
            "Scripts that use it get 401 at once. A revoked token cannot be brought back.",
        ],
        "confirm_label": "Revoke the token",
        "section": "Access tokens",
        "cancel_url": reverse("settings-tokens", kwargs={"slug": access.workspace.slug}),
    }
    return render(request, "workspaces/confirm.html", context)


def _back(access: WorkspaceAccess) -> HttpResponse:
    return redirect("settings-tokens", slug=access.workspace.slug)


def _fresh_name(access: WorkspaceAccess) -> str:
    return f"settings-tokens:{access.workspace.pk}"
