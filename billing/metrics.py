"""What operators watch of the provider's messages. Never labelled by workspace: that would be one time series each."""

import time
from datetime import date, timedelta
from typing import cast

import redis
from django.conf import settings
from prometheus_client import Counter

from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.redis import client

WEBHOOKS = Counter("opsmeter_billing_webhooks_total", "Messages of the payment provider by outcome.", ["outcome"])

_KEPT = timedelta(days=8)
# After a failure Redis is left alone for a moment: a flood of forgeries must not make every thread wait for it.
_PAUSE_SECONDS = 1.0


class _Redis:
    """Whether Redis answered lately, as this process knows it."""

    paused_until = 0.0


def count_refused(outcome: str) -> None:
    """Count a message that was refused. Nothing else of it is kept, and without Redis not even the day's count."""
    WEBHOOKS.labels(outcome).inc()
    if time.monotonic() < _Redis.paused_until:
        return
    key = _key(utc_now().date())
    try:
        with client().pipeline(transaction=False) as pipeline:
            pipeline.hincrby(key, outcome, 1)
            pipeline.expire(key, _KEPT)
            pipeline.execute()
    except redis.RedisError:
        _Redis.paused_until = time.monotonic() + _PAUSE_SECONDS


def refused_counts(day: date) -> dict[str, int]:
    """How many messages were refused on a day (UTC), by outcome; kept for a week. Empty without Redis."""
    try:
        counts = cast("dict[bytes, bytes]", client().hgetall(_key(day)))
    except redis.RedisError:
        return {}
    return {outcome.decode(): int(count) for outcome, count in counts.items()}


def _key(day: date) -> str:
    return f"{settings.REDIS_KEY_PREFIX}:billing:refused:{day:%Y-%m-%d}"
