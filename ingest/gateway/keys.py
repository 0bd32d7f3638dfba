"""API keys on the hot path: an in-process cache of seconds in front of `workspaces.keys`.

Each workspace has an epoch in Redis that changes with its keys and its plan; the rate limiter brings it along with
every request, so a revoked key is refused at once and not after the cache's lifetime.
"""

import random
import time
from dataclasses import dataclass, replace
from uuid import UUID

from django.db import connection

from ingest.models import WorkspacePolicy
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.redis import current_epoch
from workspaces.keys import ApiKeyIdentity, authenticate_api_key

# While Redis confirms that the epoch has not moved on, a look-up only has to note the key's use now and then; not for
# all keys at the same moment, which every request in between would feel.
_CONFIRMED_SECONDS = (30.0, 90.0)
_UNCONFIRMED_SECONDS = 5.0
_MAX_ENTRIES = 20_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends telemetry, and how much of it per minute."""

    key: ApiKeyIdentity
    requests_per_minute: int
    loaded_at: float
    look_again_at: float
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
        """The caller behind a key, None if it is not valid. `confirm` decides whether what was cached is current."""
        now = time.monotonic()
        caller = self._callers.get(plain)
        if caller is None:
            # Whose epoch to ask for is known only now; and it must be asked for before what is to be cached is read.
            caller = self._load(plain, None)
        elif now < caller.look_again_at:
            return caller
        else:
            # One request looks; the others go on with what is known.
            self._callers[plain] = replace(caller, look_again_at=now + _UNCONFIRMED_SECONDS)
        return caller and self._load(plain, current_epoch(caller.workspace_id))

    def confirm(self, plain: str, caller: Caller, epoch: str | None) -> Caller | None:
        """`caller` if it is still current at `epoch`, else looked up again; None if the key is no longer valid."""
        is_current = epoch == caller.epoch
        if epoch is None:
            is_current = time.monotonic() - caller.loaded_at < _UNCONFIRMED_SECONDS
        if is_current:
            expires_at = caller.key.expires_at
            return caller if expires_at is None or utc_now() < expires_at else None
        return self._load(plain, epoch)

    def _load(self, plain: str, epoch: str | None) -> Caller | None:
        loaded_at = time.monotonic()
        key = authenticate_api_key(plain)
        requests_per_minute = _requests_per_minute(key.workspace_id) if key else None
        if key is None or requests_per_minute is None:
            self._callers.pop(plain, None)
            return None
        look_again_at = loaded_at + random.uniform(*_CONFIRMED_SECONDS)  # noqa: S311 (spreads load, hides nothing)
        caller = Caller(key, requests_per_minute, loaded_at, look_again_at, epoch)
        if len(self._callers) >= _MAX_ENTRIES:
            self._callers.clear()
        self._callers[plain] = caller
        return caller


def _requests_per_minute(workspace_id: UUID) -> int | None:
    """None if the workspace has no policy (any more), and so takes no telemetry."""
    rates = WorkspacePolicy.objects.filter(workspace_id=workspace_id).values_list("requests_per_minute", flat=True)
    try:
        return rates.first()
    finally:
        if not connection.in_atomic_block:
            # Server threads live outside Django's request cycle, which would give the connection back.
            connection.close()
