"""Secrets on their way to the one page that shows them: kept in the person's session, encrypted, for minutes."""

import base64
import hashlib
from datetime import timedelta

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.http import HttpRequest

KEPT_FOR = timedelta(minutes=30)
_PREFIX = "once:"


def keep(request: HttpRequest, name: str, secret: str) -> None:
    """Let `secret` be read under `name` in this session for `KEPT_FOR`. The session's row holds no plain text."""
    request.session[_PREFIX + name] = _fernet().encrypt(secret.encode()).decode()


def read(request: HttpRequest, name: str) -> str | None:
    """The secret kept under `name`, as long as its time lasts."""
    kept = request.session.get(_PREFIX + name)
    if kept is None:
        return None
    try:
        return _fernet().decrypt(kept.encode(), ttl=int(KEPT_FOR.total_seconds())).decode()
    except InvalidToken:
        del request.session[_PREFIX + name]
        return None


def take(request: HttpRequest, name: str) -> str | None:
    """`read`, once: after this it is gone."""
    secret = read(request, name)
    request.session.pop(_PREFIX + name, None)
    return secret


def _fernet() -> Fernet:
    digest = hashlib.sha256(b"opsmeter_site.lib.once" + settings.SECRET_KEY.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(digest))
