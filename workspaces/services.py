"""Changes to people, workspaces and what lets them in.

Each function is one change: a transaction, an `AuditEntry`, and where server processes cache the fact an announcement
after the commit. `acting_user` is who asked for it; None stands for the service itself (commands, jobs). Who may ask is
decided by the caller through `workspaces.access`. Secrets are returned once and are never logged or audited.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack
from uuid import UUID
from zoneinfo import ZoneInfo

from allauth.account.models import EmailAddress
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.text import slugify

from opsmeter_site.lib import tokens
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError, InvalidInput, NotAllowed, NotFound
from opsmeter_site.lib.redis import bump_epoch
from workspaces.inputs import check_expiry, clean_role, clean_text, invalid_input, parse_timezone, taken
from workspaces.keys import ACCESS_TOKEN_PREFIX, API_KEY_PREFIX
from workspaces.models import AccessToken, ApiKey, AuditEntry, Invitation, Membership, Role, Scope, User, Workspace
from workspaces.roles import grantable_roles

DEFAULT_GRACE = timedelta(hours=24)
LONGEST_GRACE = timedelta(days=30)
_SLUG_ATTEMPTS = 50


def record_audit(
    action: str,
    *,
    acting_user: User | None,
    workspace: Workspace | None = None,
    target: object = "",
    data: Mapping[str, Any] | None = None,
) -> AuditEntry:
    """Store who did `action` to `target`. Call inside the transaction of the change; `data` is JSON without secrets."""
    return AuditEntry.objects.create(
        workspace=workspace, actor=acting_user, action=action, target=str(target)[:200], data=dict(data or {})
    )


# --- People -----------------------------------------------------------------------------------------------------------


class UserChanges(TypedDict, total=False):
    """The facts of a person that can be changed."""

    email: str
    name: str
    is_active: bool
    is_staff: bool
    is_superuser: bool


@transaction.atomic
def create_user(
    *, email: str, password: str | None = None, name: str = "", acting_user: User | None, is_staff: bool = False
) -> User:
    """Store a person whom somebody vouches for: the address counts as confirmed. See `sign_up` for all others.

    Without a password nobody can sign in until one is set. Raises `InvalidInput` for a bad or taken address (`email`),
    a weak password (`password`) or a bad `name`.
    """
    user = _insert_user(email, password, name, is_staff=is_staff)
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
    record_audit("user.created", acting_user=acting_user, target=user, data={"is_staff": is_staff})
    return user


@transaction.atomic
def sign_up(*, email: str, password: str | None, name: str = "") -> User:
    """Store a person who came by themselves; `password` is None for those who sign in through a provider.

    The caller stores the address, confirmed or not. Raises `InvalidInput` like `create_user`.
    """
    user = _insert_user(email, password, name, is_staff=False)
    record_audit("user.created", acting_user=user, target=user, data={"is_staff": False})
    return user


def _insert_user(email: str, password: str | None, name: str, *, is_staff: bool) -> User:
    fields = {"name": clean_text(name, "name", 150, required=False), "is_staff": is_staff}
    with invalid_input(), taken("email", "There is already a person with this address."):
        if password is not None:
            _check_password(password, User(email=email, name=name))
        return User.objects.create_user(email, password, **fields)


def _check_password(password: str, user: User) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise ValidationError({"password": error.messages}) from error


@transaction.atomic
def update_user(user: User, *, acting_user: User | None, **changes: Unpack[UserChanges]) -> User:
    """Change facts of a person; a new address counts as confirmed.

    Raises `InvalidInput` for a bad or taken address or a bad name.
    """
    stored = User.objects.select_for_update(no_key=True).get(pk=user.pk)
    before = {field: getattr(stored, field) for field in changes}
    for field, value in changes.items():
        setattr(stored, field, value)
    stored.email = stored.email.strip().lower()
    stored.name = clean_text(stored.name, "name", 150, required=False)
    changed = {field: [old, getattr(stored, field)] for field, old in before.items() if getattr(stored, field) != old}
    if changed:
        with invalid_input(), taken("email", "There is already a person with this address."):
            stored.full_clean(exclude=["password"])
            stored.save(update_fields=list(changed))
        if "email" in changed:
            _replace_address(stored)
        record_audit("user.changed", acting_user=acting_user, target=stored, data=changed)
    return stored


def _replace_address(user: User) -> None:
    """One confirmed address per person; one that waits for its confirmation goes with the old one."""
    EmailAddress.objects.filter(user=user).delete()
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)


# --- Workspaces and their members -------------------------------------------------------------------------------------


@transaction.atomic
def create_workspace(
    *, name: str, owner: User, timezone: str | ZoneInfo, slug: str | None = None, acting_user: User | None
) -> Workspace:
    """Store a workspace with `owner` as its owner, under `slug` or one made from the name.

    Raises `InvalidInput` for a bad `name`, `timezone` or `slug`, or one that is taken.
    """
    fields = {"name": clean_text(name, "name", 100), "timezone": parse_timezone(timezone)}
    workspace = _insert_workspace(fields, slug)
    Membership.objects.create(workspace=workspace, user=owner, role=Role.OWNER)
    record_audit(
        "workspace.created",
        acting_user=acting_user,
        workspace=workspace,
        target=workspace,
        data={"slug": workspace.slug, "timezone": str(workspace.timezone), "owner": owner.email},
    )
    return workspace


def _insert_workspace(fields: Mapping[str, Any], slug: str | None) -> Workspace:
    if slug is not None:
        workspace = Workspace(**fields, slug=slug)
        with invalid_input(), taken("slug", "Another workspace has this slug."):
            workspace.full_clean()
            workspace.save(force_insert=True)
        return workspace
    base = slugify(fields["name"])[:50].strip("-_") or "workspace"
    used = set(Workspace.objects.filter(slug__startswith=base).values_list("slug", flat=True))
    number = 1
    for _ in range(_SLUG_ATTEMPTS):
        while (candidate := base if number == 1 else f"{base}-{number}") in used:
            number += 1
        try:
            with transaction.atomic():
                return Workspace.objects.create(**fields, slug=candidate)
        except IntegrityError:
            # Somebody else took it since `used` was read: the unique constraint decides, the next number is tried.
            used.add(candidate)
    raise InvalidInput("No free slug.", errors=[FieldError("slug", "Too many workspaces of this name; choose a slug.")])


@transaction.atomic
def update_workspace(
    workspace: Workspace, *, name: str | None = None, timezone: str | ZoneInfo | None = None, acting_user: User | None
) -> Workspace:
    """Rename a workspace or change its timezone; the slug stays. `InvalidInput` for a bad `name` or `timezone`."""
    stored = locked_workspace(workspace)
    before = {"name": stored.name, "timezone": str(stored.timezone)}
    if name is not None:
        stored.name = clean_text(name, "name", 100)
    if timezone is not None:
        stored.timezone = parse_timezone(timezone)
    after = {"name": stored.name, "timezone": str(stored.timezone)}
    changed = {field: [before[field], after[field]] for field in before if before[field] != after[field]}
    if changed:
        stored.save(update_fields=list(changed))
        record_audit("workspace.changed", acting_user=acting_user, workspace=stored, target=stored, data=changed)
    return stored


def set_member_limit(workspace_id: UUID, limit: int | None) -> None:
    """Say how many people the workspace's plan includes; None means any number. Nobody is removed."""
    Workspace.objects.filter(pk=workspace_id).update(member_limit=limit)


