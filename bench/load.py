"""Servers to measure, workspaces to send to, and wrk to send with."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from billing.services import OpenedWorkspace, open_workspace
from budgets.services import update_budget_settings
from ingest.services import LimitSpec, put_limit

HERE = Path(__file__).parent
CONNECTIONS = 64
PROCESSES = 2
THREADS = 64
# Far above what any run reaches, so that limits are read, compared and never hit.
REQUESTS = 10**9
PER_MINUTE = 10**9
BUDGET_USD = Decimal(10_000_000)
SCOPED_LIMITS = 50


class LoadError(Exception):
    """The benchmark cannot run here; the text says why."""


@dataclass(frozen=True)
class Measured:
    """One measurement: requests a second and the 99th percentile of their time in milliseconds."""

    per_second: float
    p99_ms: float


def open_limited_workspace(name: str) -> OpenedWorkspace:
    """A workspace with a plan limit and two hard-stop budgets that no run reaches."""
    opened = open_workspace(
        name=name,
        plan_tier="enterprise",
        owner_email="bench@example.com",
        monthly_requests=REQUESTS,
        requests_per_minute=PER_MINUTE,
    )
    update_budget_settings(
        opened.workspace,
        acting_user=opened.owner,
        daily_limit_usd=BUDGET_USD,
        monthly_limit_usd=BUDGET_USD,
        enforcement="hard",
    )
    return opened


def set_scoped_limits(opened: OpenedWorkspace) -> None:
    """`SCOPED_LIMITS` hard-stop budgets, on all scopes of wrk's events, that no run reaches."""
    scopes = [("tenant_id", "acme"), ("model", "gpt-4o-mini"), ("user_id", ""), ("endpoint_tag", "")]
    scopes += [("endpoint_tag", f"chat.{number}") for number in range(7)]
    scopes += [("user_id", f"user-{number}") for number in range(SCOPED_LIMITS - len(scopes))]
    for number, (kind, value) in enumerate(scopes):
        spec = LimitSpec(
            source_id=f"bench-{number}",
            name=f"Bench {number}",
            measure="usd",
            period="day" if number % 2 else "month",
            amount=BUDGET_USD,
            thresholds=(Decimal("0.5"), Decimal("0.8"), Decimal(1)),
            enforce=True,
            scope_kind=kind,
            scope_value=value,
            is_each_value=not value,
        )
        put_limit(opened.workspace.id, "bench", spec)


def write_keys(path: Path, opened: list[OpenedWorkspace]) -> Path:
    """The API keys, one a line, for wrk's script."""
    path.write_text("\n".join(one.api_key_plain for one in opened))
    return path


@dataclass
class Server:
    """A running server and where it listens."""

    process: subprocess.Popen[bytes]
    url: str


@contextmanager
def granian(application: str, probe: str) -> Iterator[Server]:
    """`application` under granian, as `./opsmeter up` runs it; `probe` is a path that answers once it serves."""
    arguments = ["granian", "--interface", "wsgi", "--workers", str(PROCESSES), "--blocking-threads", str(THREADS)]
    with _running([*arguments, "--no-ws", "--log-level", "error"], application, probe) as server:
        yield server


@contextmanager
def gunicorn(application: str, probe: str) -> Iterator[Server]:
    """`application` under gunicorn's threaded worker, with as many processes and threads."""
    arguments = ["gunicorn", "--worker-class", "gthread", "--workers", str(PROCESSES), "--threads", str(THREADS)]
    with _running([*arguments, "--keep-alive", "30", "--log-level", "error"], application, probe) as server:
        yield server


@contextmanager
def _running(arguments: list[str], application: str, probe: str) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--port", str(port)] if arguments[0] == "granian" else ["--bind", f"127.0.0.1:{port}"]
    process = subprocess.Popen([sys.executable, "-m", *arguments, *where, application], env=os.environ)
    server = Server(process, f"http://127.0.0.1:{port}")
    try:
        _wait(server, probe)
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _wait(server: Server, probe: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(server.url + probe, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            if server.process.poll() is not None:
                break
            time.sleep(0.1)
    raise LoadError("The server did not start; its own words are above.")


def wrk(url: str, seconds: int, script: str | None = None, *arguments: str, connections: int = CONNECTIONS) -> Measured:
    """Load `url` for `seconds`; raises `LoadError` if wrk is missing or anything but 2xx came back."""
    program = shutil.which("wrk")
    if program is None:
        raise LoadError("wrk is not installed (Debian: apt-get install wrk).")
    command = [program, "-t2", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency"]
    command += ["-s", str(HERE / script)] if script else []
    done = subprocess.run([*command, url, "--", *arguments], capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise LoadError(f"Not every request was answered with 200:\n{done.stdout}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)
    assert rate is not None and p99 is not None
    return Measured(float(rate[1]), float(p99[1]) * {"us": 0.001, "ms": 1, "s": 1000}[p99[2]])
