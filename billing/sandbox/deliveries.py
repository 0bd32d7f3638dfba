"""Signed deliveries of events: a log of them, their retries, and the faults that they can have."""

import hashlib
import hmac
import json
import secrets
import ssl
import threading
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx2

from billing.sandbox.documents import Documents
from billing.sandbox.errors import NotFound
from billing.sandbox.life import Happening
from billing.sandbox.records import Delivery, Webhook
from billing.sandbox.state import State

EVENTS = [
    "order_created",
    "order_refunded",
    "subscription_created",
    "subscription_updated",
    "subscription_plan_changed",
    "subscription_cancelled",
    "subscription_resumed",
    "subscription_expired",
    "subscription_paused",
    "subscription_unpaused",
    "subscription_payment_success",
    "subscription_payment_failed",
    "subscription_payment_recovered",
    "subscription_payment_refunded",
]
# Seconds before the second, third and fourth attempt. After that it is given up.
RETRY_SECONDS = (5, 25, 125)
# Not documented; a receiver should be a good deal faster.
_ANSWER_SECONDS = 10
_SUCCESS = 200
# Addresses are http on loopback. Without this, each client would read the machine's certificates, which takes long.
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def new_webhook_id() -> str:
    """An event's own id: a UUID of version 7, which sorts by time."""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = (rest << 12) // 1_000_000
    return str(UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | secrets.randbits(62)))