@transaction.atomic
def add_member(workspace: Workspace, user: User, role: str, *, acting_user: User | None) -> Membership:
    """Make `user` a member. Raises `InvalidInput` for an unknown `role` or a person who is one already (`user`)."""
    role = clean_role(role)
    with taken("user", "This person is a member already."):
        membership = Membership.objects.create(workspace=workspace, user=user, role=role)
    record_audit("member.added", acting_user=acting_user, workspace=workspace, target=user, data={"role": role})
    return membership


@transaction.atomic
def change_role(
    workspace: Workspace, user: User, role: str, *, expected: str | None = None, acting_user: User | None
) -> Membership:
    """Give a member another role; what they may no longer give to others, their open invitations do not give either.

    Raises `NotFound` without a membership, and `NotAllowed` for the last owner or if the role is no longer `expected`.
    """
    role = clean_role(role)
    membership = _locked_membership(workspace, user)
    before = membership.role
    if before == role:
        return membership
    _require_expected(membership, expected)
    if before == Role.OWNER:
        _require_another_owner(membership, "role")
    membership.role = role
    membership.save(update_fields=["role"])
    ended = _end_invitations(workspace, user, grantable_roles(role))
    record_audit(
        "member.role_changed",
        acting_user=acting_user,
        workspace=workspace,
        target=user,
        data={"role": [before, role], **ended},
    )
    return membership


