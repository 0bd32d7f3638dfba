"""E-mail, by whatever backend the installation is set up with."""

import smtplib
from collections.abc import Callable, Mapping
from email.mime.image import MIMEImage
from email.utils import parseaddr
from typing import Any

from anymail.exceptions import (
    AnymailAPIError,
    AnymailError,
    AnymailInvalidAddress,
    AnymailRecipientsRefused,
)
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMultiAlternatives

from alerts.channels.base import Answer
from alerts.channels.texts import cut
from alerts.messages import InlineImage, Mail, Message
from alerts.models import LONGEST_ANSWER, AttemptOutcome

IS_ONE_BY_ONE = False
TAKES_SUMMARIES = True

_PERMANENT = 500
# Such an answer to a recipient is about us: we must sign in, or our address or server is not trusted.
_ABOUT_THE_SENDER = (530, 535)
_POLICY = "5.7."
_WORTH_ANOTHER_TRY = (401, 402, 403, 408, 425, 429)


def clean(config: Mapping[str, str]) -> dict[str, Any]:
    """Nothing: mail goes to the workspace's recipients."""
    return {}


def hint(config: Mapping[str, Any]) -> str:
    """Where its recipients are set."""
    return "Recipients of this workspace"


def payload(config: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """What the mail consists of, besides its pictures."""
    mail = _mail(message)
    headers = {
        "Message-ID": f"<{message.id}@{_own_host()}>",
        "Auto-Submitted": "auto-generated",
        "X-Opsmeter-Delivery": message.id,
    }
    if message.unsubscribe_url:
        headers["List-Unsubscribe"] = f"<{message.unsubscribe_url}>"
        headers["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    return {
        "to": message.recipient,
        # A subject is one line, whatever the names in it are.
        "subject": " ".join(mail.subject.split()),
        "text": mail.text,
        "html": mail.html,
        "headers": headers,
    }


def send(config: Mapping[str, Any], message: Message) -> Answer:
    """Hand it to the mail server once."""
    written = payload(config, message)
    mail = EmailMultiAlternatives(
        written["subject"], written["text"], to=[written["to"]], headers=dict(written["headers"])
    )
    mail.attach_alternative(written["html"], "text/html")
    # Pictures belong to the HTML: clients then show them in place instead of as attachments.
    mail.mixed_subtype = "related"  # type: ignore[attr-defined]
    for image in _mail(message).images:
        mail.attach(_part(image))
    return _answer(mail.send)


def _mail(message: Message) -> Mail:
    if message.mail is None:
        raise ValueError("A message for e-mail needs its mail.")
    return message.mail


def _own_host() -> str:
    _, address = parseaddr(settings.DEFAULT_FROM_EMAIL)
    return address.rpartition("@")[2] or "localhost"


def _part(image: InlineImage) -> MIMEImage:
    part = MIMEImage(image.png, "png")
    part.add_header("Content-ID", f"<{image.name}>")
    part.add_header("Content-Disposition", "inline", filename=f"{image.name}.png")
    return part


def _answer(hand_over: Callable[[], int]) -> Answer:
    try:
        taken = hand_over()
    except smtplib.SMTPRecipientsRefused as error:
        return _refused_recipient(error)
    except smtplib.SMTPNotSupportedError as error:
        return _recipient_fault(None, f"The mail server cannot write to this address: {error}")
    except smtplib.SMTPDataError as error:
        # Said about the whole mail, after the recipient was accepted.
        return _said(error.smtp_code, _decoded(error.smtp_error), is_final=error.smtp_code >= _PERMANENT)
    except smtplib.SMTPResponseException as error:
        return _said(error.smtp_code, _decoded(error.smtp_error), is_final=False)
    except (AnymailRecipientsRefused, AnymailInvalidAddress) as error:
        return _recipient_fault(error.status_code, str(error))
    except AnymailAPIError as error:
        return _said(error.status_code, str(error), is_final=_is_final(error.status_code))
    except AnymailError as error:
        return _said(None, str(error), is_final=True)
    except (OSError, smtplib.SMTPException, ImproperlyConfigured) as error:
        return _said(None, f"The mail server was not reached: {error}", is_final=False)
    if not taken:
        return _said(None, "The mail server took nothing.", is_final=False)
    return Answer(AttemptOutcome.SENT, None, "Handed to the mail server.")


def _refused_recipient(error: smtplib.SMTPRecipientsRefused) -> Answer:
    code, said = next(iter(error.recipients.values()))
    text = _decoded(said)
    if code >= _PERMANENT and code not in _ABOUT_THE_SENDER and not text.startswith(_POLICY):
        return _recipient_fault(code, text)
    return _said(code, text, is_final=False)


def _recipient_fault(code: int | None, text: str) -> Answer:
    return Answer(AttemptOutcome.REFUSED, code, _short(code, text), is_recipient_fault=True)


def _said(code: int | None, text: str, *, is_final: bool) -> Answer:
    outcome = AttemptOutcome.REFUSED if is_final else AttemptOutcome.RETRY
    return Answer(outcome, code, _short(code, text), is_message_fault=is_final)


def _is_final(status: int | None) -> bool:
    return status is not None and 400 <= status < 500 and status not in _WORTH_ANOTHER_TRY


def _short(code: int | None, text: str) -> str:
    return cut(f"{code}: {text}" if code else text, LONGEST_ANSWER)


def _decoded(said: bytes | str) -> str:
    return said.decode("utf-8", errors="replace") if isinstance(said, bytes) else said
