"""One person's share of the provider's calls: its limit a minute is one for all workspaces of this installation."""

import time
from datetime import timedelta

import redis
import structlog
from django.conf import settings

from billing.models import Checkout
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import OpsmeterError
from opsmeter_site.lib.redis import client
from workspaces.models import User

logger = structlog.get_logger(__name__)

MOST_PER_MINUTE = 20
# Each unpaid one is asked about again and again for a day.
MOST_UNPAID_CHECKOUTS = 20
_UNPAID_WITHIN = timedelta(hours=1)
_WINDOW_SECONDS = 60


class TooOften(OpsmeterError):
    """429: this person has asked for more than anybody needs. The provider was not called."""

    status = 429
    reason = "rate_limited"


def take_turn(person: User) -> None:
    """Count that `person` is about to have the provider called. Raises `TooOften`; lets through without Redis."""
    now = time.time()
    key = f"{settings.REDIS_KEY_PREFIX}:billing:asked-by:{person.pk}:{int(now // _WINDOW_SECONDS)}"
    try:
        with client().pipeline(transaction=False) as pipeline:
            pipeline.incr(key)
            pipeline.expire(key, 2 * _WINDOW_SECONDS)
            count = pipeline.execute()[0]
    except redis.RedisError as error:
        logger.warning("billing_turns_not_counted", error=type(error).__name__)
        return
    if count > MOST_PER_MINUTE:
        _refuse("You have asked for too much within a minute. Nothing was changed.", _WINDOW_SECONDS - now % 60)


def check_unpaid(person: User) -> None:
    """Raises `TooOften` if `person` has begun many checkouts lately and paid none of them."""
    now = utc_now()
    unpaid = Checkout.objects.filter(requested_by=person, subscription=None, created_at__gt=now - _UNPAID_WITHIN)
    begun = list(unpaid.order_by("-created_at").values_list("created_at", flat=True)[:MOST_UNPAID_CHECKOUTS])
    if len(begun) == MOST_UNPAID_CHECKOUTS:
        left = begun[-1] + _UNPAID_WITHIN - now
        _refuse("You have begun many checkouts and paid none. Pay one of them, or wait.", left.total_seconds())


def _refuse(message: str, seconds: float) -> None:
    raise TooOften(message, headers={"Retry-After": str(int(seconds) + 1)})
