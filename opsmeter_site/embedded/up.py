"""`./opsmeter up`: everything on this machine, in the foreground, until it is told to stop."""

import hashlib
import http.client
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opsmeter_site.embedded.console import say, step
from opsmeter_site.embedded.double import HOST as DOUBLE_HOST
from opsmeter_site.embedded.double import Double, double_of
from opsmeter_site.embedded.errors import LocalError
from opsmeter_site.embedded.folder import DataFolder, read_json, write_private_json
from opsmeter_site.embedded.preflight import UP_STEPS, UpOptions, free_port, parse_up, taken_port
from opsmeter_site.embedded.processes import Processes, Program, Running, Signals, StopRequested
from opsmeter_site.embedded.servers import application_environment, start_servers

SERVE_SECONDS = 90.0
RESTART_PAUSES = (0.5, 1, 2, 5)  # seconds before the first, second, … restart in a row
STEADY_SECONDS = 60.0  # after which a restart counts as the first again
WEB_CONNECTIONS = "10"  # of Django, in each server process; its 64 threads would otherwise keep one each
BEHIND_WEB = 10  # niceness: whoever waits for an answer comes first
LAST = 19  # thousands of summaries that are due in one minute take what the others leave
ROOT_IS_KNOWN = "ignore:You're running the worker with superuser privileges"
BILLING_KEY = "billingWorkspaceSlug"
DEMO_KEYS = ("email", "password", "workspaceId", "workspaceSlug", "apiKey", "bearerToken")

FIRST_EVENT = {
    "externalRequestId": "first-1",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "promptVersion": "v1",
    "endpointTag": "hello",
    "inputTokens": 120,
    "outputTokens": 30,
    "latencyMs": 640,
    "status": "success",
}


def up(arguments: list[str]) -> int:
    """Serve until SIGINT or SIGTERM; 0 after a clean stop, 1 where something stands in the way."""
    options = parse_up(arguments, os.environ)
    with Signals() as signals, DataFolder(options.data) as folder:
        folder.lock("./opsmeter up")
        processes = Processes(folder)
        for name in processes.stop_left_over():
            say(f"Stopped {name}, left over from an ./opsmeter that was killed.")
        problem = taken_port(options)
        if problem is not None:
            raise LocalError(problem.text.removeprefix("opsmeter: "))
        try:
            serve(options, folder, processes, signals)
            keep_running(processes, signals)
        finally:
            folder.servers_file.unlink(missing_ok=True)
            with step("Stopping"):
                processes.stop_all()
    return 0


def serve(options: UpOptions, folder: DataFolder, processes: Processes, signals: Signals) -> None:
    """Start everything, in order; return once requests are answered and the reader has been told."""
    if options.ready_file:
        options.ready_file.unlink(missing_ok=True)
    with step(f"2/{UP_STEPS} PostgreSQL and Valkey"):
        urls = start_servers(folder, processes, signals, os.environ)
        double = double_of(folder) if options.billing_sandbox else None
        settings = urls | dict(double.settings if double else {})
        write_private_json(folder.servers_file, settings)
    environment = application_environment(folder, settings, os.environ)
    if "ALLOWED_HOSTS" not in os.environ:
        environment["ALLOWED_HOSTS"] += f",{options.host}"

    demo_file = demo_path(folder) if options.demo else None
    command = [sys.executable, "-m", "opsmeter_site.embedded.prepare"]
    command += ["--billing-sandbox"] if double else []
    code = signals.run_foreground([*command, *([str(demo_file)] if demo_file else [])], environment)
    if code:
        say("")
        signals.check()
        raise LocalError("the database could not be prepared; the reason is above")

    port = options.port or free_port(options.host)
    environment.setdefault("OPSMETER_URL", address(options.host, port))
    environment["PROMETHEUS_MULTIPROC_DIR"] = str(empty_metrics_folder(folder))
    wanted = programs(options, port, folder, environment)
    if double:
        webhook_url = f"{address(options.host, port)}/v1/webhooks/lemon-squeezy"
        wanted.insert(0, double.program(webhook_url, environment))
    with step(f"{UP_STEPS}/{UP_STEPS} Web server, worker and beat"):
        started = [processes.start(program) for program in wanted]
        wait_until_served(options.host, port, started, signals)
        if double:
            wait_until_served(DOUBLE_HOST, double.port, started, signals, "/")
    announce(options, port, (read_json(demo_file) if demo_file else None) or {}, double)


def demo_path(folder: DataFolder) -> Path:
    """Where the demo workspace's secrets are kept: one file per database."""
    outside = os.environ.get("DATABASE_URL")
    if not outside:
        return folder.path / "demo.json"
    return folder.path / f"demo-{hashlib.sha256(outside.encode()).hexdigest()[:12]}.json"


