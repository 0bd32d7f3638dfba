"""The provider's limit of calls a minute, shared by every process of this installation through Redis.

Checks that nobody waits for stop earlier than what people ask for. When Redis is away calls are let through: the
provider counts, too.
"""

import math
from functools import cache
from time import time

import redis
import structlog
from django.conf import settings
from redis.commands.core import Script

from billing.providers.base import ProviderUnavailable
from opsmeter_site.lib.redis import client

logger = structlog.get_logger(__name__)

MOST_PER_MINUTE = 300
MOST_WITHOUT_HURRY = 240
_WINDOW_SECONDS = 60

# A call that is turned away is not counted: it would take the place of an urgent one.
_SCRIPT = """
local count = tonumber(redis.call('GET', KEYS[1]) or '0')
if count >= tonumber(ARGV[1]) then return 0 end
redis.call('INCR', KEYS[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""


def take(*, urgent: bool) -> None:
    """Count a call that is about to be made. Raises `ProviderUnavailable` when there are none left this minute."""
    limit = MOST_PER_MINUTE if urgent else MOST_WITHOUT_HURRY
    try:
        is_free = _script()(keys=[_key()], args=[limit, 2 * _WINDOW_SECONDS])
    except redis.RedisError as error:
        logger.warning("billing_calls_not_counted", error=type(error).__name__)
        return
    if not is_free:
        raise ProviderUnavailable(
            "There are too many calls to the payment provider just now. Nothing was changed.",
            headers={"Retry-After": str(seconds_left())},
        )


def exhaust() -> None:
    """Make no further calls this minute: the provider says that there are none left."""
    try:
        client().set(_key(), MOST_PER_MINUTE, ex=2 * _WINDOW_SECONDS)
    except redis.RedisError as error:
        logger.warning("billing_calls_not_counted", error=type(error).__name__)


def seconds_left() -> int:
    """Until the next minute begins; at least one."""
    return math.ceil(_WINDOW_SECONDS - time() % _WINDOW_SECONDS)


def _key() -> str:
    return f"{settings.REDIS_KEY_PREFIX}:lemonsqueezy:{int(time() // _WINDOW_SECONDS)}"


@cache
def _script() -> Script:
    return client().register_script(_SCRIPT)
