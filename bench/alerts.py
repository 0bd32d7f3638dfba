"""How long money takes to reach people: from the answer to the event that crosses a budget, under steady traffic.

The whole product runs as `./opsmeter up` starts it. Workspaces cross their budgets one after the other while others get
500 events a second. Measured are the time to the row in the inbox, and to the request at a webhook receiver. The second
figure is the same again while some receivers hang.
"""

import argparse
import http.client
import itertools
import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal

from alerts.channel_services import ChannelWishes, create_channel
from alerts.models import Alert, ChannelKind, Severity
from bench.load import PER_MINUTE, REQUESTS, LoadError, open_limited_workspace
from bench.receiving import Receiver, receiver
from bench.stack import HOST, Stack, stack, wait_served, wait_until
from billing.services import OpenedWorkspace, open_workspace
from budgets.services import update_budget_settings

EVENTS_PER_SECOND = 500
SENDERS = 16
CROSSINGS_PER_SECOND = 5
BAR_SECONDS = 3.0
# So many workspaces have a receiver that hangs, and cross in the midst of the others.
HANGING = 10
BUDGET_USD = Decimal("0.001")


@dataclass
class Traffic:
    """What was sent: how long each answer took, and when the event was answered that crossed a workspace's budget."""

    latencies: list[float] = field(default_factory=list)
    answered_at: dict[str, float] = field(default_factory=dict)


def run(options: argparse.Namespace) -> None:
    """Measure once with receivers that are well, and once more while some hang."""
    seconds = options.seconds * options.rounds
    with receiver() as hook, _hanging() as dead_url, stack() as running:
        busy = [open_limited_workspace(f"Busy {number}") for number in range(SENDERS)]
        rounds = [
            [open_to_cross(f"{each} {number}", hook.url) for number in range(seconds * CROSSINGS_PER_SECOND)]
            for each in ("Well", "Mixed")
        ]
        hanging = [open_to_cross(f"Hanging {number}", dead_url) for number in range(HANGING)]
        running.start(beat=1, worker=1, reports=1, alerts=1, web=1)
        wait_served(running)
        _send(running, busy, [], options.seconds)
        print(
            f"{'p50 and p99 in seconds':28}{'to the inbox':>16}{'to the receiver':>18}{'p99 ÷ bar':>11}"
            f"{'events/s':>10}{'p99 ms':>8}"
        )
        _measure("all receivers well", running, hook, busy, rounds[0], seconds)
        _send(running, busy, hanging, 1)
        _measure(f"{HANGING} others hang", running, hook, busy, rounds[1], seconds)


def open_to_cross(name: str, url: str) -> OpenedWorkspace:
    """A workspace whose first event goes over its budget, with a webhook to `url`."""
    opened = open_workspace(
        name=name,
        plan_tier="pro",
        owner_email="bench@example.com",
        monthly_requests=REQUESTS,
        requests_per_minute=PER_MINUTE,
    )
    update_budget_settings(opened.workspace, acting_user=opened.owner, daily_limit_usd=BUDGET_USD)
    wishes = ChannelWishes(
        name="Receiver", minimum_severity=Severity.INFO.value, takes_alerts=True, takes_summaries=True
    )
    create_channel(opened.workspace, ChannelKind.WEBHOOK, wishes, {"url": url}, acting_user=opened.owner)
    return opened


@contextmanager
def _hanging() -> Iterator[str]:
    """A receiver that takes every connection and never answers."""
    with socket.create_server((HOST, 0), backlog=1_000) as listener:
        yield f"http://{HOST}:{listener.getsockname()[1]}/"


# --- Sending --------------------------------------------------------------------------------------------------------


