"""Inviting people by e-mail. The link in the mail is the proof of the address, so only the mail carries its token.

Who may invite to which role is decided by the caller through `workspaces.roles`. Places are counted while the
workspace's row is locked, so that parallel invitations and acceptances never exceed the plan's number.
"""

from dataclasses import dataclass
from datetime import timedelta

from allauth.account.models import EmailAddress
from django.db import transaction
from django.db.models import QuerySet

from opsmeter_site.lib import tokens
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError, InvalidInput, NotAllowed
from workspaces.inputs import clean_email, clean_role
from workspaces.models import AuditEntry, Invitation, Membership, User, Workspace
from workspaces.services import locked_workspace, record_audit

INVITATION_PREFIX = "om_inv"
# The session key of a token that waits for its person to sign in or up, and to be led back to the link.
PENDING_INVITATION = "pending_invitation"
VALID_FOR = timedelta(days=7)
RESEND_AFTER = timedelta(minutes=1)
MAILS_A_DAY = 100
_MAILED = ("invitation.sent", "invitation.sent_again")


@dataclass(frozen=True, slots=True)
class Places:
    """How many people a workspace may have (None: any number) and how many places are taken."""

    limit: int | None
    members: int
    invited: int

    @property
    def is_full(self) -> bool:
        """Whether nobody else can be invited."""
        return self.limit is not None and self.members + self.invited >= self.limit


def places_of(workspace: Workspace) -> Places:
    """The workspace's places; an invitation holds one until it is accepted, revoked or expired."""
    return Places(
        limit=workspace.member_limit,
        members=workspace.memberships.count(),
        invited=_open(workspace).filter(expires_at__gt=utc_now()).count(),
    )


def invitation_for_token(token: str) -> Invitation | None:
    """The invitation whose latest link carries `token`, also one that is expired, revoked or used; None if unknown."""
    found = Invitation.objects.select_related("workspace", "invited_by")
    return found.filter(digest=tokens.digest_of(token)).first()


def is_meant_for(invitation: Invitation, user: User) -> bool:
    """Whether the invited address is one of the person's own."""
    if user.email == invitation.email:
        return True
    addresses = EmailAddress.objects.filter(user=user, verified=True)
    return bool(addresses.filter(email__iexact=invitation.email).exists())


@transaction.atomic
def invite_member(workspace: Workspace, *, email: str, role: str, acting_user: User) -> tuple[Invitation, str]:
    """Store an invitation and return it with the token for its mail, which exists nowhere else.

    Raises `InvalidInput` for a bad `email` or `role`, for a member, for somebody who is invited already, and when the
    plan's places or the day's mails are used up.
    """
    email, role = clean_email(email), clean_role(role)
    stored = locked_workspace(workspace)
    if Membership.objects.filter(workspace=stored, user__email=email).exists():
        raise _refusal("email", "This person is a member already.")
    earlier = _open(stored).filter(email=email).first()
    if earlier is not None:
        if not earlier.is_expired:
            raise _refusal("email", "This person has an invitation already. You can send it again or revoke it below.")
        earlier.revoked_at = utc_now()
        earlier.save(update_fields=["revoked_at"])
    _require_free_place(stored)
    _require_mails_left(stored)
    token, now = tokens.new_token(INVITATION_PREFIX), utc_now()
    invitation = Invitation.objects.create(
        workspace=stored,
        email=email,
        role=role,
        digest=token.digest,
        invited_by=acting_user,
        created_at=now,
        sent_at=now,
        expires_at=now + VALID_FOR,
    )
    _record("invitation.sent", invitation, acting_user)
    return invitation, token.plain


