"""Sending what waits: claimed by lease, sent in parallel, tried again with growing pauses, every attempt kept.

A claim stores the attempt and until when it lasts, and commits; only then is anything sent. A sender that is killed
leaves a lease that ends, and somebody else sends the same message under the same id. The claiming thread does all work
with the database; the threads of the pool only talk to receivers.
"""

import threading
from collections import Counter
from collections.abc import Collection, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from enum import Enum
from time import monotonic
from typing import Any

import structlog
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Case, Count, F, Q, When, prefetch_related_objects

from alerts.channel_services import config_of
from alerts.channels import MODULES
from alerts.channels.base import Answer
from alerts.composing import compose
from alerts.delivery_results import Claim, record
from alerts.messages import Message
from alerts.models import (
    UNDER_WAY,
    Action,
    Attempt,
    AttemptOutcome,
    Channel,
    ChannelKind,
    ChannelState,
    Delivery,
    DeliveryState,
)
from alerts.recipients import mail_addresses
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import OpsmeterError

logger = structlog.get_logger(__name__)

SUMMARIES = (Action.REPORT,)
ALL_BUT_SUMMARIES = (Action.ALERT, Action.RESOLVE, Action.TEST, Action.CHANNEL_OFF)

# Longer than a call may take, shorter than anybody would wait for a message that its sender has lost.
LEASE = timedelta(seconds=60)
# Sending is waiting: threads are many, so that receivers that hang leave enough of them.
THREADS = 48
# All mail goes through one server, and who has failed to answer often hangs again: a third of the threads for each,
# so that the rest goes on calling others.
MOST_MAILS = MOST_REPEATS = THREADS // 3
# One receiver gets so many calls at once, so that a dead one does not hold up the rest.
MOST_OF_ONE_CHANNEL = 4
# How many rows a claim looks at; those of a channel that is busy are left to a later claim.
_LOOKED_AT = 100
# While a receiver takes its time, new messages are looked for so often.
_LOOK_AGAIN_SECONDS = 0.2
# First attempts. What has been put off since it was queued waits for a receiver that has failed to take other messages.
_IS_FIRST = Q(attempts_made=0) & (~Q(hold="") | Q(next_attempt_at__lte=F("created_at") + timedelta(seconds=1)))


class _Lane(Enum):
    """What shares threads."""

    FIRST = "first attempts"
    REPEAT = "repeated attempts"
    MAIL = "mail"


_MOST = {_Lane.FIRST: THREADS, _Lane.REPEAT: MOST_REPEATS, _Lane.MAIL: MOST_MAILS}

# One claimer a process is enough, as it has threads of its own; a second task that comes meanwhile has nothing to do.
_claiming = threading.Lock()


def deliver_due(seconds: float, actions: Collection[Action] = tuple(Action)) -> int:
    """Send what is due until nothing is left or `seconds` are over; how many messages were tried."""
    until = monotonic() + seconds
    tried = 0
    under_way: dict[Future[Answer], Claim] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        if _claiming.acquire(blocking=False):
            try:
                while monotonic() < until:
                    claims = _claim(under_way.values(), actions)
                    tried += len(claims)
                    for claim in claims:
                        _start(claim, pool, under_way)
                    if not under_way and not claims:
                        break
                    _record_done(under_way, _LOOK_AGAIN_SECONDS)
            finally:
                # Before the last answers are in, so that a slow receiver never keeps the next task from claiming.
                _claiming.release()
        while under_way:
            _record_done(under_way, None)
    return tried


# --- Claiming -------------------------------------------------------------------------------------------------------


def _claim(under_way: Iterable[Claim], actions: Collection[Action]) -> list[Claim]:
    """Take the next messages: first attempts before repeated ones, then those that have waited longest."""
    now = utc_now()
    lanes = Counter(_lane(claim.delivery) for claim in under_way)
    if lanes.total() >= THREADS:
        return []
    with transaction.atomic():
        busy = _calls_by_channel(now)
        due = (
            Delivery.objects.filter(state__in=UNDER_WAY, next_attempt_at__lte=now, action__in=actions)
            .exclude(channel__in=[pk for pk, calls in busy.items() if calls >= MOST_OF_ONE_CHANNEL])
            .annotate(is_repeat=Case(When(_IS_FIRST, then=False), default=True))
            .order_by("is_repeat", "next_attempt_at")
            .select_related("workspace", "channel", "report", "about", "requested_by")
            .select_for_update(skip_locked=True, of=("self",))
        )
        if lanes[_Lane.MAIL] >= MOST_MAILS:
            due = due.exclude(channel_kind=ChannelKind.EMAIL)
        return _lease(_chosen(due[:_LOOKED_AT], busy, lanes), now)


