"""`python -m billing.sandbox --port 8090 --webhook-url http://127.0.0.1:8000/…`: the double as a process."""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from werkzeug.serving import WSGIRequestHandler, make_server

from billing.sandbox.app import create_app
from billing.sandbox.clock import SandboxClock
from billing.sandbox.faults import Faults
from billing.sandbox.hosts import is_loopback, is_loopback_url
from billing.sandbox.shop import Shop

_SECRETS = ("LEMONSQUEEZY_API_KEY", "LEMONSQUEEZY_WEBHOOK_SECRET", "LEMONSQUEEZY_STORE_ID")


class QuietHandler(WSGIRequestHandler):
    """Writes no line for each request: addresses of pages here carry signatures."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""


def refusal(arguments: argparse.Namespace, environment: Mapping[str, str]) -> str:
    """Why the double does not start; empty if it may."""
    if environment.get("OPSMETER_ENV") not in ("local", "test"):
        return "The billing sandbox is for development: it starts only with OPSMETER_ENV=local or test."
    if not is_loopback(arguments.host):
        return f"The billing sandbox is served on this machine only, not on {arguments.host}."
    if not is_loopback_url(arguments.webhook_url):
        return "The billing sandbox sends webhooks to this machine only: --webhook-url must be http on loopback."
    missing = [name for name in _SECRETS if not environment.get(name)]
    if missing:
        return f"The billing sandbox needs {', '.join(missing)}."
    if not environment["LEMONSQUEEZY_STORE_ID"].isdecimal():
        return "LEMONSQUEEZY_STORE_ID must be a number."
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C. Returns the exit code: 2 if it is not allowed to start."""
    parser = argparse.ArgumentParser(prog="python -m billing.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--webhook-url", required=True)
    parser.add_argument("--data", type=Path, help="folder in which everything is remembered")
    arguments = parser.parse_args(argv)
    if reason := refusal(arguments, os.environ):
        sys.stderr.write(f"{reason}\n")
        return 2
    logging.basicConfig(level=logging.WARNING)
    _serve(_open_shop(arguments), arguments.host, arguments.port)
    return 0


def _open_shop(arguments: argparse.Namespace) -> Shop:
    api_key, webhook_secret, store_id = (os.environ[name] for name in _SECRETS)
    data_file = None
    if arguments.data:
        arguments.data.mkdir(parents=True, exist_ok=True)
        data_file = arguments.data / "sandbox.json"
    shop = Shop(store_id, api_key, webhook_secret, arguments.webhook_url, SandboxClock(), Faults(), data_file)
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    shop.base_url = f"http://{host}:{arguments.port}"
    return shop


def _serve(shop: Shop, host: str, port: int) -> None:
    server = make_server(host, port, create_app(shop), threaded=True, request_handler=QuietHandler)
    # `shutdown` waits for the loop that this thread is in, so somebody else must call it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    shop.start()
    try:
        server.serve_forever()
    finally:
        shop.stop()
        server.server_close()


if __name__ == "__main__":
    sys.exit(main())
