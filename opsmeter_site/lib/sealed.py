"""Secrets at rest that must be readable again: encrypted under `SECRET_KEY`, readable under its predecessors."""

import base64
import hashlib
from datetime import timedelta

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings


class Unreadable(ValueError):
    """Sealed under a key that is not known, too old, or no sealed text at all."""


def seal(text: str) -> str:
    """`text`, encrypted and signed; ASCII."""
    return _fernet().encrypt(text.encode()).decode()


def unseal(sealed: str, *, no_older_than: timedelta | None = None) -> str:
    """The text that `seal` was given. Raises `Unreadable`."""
    ttl = None if no_older_than is None else int(no_older_than.total_seconds())
    try:
        return _fernet().decrypt(sealed.encode(), ttl=ttl).decode()
    except InvalidToken as error:
        raise Unreadable from error


def _fernet() -> MultiFernet:
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    digests = (hashlib.sha256(b"opsmeter_site.lib.sealed" + key.encode()).digest() for key in keys)
    return MultiFernet([Fernet(base64.urlsafe_b64encode(digest)) for digest in digests])
