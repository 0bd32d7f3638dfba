"""What the settings pages read about a workspace's people, credentials and trail."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from allauth.mfa.models import Authenticator
from django.db.models import Q, QuerySet

from workspaces.access import ROLE_ORDER, WorkspaceAccess, role_includes
from workspaces.models import (
    AccessToken,
    ApiKey,
    AuditEntry,
    CredentialState,
    Invitation,
    Membership,
    Role,
    User,
    Workspace,
)

# Credentials that are gone: enough to recognise one, not the whole history (that is the audit trail).
LATEST_GONE = 20


def members_of(workspace: Workspace) -> list[Membership]:
    """Everybody with a role, owners first, then by address."""
    members = list(workspace.memberships.select_related("user").order_by("user__email"))
    return sorted(members, key=lambda member: -ROLE_ORDER.index(Role(member.role)))


def people_with_second_factor(workspace: Workspace) -> set[int]:
    """Ids of the members whose sign-in asks for more than a password."""
    factors = Authenticator.objects.exclude(type=Authenticator.Type.RECOVERY_CODES)
    return set(factors.filter(user__memberships__workspace=workspace).values_list("user_id", flat=True))


def open_invitations(workspace: Workspace) -> list[Invitation]:
    """Invitations that are neither accepted nor revoked, also expired ones; the newest first."""
    still_open = Invitation.objects.filter(workspace=workspace, accepted_at=None, revoked_at=None)
    return list(still_open.select_related("invited_by").order_by("-sent_at"))


@dataclass(frozen=True, slots=True)
class Keys:
    """API keys of a workspace: those that can still be used or brought back, and the latest that were revoked."""

    usable: list[ApiKey]
    revoked: list[ApiKey]


def keys_of(workspace: Workspace) -> Keys:
    """The workspace's API keys, the newest first."""
    keys = workspace.api_keys.select_related("created_by").order_by("-created_at")
    return Keys(
        usable=list(keys.filter(revoked_at=None)),
        revoked=list(keys.exclude(revoked_at=None).order_by("-revoked_at")[:LATEST_GONE]),
    )


def tokens_of(workspace: Workspace, person: User) -> list[AccessToken]:
    """The person's access tokens that are not revoked, the newest first."""
    return list(workspace.access_tokens.filter(user=person, revoked_at=None).order_by("-created_at"))


def has_live_token(workspace: Workspace, person: User, name: str) -> bool:
    """Whether the person has a token of this name that still works."""
    return any(token.name == name and token.state is CredentialState.LIVE for token in tokens_of(workspace, person))


def tokens_of_others(workspace: Workspace, person: User) -> list[AccessToken]:
    """Everybody else's access tokens that are not revoked, by person, the newest first."""
    others = workspace.access_tokens.filter(revoked_at=None).exclude(user=person)
    return list(others.select_related("user").order_by("user__email", "-created_at"))


def may_change_key(access: WorkspaceAccess, key: ApiKey) -> bool:
    """Owners and admins change every key, members those that they created."""
    if role_includes(access.role, Role.ADMIN):
        return True
    return role_includes(access.role, Role.MEMBER) and key.created_by_id == access.user.pk


# --- The audit trail --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailFilter:
    """Which entries are asked for; None and "" mean all. Days are of the workspace's zone, both included."""

    action: str = ""
    person_id: int | None = None
    first_day: date | None = None
    last_day: date | None = None


@dataclass(frozen=True, slots=True)
class TrailPage:
    """A page of the trail; `next_cursor` is empty on the last one."""

    entries: list[AuditEntry]
    next_cursor: str


def trail(workspace: Workspace, wanted: TrailFilter) -> QuerySet[AuditEntry]:
    """The workspace's entries that `wanted` names, the newest first."""
    entries = AuditEntry.objects.filter(workspace=workspace).select_related("actor").order_by("-created_at", "-pk")
    if wanted.action:
        entries = entries.filter(action=wanted.action)
    if wanted.person_id is not None:
        entries = entries.filter(actor=wanted.person_id)
    zone = ZoneInfo(str(workspace.timezone))
    if wanted.first_day is not None:
        entries = entries.filter(created_at__gte=_midnight(wanted.first_day, zone))
    if wanted.last_day is not None:
        entries = entries.filter(created_at__lt=_midnight(wanted.last_day + timedelta(days=1), zone))
    return entries


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), tzinfo=zone)


def trail_page(workspace: Workspace, wanted: TrailFilter, cursor: str, size: int) -> TrailPage:
    """`size` entries from `cursor` on; a cursor that makes no sense is the first page."""
    entries = trail(workspace, wanted)
    after = _read_cursor(cursor)
    if after is not None:
        moment, pk = after
        entries = entries.filter(Q(created_at__lt=moment) | Q(created_at=moment, pk__lt=pk))
    found = list(entries[: size + 1])
    shown = found[:size]
    has_more = len(found) > size
    return TrailPage(shown, f"{shown[-1].created_at.isoformat()}~{shown[-1].pk}" if has_more else "")


def _read_cursor(cursor: str) -> tuple[datetime, int] | None:
    moment, _, pk = cursor.partition("~")
    try:
        found = datetime.fromisoformat(moment), int(pk)
    except ValueError:
        return None
    return None if found[0].tzinfo is None else found


def trail_rows(workspace: Workspace, wanted: TrailFilter) -> Iterator[AuditEntry]:
    """Every entry that `wanted` names, read while it is sent."""
    return trail(workspace, wanted).iterator(chunk_size=2_000)


def trail_actions(workspace: Workspace) -> list[str]:
    """The actions that the trail holds."""
    return list(
        AuditEntry.objects.filter(workspace=workspace).order_by("action").values_list("action", flat=True).distinct()
    )


def trail_people(workspace: Workspace) -> list[User]:
    """Everybody who has an entry in the trail."""
    return list(User.objects.filter(audit_entries__workspace=workspace).distinct().order_by("email"))
