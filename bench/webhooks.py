"""The payment provider's messages: how long the endpoint takes to store one, with no worker running.

Signed, distinct messages of a real one's size go to the server as `./opsmeter up` runs it, once at a steady rate and
once as fast as few connections can. An empty view of the same server is measured beside it.
"""

import argparse
import hmac
import http.client
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from bench.load import LoadError, Measured, granian, wrk
from billing.models import BillingEvent

PATH = "/v1/webhooks/lemon-squeezy"
PER_SECOND = 100
SENDERS = 8
CONNECTIONS = 16
BAR_MS = 50.0
# More than the server takes in a second, so that each message of a measurement is another one.
MOST_PER_SECOND = 4_000
SECRET = "webhook-secret-of-the-benchmark"
BILLING = {
    "LEMONSQUEEZY_API_KEY": "of-the-benchmark",
    "LEMONSQUEEZY_WEBHOOK_SECRET": SECRET,
    "LEMONSQUEEZY_STORE_ID": "1",
    "LEMONSQUEEZY_TEST_MODE": "true",
}


def run(options: argparse.Namespace) -> None:
    """Measure everything in turn, `options.rounds` times, and print times, ratios and how many events are stored."""
    with tempfile.TemporaryDirectory() as folder, _billing_on(), granian("bench.wsgi:application", "/empty") as server:
        address = urlsplit(server.url).netloc
        steady: dict[str, list[float]] = {"message": [], "empty view": []}
        flat_out: dict[str, list[Measured]] = {"message": [], "empty view": []}
        _send(address, 1, _post)
        before, answered = BillingEvent.objects.count(), 0
        for number in range(options.rounds):
            taken = _send(address, options.seconds, _post)
            answered += len(taken)
            steady["message"] += taken
            steady["empty view"] += _send(address, options.seconds, _get)
            messages = _write(Path(folder) / str(number), options.seconds * MOST_PER_SECOND)
            flat_out["message"].append(
                wrk(server.url, options.seconds, "webhooks.lua", str(messages), connections=CONNECTIONS)
            )
            flat_out["empty view"].append(wrk(f"{server.url}/empty", options.seconds, connections=CONNECTIONS))
            messages.unlink()
        stored = BillingEvent.objects.count() - before
    _report(steady, flat_out)
    print(f"{stored:,} messages stored, none of them processed; {answered:,} of them at the steady rate")


@contextmanager
def _billing_on() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(BILLING)
    try:
        yield
    finally:
        for name in BILLING:
            del os.environ[name]
        os.environ.update(before)


# --- Messages ---------------------------------------------------------------------------------------------------------


def _message() -> tuple[bytes, str]:
    """A body of a real one's size, and its signature."""
    number = uuid4().int % 10**7
    url = f"https://opsmeter.lemonsqueezy.com/subscription/{number}?expires=1760000000&signature={uuid4().hex * 2}"
    relations = ("store", "customer", "order", "order-item", "product", "variant", "subscription-invoices")
    api = f"https://api.lemonsqueezy.com/v1/subscriptions/{number}"
    attributes = {
        "store_id": 1,
        "customer_id": number,
        "order_id": number,
        "product_id": 4,
        "variant_id": 200,
        "product_name": "Opsmeter",
        "variant_name": "Pro",
        "user_name": "Dana Example",
        "user_email": "dana@example.com",
        "status": "active",
        "status_formatted": "Active",
        "card_brand": "visa",
        "card_last_four": "4242",
        "pause": None,
        "cancelled": False,
        "trial_ends_at": None,
        "billing_anchor": 12,
        "urls": dict.fromkeys(("update_payment_method", "customer_portal", "customer_portal_update_subscription"), url),
        "renews_at": "2026-12-12T10:00:00.000000Z",
        "ends_at": None,
        "created_at": "2026-11-12T10:00:00.000000Z",
        "updated_at": "2026-11-12T10:00:00.000000Z",
        "test_mode": True,
    }
    message = {
        "meta": {"test_mode": True, "event_name": "subscription_updated", "webhook_id": str(uuid4())},
        "data": {
            "type": "subscriptions",
            "id": str(number),
            "attributes": attributes,
            "relationships": {
                name: {"links": {"related": f"{api}/{name}", "self": f"{api}/relationships/{name}"}}
                for name in relations
            },
            "links": {"self": api},
        },
    }
    body = json.dumps(message).encode()
    return body, hmac.new(SECRET.encode(), body, "sha256").hexdigest()


def _write(path: Path, number: int) -> Path:
    """So many messages, one a line, for wrk's script."""
    with path.open("wb") as file:
        for _ in range(number):
            body, signature = _message()
            file.write(signature.encode() + b" " + body + b"\n")
    return path


# --- Sending ----------------------------------------------------------------------------------------------------------


def _send(address: str, seconds: int, request: Callable[[http.client.HTTPConnection], float]) -> list[float]:
    """`PER_SECOND` requests a second for so long, evenly spread; what each took in milliseconds."""
    taken: list[float] = []
    failures: list[Exception] = []

    def send(offset: int) -> None:
        connection = http.client.HTTPConnection(address, timeout=30)
        try:
            for number in range(offset, seconds * PER_SECOND, SENDERS):
                time.sleep(max(0.0, started + number / PER_SECOND - time.monotonic()))
                taken.append(request(connection))
        except (OSError, http.client.HTTPException, LoadError) as error:
            failures.append(error)
        finally:
            connection.close()

    started = time.monotonic()
    threads = [threading.Thread(target=send, args=(offset,)) for offset in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise LoadError(f"A request failed: {failures[0]}")
    return taken


def _post(connection: http.client.HTTPConnection) -> float:
    body, signature = _message()
    return _timed(connection, "POST", PATH, body, {"X-Signature": signature, "Content-Type": "application/json"})


def _get(connection: http.client.HTTPConnection) -> float:
    return _timed(connection, "GET", "/empty", b"", {})


def _timed(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes, headers: dict[str, str]
) -> float:
    started = time.perf_counter()
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    answer.read()
    if answer.status != http.HTTPStatus.OK:
        raise LoadError(f"{path} was answered with {answer.status}.")
    return (time.perf_counter() - started) * 1_000


# --- Reporting --------------------------------------------------------------------------------------------------------


def _report(steady: dict[str, list[float]], flat_out: dict[str, list[Measured]]) -> None:
    print(f"{'':38}{'per second':>12}{'p50 ms':>9}{'p99 ms':>9}{'÷ empty':>9}{'÷ bar':>8}")
    p99 = {name: statistics.quantiles(taken, n=100)[98] for name, taken in steady.items()}
    for name, taken in steady.items():
        print(
            f"{f'{name}, steady':38}{PER_SECOND:12,}{statistics.median(taken):9.1f}{p99[name]:9.1f}"
            f"{p99[name] / p99['empty view']:9.2f}{p99[name] / BAR_MS:8.2f}"
        )
    rate = {name: statistics.median(one.per_second for one in taken) for name, taken in flat_out.items()}
    for name, taken in flat_out.items():
        slowest = statistics.median(one.p99_ms for one in taken)
        print(
            f"{f'{name}, {CONNECTIONS} connections':38}{rate[name]:12,.0f}{'':9}{slowest:9.1f}"
            f"{rate[name] / rate['empty view']:9.2f}{slowest / BAR_MS:8.2f}"
        )
    print("÷ empty: at the steady rate of the p99, otherwise of the requests a second")
