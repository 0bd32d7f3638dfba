"""The scheduler's sign of life: beat's own task notes the time, `/readyz` shows how long ago that was.

Kept in Redis on purpose: without Redis no scheduled task reaches a worker, so the sign stops when the work does.
"""

from datetime import UTC, datetime, timedelta

from django.conf import settings

from opsmeter_site.lib.redis import client

# Beat notes the time every minute; three misses are no accident.
STALE_AFTER = timedelta(minutes=3)
_KEPT_SECONDS = 7 * 86_400


def note_heartbeat(now: datetime) -> None:
    """Store that scheduler and worker were alive at `now` (aware). Raises `redis.RedisError` when Redis is away."""
    client().set(_key(), str(int(now.timestamp())), ex=_KEPT_SECONDS)


def last_heartbeat() -> datetime | None:
    """When that was, or None if never in the last week. Raises `redis.RedisError` when Redis is away."""
    stored = client().get(_key())
    return datetime.fromtimestamp(int(stored), UTC) if isinstance(stored, bytes) else None


def _key() -> str:
    return f"{settings.REDIS_KEY_PREFIX}:heartbeat"