def sign(secret: str, body: bytes) -> str:
    """What `X-Signature` says of a body."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class Deliveries:
    """Where events wait, and what became of them."""

    def __init__(self, state: State, documents: Documents) -> None:
        self.manual = False
        """Nothing is sent: a test takes what waits."""
        self.retry_scale = 1.0
        """What the waits between attempts are multiplied with, so that a test need not wait."""
        self._state = state
        self._documents = documents
        self._news = threading.Event()

    def announce(self, happenings: Sequence[Happening], custom: dict[str, str]) -> None:
        """Make deliveries of events, for everybody who wants them. Callers hold the state's lock."""
        for name, record in happenings:
            body = json.dumps(self._payload(name, record, custom)).encode()
            for webhook in self._state.webhooks.values():
                if name in webhook.events or name not in EVENTS:
                    self._queue(webhook, name, body)
        if self._state.faults.shuffle:
            self._shuffle()
        self._news.set()

    def log(self) -> list[Delivery]:
        """Every delivery that is remembered, newest first."""
        with self._state.lock:
            return [deepcopy(delivery) for delivery in reversed(self._state.deliveries.values())]

    def resend(self, delivery_id: int) -> int:
        """Send once more, with the same body and so the same webhook_id. Returns the new delivery's id."""
        with self._state.changing():
            if delivery_id not in self._state.deliveries:
                raise NotFound("There is no such delivery.")
            again = self._again(self._state.deliveries[delivery_id])
        self._news.set()
        return again.id

    def take(self) -> list[tuple[str, bytes, dict[str, str]]]:
        """In manual mode: everything that waits, as (event name, body, headers). It waits no longer."""
        with self._state.changing():
            waiting = self._waiting()
            for delivery in waiting:
                delivery.status = "taken"
            return [(each.event_name, each.body.encode(), dict(each.headers)) for each in waiting]

    def wait(self, seconds: float) -> None:
        """Until there is something to send, at most so long."""
        with self._state.lock:
            waiting = [] if self.manual else self._waiting()
            dues = [delivery.due_epoch - time.time() for delivery in waiting]
        self._news.wait(max(min([seconds, *dues]), 0))
        self._news.clear()

    def wake(self) -> None:
        """End a `wait`."""
        self._news.set()

    def send_next(self) -> bool:
        """Make one attempt, the one that has been due longest. False: there was none, or the mode is manual."""
        delivery = None if self.manual else self._first_due()
        if delivery is None:
            return False
        # Where the endpoint is now: what waited through a restart goes to the new place.
        webhook = self._state.webhooks.get(delivery.webhook_id)
        status, error = _post(webhook.url, delivery) if webhook else (0, "There is no such webhook any more.")
        with self._state.changing():
            self._note(delivery, status, error)
        return True

    def _first_due(self) -> Delivery | None:
        with self._state.lock:
            due = [delivery for delivery in self._waiting() if delivery.due_epoch <= time.time()]
            return min(due, key=lambda delivery: delivery.due_epoch, default=None)

    def _waiting(self) -> list[Delivery]:
        return [delivery for delivery in self._state.deliveries.values() if delivery.status == "pending"]

    def _payload(self, name: str, record: Any, custom: dict[str, str]) -> dict[str, Any]:
        faults = self._state.faults
        meta: dict[str, Any] = {"test_mode": self._documents.attributes.test_mode, "event_name": name}
        if custom and not faults.no_custom_data:
            meta["custom_data"] = custom
        if not faults.missing_webhook_id:
            meta["webhook_id"] = new_webhook_id()
        return {"meta": meta, "data": self._documents.resource(record)}

    def _queue(self, webhook: Webhook, name: str, body: bytes) -> None:
        faults = self._state.faults
        secret = secrets.token_hex() if faults.wrong_signature else webhook.secret
        dropped = faults.drop_next > 0 and faults.drop_event in ("", name)
        faults.drop_next -= dropped
        delivery = Delivery(
            id=self._state.new_id(),
            webhook_id=webhook.id,
            event_name=name,
            body=body.decode(),
            headers={"Content-Type": "application/json", "X-Event-Name": name, "X-Signature": sign(secret, body)},
            status="dropped" if dropped else "pending",
            due_epoch=time.time() + faults.delay_seconds,
            attempts=[],
            created_at=self._state.clock.now(),
        )
        self._state.deliveries[delivery.id] = delivery
        if faults.duplicate and not dropped:
            self._again(delivery)

    def _again(self, delivery: Delivery) -> Delivery:
        again = replace(
            delivery, id=self._state.new_id(), status="pending", attempts=[], created_at=self._state.clock.now()
        )
        self._state.deliveries[again.id] = again
        return again

    def _shuffle(self) -> None:
        """Let those that were never tried change places."""
        fresh = [delivery for delivery in self._waiting() if not delivery.attempts]
        for delivery in fresh:
            del self._state.deliveries[delivery.id]
        dues = [delivery.due_epoch for delivery in fresh]
        secrets.SystemRandom().shuffle(fresh)
        for delivery, due in zip(fresh, dues, strict=True):
            delivery.due_epoch = due
            self._state.deliveries[delivery.id] = delivery

    def _note(self, delivery: Delivery, status: int, error: str) -> None:
        """Write an attempt down, and when the next one is due, if there is one."""
        now = datetime.now(UTC)
        delivery.attempts.append({"at": now.isoformat(), "status": status, "error": error})
        if status == _SUCCESS:
            delivery.status = "sent"
            if webhook := self._state.webhooks.get(delivery.webhook_id):
                webhook.last_sent_at = self._state.clock.now()
        elif len(delivery.attempts) > len(RETRY_SECONDS):
            delivery.status = "failed"
        else:
            delivery.due_epoch = now.timestamp() + RETRY_SECONDS[len(delivery.attempts) - 1] * self.retry_scale


def _post(url: str, delivery: Delivery) -> tuple[int, str]:
    """One attempt: the answer's status, or 0 and why there is none."""
    try:
        with httpx2.Client(timeout=_ANSWER_SECONDS, trust_env=False, verify=_NO_CERTIFICATES) as client:
            reply = client.post(url, content=delivery.body.encode(), headers=delivery.headers)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return 0, type(error).__name__
    return reply.status_code, "" if reply.status_code == _SUCCESS else f"HTTP {reply.status_code}"
