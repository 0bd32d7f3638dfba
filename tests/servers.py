"""The product as it runs: granian with several processes, on the tests' own database, and many clients at once."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.db import connection

ROOT = Path(__file__).parent.parent
# For failures alone: two busy cores start nothing quickly.
_PATIENCE_SECONDS = 120


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def database_url(**changes: Any) -> str:
    """The tests' database as a URL; `changes` replace parts (host, port)."""
    parts = {key.lower(): value for key, value in connection.settings_dict.items()} | changes
    login = quote(str(parts["user"]), safe="") + (f":{quote(parts['password'], safe='')}" if parts["password"] else "")
    return f"postgres://{login}@{parts['host']}:{parts['port']}/{parts['name']}"


class Server:
    """A running granian with its worker processes."""

    def __init__(self, workers: int, environment: dict[str, str]) -> None:
        self.port = free_port()
        self._command = [sys.executable, "-m", "granian", "--interface", "wsgi", "opsmeter_site.wsgi:application"]
        self._command += ["--port", str(self.port), "--workers", str(workers), "--blocking-threads", "32"]
        self._command += ["--workers-kill-timeout", "10", "--log-level", "error"]
        self._environment = {
            **os.environ,
            "DATABASE_URL": database_url(),
            "DJANGO_SETTINGS_MODULE": "opsmeter_site.settings_test",
            "REDIS_URL": settings.REDIS_URL,
            "LOG_LEVEL": "CRITICAL",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until requests are answered."""
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, env=self._environment, start_new_session=True, stderr=subprocess.DEVNULL
        )
        wait_until(self.is_ready, _PATIENCE_SECONDS)

    def connect(self) -> http.client.HTTPConnection:
        """A new connection; keeps alive."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_SECONDS)

    def is_ready(self) -> bool:
        """Whether a request is answered."""
        client = self.connect()
        try:
            client.request("GET", "/healthz")
            return client.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            client.close()

    def stop(self, how: int = signal.SIGTERM) -> None:
        """Send `how` and wait for the end; SIGKILL goes to every process of the server."""
        if self._process is None:
            return
        if how == signal.SIGKILL:
            os.killpg(self._process.pid, how)
        else:
            self._process.send_signal(how)
        self._process.wait(timeout=_PATIENCE_SECONDS)
        self._process = None


@contextmanager
def serve(*, workers: int = 2, **environment: str) -> Iterator[Server]:
    """The product's server on the tests' database; `environment` replaces variables such as REDIS_URL."""
    server = Server(workers, environment)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def wait_until(condition: Callable[[], Any], seconds: float) -> None:
    """Return as soon as `condition` is true; fail if it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


@dataclass
class Sent:
    """One request and what came back: header names in lower case; status 0 if the connection broke."""

    body: dict[str, Any]
    status: int
    answer: dict[str, Any]
    headers: dict[str, str]


class Crowd:
    """Parallel clients that post events, each on a connection of its own, in the order of one shared queue."""

    def __init__(self, server: Server, api_key: str, bodies: Iterable[dict[str, Any]], clients: int = 64) -> None:
        self.sent: list[Sent] = []
        self._server = server
        self._headers = {"X-API-Key": api_key, "Content-Type": "application/json"}
        self._bodies = iter(bodies)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        """Let every client finish its request and go home."""
        self._stopped.set()

    def run(self) -> list[Sent]:
        """Send everything; all answers, in no particular order."""
        with self:
            pass
        return self.sent

    def _run(self) -> None:
        client = self._server.connect()
        while not self._stopped.is_set():
            with self._lock:
                body = next(self._bodies, None)
            if body is None:
                break
            try:
                client.request("POST", "/v1/ingest/llm-request", json.dumps(body), self._headers)
                response = client.getresponse()
                sent = Sent(
                    body, response.status, json.loads(response.read()), {k.lower(): v for k, v in response.getheaders()}
                )
            except (OSError, http.client.HTTPException):
                client.close()
                client = self._server.connect()
                sent = Sent(body, 0, {}, {})
                # The server is gone for a moment: do not spin on its closed port.
                self._stopped.wait(0.05)
            self.sent.append(sent)
        client.close()
