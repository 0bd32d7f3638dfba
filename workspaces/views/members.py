"""Who is in the workspace, as what, and who is asked to come."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from opsmeter_site.lib.errors import InvalidInput, NotAllowed, OpsmeterError
from opsmeter_site.lib.forms import add_refusal
from opsmeter_site.lib.toasts import toast_with_undo
from workspaces import invitations, selectors, services
from workspaces.access import WorkspaceAccess, require_role
from workspaces.audit_words import name_of
from workspaces.forms import InvitationForm, RoleForm
from workspaces.mail import send_invitation
from workspaces.models import Invitation, Membership, Role
from workspaces.pages import workspace_page
from workspaces.roles import grantable_roles


@workspace_page()
@require_http_methods(["GET", "POST"])
def members(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Everybody in the workspace; owners and admins invite."""
    if request.method == "POST":
        require_role(access, Role.ADMIN)
        return _invite(request, access)
    return _page(request, access, InvitationForm(grantable_roles(access.role)))


def _page(request: HttpRequest, access: WorkspaceAccess, form: InvitationForm) -> HttpResponse:
    workspace, roles = access.workspace, grantable_roles(access.role)
    places = invitations.places_of(workspace)
    context = {
        "members": selectors.members_of(workspace),
        "roles": roles,
        "places": places,
        "form": form,
    }
    if roles:
        context |= {
            "with_second_factor": selectors.people_with_second_factor(workspace),
            "invitations": selectors.open_invitations(workspace),
            "full_text": invitations.full_text(places) if places.is_full else "",
        }
    return render(request, "workspaces/members.html", context, status=422 if form.errors else 200)


def _back(access: WorkspaceAccess) -> HttpResponse:
    return redirect("settings-members", slug=access.workspace.slug)


# --- Roles ------------------------------------------------------------------------------------------------------------


