"""Named addresses: asked by mail, and getting mail once their reader has said yes.

Nobody is subscribed by somebody else, and nobody is flooded with questions: they are limited for each address and for
each workspace, by what the audit trail says was sent.
"""

from datetime import timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.core import signing
from django.core.mail import send_mail
from django.db import transaction
from django.urls import reverse

from alerts.mail_rendering import render_mail
from alerts.models import MailOptOut, OptOutReason, Recipient
from alerts.recipients import members_with_mail
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError, InvalidInput, NotAllowed
from opsmeter_site.lib.mail import NOT_MAILED
from workspaces.inputs import clean_email
from workspaces.models import AuditEntry, User, Workspace
from workspaces.services import locked_workspace, record_audit

logger = structlog.get_logger(__name__)

MOST_ADDRESSES = 50
VALID_FOR = timedelta(days=7)
ASK_AGAIN_AFTER = timedelta(minutes=1)
# Questions that are mailed within a day: to one address, and by one workspace.
ASKED_A_DAY = 3
ASKED_A_DAY_BY_WORKSPACE = 50
_SALT = "alerts.recipient_services.confirmation"
_ASKED = ("recipient.added", "recipient.asked_again")


@transaction.atomic
def add_recipient(workspace: Workspace, email: str, *, acting_user: User) -> Recipient:
    """Store an address that is asked whether it wants mail; call `ask_to_confirm` after the commit.

    Raises `InvalidInput` (`email`) for a bad address, one that is there already, one that gets mail by role,
    and when there are enough addresses or questions.
    """
    email = clean_email(email)
    stored = locked_workspace(workspace)
    named = Recipient.objects.filter(workspace=stored)
    if members_with_mail(stored.pk).filter(user__email=email).exists():
        raise _refusal("This member gets mail already, by their role.")
    if named.filter(email=email).exists():
        raise _refusal("This address is listed already. If it has not confirmed, ask it again below.")
    if named.count() >= MOST_ADDRESSES:
        raise _refusal(f"At most {MOST_ADDRESSES} addresses. Remove one first, or use a mailing list.")
    _require_questions_left(stored, email)
    now = utc_now()
    recipient = Recipient.objects.create(
        workspace=stored, email=email, added_by=acting_user, created_at=now, asked_at=now
    )
    _record("recipient.added", recipient, acting_user)
    return recipient


@transaction.atomic
def ask_again(recipient: Recipient, *, acting_user: User) -> Recipient:
    """Note that the address is asked once more; call `ask_to_confirm` after the commit.

    Raises `NotAllowed` for one that has confirmed or was asked a moment ago, `InvalidInput` when there were enough
    questions.
    """
    workspace = locked_workspace(recipient.workspace)
    stored = Recipient.objects.select_for_update().get(pk=recipient.pk)
    now = utc_now()
    if stored.confirmed_at is not None:
        raise NotAllowed(f"{stored.email} has confirmed already.")
    if stored.asked_at > now - ASK_AGAIN_AFTER:
        raise NotAllowed("This address has just been asked. Wait a minute before you ask it again.")
    _require_questions_left(workspace, stored.email)
    stored.asked_at = now
    stored.save(update_fields=["asked_at"])
    _record("recipient.asked_again", stored, acting_user)
    return stored


def ask_to_confirm(recipient: Recipient, *, asked_by: User) -> bool:
    """Mail the question with its link; whether the mail server took it."""
    token = signing.dumps([str(recipient.workspace_id), recipient.pk, recipient.email], salt=_SALT)
    facts = {
        "recipient": recipient,
        "asked_by": asked_by,
        "address": settings.OPSMETER_URL + reverse("recipient-confirm", args=[token]),
        "days": VALID_FOR.days,
        "workspace_name": recipient.workspace.name,
        "reason": f"Sent once to {recipient.email}, because somebody asked for it.",
    }
    mail = render_mail("recipient_confirmation", facts)
    try:
        send_mail(mail.subject, mail.text, None, [recipient.email], html_message=mail.html)
    except NOT_MAILED as error:
        logger.warning("confirmation_not_mailed", recipient=recipient.pk, error=type(error).__name__)
        return False
    return True


def recipient_for_token(token: str) -> Recipient | None:
    """The address that a mailed link asks; None if the link is broken, too old, or the address was removed."""
    try:
        workspace_id, recipient_id, email = signing.loads(token, salt=_SALT, max_age=VALID_FOR)
    except signing.BadSignature:
        return None
    found = Recipient.objects.select_related("workspace", "added_by")
    return found.filter(pk=recipient_id, workspace_id=UUID(workspace_id), email=email).first()


@transaction.atomic
def confirm(recipient: Recipient) -> None:
    """The reader of the address wants mail: also if the address had unsubscribed before."""
    waiting = Recipient.objects.filter(pk=recipient.pk, confirmed_at=None)
    if not waiting.update(confirmed_at=utc_now()):
        return
    MailOptOut.objects.filter(
        workspace=recipient.workspace, email=recipient.email, reason=OptOutReason.UNSUBSCRIBED
    ).delete()
    _record("recipient.confirmed", recipient, None)


@transaction.atomic
def remove_recipient(recipient: Recipient, *, acting_user: User) -> None:
    """Send nothing more to the address. Its opt-outs stay, should it be added again."""
    deleted, _ = Recipient.objects.filter(pk=recipient.pk).delete()
    if deleted:
        _record("recipient.removed", recipient, acting_user)


@transaction.atomic
def lift(opt_out: MailOptOut, *, acting_user: User) -> None:
    """Try an address again that its mail server refused. Raises `NotAllowed` for a person's own wish."""
    if opt_out.reason != OptOutReason.UNDELIVERABLE:
        raise NotAllowed("Only the person behind the address can subscribe again.")
    deleted, _ = MailOptOut.objects.filter(pk=opt_out.pk, reason=OptOutReason.UNDELIVERABLE).delete()
    if deleted:
        record_audit(
            "recipient.tried_again",
            acting_user=acting_user,
            workspace=opt_out.workspace,
            target=opt_out.email,
            data={"topic": opt_out.topic},
        )


def _require_questions_left(workspace: Workspace, email: str) -> None:
    today = AuditEntry.objects.filter(
        workspace=workspace, created_at__gt=utc_now() - timedelta(days=1), action__in=_ASKED
    )
    if today.filter(target=email[:200]).count() >= ASKED_A_DAY:
        raise _refusal(f"{email} was asked {ASKED_A_DAY} times within a day. Please wait until tomorrow.")
    if today.count() >= ASKED_A_DAY_BY_WORKSPACE:
        raise _refusal(f"{ASKED_A_DAY_BY_WORKSPACE} addresses were asked within a day. Please go on tomorrow.")


def _refusal(message: str) -> InvalidInput:
    return InvalidInput(message, errors=[FieldError("email", message)])


def _record(action: str, recipient: Recipient, acting_user: User | None) -> None:
    record_audit(action, acting_user=acting_user, workspace=recipient.workspace, target=recipient.email)