def _calls_by_channel(now: datetime) -> Counter[Any]:
    """How many messages of each channel are being sent now, by anybody."""
    sending = Delivery.objects.filter(state=DeliveryState.SENDING, next_attempt_at__gt=now, channel__isnull=False)
    return Counter(dict(sending.values_list("channel").annotate(Count("pk"))))


def _chosen(due: Iterable[Delivery], busy: Counter[Any], lanes: Counter[_Lane]) -> list[Delivery]:
    """The first of them that there is room for: for each channel, in each lane, and in all."""
    chosen: list[Delivery] = []
    for delivery in due:
        lane = _lane(delivery)
        is_full = lanes.total() >= THREADS or lanes[lane] >= _MOST[lane]
        if is_full or busy[delivery.channel_id] >= MOST_OF_ONE_CHANNEL:
            continue
        chosen.append(delivery)
        busy[delivery.channel_id] += 1
        lanes[lane] += 1
    return chosen


def _lane(delivery: Any) -> _Lane:
    if delivery.channel_kind == ChannelKind.EMAIL:
        return _Lane.MAIL
    return _Lane.REPEAT if delivery.is_repeat else _Lane.FIRST


def _lease(deliveries: list[Delivery], now: datetime) -> list[Claim]:
    for delivery in deliveries:
        delivery.state = DeliveryState.SENDING
        delivery.attempts_made += 1
        delivery.next_attempt_at = now + LEASE
    Delivery.objects.bulk_update(deliveries, ["state", "attempts_made", "next_attempt_at"])
    prefetch_related_objects(deliveries, "alerts__recovers")
    attempts = Attempt.objects.bulk_create(
        Attempt(delivery=delivery, number=delivery.attempts_made, started_at=now) for delivery in deliveries
    )
    return [Claim(delivery, attempt) for delivery, attempt in zip(deliveries, attempts, strict=True)]


# --- Sending --------------------------------------------------------------------------------------------------------


def _start(claim: Claim, pool: ThreadPoolExecutor, under_way: dict[Future[Answer], Claim]) -> None:
    """Hand a message to the pool, unless it must not or cannot be sent."""
    delivery, channel = claim.delivery, claim.delivery.channel
    try:
        # A savepoint: whatever goes wrong inside leaves the connection usable.
        with transaction.atomic():
            obstacle = _obstacle(delivery, channel)
            if channel is None or obstacle:
                record(claim, None, obstacle)
                return
            message, config = compose(delivery), config_of(channel)
    except (OperationalError, InterfaceError):
        raise  # the database is away: the lease ends, and the message is sent then
    except Exception as error:  # whatever it is, it must not keep other messages from being sent
        record(claim, _our_fault("message_not_composed", delivery, error))
        return
    under_way[pool.submit(_send, delivery, config, message)] = claim


def _obstacle(delivery: Delivery, channel: Channel | None) -> str:
    """Why a message is not sent any more; empty if it is."""
    if channel is None:
        return "The channel was deleted."
    if delivery.action in (Action.TEST, Action.CHANNEL_OFF):
        return ""
    if channel.state == ChannelState.PAUSED:
        return "The channel is paused."
    if channel.state == ChannelState.OFF:
        return f"The channel was switched off. {channel.failure}".strip()
    if delivery.action != Action.REPORT and not delivery.alerts.all():
        return "What it was to tell was deleted."
    if delivery.recipient and delivery.requested_by is None:
        allowed = mail_addresses(delivery.workspace_id, delivery.topic)
        return "" if delivery.recipient.lower() in allowed else "This address does not get such mail any more."
    return ""


def _send(delivery: Delivery, config: dict[str, Any], message: Message) -> Answer:
    """In a thread of the pool: nothing here touches the database."""
    try:
        return MODULES[ChannelKind(delivery.channel_kind)].send(config, message)
    except Exception as error:  # a channel's own mistake is no reason to lose the message
        return _our_fault("message_not_sent", delivery, error)


def _our_fault(event: str, delivery: Delivery, error: Exception) -> Answer:
    # Of any error but our own the class alone: its text may quote a secret address.
    name = type(error).__name__
    logger.error(event, delivery=str(delivery.pk), error=name)
    text = error.message if isinstance(error, OpsmeterError) else f"Something went wrong on our side ({name})."
    return Answer(AttemptOutcome.RETRY, None, text, is_message_fault=True)


def _record_done(under_way: dict[Future[Answer], Claim], seconds: float | None) -> None:
    """Store the answers that have come, waiting up to `seconds` for the first one."""
    done, _ = wait(under_way, seconds, FIRST_COMPLETED)
    for future in done:
        claim = under_way.pop(future)
        try:
            record(claim, future.result())
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:  # the lease ends, and the message is sent again; the others go on
            logger.error("answer_not_recorded", delivery=str(claim.delivery.pk), error=type(error).__name__)
