"""The double, served on loopback in a thread of the test's own process."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from werkzeug.serving import make_server

from billing.sandbox.__main__ import QuietHandler
from billing.sandbox.app import create_app
from billing.sandbox.clock import SandboxClock
from billing.sandbox.faults import Faults
from billing.sandbox.shop import Shop

STORE_ID, API_KEY, WEBHOOK_SECRET = "1", "sandbox-key", "sandbox-secret"


def open_shop(webhook_url: str = "", data_file: Path | None = None) -> Shop:
    """A shop that nobody serves. Events wait in `shop.deliveries.take()`."""
    shop = Shop(STORE_ID, API_KEY, WEBHOOK_SECRET, webhook_url, SandboxClock(), Faults(), data_file)
    shop.base_url = "http://127.0.0.1:1"
    shop.deliveries.manual = True
    return shop


def wait_for(truth: Callable[[], bool], seconds: float = 30) -> None:
    """Until something is so, as other threads make it."""
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end, "It did not happen in time."
        time.sleep(0.005)


@contextmanager
def running_shop(webhook_url: str = "", manual: bool = True) -> Iterator[tuple[Shop, str]]:
    """A served shop and its address (the API is at `<address>/v1`).

    Manual: events wait in `shop.deliveries.take()`, and time passes only for who asks or changes something. Otherwise
    a thread sends them to `webhook_url`, with retries after a thousandth of the usual time. A test that makes more
    calls than the real limit allows sets `shop.calls_per_minute`.
    """
    shop = open_shop(webhook_url)
    server = make_server("127.0.0.1", 0, create_app(shop), threaded=True, request_handler=QuietHandler)
    shop.base_url = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    if not manual:
        shop.deliveries.manual = False
        shop.deliveries.retry_scale = 0.001
        shop.start()
    try:
        yield shop, shop.base_url
    finally:
        shop.stop()
        server.shutdown()
        thread.join()
        server.server_close()
