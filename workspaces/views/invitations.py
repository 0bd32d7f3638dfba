"""What the link in an invitation's mail opens, signed in or not."""

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from opsmeter_site.lib.errors import NotAllowed
from workspaces.invitations import PENDING_INVITATION, accept_invitation, invitation_for_token, is_meant_for
from workspaces.models import Invitation, User


@login_not_required
@never_cache
@require_http_methods(["GET", "POST"])
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    """Says who invites to what, and takes yes for an answer from the invited person."""
    found = invitation_for_token(token)
    if found is None:
        return render(request, "workspaces/invitation_gone.html", {"reason": "unknown"}, status=404)
    person = request.user
    if not isinstance(person, User):
        return _to_sign_in(request, found, token)
    request.session.pop(PENDING_INVITATION, None)
    if found.workspace.memberships.filter(user=person).exists():
        return _to_workspace(request, found, f"You are a member of {found.workspace.name}.")
    if not found.is_open:
        return _gone(request, found)
    if not is_meant_for(found, person):
        return render(request, "workspaces/invitation.html", {"invitation": found, "state": "other_person"})
    if request.method == "POST":
        return _accept(request, found, person)
    return render(request, "workspaces/invitation.html", {"invitation": found, "state": "ready"})


def _to_sign_in(request: HttpRequest, found: Invitation, token: str) -> HttpResponse:
    if not found.is_open:
        return _gone(request, found)
    if request.method == "POST":
        return redirect("invitation", token=token)
    request.session[PENDING_INVITATION] = token
    return render(request, "workspaces/invitation.html", {"invitation": found, "state": "signed_out"})


def _accept(request: HttpRequest, found: Invitation, person: User) -> HttpResponse:
    try:
        accept_invitation(found, acting_user=person)
    except NotAllowed as refusal:
        # Revoked, or the last place taken, since the page was opened.
        context = {"invitation": found, "state": "ready", "refusal": refusal.message}
        return render(request, "workspaces/invitation.html", context, status=409)
    return _to_workspace(request, found, f"Welcome to {found.workspace.name}.")


def _to_workspace(request: HttpRequest, found: Invitation, text: str) -> HttpResponse:
    messages.success(request, text)
    return redirect("overview", slug=found.workspace.slug)


def _gone(request: HttpRequest, found: Invitation) -> HttpResponse:
    reason = "used" if found.accepted_at else "revoked" if found.revoked_at else "expired"
    return render(request, "workspaces/invitation_gone.html", {"invitation": found, "reason": reason})
