"""Opaque credentials: `<prefix>_<8 character look-up id>_<32 character secret>`.

The look-up id finds the row, the digest proves the secret. The secret carries 190 bits of randomness, so a plain
SHA-256 is enough at rest: a slow hash defends guessable passwords, not random keys.
"""

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass

LOOKUP_LENGTH = 8
SECRET_LENGTH = 32
_ALPHABET = string.ascii_letters + string.digits
_SHAPE = re.compile(rf"(om_(?:live|pat))_([A-Za-z0-9]{{{LOOKUP_LENGTH}}})_[A-Za-z0-9]{{{SECRET_LENGTH}}}")


@dataclass(frozen=True, slots=True)
class NewToken:
    """A credential at the one moment when its plain text exists."""

    plain: str
    lookup: str
    digest: bytes


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def digest_of(plain: str) -> bytes:
    """SHA-256 of the whole credential, 32 bytes."""
    return hashlib.sha256(plain.encode()).digest()


def new_token(prefix: str) -> NewToken:
    """A fresh credential with `prefix` ("om_live", "om_pat" or "om_inv")."""
    lookup = _random_text(LOOKUP_LENGTH)
    plain = f"{prefix}_{lookup}_{_random_text(SECRET_LENGTH)}"
    return NewToken(plain=plain, lookup=lookup, digest=digest_of(plain))


def lookup_of(plain: str, prefix: str) -> str | None:
    """The look-up id inside a presented credential, or None if it does not have the shape of one."""
    match = _SHAPE.fullmatch(plain)
    return match.group(2) if match and match.group(1) == prefix else None


def matches(plain: str, digest: bytes) -> bool:
    """Compare a presented credential with a stored digest in constant time."""
    return hmac.compare_digest(digest_of(plain), digest)
