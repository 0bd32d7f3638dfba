"""API keys on the hot path: an in-process cache of seconds in front of `workspaces.keys`.

Each workspace has an epoch in Redis that changes with its keys and its plan; the rate limiter brings it along with
every request, so a revoked key is refused at once and not after the cache's lifetime.
"""

import time
from dataclasses import dataclass
from uuid import UUID

from django.db import connection

from ingest.models import WorkspacePolicy
from opsmeter_site.lib.clock import utc_now
from workspaces.keys import ApiKeyIdentity, authenticate_api_key

# While Redis confirms that the epoch has not moved on, a look-up only has to note the key's use now and then.
_CONFIRMED_SECONDS = 30.0
_UNCONFIRMED_SECONDS = 5.0
_MAX_ENTRIES = 20_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends telemetry, and how much of it per minute."""

    key: ApiKeyIdentity
    requests_per_minute: int
    loaded_at: float
    epoch: str | None

    @property
    def workspace_id(self) -> UUID:
        """The workspace that the key belongs to."""
        return self.key.workspace_id


class KeyCache:
    """Callers by their plain API key. Only keys that were valid when looked up are held."""

    def __init__(self) -> None:
        self._callers: dict[str, Caller] = {}

    def find(self, plain: str) -> Caller | None:
        """The caller behind a key, from the cache if it is there at all: `confirm` decides whether that is current."""
        return self._callers.get(plain) or self._load(plain, None)

    def confirm(self, plain: str, caller: Caller, epoch: str | None) -> Caller | None:
        """`caller` if it is still current at `epoch`, else looked up again; None if the key is no longer valid."""
        lifetime = _UNCONFIRMED_SECONDS if epoch is None else _CONFIRMED_SECONDS if epoch == caller.epoch else 0
        if time.monotonic() - caller.loaded_at < lifetime:
            expires_at = caller.key.expires_at
            return caller if expires_at is None or utc_now() < expires_at else None
        return self._load(plain, epoch)

    def _load(self, plain: str, epoch: str | None) -> Caller | None:
        loaded_at = time.monotonic()
        key = authenticate_api_key(plain)
        if key is None:
            self._callers.pop(plain, None)
            return None
        caller = Caller(key, _requests_per_minute(key.workspace_id), loaded_at, epoch)
        if len(self._callers) >= _MAX_ENTRIES:
            self._callers.clear()
        self._callers[plain] = caller
        return caller


def _requests_per_minute(workspace_id: UUID) -> int:
    try:
        return WorkspacePolicy.objects.values_list("requests_per_minute", flat=True).get(workspace_id=workspace_id)
    finally:
        if not connection.in_atomic_block:
            # Server threads live outside Django's request cycle, which would give the connection back.
            connection.close()