@transaction.atomic
def resend_invitation(invitation: Invitation, *, acting_user: User) -> tuple[Invitation, str]:
    """Give an invitation a new token and another seven days; links that were mailed before stop working.

    Raises `NotAllowed` for one that was accepted or revoked, within a minute of the last mail, and when the plan's
    places or the day's mails are used up.
    """
    workspace = locked_workspace(invitation.workspace)
    stored = Invitation.objects.select_for_update().get(pk=invitation.pk)
    if stored.accepted_at is not None or stored.revoked_at is not None:
        raise NotAllowed("This invitation is no longer open.")
    now = utc_now()
    if stored.sent_at > now - RESEND_AFTER:
        raise NotAllowed("This invitation has just been sent. Wait a minute before you send it again.")
    if stored.is_expired:
        _require_free_place(workspace)
    _require_mails_left(workspace)
    token = tokens.new_token(INVITATION_PREFIX)
    stored.digest, stored.sent_at, stored.expires_at = token.digest, now, now + VALID_FOR
    stored.save(update_fields=["digest", "sent_at", "expires_at"])
    _record("invitation.sent_again", stored, acting_user)
    return stored, token.plain


@transaction.atomic
def revoke_invitation(invitation: Invitation, *, acting_user: User | None) -> None:
    """Let an invitation's link open nothing from now on. Does nothing to one that was accepted or revoked before."""
    still_open = Invitation.objects.filter(pk=invitation.pk, accepted_at=None, revoked_at=None)
    if still_open.update(revoked_at=utc_now()):
        _record("invitation.revoked", invitation, acting_user)


@transaction.atomic
def accept_invitation(invitation: Invitation, *, acting_user: User) -> Membership:
    """Make `acting_user` a member in the offered role. Somebody who is a member already stays what they are.

    Raises `NotAllowed` for other people, for an invitation that is not open, and when the plan's places are used up.
    """
    workspace = locked_workspace(invitation.workspace)
    stored = Invitation.objects.select_for_update().get(pk=invitation.pk)
    if not is_meant_for(stored, acting_user):
        raise NotAllowed("This invitation is for somebody else.")
    membership = Membership.objects.filter(workspace=workspace, user=acting_user).first()
    if membership is not None:
        if stored.is_open:
            _close(stored)
        return membership
    if not stored.is_open:
        raise NotAllowed("This invitation is no longer open.")
    if workspace.member_limit is not None and workspace.memberships.count() >= workspace.member_limit:
        raise NotAllowed("This workspace is full.")
    membership = Membership.objects.create(workspace=workspace, user=acting_user, role=stored.role)
    _close(stored)
    _record("invitation.accepted", stored, acting_user)
    return membership


def _open(workspace: Workspace) -> QuerySet[Invitation]:
    return Invitation.objects.filter(workspace=workspace, accepted_at=None, revoked_at=None)


def _close(invitation: Invitation) -> None:
    invitation.accepted_at = utc_now()
    invitation.save(update_fields=["accepted_at"])


def _require_free_place(workspace: Workspace) -> None:
    places = places_of(workspace)
    if places.is_full:
        raise _refusal("email", full_text(places))


def full_text(places: Places) -> str:
    """What to say when all places are taken, with what can be done about it."""
    people = "1 person" if places.limit == 1 else f"{places.limit:,} people"
    return (
        f"Your plan includes {people}, and every place is taken. To make room, remove somebody, revoke an invitation, "
        "or move to a larger plan."
    )


def _require_mails_left(workspace: Workspace) -> None:
    today = AuditEntry.objects.filter(workspace=workspace, created_at__gt=utc_now() - timedelta(days=1))
    if today.filter(action__in=_MAILED).count() >= MAILS_A_DAY:
        raise _refusal("email", f"{MAILS_A_DAY} invitations were mailed within a day. Please go on tomorrow.")


def _refusal(field: str, message: str) -> InvalidInput:
    return InvalidInput(message, errors=[FieldError(field, message)])


def _record(action: str, invitation: Invitation, acting_user: User | None) -> None:
    record_audit(
        action,
        acting_user=acting_user,
        workspace=invitation.workspace,
        target=invitation.email,
        data={"role": invitation.role},
    )
