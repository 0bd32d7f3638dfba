"""Who gets mail: members by role and named addresses, without those that have opted out."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from allauth.account.models import EmailAddress
from django.db.models import Exists, OuterRef, QuerySet

from alerts.models import AlertSettings, MailOptOut, MailTopic, Recipient
from alerts.models.settings import default_recipient_roles
from workspaces.access import WorkspaceAccess, role_includes
from workspaces.models import Membership, Role, User, Workspace


def mail_addresses(workspace_id: UUID, topic: str) -> list[str]:
    """The addresses that get mail of `topic`, in lower case, each once, sorted."""
    members = members_with_mail(workspace_id).values_list("user__email", flat=True)
    named = Recipient.objects.filter(workspace_id=workspace_id, confirmed_at__isnull=False)
    addresses = members.union(named.values_list("email", flat=True))
    opted_out = MailOptOut.objects.filter(workspace_id=workspace_id, topic=topic).values_list("email", flat=True)
    return sorted({address.lower() for address in addresses} - set(opted_out))


def recipient_roles(workspace_id: UUID) -> list[str]:
    """The roles whose members get mail."""
    chosen = AlertSettings.objects.filter(workspace_id=workspace_id).values_list("recipient_roles", flat=True).first()
    return default_recipient_roles() if chosen is None else chosen


def members_with_mail(workspace_id: UUID) -> QuerySet[Membership]:
    """The members that get mail by their role.

    Whoever signs up has to confirm the address; people whom a command or an operator has made need not. So only an
    address that waits for its confirmation gets nothing.
    """
    waiting = EmailAddress.objects.filter(user=OuterRef("user"), email=OuterRef("user__email"), verified=False)
    roles = recipient_roles(workspace_id)
    members = Membership.objects.filter(~Exists(waiting), workspace_id=workspace_id, role__in=roles)
    return members.filter(user__is_active=True)


# --- The page of recipients -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VisibleAddresses:
    """Whose addresses somebody may read: everybody those of members, admins all. As on the members page."""

    sees_all: bool
    members: frozenset[str]

    def shown(self, email: str) -> str:
        """The address; of a stranger's only as much as tells two apart."""
        if self.sees_all or email.lower() in self.members:
            return email
        name, _, domain = email.partition("@")
        return f"{name[:1]}…@{domain}"


def visible_addresses(access: WorkspaceAccess) -> VisibleAddresses:
    """What this member sees."""
    if role_includes(access.role, Role.ADMIN):
        return VisibleAddresses(True, frozenset())
    return VisibleAddresses(False, frozenset(access.workspace.memberships.values_list("user__email", flat=True)))


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody who gets mail. `topics` says of each why it does not come; None: it does."""

    shown: str
    topics: list[tuple[MailTopic, MailOptOut | None]]
    source: Membership | Recipient


@dataclass(frozen=True, slots=True)
class Readers:
    """Who gets mail of a workspace: `members` by role, `named` addresses, confirmed or not.

    `others` are opt-outs of addresses that are neither, with the address as it may be shown: they hold should the
    address come back.
    """

    members: list[Reader]
    named: list[Reader]
    others: list[tuple[str, MailOptOut]]


def readers_for(access: WorkspaceAccess) -> Readers:
    """Everybody, as this member may see them; by address."""
    workspace, visible = access.workspace, visible_addresses(access)
    opt_outs = {(row.email, row.topic): row for row in MailOptOut.objects.filter(workspace=workspace)}
    members = members_with_mail(workspace.pk).select_related("user").order_by("user__email")
    named = Recipient.objects.filter(workspace=workspace).select_related("added_by").order_by("email")
    listed = {each.user.email for each in members} | {each.email for each in named}
    return Readers(
        [Reader(each.user.email, _topics(each.user.email, opt_outs), each) for each in members],
        [Reader(visible.shown(each.email), _topics(each.email, opt_outs), each) for each in named],
        [(visible.shown(email), row) for (email, _topic), row in sorted(opt_outs.items()) if email not in listed],
    )


def _topics(email: str, opt_outs: Mapping[tuple[str, str], MailOptOut]) -> list[tuple[MailTopic, MailOptOut | None]]:
    return [(topic, opt_outs.get((email, topic))) for topic in MailTopic]


def topics_of(workspace: Workspace, person: User) -> list[tuple[MailTopic, MailOptOut | None]]:
    """Each topic, and what stands in the way of the person getting it."""
    rows = MailOptOut.objects.filter(workspace=workspace, email=person.email)
    return _topics(person.email, {(row.email, row.topic): row for row in rows})


def is_recipient(workspace: Workspace, person: User) -> bool:
    """Whether the person's address is among the recipients, opted out or not."""
    named = Recipient.objects.filter(workspace=workspace, email=person.email, confirmed_at__isnull=False)
    return members_with_mail(workspace.pk).filter(user=person).exists() or named.exists()
