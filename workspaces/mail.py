"""Mails about workspaces and their people."""

import structlog
from django.core.mail import send_mail
from django.template.loader import render_to_string

from opsmeter_site.lib.mail import NOT_MAILED
from workspaces.invitations import VALID_FOR
from workspaces.models import Invitation

logger = structlog.get_logger(__name__)


def send_invitation(invitation: Invitation, address: str) -> bool:
    """Mail the link `address` to the invited person; whether the mail server took it."""
    facts = {"invitation": invitation, "address": address, "days": VALID_FOR.days}
    subject = render_to_string("emails/invitation.subject.txt", facts).strip()
    text = render_to_string("emails/invitation.txt", facts)
    try:
        send_mail(subject, text, None, [invitation.email])
    except NOT_MAILED as error:
        logger.warning("invitation_not_mailed", invitation=invitation.pk, error=type(error).__name__)
        return False
    return True
