"""Mail backends that fail."""

from collections.abc import Sequence

from anymail.exceptions import AnymailRecipientsRefused
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

REFUSING_PROVIDER = f"{__name__}.RefusingProvider"


class RefusingProvider(BaseEmailBackend):
    """A mail provider that takes nothing for the address. What Anymail raises then is no `OSError`."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Never."""
        raise AnymailRecipientsRefused("It is on the suppression list.")
