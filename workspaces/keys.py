"""Which API key a presented secret is, and until when that answer holds."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection
from django.db.models import Q

from opsmeter_site.lib import tokens
from opsmeter_site.lib.clock import utc_now
from workspaces.models import AccessToken, ApiKey

API_KEY_PREFIX = "om_live"
ACCESS_TOKEN_PREFIX = "om_pat"  # noqa: S105 (the public beginning of a token, not a token)
USE_NOTED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class ApiKeyIdentity:
    """A key that was accepted. From `expires_at` on the presented secret must be refused; None means never."""

    key_id: int
    workspace_id: UUID
    created_by_id: int
    expires_at: datetime | None


def authenticate_api_key(plain: str) -> ApiKeyIdentity | None:
    """`identify_api_key` for server threads outside Django's request cycle: leaves no database connection behind.

    Raises what the database raises when it is away.
    """
    try:
        return identify_api_key(plain)
    finally:
        # Nobody else ends this thread's use of it. Inside a transaction it belongs to whoever opened that.
        if not connection.in_atomic_block:
            connection.close()


def identify_api_key(plain: str) -> ApiKeyIdentity | None:
    """The live key whose current or still accepted previous secret is `plain`; None if there is none.

    Malformed, unknown, expired and revoked look the same. The key's last use is noted at most once a minute.
    """
    lookup = tokens.lookup_of(plain, API_KEY_PREFIX)
    if lookup is None:
        return None
    now = utc_now()
    for key in ApiKey.objects.filter(Q(lookup=lookup) | Q(previous_lookup=lookup), revoked_at=None):
        identity = _accept(key, plain, now)
        if identity is not None:
            note_use(key, now)
            return identity
    return None


def _accept(key: ApiKey, plain: str, now: datetime) -> ApiKeyIdentity | None:
    if tokens.matches(plain, bytes(key.digest)):
        ends = [key.expires_at]
    elif key.previous_digest is not None and tokens.matches(plain, bytes(key.previous_digest)):
        ends = [key.expires_at, key.previous_expires_at]
    else:
        return None
    expires_at = min((end for end in ends if end is not None), default=None)
    if expires_at is not None and expires_at <= now:
        return None
    return ApiKeyIdentity(
        key_id=key.pk, workspace_id=key.workspace_id, created_by_id=key.created_by_id, expires_at=expires_at
    )


def note_use(credential: ApiKey | AccessToken, now: datetime) -> None:
    """Store that `credential` was used, unless that was stored less than a minute ago (by any process)."""
    before = now - USE_NOTED_EVERY
    if credential.last_used_at is not None and credential.last_used_at > before:
        return
    stale = Q(last_used_at=None) | Q(last_used_at__lte=before)
    type(credential)._default_manager.filter(stale, pk=credential.pk).update(last_used_at=now)