@transaction.atomic
def remove_member(workspace: Workspace, user: User, *, expected: str | None = None, acting_user: User | None) -> None:
    """End a membership and revoke the person's access tokens; API keys stay, they belong to the workspace.

    Their open invitations end too. Raises `NotFound` without a membership, and `NotAllowed` for the last owner or if
    the role is no longer `expected`.
    """
    membership = _locked_membership(workspace, user)
    _require_expected(membership, expected)
    if membership.role == Role.OWNER:
        _require_another_owner(membership, "user")
    membership.delete()
    revoked = AccessToken.objects.filter(workspace=workspace, user=user, revoked_at=None).update(revoked_at=utc_now())
    ended = _end_invitations(workspace, user, [])
    record_audit(
        "member.removed",
        acting_user=acting_user,
        workspace=workspace,
        target=user,
        data={"role": membership.role, "access_tokens_revoked": revoked, **ended},
    )


def locked_workspace(workspace: Workspace) -> Workspace:
    """The workspace's row, locked until the commit: its facts and who is in it change one after another."""
    return Workspace.objects.select_for_update(no_key=True).get(pk=workspace.pk)


def _locked_membership(workspace: Workspace, user: User) -> Membership:
    # The workspace's lock makes "is there another owner?" hold until the commit, whoever else is leaving.
    locked_workspace(workspace)
    membership = Membership.objects.filter(workspace=workspace, user=user).first()
    if membership is None:
        raise NotFound("This person is not a member of the workspace.")
    return membership


def _require_expected(membership: Membership, expected: str | None) -> None:
    if expected is not None and membership.role != expected:
        message = f"Somebody else has changed this role in the meantime: it is {membership.get_role_display()} now."
        raise NotAllowed(message, errors=[FieldError("role", message)])


def _end_invitations(workspace: Workspace, sender: User, kept_roles: list[Role]) -> dict[str, int]:
    """Nobody leaves a door open that they could not open any more. What the audit trail should say about it."""
    sent = Invitation.objects.filter(workspace=workspace, invited_by=sender, accepted_at=None, revoked_at=None)
    ended = sent.exclude(role__in=kept_roles).update(revoked_at=utc_now())
    return {"invitations_ended": ended} if ended else {}


def _require_another_owner(membership: Membership, field: str) -> None:
    owners = Membership.objects.filter(workspace=membership.workspace_id, role=Role.OWNER)
    if not owners.exclude(pk=membership.pk).exists():
        message = "A workspace keeps at least one owner: make somebody else an owner first."
        raise NotAllowed(message, errors=[FieldError(field, message)])


# --- API keys ---------------------------------------------------------------------------------------------------------


@transaction.atomic
def create_api_key(
    workspace: Workspace,
    *,
    name: str,
    created_by: User,
    expires_at: datetime | None = None,
    acting_user: User | None,
) -> tuple[ApiKey, str]:
    """Store a key and return it with its secret, which exists nowhere else.

    Raises `InvalidInput` for a bad `name`, a name of another live key, or an `expires_at` that is not ahead.
    """
    name = clean_text(name, "name", 100)
    check_expiry(expires_at)
    secret = tokens.new_token(API_KEY_PREFIX)
    with taken("name", "Another key of this workspace has this name."):
        key = ApiKey.objects.create(
            workspace=workspace,
            name=name,
            lookup=secret.lookup,
            digest=secret.digest,
            created_by=created_by,
            expires_at=expires_at,
        )
    _record_key_change(key, "api_key.created", acting_user, {"expires_at": _iso(expires_at)})
    return key, secret.plain


