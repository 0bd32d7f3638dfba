"""`./opsmeter` as a user starts it: real servers, real processes, a data folder per test."""

import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from opsmeter_site.embedded.processes import ROOT, launched

LAUNCHER = str(ROOT / "opsmeter")
# What the suite itself was started with must not reach the commands under test.
OURS = (
    "DATABASE_URL",
    "REDIS_URL",
    "OPSMETER_",
    "DJANGO_",
    "SECRET_KEY",
    "DEBUG",
    "ALLOWED_HOSTS",
    "REDIS_KEY",
    "LEMONSQUEEZY_",
    "PYTEST",
)
# Only for failures: two cores that are busy with something else start all of it in minutes.
START_SECONDS = 300


def environment(data: Path) -> dict[str, str]:
    """The caller's environment as far as it is not the suite's, with that data folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return kept | {"OPSMETER_DATA": str(data)}


def run(data: Path, *arguments: str, said: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of the launcher to its end; `said` is what it reads from its standard input."""
    return subprocess.run(
        [LAUNCHER, *arguments],
        env=environment(data),
        input=said,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )


def wait_for(condition: Callable[[], Any], seconds: float = START_SECONDS) -> None:
    """Return as soon as `condition` is true; fail if it is not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


def processes_of(data: Path) -> list[str]:
    """Command lines of every process that was started for this data folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("OPSMETER_DATA") == str(data) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


class Up:
    """A running `./opsmeter up`. Make it in the main thread: it ends with the thread that started it."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.ready_file = data.parent / "ready.json"
        self.output = data.parent / "output"
        command = [LAUNCHER, "up", "--port", "0", "--ready-file", str(self.ready_file), *options]
        with self.output.open("wb") as output:
            # Tied to this process: a killed test run leaves nothing behind.
            self.process = subprocess.Popen(
                launched(command), env=environment(data), stdout=output, stderr=subprocess.STDOUT
            )
        wait_for(lambda: self.ready_file.exists() or self.process.poll() is not None)
        assert self.ready_file.exists(), self.output.read_text()
        self.ready: dict[str, str] = json.loads(self.ready_file.read_text())

    def send(self, event: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and answer to an event of the demo workspace."""
        address = urlsplit(self.ready["url"])
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        try:
            headers = {"X-API-Key": self.ready["apiKey"], "Content-Type": "application/json"}
            connection.request("POST", "/v1/ingest/llm-request", json.dumps(event), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end with that signal, and wait; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(START_SECONDS)
