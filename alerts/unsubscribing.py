"""Leaving by one click, and coming back. The link in a mail is the proof: whoever reads the mail may end it.

The token never expires, because a mail may be opened years later, and it opens nothing else.
"""

from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.core import signing
from django.db import transaction
from django.urls import reverse

from alerts.models import MailOptOut, MailTopic, OptOutReason
from workspaces.models import User, Workspace
from workspaces.services import record_audit

_SALT = "alerts.unsubscribing"


@dataclass(frozen=True, slots=True)
class Subscription:
    """One address and one topic of one workspace: what a link in a mail ends."""

    workspace: Workspace
    email: str
    topic: MailTopic


def unsubscribe_url(workspace_id: UUID, email: str, topic: str) -> str:
    """The address in a mail that ends mail of `topic` to `email`. The same one in every mail."""
    token = signing.Signer(salt=_SALT).sign_object([str(workspace_id), email.lower(), str(topic)])
    return f"{settings.OPSMETER_URL}{reverse('unsubscribe', args=[token])}"


def subscription_for_token(token: str) -> Subscription | None:
    """What a link's token stands for; None for one that we never signed, or whose workspace is gone."""
    try:
        workspace_id, email, topic = signing.Signer(salt=_SALT).unsign_object(token)
    except signing.BadSignature:
        return None
    workspace = Workspace.objects.filter(pk=workspace_id).first()
    return None if workspace is None else Subscription(workspace, email, MailTopic(topic))


def opt_out_of(wanted: Subscription) -> MailOptOut | None:
    """Why the address gets no mail of the topic; None if nothing stands in the way."""
    return MailOptOut.objects.filter(workspace=wanted.workspace, email=wanted.email, topic=wanted.topic).first()


@transaction.atomic
def unsubscribe(wanted: Subscription, *, acting_user: User | None) -> None:
    """End mail of the topic to the address. `acting_user` is None for who followed a mail's link."""
    before = opt_out_of(wanted)
    if before is not None and before.reason == OptOutReason.UNSUBSCRIBED:
        return
    MailOptOut.objects.update_or_create(
        workspace=wanted.workspace,
        email=wanted.email,
        topic=wanted.topic,
        defaults={"reason": OptOutReason.UNSUBSCRIBED},
    )
    _record("recipient.unsubscribed", wanted, acting_user)


@transaction.atomic
def subscribe_again(wanted: Subscription, *, acting_user: User | None) -> None:
    """Take back `unsubscribe`. An address that its mail server refuses stays without mail."""
    rows = MailOptOut.objects.filter(workspace=wanted.workspace, email=wanted.email, topic=wanted.topic)
    deleted, _ = rows.filter(reason=OptOutReason.UNSUBSCRIBED).delete()
    if deleted:
        _record("recipient.subscribed_again", wanted, acting_user)


def _record(action: str, wanted: Subscription, acting_user: User | None) -> None:
    record_audit(
        action,
        acting_user=acting_user,
        workspace=wanted.workspace,
        target=wanted.email,
        data={"topic": wanted.topic.value},
    )
