"""The doors: who may enter a workspace, and what a role includes."""

from dataclasses import dataclass
from uuid import UUID

from django.contrib.auth.models import AnonymousUser

from opsmeter_site.lib.errors import NotAllowed, NotFound
from workspaces.models import Membership, Role, User, Workspace

# From the least to the most; each role includes the ones before it.
ROLE_ORDER = (Role.VIEWER, Role.MEMBER, Role.ADMIN, Role.OWNER)


@dataclass(frozen=True, slots=True)
class WorkspaceAccess:
    """Proof that `user` has been let into `workspace`, and as what."""

    workspace: Workspace
    user: User
    role: Role


def role_includes(role: str, minimum: str) -> bool:
    """Whether `role` may do what `minimum` may do."""
    return ROLE_ORDER.index(Role(role)) >= ROLE_ORDER.index(Role(minimum))


def workspace_for(user: User | AnonymousUser, slug_or_id: str | UUID) -> WorkspaceAccess:
    """Let `user` into the workspace with this slug (str) or id (UUID).

    Raises `NotFound`, the same for "not yours" and "not there".
    """
    refusal = NotFound("There is no such workspace.")
    if not isinstance(user, User):
        raise refusal
    if not user.is_active:
        raise refusal
    # Types tell ids from slugs, so that a slug made to look like an id opens nobody else's door.
    wanted = {"workspace__pk": slug_or_id} if isinstance(slug_or_id, UUID) else {"workspace__slug": slug_or_id}
    membership = Membership.objects.select_related("workspace").filter(user=user, **wanted).first()
    if membership is None:
        raise refusal
    return WorkspaceAccess(workspace=membership.workspace, user=user, role=Role(membership.role))


def require_role(access: WorkspaceAccess, minimum: Role) -> None:
    """Raise `NotAllowed` unless the person's role includes `minimum`."""
    if not role_includes(access.role, minimum):
        raise NotAllowed(f"This needs the role {minimum.label.lower()} or above.")
