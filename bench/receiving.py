"""An idempotent receiver of signed webhooks in a process of its own: keeps each id once, with the time it arrived."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any, ClassVar


@dataclass(frozen=True)
class Arrived:
    """A message when it came first, and how often its id came in all."""

    at: float
    times: int
    body: dict[str, Any]


class Receiver:
    """The receiver's process, seen from outside."""

    def __init__(self, port: int) -> None:
        self.host = f"127.0.0.1:{port}"
        self.url = f"http://{self.host}/"

    def arrived(self) -> dict[str, Arrived]:
        """What came so far, by id."""
        with urllib.request.urlopen(self.url, timeout=30) as answer:
            return {message_id: Arrived(**each) for message_id, each in json.load(answer).items()}


@contextmanager
def receiver(*, pause_seconds: float = 0.0) -> Iterator[Receiver]:
    """A receiver for as long as the block lasts, which pauses between taking a message and answering."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "bench.receiving", str(port), str(pause_seconds)])
    running = Receiver(port)
    try:
        _wait(running)
        yield running
    finally:
        process.terminate()
        process.wait(10)


def _wait(running: Receiver) -> None:
    for _ in range(100):
        try:
            running.arrived()
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("the receiver did not start")


class _Handler(BaseHTTPRequestHandler):
    kept: ClassVar[dict[str, dict[str, Any]]] = {}
    lock = Lock()
    pause_seconds = 0.0

    def do_POST(self) -> None:
        now = time.time()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            first = self.kept.setdefault(self.headers["webhook-id"], {"at": now, "times": 0, "body": json.loads(body)})
            first["times"] += 1
        time.sleep(self.pause_seconds)
        self._answer(b"{}")

    def do_GET(self) -> None:
        with self.lock:
            self._answer(json.dumps(self.kept).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: Any) -> None:
        """The sender was killed before it read the answer."""


if __name__ == "__main__":
    _Handler.pause_seconds = float(sys.argv[2])
    _Server(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()
