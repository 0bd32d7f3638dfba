"""The shared Redis connection, and the per-workspace epoch that tells server processes to forget what they cached.

Nothing durable lives here: losing Redis loses rate-limit windows and freshness, never a row.
"""

from functools import cache
from uuid import UUID

import redis
import structlog
from django.conf import settings

logger = structlog.get_logger(__name__)

# A slow Redis must never become a slow ingest.
_SOCKET_TIMEOUT_SECONDS = 0.25


@cache
def client() -> "redis.Redis":
    """The client of this process; thread-safe. Raises `redis.RedisError` from its commands when Redis is away."""
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=_SOCKET_TIMEOUT_SECONDS,
        socket_connect_timeout=_SOCKET_TIMEOUT_SECONDS,
        retry=None,
    )


def epoch_key(workspace_id: UUID) -> str:
    """The key of a workspace's epoch."""
    return f"{settings.REDIS_KEY_PREFIX}:epoch:{workspace_id}"


def current_epoch(workspace_id: UUID) -> str | None:
    """The workspace's epoch; None when Redis is away."""
    try:
        epoch = client().get(epoch_key(workspace_id))
    except redis.RedisError:
        return None
    return epoch.decode() if isinstance(epoch, bytes) else "0"


def bump_epoch(workspace_id: UUID) -> None:
    """Tell every server process to reload what it cached of the workspace. Call after the commit.

    Without Redis the caches' own lifetime of a few seconds does the same, later.
    """
    try:
        client().incr(epoch_key(workspace_id))
    except redis.RedisError as error:
        logger.warning("epoch_not_bumped", workspace_id=str(workspace_id), error=str(error))
