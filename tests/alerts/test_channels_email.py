"""Mail: what it consists of, and what a mail server's answer means."""

import smtplib
import socket
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
from anymail.exceptions import (
    AnymailAPIError,
    AnymailConfigurationError,
    AnymailInvalidAddress,
    AnymailRecipientsRefused,
    AnymailUnsupportedFeature,
)
from django.core import mail as outbox
from django.core.mail.backends.base import BaseEmailBackend

from alerts.channels import email
from alerts.models import Action, AttemptOutcome
from tests.alerts.channels import check_mail
from tests.alerts.messages import PNG, alert_item, message, with_mail

SENT, RETRY, REFUSED = AttemptOutcome.SENT, AttemptOutcome.RETRY, AttemptOutcome.REFUSED
ALERT = with_mail(message(Action.ALERT, alert_item()))


class FailingBackend(BaseEmailBackend):
    """Raises what the test wants."""

    error = None

    def send_messages(self, email_messages):
        if self.error is not None:
            raise self.error
        return 0


@pytest.fixture
def failing(settings, monkeypatch):
    settings.EMAIL_BACKEND = "tests.alerts.test_channels_email.FailingBackend"

    def fail(error):
        monkeypatch.setattr(FailingBackend, "error", error)
        return email.send({}, ALERT)

    return fail


def refused(code, text):
    return smtplib.SMTPRecipientsRefused({"ada@example.com": (code, text.encode())})


# --- What it consists of --------------------------------------------------------------------------------------------


def test_a_mail(settings):
    settings.DEFAULT_FROM_EMAIL = "Opsmeter <alerts@meter.example>"
    assert email.send({}, ALERT).outcome == SENT
    (sent,) = outbox.outbox
    letter = sent.message()
    check_mail(letter, ALERT.id, is_subscribed=True)
    assert letter["Message-ID"] == f"<{ALERT.id}@meter.example>"
    assert letter["From"] == "Opsmeter <alerts@meter.example>"
    assert letter["To"] == "ada@example.com"
    assert letter["List-Unsubscribe"] == "<https://opsmeter.example/mail/unsubscribe/token/>"
    (picture,) = [part for part in letter.walk() if part.get_content_type() == "image/png"]
    assert (picture["Content-ID"], picture.get_payload(decode=True)) == ("<chart>", PNG)
    assert picture.get_content_disposition() == "inline"


def test_without_a_subscription_there_is_nothing_to_unsubscribe_from():
    plain = with_mail(message(Action.TEST))
    email.send({}, replace(plain, unsubscribe_url=""))
    check_mail(outbox.outbox[0].message(), plain.id, is_subscribed=False)


def test_a_name_with_line_breaks_makes_no_header():
    email.send({}, with_mail(message(Action.ALERT, alert_item(title="Spend\r\nBcc: eve@example.com"))))
    letter = outbox.outbox[0].message()
    assert letter["Subject"] == "Spend Bcc: eve@example.com"
    assert letter["Bcc"] is None


def test_two_attempts_are_the_same_mail():
    email.send({}, ALERT)
    email.send({}, ALERT)
    first, again = [sent.message()["Message-ID"] for sent in outbox.outbox]
    assert first == again


# --- What the mail server answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        refused(550, "5.1.1 no such user"),
        refused(550, "unknown"),
        refused(553, "bad name"),
        refused(501, "bad syntax"),
        smtplib.SMTPNotSupportedError("no SMTPUTF8"),
        AnymailRecipientsRefused(),
        AnymailInvalidAddress("bad"),
    ],
)
def test_an_address_that_is_refused(failing, error):
    answer = failing(error)
    assert (answer.outcome, answer.is_recipient_fault, answer.is_message_fault) == (REFUSED, True, False)


@pytest.mark.parametrize(
    "error",
    [
        smtplib.SMTPDataError(554, b"5.6.0 spam"),
        AnymailAPIError("bad request", status_code=400, response=None),
        AnymailUnsupportedFeature("inline images"),
    ],
)
def test_a_mail_that_is_refused_for_what_it_says(failing, error, monkeypatch):
    monkeypatch.setattr(AnymailAPIError, "describe_response", lambda self: None)
    answer = failing(error)
    assert (answer.outcome, answer.is_recipient_fault, answer.is_message_fault) == (REFUSED, False, True)


@pytest.mark.parametrize(
    "error",
    [
        refused(450, "4.2.1 greylisted"),
        refused(550, "5.7.1 blocked by a list"),
        refused(530, "5.7.0 sign in first"),
        smtplib.SMTPAuthenticationError(535, b"bad password"),
        smtplib.SMTPSenderRefused(550, b"who are you", "x@example.com"),
        smtplib.SMTPDataError(451, b"later"),
        smtplib.SMTPConnectError(421, b"closing"),
        smtplib.SMTPServerDisconnected("gone"),
        smtplib.SMTPHeloError(500, b"what"),
        ConnectionRefusedError("refused"),
        TimeoutError("timed out"),
        socket.gaierror(-2, "unknown"),
        AnymailAPIError("sign in", status_code=401, response=None),
        AnymailAPIError("too many", status_code=429, response=None),
        AnymailAPIError("broken", status_code=503, response=None),
        AnymailAPIError("no connection"),
        AnymailConfigurationError("no key"),
        None,
    ],
)
def test_everything_else_is_tried_again(failing, error, monkeypatch):
    monkeypatch.setattr(AnymailAPIError, "describe_response", lambda self: None)
    answer = failing(error)
    assert (answer.outcome, answer.is_recipient_fault, answer.is_message_fault) == (RETRY, False, False)
    assert answer.text


@contextmanager
def mail_server(answers):
    """A mail server that answers each command as told, by the command's first word."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb", buffering=0) as lines:
            lines.write(b"220 ready\r\n")
            is_data = False
            for line in lines:
                if is_data and line != b".\r\n":
                    continue
                word = "." if is_data else line.split()[0].decode().upper()
                is_data = word == "DATA"
                usual = {"DATA": "354 go on", "QUIT": "221 bye"}.get(word, "250 fine")
                lines.write(answers.get(word, usual).encode() + b"\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.close()
    thread.join(2)


@pytest.mark.parametrize(
    ("answers", "outcome", "code"),
    [
        ({}, SENT, None),
        ({"RCPT": "550 5.1.1 no such user"}, REFUSED, 550),
        ({"RCPT": "451 4.7.1 come back"}, RETRY, 451),
        ({".": "554 5.6.0 spam"}, REFUSED, 554),
        ({"MAIL": "550 who are you"}, RETRY, 550),
    ],
)
def test_a_real_conversation(settings, answers, outcome, code):
    with mail_server(answers) as port:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_USE_TLS = "127.0.0.1", port, False
        settings.EMAIL_HOST_USER = settings.EMAIL_HOST_PASSWORD = ""
        answer = email.send({}, ALERT)
    assert (answer.outcome, answer.status_code) == (outcome, code)


def test_a_mail_server_that_is_away(settings):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_USE_TLS = "127.0.0.1", port, False
    assert email.send({}, ALERT).outcome == RETRY
