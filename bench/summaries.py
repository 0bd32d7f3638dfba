"""A morning: the summaries of all workspaces are due in the same minute, made and mailed beside live ingest.

The whole product runs as `./opsmeter up` starts it, with a mail server that takes everything. Measured are the time
until the last mail, the memory of the workers on the way, and what live ingest feels of it.
"""

import argparse
import http.client
import os
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta

import psutil

from bench.alerts import post_event
from bench.load import LoadError, open_limited_workspace
from bench.mail_sink import MailSink, mail_sink
from bench.stack import HOST, Stack, stack, wait_served
from bench.summaries_data import make_due, open_many
from billing.services import OpenedWorkspace
from opsmeter_site.lib.clock import utc_now

BAR_SECONDS = 600.0
EVENTS_PER_SECOND = 200
SENDERS = 8
IDLE_SECONDS = 30.0
_LOOK_SECONDS = 2.0
_PATIENCE_SECONDS = 1_800.0
_MEASURED = ("reports", "alerts", "worker")


@dataclass
class Live:
    """Steady traffic in the background; `taken` holds the answers' times since it was last emptied."""

    running: Stack
    opened: list[OpenedWorkspace]
    taken: list[float] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin to send."""
        for each in self.opened:
            threading.Thread(target=self._send, args=(each,), daemon=True).start()

    def _send(self, opened: OpenedWorkspace) -> None:
        connection = http.client.HTTPConnection(HOST, self.running.port, timeout=60)
        pause = SENDERS / EVENTS_PER_SECOND
        while not self.is_over.wait(pause):
            started = time.perf_counter()
            post_event(connection, opened, tokens=400)
            self.taken.append(time.perf_counter() - started)

    def p99_ms(self) -> float:
        """Of what was taken since the last time."""
        taken, self.taken = sorted(self.taken), []
        return taken[int(len(taken) * 0.99)] * 1_000


def run(options: argparse.Namespace) -> None:
    """Prepare, measure idle, let everything be due, and watch until the last mail has come."""
    started = time.perf_counter()
    open_many(options.workspaces)
    print(f"{options.workspaces:,} workspaces opened in {time.perf_counter() - started:.0f} s", flush=True)
    with mail_sink() as sink:
        os.environ["EMAIL_URL"] = sink.email_url
        with stack() as running:
            live = Live(running, [open_limited_workspace(f"Live {number}") for number in range(SENDERS)])
            running.start(beat=1, worker=1, reports=1, alerts=1, web=1)
            wait_served(running)
            live.start()
            time.sleep(5)
            live.p99_ms()
            time.sleep(IDLE_SECONDS)
            idle_ms = live.p99_ms()
            _watch(running, sink, live, options.workspaces, idle_ms)
            live.is_over.set()


def _watch(running: Stack, sink: MailSink, live: Live, number: int, idle_ms: float) -> None:
    due_at = utc_now().replace(second=0, microsecond=0) + timedelta(minutes=1)
    make_due(due_at)
    while utc_now() < due_at:
        time.sleep(0.1)
    live.p99_ms()
    started, marks = time.monotonic(), [0.0, 0.25, 0.5, 0.75, 1.0]
    print(f"{'mails':>8}{'seconds':>9}   resident MiB: {', '.join(_MEASURED)}", flush=True)
    while marks:
        received = sink.received()
        if received.mails >= number * marks[0]:
            del marks[0]
            print(f"{received.mails:8,}{time.monotonic() - started:9.0f}   {_memory(running)}", flush=True)
        if time.monotonic() - started > _PATIENCE_SECONDS:
            raise LoadError(f"Only {received.mails:,} mails came in {_PATIENCE_SECONDS:.0f} s.")
        time.sleep(_LOOK_SECONDS)
    seconds, busy_ms = time.monotonic() - started, live.p99_ms()
    print(
        f"{received.addresses:,} of {number:,} addresses, {received.repeated} more than once, in {seconds:.0f} s: "
        f"{seconds / BAR_SECONDS:.2f} of the bar"
    )
    print(f"live ingest, p99 ms: {idle_ms:.1f} idle, {busy_ms:.1f} meanwhile, ratio {busy_ms / idle_ms:.2f}")


def _memory(running: Stack) -> str:
    """What each program and its children hold."""
    sizes = []
    for name in _MEASURED:
        process = psutil.Process(running.running[name].pid)
        family = [process, *process.children(recursive=True)]
        sizes.append(" + ".join(f"{each.memory_info().rss / 2**20:.0f}" for each in family))
    return ",  ".join(sizes)