def empty_metrics_folder(folder: DataFolder) -> Path:
    """Where the processes leave their counters for each other; those of an earlier run count no more."""
    path = folder.run / "metrics"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def programs(options: UpOptions, port: int, folder: DataFolder, environment: Mapping[str, str]) -> list[Program]:
    """The application's processes, in the order of starting; they are stopped in the order reversed."""
    python = sys.executable
    web = [python, "-m", "granian", "--interface", "wsgi", "--host", options.host, "--port", str(port)]
    web += ["--workers", str(options.workers), "--blocking-threads", "64", "--no-ws", "--log-level", "error"]
    web += ["--respawn-failed-workers", "--respawn-interval", "0.5", "--workers-kill-timeout", "15"]
    web += ["opsmeter_site.wsgi:application"]
    celery = [python, "-m", "celery", "--quiet", "-A", "opsmeter_site"]
    worker = [*celery, "worker", "--loglevel", "INFO", "--without-gossip", "--without-mingle", "--concurrency"]
    known = {"PYTHONWARNINGS": ROOT_IS_KNOWN} | dict(environment)
    beat = [*celery, "beat", "--loglevel", "WARNING", "--schedule", str(folder.run / "celerybeat-schedule")]
    # Long work must never make an alert wait, nor a message of the billing provider: the two share these threads.
    reports = [*worker, "2", "--queues", "reports", "--hostname", "reports@%h"]
    alerts = [*worker, "6", "--queues", "alerts", "--hostname", "alerts@%h", "--pool", "threads"]
    return [
        Program("worker", (*worker, "2"), known, niceness=BEHIND_WEB, stop_group="workers"),
        Program("reports", tuple(reports), known, niceness=LAST, stop_group="workers"),
        Program("alerts", tuple(alerts), known, stop_group="workers"),
        # A worker of granian that is still loading does not hear SIGTERM, and granian says it only once.
        Program("web", tuple(web), {"DATABASE_POOL_SIZE": WEB_CONNECTIONS} | dict(environment), repeat_stop=True),
        # Stopped first: a worker that is told to stop while messages come in may, seldom, not end by itself.
        # Not nice: it hardly works, and whatever is to happen soon waits for it.
        Program("beat", tuple(beat), environment),
    ]


def wait_until_served(host: str, port: int, started: list[Running], signals: Signals, path: str = "/readyz") -> None:
    """Wait until the path answers 200; LocalError when a program ends before, or the time is up."""

    def ended() -> list[str]:
        return [running.program.name for running in started if running.exit_code() is not None]

    ready = signals.wait_until(lambda: bool(ended()) or is_served(host, port, path), SERVE_SECONDS)
    if ended():
        raise LocalError(f"{', '.join(ended())} ended while starting; the reason is above")
    if not ready:
        raise LocalError(f"{address(host, port)}{path} did not answer 200 within {SERVE_SECONDS:.0f} s")


def is_served(host: str, port: int, path: str) -> bool:
    """Whether the path answers 200."""
    connection = http.client.HTTPConnection(reachable(host), port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def reachable(host: str) -> str:
    """An address at which this machine reaches itself, for one that means all of its addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


def address(host: str, port: int) -> str:
    """Where a browser on this machine finds the product."""
    name = reachable(host)
    return f"http://{f'[{name}]' if ':' in name else name}:{port}"


def announce(options: UpOptions, port: int, demo: Mapping[str, Any], double: Double | None) -> None:
    """Tell the reader, and then the ready file, where it is served and how to sign in."""
    url = address(options.host, port)
    lines = ["", f"Opsmeter   {url}"]
    if demo:
        lines += [
            f"Sign in    {demo['email']}   password {demo['password']}",
            f"API key    {demo['apiKey']}",
            f"Token      {demo['bearerToken']}",
            "",
            "First event:",
            f"  curl -sS {url}/v1/ingest/llm-request \\",
            f"    -H 'X-API-Key: {demo['apiKey']}' -H 'Content-Type: application/json' \\",
            f"    -d '{json.dumps(FIRST_EVENT)}'",
        ]
    else:
        lines.append("A workspace: ./opsmeter manage create_workspace --name N --plan free --owner-email E")
    if double:
        lines += ["", *what_to_try(url, demo.get(BILLING_KEY), double)]
    lines += ["", f"Data is kept in {options.data}. Ctrl-C stops everything.", ""]
    say("\n".join(lines))
    if options.ready_file:
        ready = {"url": url} | {key: demo.get(key) for key in DEMO_KEYS}
        billing = {"billingSandboxUrl": double.url, BILLING_KEY: demo.get(BILLING_KEY)} if double else {}
        write_private_json(options.ready_file, ready | billing)


def what_to_try(url: str, slug: str | None, double: Double) -> list[str]:
    """Where the double of the billing provider is, and a first walk through it."""
    lines = [f"Billing    {double.url}   a local double of Lemon Squeezy: its clock, its faults; no money moves"]
    if slug:
        lines += [
            f"  1. {url}/w/{slug}/settings/billing/ (on Free): choose a plan, pay with the card that works.",
            "  2. Change the plan, cancel, resume; at the double, let a renewal fail or the time pass.",
        ]
    return lines


def keep_running(processes: Processes, signals: Signals) -> None:
    """Start again what ends by itself, at growing intervals, until a stop is asked for."""
    restarts: dict[str, list[float]] = {}
    try:
        while True:
            signals.wait_until(lambda: bool(processes.ended()), float("inf"))
            for running in processes.ended():
                restart(running, processes, signals, restarts.setdefault(running.program.name, []))
    except StopRequested:
        return


def restart(running: Running, processes: Processes, signals: Signals, history: list[float]) -> None:
    """Start an ended program again; `history` holds the moments of its latest restarts."""
    if history and time.monotonic() - history[-1] > STEADY_SECONDS:
        history.clear()
    pause = RESTART_PAUSES[min(len(history), len(RESTART_PAUSES) - 1)]
    name = running.program.name
    say(f"{name} ended unexpectedly (exit code {running.exit_code()}); starting it again in {pause} s")
    end = time.monotonic() + pause
    signals.wait_until(lambda: time.monotonic() > end, pause + 1)
    history.append(time.monotonic())
    processes.stop(running)
    processes.start(running.program)
