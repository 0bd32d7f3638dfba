"""Requests per minute, workspace and lane: one fixed window, opened by its first request, counted in Redis.

What goes in one lane does not use up the rate of another. A group of requests costs one round trip, which also brings
each workspace's epoch (see `lib.redis`). When Redis is away requests are let through: telemetry of a paying customer
is worth more than an exact brake.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

import redis
import structlog
from django.conf import settings

from opsmeter_site.lib.redis import client, epoch_key

logger = structlog.get_logger(__name__)

WINDOW_SECONDS = 60
# After a failure Redis is left alone for a moment, so that each group does not wait for its own time-out.
_PAUSE_SECONDS = 1.0

_SCRIPT = """
local answers = {}
for i = 1, #KEYS, 2 do
  local added = tonumber(ARGV[(i + 1) / 2])
  local count = redis.call('INCRBY', KEYS[i], added)
  local left = redis.call('PTTL', KEYS[i])
  if left < 0 then
    left = tonumber(ARGV[#ARGV])
    redis.call('PEXPIRE', KEYS[i], left)
  end
  answers[#answers + 1] = {count, left, redis.call('GET', KEYS[i + 1]) or '0'}
end
return answers
"""


class Lane(NamedTuple):
    """What has a window: one kind of requests of one workspace."""

    workspace_id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One request's place in its lane's window. Without Redis: first in a new window, epoch unknown."""

    count: int
    seconds_left: float
    epoch: str | None


class RateWindows:
    """Counts hits of many lanes at once. `on_skipped` hears how many hits Redis could not count."""

    def __init__(self, on_skipped: Callable[[int], None]) -> None:
        self._on_skipped = on_skipped
        self._script = client().register_script(_SCRIPT)
        self._paused_until = 0.0

    def hit_all(self, lanes: Sequence[Lane]) -> list[Hit]:
        """Count one hit for each element of `lanes`; their places in order."""
        if time.monotonic() < self._paused_until:
            return self._let_through(len(lanes))
        added = Counter(lanes)
        prefix = f"{settings.REDIS_KEY_PREFIX}:rate"
        keys = [
            key for lane in added for key in (f"{prefix}:{lane.name}:{lane.workspace_id}", epoch_key(lane.workspace_id))
        ]
        try:
            answers = self._script(keys=keys, args=[*added.values(), WINDOW_SECONDS * 1_000])
        except redis.RedisError as error:
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            logger.warning("ratelimit_skipped", error=str(error))
            return self._let_through(len(lanes))
        windows = dict(zip(added, answers, strict=True))
        places = {one: int(windows[one][0]) - added[one] for one in added}
        hits = []
        for one in lanes:
            places[one] += 1
            hits.append(Hit(places[one], windows[one][1] / 1_000, windows[one][2].decode()))
        return hits

    def _let_through(self, number: int) -> list[Hit]:
        self._on_skipped(number)
        return [Hit(1, WINDOW_SECONDS, None)] * number