@transaction.atomic
def rotate_api_key(key: ApiKey, grace: timedelta = DEFAULT_GRACE, *, acting_user: User | None) -> str:
    """Give a key a new secret and return it; the one before stays valid for `grace`. Row, id and creator stay.

    A key keeps one previous secret, so another rotation ends its grace; of two rotations at once one is refused, so
    that a double click is safe. Raises `NotAllowed` for that and for a revoked or expired key, and `InvalidInput` for
    a `grace` below 0 or above 30 days.
    """
    if not timedelta(0) <= grace <= LONGEST_GRACE:
        raise InvalidInput("Bad grace.", errors=[FieldError("grace", "Between 0 and 30 days.")])
    stored = ApiKey.objects.select_for_update().get(pk=key.pk)
    now = utc_now()
    if stored.revoked_at is not None:
        raise NotAllowed("The key has been revoked; create another one.")
    if stored.expires_at is not None and stored.expires_at <= now:
        raise NotAllowed("The key has expired; create another one.")
    if stored.lookup != key.lookup:
        raise NotAllowed("The key has just been rotated by somebody else.")
    secret = tokens.new_token(API_KEY_PREFIX)
    stored.previous_lookup, stored.previous_digest = stored.lookup, stored.digest
    stored.previous_expires_at = now + grace
    stored.lookup, stored.digest = secret.lookup, secret.digest
    stored.save(update_fields=["lookup", "digest", "previous_lookup", "previous_digest", "previous_expires_at"])
    _record_key_change(
        stored, "api_key.rotated", acting_user, {"previous_valid_until": _iso(stored.previous_expires_at)}
    )
    # The caller's copy stays usable, also for another rotation.
    key.refresh_from_db()
    return secret.plain


@transaction.atomic
def change_api_key_expiry(key: ApiKey, expires_at: datetime | None, *, acting_user: User | None) -> ApiKey:
    """Let a key expire at another moment, or never (None). Raises `InvalidInput` unless `expires_at` is ahead."""
    check_expiry(expires_at)
    stored = ApiKey.objects.select_for_update().get(pk=key.pk)
    if stored.revoked_at is not None:
        raise NotAllowed("The key has been revoked; create another one.")
    before, stored.expires_at = stored.expires_at, expires_at
    stored.save(update_fields=["expires_at"])
    _record_key_change(stored, "api_key.expiry_changed", acting_user, {"expires_at": [_iso(before), _iso(expires_at)]})
    return stored


@transaction.atomic
def revoke_api_key(key: ApiKey, *, acting_user: User | None) -> None:
    """Refuse every secret of the key from now on, also one in its grace period. Revoking twice changes nothing."""
    if ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=utc_now()):
        _record_key_change(key, "api_key.revoked", acting_user, {})


def _record_key_change(key: ApiKey, action: str, acting_user: User | None, data: Mapping[str, Any]) -> None:
    record_audit(action, acting_user=acting_user, workspace=key.workspace, target=key, data=data)
    workspace_id: UUID = key.workspace_id
    transaction.on_commit(lambda: bump_epoch(workspace_id))


# --- Access tokens ----------------------------------------------------------------------------------------------------


@transaction.atomic
def create_access_token(
    *,
    user: User,
    workspace: Workspace,
    name: str,
    scopes: Iterable[str],
    expires_at: datetime | None = None,
    acting_user: User | None,
) -> tuple[AccessToken, str]:
    """Store a personal access token and return it with its secret, which exists nowhere else.

    Raises `InvalidInput` for a bad `name`, `scopes` or `expires_at`, and `NotAllowed` unless `user` is a member.
    """
    name = clean_text(name, "name", 100)
    wanted = set(scopes)
    if not wanted or not wanted <= set(Scope.values):
        raise InvalidInput("Bad scopes.", errors=[FieldError("scopes", f"One or more of: {', '.join(Scope.values)}.")])
    check_expiry(expires_at)
    if not Membership.objects.filter(workspace=workspace, user=user).exists():
        raise NotAllowed("Only a member can have an access token.")
    secret = tokens.new_token(ACCESS_TOKEN_PREFIX)
    token = AccessToken.objects.create(
        user=user,
        workspace=workspace,
        name=name,
        lookup=secret.lookup,
        digest=secret.digest,
        scopes=sorted(wanted),
        expires_at=expires_at,
    )
    record_audit(
        "access_token.created",
        acting_user=acting_user,
        workspace=workspace,
        target=token,
        data={"person": user.email, "scopes": token.scopes, "expires_at": _iso(expires_at)},
    )
    return token, secret.plain


@transaction.atomic
def revoke_access_token(token: AccessToken, *, acting_user: User | None) -> None:
    """Refuse the token from now on. Revoking twice changes nothing."""
    if AccessToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=utc_now()):
        record_audit("access_token.revoked", acting_user=acting_user, workspace=token.workspace, target=token)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
