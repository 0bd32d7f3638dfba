"""Mail of a local installation: kept in files and read in the browser, so that signing up needs no mail server.

Whoever reads it can take over any account, by a password reset. So it exists only where `OPSMETER_ENV` is local, and
only for browsers on this very machine.
"""

import base64
import email
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage as ParsedMessage
from email.policy import default
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.clickjacking import xframe_options_sameorigin
from django.views.decorators.http import require_GET

from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.htmx import wants_part

KEPT = 200  # mails
SHOWN = 50  # of them in the list
_NAME = "%Y%m%dT%H%M%S%f"
_NO_CONTENT = 204
# A mail is shown as its reader sees it, and may do nothing: no script, no form, no call to anywhere.
_MAIL_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)
_PICTURES = frozenset({"image/png", "image/jpeg", "image/gif"})
_CID = re.compile(r"""cid:([^"'\s)>]+)""")


class OutboxBackend(BaseEmailBackend):
    """Django's mail backend of a local installation: one file per mail, for its owner's eyes only."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Store the mails; the oldest ones make room."""
        folder = _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for message in email_messages:
            name = f"{utc_now():{_NAME}}-{secrets.token_hex(4)}"
            _write_private(folder / f"{name}.eml", message.message().as_bytes())
        for old in _files()[KEPT:]:
            old.unlink(missing_ok=True)
        return len(email_messages)


@dataclass(frozen=True, slots=True)
class Mail:
    """A stored mail; `id` names it in addresses. its HTML is read by `_html`."""

    id: str
    sent_at: datetime
    sender: str
    to: str
    subject: str
    text: str
    has_html: bool
    unsubscribe: str
    one_click: str


@login_not_required
@never_cache
@require_GET
def outbox(request: HttpRequest) -> HttpResponse:
    """All mails, newest first. The page asks with `newest`, and is answered 204 as long as nothing else has come."""
    _require_local(request)
    mails = [_read(file) for file in _files()[:SHOWN]]
    newest = mails[0].id if mails else ""
    if wants_part(request) and request.GET.get("newest") == newest:
        return HttpResponse(status=_NO_CONTENT)
    context = {"mails": mails, "newest": newest, "is_used": settings.EMAIL_BACKEND == _BACKEND}
    template = "console/_outbox_list.html" if wants_part(request) else "console/outbox.html"
    return render(request, template, context)


@login_not_required
@never_cache
@require_GET
def outbox_mail(request: HttpRequest, mail_id: str) -> HttpResponse:
    """One mail: as it looks if it has HTML, or with `as=text` as text."""
    mail = _read(_file(request, mail_id))
    is_text = not mail.has_html or request.GET.get("as") == "text"
    return render(request, "console/outbox_mail.html", {"mail": mail, "is_text": is_text})


@login_not_required
@never_cache
@xframe_options_sameorigin
@require_GET
def outbox_mail_html(request: HttpRequest, mail_id: str) -> HttpResponse:
    """The HTML of a mail by itself, for the frame in its page."""
    html = _html(_file(request, mail_id))
    if not html:
        raise Http404("This mail is text alone.")
    # Inside the frame a link would lead to a page that refuses to be framed.
    return HttpResponse(f'<base target="_blank">{html}', headers={"Content-Security-Policy": _MAIL_POLICY})


def _file(request: HttpRequest, mail_id: str) -> Path:
    _require_local(request)
    file = next((file for file in _files() if file.stem == mail_id), None)
    if file is None:
        raise Http404("There is no such mail.")
    return file


_BACKEND = f"{OutboxBackend.__module__}.{OutboxBackend.__name__}"


def _require_local(request: HttpRequest) -> None:
    if settings.OPSMETER_ENV != "local" or not ip_address(request.META["REMOTE_ADDR"]).is_loopback:
        raise Http404("The outbox is read on the machine itself.")


def _folder() -> Path:
    return Path(settings.OUTBOX_DIR)


def _files() -> list[Path]:
    """The mails' files, newest first."""
    return sorted(_folder().glob("*.eml"), reverse=True)


def _write_private(path: Path, content: bytes) -> None:
    """Whole or not at all: the page may be reading."""
    unfinished = path.with_suffix(".part")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    unfinished.replace(path)


def _parsed(file: Path) -> Any:
    return email.message_from_bytes(file.read_bytes(), _class=ParsedMessage, policy=default)


def _read(file: Path) -> Mail:
    message = _parsed(file)
    body = message.get_body(preferencelist=("plain",))
    return Mail(
        id=file.stem,
        sent_at=datetime.strptime(file.stem.partition("-")[0], _NAME).replace(tzinfo=UTC),
        sender=message["From"],
        to=message["To"],
        subject=message["Subject"],
        text=body.get_content() if body else "",
        has_html=message.get_body(preferencelist=("html",)) is not None,
        unsubscribe=message.get("List-Unsubscribe", ""),
        one_click=message.get("List-Unsubscribe-Post", ""),
    )


def _html(file: Path) -> str:
    """The HTML of a mail with the pictures that came along inside; empty if it has none."""
    message = _parsed(file)
    body = message.get_body(preferencelist=("html",))
    if body is None:
        return ""
    pictures = {
        str(part["Content-ID"]).strip("<> "): f"data:{part.get_content_type()};base64,"
        + base64.b64encode(part.get_content()).decode()
        for part in message.walk()
        if part["Content-ID"] and part.get_content_type() in _PICTURES
    }
    return _CID.sub(lambda found: pictures.get(found[1], found[0]), body.get_content())
