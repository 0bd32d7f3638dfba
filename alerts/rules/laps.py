"""How far each watch has come on its way through all workspaces.

Kept in Redis: when that is lost, a lap begins again, and what was told already is not told twice.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.conf import settings
from redis import RedisError

from opsmeter_site.lib.redis import client

logger = structlog.get_logger(__name__)

# Beat is never exactly on time; a lap that is due within this is begun now, not a minute later.
_NEARLY = timedelta(seconds=30)
_KEPT_FOR = timedelta(days=1)
_BEGINNING = UUID(int=0)
_OVER = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class Lap:
    """One way through all workspaces, in order of their ids. All up to `after` have been looked at."""

    name: str
    started_at: datetime
    after: UUID = _BEGINNING

    def moved_to(self, workspace_id: UUID) -> "Lap":
        """The same lap, further on."""
        return self._kept(replace(self, after=workspace_id))

    def ended(self) -> "Lap":
        """The same lap, with nothing left."""
        return self.moved_to(_OVER)

    @staticmethod
    def _kept(lap: "Lap") -> "Lap":
        try:
            client().set(_key(lap.name), f"{lap.started_at.isoformat()}|{lap.after}", ex=_KEPT_FOR)
        except RedisError as error:
            logger.warning("lap_not_kept", watch=lap.name, error=str(error))
        return lap


def current_lap(name: str, every: timedelta, now: datetime) -> Lap | None:
    """The lap that is under way, or a new one; None if the last one is over and the next is not due yet."""
    kept = _read(name)
    if kept is not None and kept.after != _OVER:
        return kept
    if kept is not None and now < kept.started_at + every - _NEARLY:
        return None
    return Lap(name, now)


def _read(name: str) -> Lap | None:
    try:
        kept = client().get(_key(name))
    except RedisError as error:
        logger.warning("lap_not_known", watch=name, error=str(error))
        return None
    if not isinstance(kept, bytes):
        return None
    started_at, after = kept.decode().split("|")
    return Lap(name, datetime.fromisoformat(started_at), UUID(after))


def _key(name: str) -> str:
    return f"{settings.REDIS_KEY_PREFIX}:alerts:lap:{name}"