def _send(
    running: Stack, busy: Sequence[OpenedWorkspace], crossing: Sequence[OpenedWorkspace], seconds: int
) -> Traffic:
    """Send at a steady rate to `busy` for so long, and one event to each of `crossing`, evenly spread."""
    traffic = Traffic()
    threads = [threading.Thread(target=_keep_busy, args=(running, each, seconds, traffic)) for each in busy]
    threads.append(threading.Thread(target=_cross, args=(running, crossing, seconds, traffic)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return traffic


def _keep_busy(running: Stack, opened: OpenedWorkspace, seconds: int, traffic: Traffic) -> None:
    """One sender's part of the steady traffic: who is late catches up."""
    connection = http.client.HTTPConnection(HOST, running.port, timeout=30)
    for _ in _paced(int(seconds * EVENTS_PER_SECOND / SENDERS), seconds):
        started = time.perf_counter()
        post_event(connection, opened, tokens=400)
        traffic.latencies.append(time.perf_counter() - started)


def _cross(running: Stack, crossing: Sequence[OpenedWorkspace], seconds: int, traffic: Traffic) -> None:
    connection = http.client.HTTPConnection(HOST, running.port, timeout=30)
    for number in _paced(len(crossing), seconds):
        post_event(connection, crossing[number], tokens=1_000_000)
        traffic.answered_at[str(crossing[number].workspace.pk)] = time.time()


def _paced(number: int, seconds: int) -> Iterator[int]:
    """0, 1, 2, … at even intervals over `seconds`."""
    started = time.monotonic()
    for count in range(number):
        time.sleep(max(0.0, started + count * seconds / number - time.monotonic()))
        yield count


def post_event(connection: http.client.HTTPConnection, opened: OpenedWorkspace, *, tokens: int) -> None:
    """Send one event. Raises `LoadError` unless it is stored."""
    event = {
        "externalRequestId": f"live-{next(_numbers)}",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "inputTokens": tokens,
        "outputTokens": 100,
        "status": "success",
    }
    headers = {"X-API-Key": opened.api_key_plain, "Content-Type": "application/json"}
    connection.request("POST", "/v1/ingest/llm-request", json.dumps(event), headers)
    answer = connection.getresponse()
    answer.read()
    if answer.status != http.HTTPStatus.OK:
        raise LoadError(f"An event was answered with {answer.status}.")


_numbers = itertools.count()


# --- Measuring ------------------------------------------------------------------------------------------------------


def _measure(
    name: str,
    running: Stack,
    hook: Receiver,
    busy: Sequence[OpenedWorkspace],
    crossing: Sequence[OpenedWorkspace],
    seconds: int,
) -> None:
    traffic = _send(running, busy, crossing, seconds)
    wait_until(lambda: set(traffic.answered_at) <= set(_first_arrivals(hook)), 60, "Not every crossing was told.")
    arrivals = _first_arrivals(hook)
    rows = Alert.objects.filter(workspace__in=list(traffic.answered_at)).values_list("workspace_id", "created_at")
    inbox = {str(pk): moment.timestamp() for pk, moment in rows}
    to_inbox = sorted(inbox[pk] - answered for pk, answered in traffic.answered_at.items())
    to_receiver = sorted(arrivals[pk] - answered for pk, answered in traffic.answered_at.items())
    print(
        f"{name:28}{_percentiles(to_inbox):>16}{_percentiles(to_receiver):>18}"
        f"{_p99(to_receiver) / BAR_SECONDS:11.2f}"
        f"{len(traffic.latencies) / seconds:10,.0f}{_p99(sorted(traffic.latencies)) * 1_000:8.1f}",
        flush=True,
    )


def _first_arrivals(hook: Receiver) -> dict[str, float]:
    """When the first message of each workspace arrived."""
    arrived = sorted(hook.arrived().values(), key=lambda each: -each.at)
    return {each.body["data"]["workspace"]["id"]: each.at for each in arrived}


def _percentiles(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} / {_p99(values):.2f}"


def _p99(values: Sequence[float]) -> float:
    """Of values in ascending order."""
    return values[min(len(values) - 1, int(len(values) * 0.99))]
