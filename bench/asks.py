"""Checks and leases at a steady 200 a second: how long a program waits before its call."""

import argparse
import http.client
import json
import secrets
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import Any
from urllib.parse import urlsplit

from bench.load import LoadError, granian, open_limited_workspace, set_scoped_limits

PER_SECOND = 200
CLIENTS = 16
CALL = {
    "provider": "openai",
    "model": "gpt-4o-mini",
    "endpointTag": "chat.1",
    "tenantId": "acme",
    "userId": "user-7",
    "estimatedInputTokens": 800,
    "estimatedOutputTokens": 200,
}


class _Clients:
    """Connections that are kept, one for each thread."""

    def __init__(self, url: str, api_key: str) -> None:
        self._address = urlsplit(url).netloc
        self._headers = {"X-API-Key": api_key, "Content-Type": "application/json"}
        self._own = local()

    def ask(self, path: str, body: dict[str, Any], due: float) -> float:
        """Ask at the moment `due` (monotonic); seconds from then to the whole answer, waiting for a client included."""
        time.sleep(max(0.0, due - time.perf_counter()))
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = http.client.HTTPConnection(self._address, timeout=10)
        connection.request("POST", path, json.dumps(body), self._headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200 or not answer["allowed"]:
            raise LoadError(f"Not every question was answered with yes:\n{answer}")
        return time.perf_counter() - due


def run(options: argparse.Namespace) -> None:
    """Ask each kind of question in turn, `options.rounds` times, and print medians over the rounds."""
    with granian("bench.wsgi:application", "/healthz") as product:
        opened = open_limited_workspace("Bench asks")
        set_scoped_limits(opened)
        clients = _Clients(product.url, opened.api_key_plain)
        measure = {"check": "/v1/budgets/check", "lease": "/v1/budgets/leases"}
        for path in measure.values():
            _paced(clients, path, 1)
        print(f"{f'{PER_SECOND} a second':20}{'p50 ms':>9}{'p99 ms':>9}{'worst ms':>10}")
        for name, path in measure.items():
            rounds = [_paced(clients, path, options.seconds) for _ in range(options.rounds)]
            figures = [statistics.median(column) for column in zip(*rounds, strict=True)]
            print(f"{name:20}" + "".join(f"{1_000 * figure:9.1f}" for figure in figures))


def _paced(clients: _Clients, path: str, seconds: int) -> tuple[float, float, float]:
    """Median, 99th percentile and maximum, in seconds."""
    run, start = secrets.token_hex(4), time.perf_counter() + 0.1
    with ThreadPoolExecutor(CLIENTS) as threads:
        asked = [
            threads.submit(clients.ask, path, CALL | {"externalRequestId": f"{run}-{n}"}, start + n / PER_SECOND)
            for n in range(PER_SECOND * seconds)
        ]
        taken = sorted(one.result() for one in asked)
    return statistics.median(taken), taken[len(taken) * 99 // 100], taken[-1]