@workspace_page(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def member_role(request: HttpRequest, access: WorkspaceAccess, member_id: int) -> HttpResponse:
    """Another role for a member. On the list for others, on a page of its own for oneself: there is no way back."""
    member = _member(request, access, member_id)
    if member is None:
        return _back(access)
    roles = grantable_roles(access.role)
    sent = request.POST if request.method == "POST" else None
    form = RoleForm(roles, sent, initial={"role": member.role, "was": member.role})
    if sent is not None and form.is_valid():
        return _change_role(request, access, member, form)
    context = {
        "title": "Change your role" if _is_self(member, access) else f"Change the role of {name_of(member.user)}",
        "consequences": [
            "It holds at once, also for access tokens.",
            *(["You cannot give the old role back to yourself."] if _is_self(member, access) else []),
        ],
        "confirm_label": "Change role",
        "section": "Members",
        "cancel_url": _members_url(access),
        "danger": False,
        "form": form,
    }
    return render(request, "workspaces/confirm.html", context, status=422 if form.errors else 200)


def _change_role(request: HttpRequest, access: WorkspaceAccess, member: Membership, form: RoleForm) -> HttpResponse:
    role, was = form.cleaned_data["role"], form.cleaned_data["was"]
    if role == member.role:
        messages.info(request, f"{_who(member, access)}: {member.get_role_display().lower()}, as before.")
        return _back(access)
    try:
        stored = services.change_role(access.workspace, member.user, role, expected=was, acting_user=access.user)
    except OpsmeterError as refusal:
        messages.error(request, refusal.message)
        return _back(access)
    text = f"{_who(stored, access)}: {Role(was).label.lower()} before, {stored.get_role_display().lower()} now."
    if _is_self(member, access):
        messages.success(request, text)
    else:
        toast_with_undo(request, text, url=request.path, values={"role": was, "was": role})
    return _back(access)


# --- Leaving ----------------------------------------------------------------------------------------------------------


@workspace_page(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def member_remove(request: HttpRequest, access: WorkspaceAccess, member_id: int) -> HttpResponse:
    """End somebody's membership, after a second question."""
    member = _member(request, access, member_id)
    if member is None:
        return _back(access)
    if _is_self(member, access):
        return redirect("settings-leave", slug=access.workspace.slug)
    name = name_of(member.user)
    if request.method == "POST":
        try:
            services.remove_member(access.workspace, member.user, expected=member.role, acting_user=access.user)
        except OpsmeterError as refusal:
            messages.error(request, refusal.message)
        else:
            messages.success(request, f"{name} is no longer a member.")
        return _back(access)
    context = {
        "title": f"Remove {name}?",
        "consequences": [f"{name} ({member.user.email}) loses access at once.", *_losses(member, "Their")],
        "confirm_label": "Remove",
        "section": "Members",
        "cancel_url": _members_url(access),
    }
    return render(request, "workspaces/confirm.html", context)


@workspace_page()
@require_http_methods(["GET", "POST"])
def leave(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """End one's own membership, after a second question."""
    workspace = access.workspace
    if request.method == "POST":
        try:
            services.remove_member(workspace, access.user, acting_user=access.user)
        except NotAllowed as refusal:
            messages.error(request, refusal.message)
            return _back(access)
        messages.success(request, f"You have left {workspace.name}.")
        return redirect("home")
    member = workspace.memberships.get(user=access.user)
    context = {
        "title": f"Leave {workspace.name}?",
        "consequences": [
            "You lose access at once. To come back, you need an invitation.",
            *_losses(member, "Your"),
        ],
        "confirm_label": "Leave the workspace",
        "section": "General",
        "cancel_url": reverse("settings-general", kwargs={"slug": workspace.slug}),
    }
    return render(request, "workspaces/confirm.html", context)


def _losses(member: Membership, whose: str) -> list[str]:
    here = {"workspace": member.workspace_id, "revoked_at": None}
    access_tokens = member.user.access_tokens.filter(**here).count()
    keys = member.user.api_keys.filter(**here).count()
    losses = [f"{whose} open invitations to others end."]
    if access_tokens:
        losses.append(f"{whose} access tokens for this workspace are revoked: {access_tokens}.")
    if keys:
        losses.append(f"{whose} API keys belong to the workspace and go on working: {keys}. Revoke what should stop.")
    return losses


def _member(request: HttpRequest, access: WorkspaceAccess, member_id: int) -> Membership | None:
    """The member; or a message why not: somebody else may just have removed them or made them an owner."""
    found = access.workspace.memberships.select_related("user").filter(pk=member_id).first()
    if found is None:
        messages.warning(request, "This person is not a member any more. Nothing was changed.")
        return None
    if found.role not in grantable_roles(access.role):
        messages.error(request, "Only an owner can change or remove an owner.")
        return None
    return found


def _is_self(member: Membership, access: WorkspaceAccess) -> bool:
    return member.user_id == access.user.pk


def _who(member: Membership, access: WorkspaceAccess) -> str:
    return "You" if _is_self(member, access) else name_of(member.user)


def _members_url(access: WorkspaceAccess) -> str:
    return reverse("settings-members", kwargs={"slug": access.workspace.slug})


# --- Invitations ------------------------------------------------------------------------------------------------------


def _invite(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    form = InvitationForm(grantable_roles(access.role), request.POST)
    if not form.is_valid():
        return _page(request, access, form)
    try:
        invitation, token = invitations.invite_member(access.workspace, acting_user=access.user, **form.cleaned_data)
    except InvalidInput as refusal:
        add_refusal(form, refusal)
        return _page(request, access, form)
    _mail(request, invitation, token)
    return _back(access)


@workspace_page(Role.ADMIN)
@require_POST
def invitation_resend(request: HttpRequest, access: WorkspaceAccess, invitation_id: int) -> HttpResponse:
    """Mail an invitation again, with a new link."""
    invitation = get_object_or_404(access.workspace.invitations, pk=invitation_id)
    try:
        _require_grantable(access, invitation)
        invitation, token = invitations.resend_invitation(invitation, acting_user=access.user)
    except OpsmeterError as refusal:
        messages.error(request, refusal.message)
    else:
        _mail(request, invitation, token)
    return _back(access)


@workspace_page(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def invitation_revoke(request: HttpRequest, access: WorkspaceAccess, invitation_id: int) -> HttpResponse:
    """End an invitation, after a second question."""
    invitation = get_object_or_404(access.workspace.invitations, pk=invitation_id)
    if request.method == "POST":
        try:
            _require_grantable(access, invitation)
        except NotAllowed as refusal:
            messages.error(request, refusal.message)
        else:
            invitations.revoke_invitation(invitation, acting_user=access.user)
            messages.success(request, f"The invitation of {invitation.email} opens nothing any more.")
        return _back(access)
    context = {
        "title": f"Revoke the invitation of {invitation.email}?",
        "consequences": ["The link in the mail stops working. You can invite the same address again."],
        "confirm_label": "Revoke",
        "section": "Members",
        "cancel_url": _members_url(access),
    }
    return render(request, "workspaces/confirm.html", context)


def _require_grantable(access: WorkspaceAccess, invitation: Invitation) -> None:
    if invitation.role not in grantable_roles(access.role):
        raise NotAllowed("Only an owner can handle an owner's invitation.")


def _mail(request: HttpRequest, invitation: Invitation, token: str) -> None:
    address = request.build_absolute_uri(reverse("invitation", kwargs={"token": token}))
    if send_invitation(invitation, address):
        messages.success(request, f"Invited {invitation.email}. The link in the mail works for 7 days.")
        return
    messages.error(
        request,
        f"The invitation of {invitation.email} is stored, but the mail could not be sent. Send it again in a minute.",
    )
