"""`./verify-local.sh`: shows on a running server that the budget flags trip, and do what the documentation says.

The expected flags and messages are read from the table in `docs/budgets.md`, and the examples of the developer docs
from the server's own pages: documents and product cannot drift apart unnoticed. Standard library only; it speaks to the
server as any client does. Whatever happens, the workspace's budget settings are put back as they were.
"""

import argparse
import fcntl
import http.client
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_UP, Decimal
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from opsmeter_site.embedded import docs_examples
from opsmeter_site.embedded.budget_table import (
    BELOW,
    DOCUMENT,
    SOFT_STOP,
    WARNING,
    Row,
    VerifyError,
    differences,
    documented,
    messages,
    quoted,
)
from opsmeter_site.embedded.preflight import data_folder

DEFAULT_URL = "http://127.0.0.1:8000"

SMALLEST_COST = Decimal("0.01")  # USD
SHARE_OF_SPEND = Decimal("0.01")
MOST_TOKENS = 1_000_000_000
LEDGER_STEP = Decimal("1E-12")
THRESHOLD_STEP = Decimal("0.0001")

ATTEMPTS = 5
WAITS = 4
LONGEST_WAIT = 61.0  # seconds; a rate window lasts a minute
TIMEOUT = 30.0
RESTORE_ATTEMPTS = 10
RESTORE_PAUSE = 1.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DisturbedError(Exception):
    """Something else moved the meter, or midnight passed: what was seen says nothing."""


class StopRequestedError(Exception):
    """A signal came."""


# --- The server -------------------------------------------------------------------------------------------------------


class Stop:
    """While entered, signals are only noted, so that none comes between changing a setting and remembering it."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.received is None:
            os.write(2, b"\nStopping; the former budget settings are put back first.\n")
        self.received = number

    def check(self) -> None:
        """Raise StopRequestedError if a signal has come."""
        if self.received is not None:
            raise StopRequestedError

    def sleep(self, seconds: float) -> None:
        """Wait, unless a signal comes."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(0.1, left))


@dataclass(frozen=True)
class Reply:
    """An answer of the server; `body` is its JSON object, `raw` the same as sent."""

    status: int
    raw: bytes
    body: dict[str, Any]
    retry_after: float | None


@dataclass(frozen=True)
class Server:
    """The running server and the credentials for one of its workspaces."""

    url: str
    api_key: str
    token: str

    def send(self, method: str, path: str, body: bytes = b"", *, by_token: bool = False) -> Reply:
        """One request on a connection of its own; VerifyError where there is no answer in JSON."""
        headers = {"Authorization": f"Bearer {self.token}"} if by_token else {"X-API-Key": self.api_key}
        response, raw = self._exchange(method, path, body, {**headers, "Content-Type": "application/json"})
        wait = response.headers.get("Retry-After", "")
        try:
            decoded = json.loads(raw, parse_float=Decimal)
        except ValueError as error:
            raise VerifyError(f"{self.url} does not answer in JSON; is it Opsmeter?") from error
        if not isinstance(decoded, dict):
            raise VerifyError(f"{self.url} does not answer with a JSON object; is it Opsmeter?")
        return Reply(response.status, raw, decoded, float(wait) if wait.isdigit() else None)

    def page(self, path: str) -> str:
        """The HTML of a page that is open to everyone; VerifyError where there is none."""
        response, raw = self._exchange("GET", path, b"", {})
        if response.status != http.HTTPStatus.OK:
            raise VerifyError(f"GET {path}: {response.status}")
        return raw.decode()

    def _exchange(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        where = urlsplit(self.url)
        kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
        connection = kind(where.hostname or "", where.port, timeout=TIMEOUT)
        try:
            connection.request(method, where.path + path, body, headers)
            response = connection.getresponse()
            return response, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise VerifyError(f"no answer from {self.url}: {error or type(error).__name__}") from error
        finally:
            connection.close()


# --- The check --------------------------------------------------------------------------------------------------------


class Check:
    """One run against one workspace. `answers` (200s) and `last_status` are what the server said in it."""

    def __init__(self, server: Server, rows: Mapping[str, Row], stop: Stop) -> None:
        self._server = server
        self._rows = rows
        self._stop = stop
        self._problems: list[str] = []
        self.answers: list[Mapping[str, Any]] = []
        self.last_status: Mapping[str, Any] = {}
        self._spend = Decimal(0)
        self._day = ""
        self._model: tuple[str, str, Decimal] = ("", "", Decimal(0))
        self._run = f"verify-local-{secrets.token_hex(4)}"

    def run(self) -> list[str]:
        """Everything, with the former budget settings put back at the end; what is not as documented."""
        self._require_one_workspace()
        former = self._call("GET", "/v1/settings/budgets", by_token=True)
        say(f"Budget settings now, put back at the end: {former.raw.decode()}")
        self._model = self._priced_model()
        try:
            self._set_budgets(None, Decimal("0.8"))
            self._load_demo_data()
            for attempt in range(1, ATTEMPTS + 1):
                self._problems = []
                try:
                    self._trip()
                    break
                except DisturbedError as error:
                    say(f"\n{error}; what was seen says nothing. Attempt {attempt} of {ATTEMPTS}.")
            else:
                raise VerifyError("the workspace's meter never stood still; use one without other traffic")
        finally:
            self._restore(former)
        return self._problems

    def _call(self, method: str, path: str, body: bytes = b"", *, by_token: bool = False) -> Reply:
        """A request that must be answered 200; waits as documented where the server asks for it."""
        for _ in range(WAITS):
            self._stop.check()
            reply = self._server.send(method, path, body, by_token=by_token)
            if reply.status not in {429, 503}:
                break
            wait = min(LONGEST_WAIT, reply.retry_after or 1.0)
            say(f"{method} {path}: {reply.status} {reply.body.get('reason')}, trying again in {wait:.0f} s")
            self._stop.sleep(wait)
        if reply.status != http.HTTPStatus.OK:
            said = reply.body.get("message") or reply.raw.decode(errors="replace")
            raise VerifyError(f"{method} {path}: {reply.status} {reply.body.get('reason')}: {said}")
        return reply

    def _status(self) -> dict[str, Any]:
        return self._call("GET", "/v1/settings/workspace-status", by_token=True).body

    def _require_one_workspace(self) -> None:
        by_key = self._call("GET", "/v1/diagnostics/workspace-status").body
        by_token = self._status()
        if by_key["workspaceId"] != by_token["workspaceId"]:
            raise VerifyError("the API key and the access token belong to two workspaces")
        if by_key["isPlanLimitReached"]:
            raise VerifyError("the workspace's plan limit is reached; its answers say so first. Use another workspace")
        say(f"Workspace {by_key['workspaceId']} on {self._server.url}")

    def _priced_model(self) -> tuple[str, str, Decimal]:
        """A model with a price for output tokens, and that price in USD per million."""
        for query in ("?provider=openai&model=gpt-4o", ""):
            for model in self._call("GET", f"/v1/public/pricing-models{query}").body["models"]:
                price = Decimal(model["outputUsdPer1M"] or 0)
                if price > 0:
                    return model["provider"], model["model"], price
        raise VerifyError("the server has no prices; run: ./opsmeter manage import_prices")

    def _set_budgets(self, daily_limit: Decimal | None, threshold: Decimal) -> None:
        settings = {
            "dailyLimitUsd": "null" if daily_limit is None else f"{daily_limit:f}",
            "monthlyLimitUsd": "null",
            "warningThresholdRatio": f"{threshold:f}",
            "enforcement": '"soft"',
            "observeMode": "false",
            "countedDataModes": '["real", "demo"]',
        }
        # Numbers are written as they are: a float has not enough digits for a limit.
        body = "{" + ", ".join(f'"{name}": {value}' for name, value in settings.items()) + "}"
        say(f"\nPUT /v1/settings/budgets {body}")
        self._call("PUT", "/v1/settings/budgets", body.encode(), by_token=True)

    def _load_demo_data(self) -> None:
        answer = self._call("POST", "/v1/ingest/demo").body
        say(f"\nPOST /v1/ingest/demo (empty body): {answer['accepted']} demo events stored")
        if answer["rejected"] or not answer["accepted"]:
            raise VerifyError(f"demo data: {answer['rejected']} of the demo events were refused")

    def _trip(self) -> None:
        """Measure, set a limit that the second event from now goes above, and send these two and one more."""
        self._set_budgets(None, Decimal("0.8"))
        status = self._status()
        self._day, self._spend = _today(status)
        _provider, _model, price = self._model
        target = max(SMALLEST_COST, self._spend * SHARE_OF_SPEND)
        tokens = int((target * 1_000_000 / price).to_integral_value(ROUND_UP))
        if tokens > MOST_TOKENS:
            raise VerifyError(f"{self._spend:f} USD were spent today: too much for a demo event to make a difference")
        cost = self._send_event(BELOW, tokens)
        limit = (self._spend + cost * 3 / 2).quantize(LEDGER_STEP)
        threshold = ((self._spend + cost) / limit).quantize(THRESHOLD_STEP, ROUND_DOWN)
        self._set_budgets(limit, threshold)
        self._send_event(BELOW, 0)
        self._send_event(WARNING, tokens)
        self._send_event(SOFT_STOP, tokens)
        # The event that crosses is stored under a hard stop too: it is the next one that tells the two apart.
        self._send_event(SOFT_STOP, 0)

    def _send_event(self, state: str, output_tokens: int) -> Decimal:
        """Send one demo event, show the answer, and compare it and the workspace's status with the document."""
        provider, model, _price = self._model
        event = {
            "externalRequestId": f"verify-local-{secrets.token_hex(8)}",
            "provider": provider,
            "model": model,
            "endpointTag": "verify-local",
            # Budgets on each tenant or user have seen nothing of these.
            "tenantId": self._run,
            "userId": self._run,
            "inputTokens": 0,
            "outputTokens": output_tokens,
            "status": "success",
        }
        self._stop.check()
        reply = self._server.send("POST", "/v1/ingest/demo", json.dumps(event).encode())
        if reply.status in {429, 503}:
            reply = self._call("POST", "/v1/ingest/demo", json.dumps(event).encode())
        status = self._status()
        cost = self._require_undisturbed(status, reply)
        self.last_status = status
        if reply.status == http.HTTPStatus.OK:
            self.answers.append(reply.body)
        shown = messages(reply.body)
        say(f"\n{state[0].upper()}{state[1:]}: POST /v1/ingest/demo → {reply.status}\n  {reply.raw.decode()}")
        say(f"  a client shows {quoted(shown)}; severity {status['severity']}")
        self._compare(state, reply, status, shown)
        return cost

    def _require_undisturbed(self, status: Mapping[str, Any], reply: Reply) -> Decimal:
        """The event's cost, if the meter moved by exactly that since the last look and the day is still the same."""
        day, spend = _today(status)
        if day != self._day:
            raise DisturbedError("Midnight (UTC) passed")
        cost = reply.body.get("costUsd", Decimal(0))
        if cost is None:
            raise VerifyError(f"{'/'.join(self._model[:2])} is listed with a price, but the event was stored unpriced")
        if spend != self._spend + cost:
            raise DisturbedError("Other traffic moved the meter")
        self._spend = spend
        return Decimal(cost)

    def _compare(self, state: str, reply: Reply, status: Mapping[str, Any], shown: Sequence[str]) -> None:
        row = self._rows[state]
        answered = {"HTTP": reply.status, **reply.body}
        stands = {
            "budgetWarning": status["isBudgetWarning"],
            "budgetExceeded": status["isBudgetExceeded"],
            **{name: status[name] for name in ("severity", "telemetryPaused", "providerCallsContinue")},
        }
        missing = [name for name in row.fields if name not in answered and name not in stands]
        found = [
            *(f"{name} is missing" for name in missing),
            *differences(row, answered, shown),
            *(f"workspace-status: {text}" for text in differences(row, stands, None)),
        ]
        self._problems += [f"{state}: {text}" for text in found]
        say("  as documented" if not found else "\n".join(f"  NOT AS DOCUMENTED: {text}" for text in found))

    def _restore(self, former: Reply) -> None:
        """Put the budget settings back and look whether they are; goes on trying for a while if the server is away."""
        reason = ""
        for attempt in range(RESTORE_ATTEMPTS):
            if attempt:
                time.sleep(RESTORE_PAUSE)
            try:
                put = self._server.send("PUT", "/v1/settings/budgets", former.raw, by_token=True)
                now = self._server.send("GET", "/v1/settings/budgets", by_token=True)
            except VerifyError as error:
                reason = str(error)
                continue
            if now.status == http.HTTPStatus.OK and now.body == former.body:
                say("\nThe former budget settings are back.")
                return
            reason = f"{put.status} {put.body.get('reason')}"
        raise VerifyError(
            f"the former budget settings could not be put back ({reason}). "
            f"Do it by hand: PUT /v1/settings/budgets {former.raw.decode()}"
        )


def _today(status: Mapping[str, Any]) -> tuple[str, Decimal]:
    """The day that the status is about, and what was spent on it."""
    daily = status["budget"]["daily"]
    return daily["periodStart"], Decimal(daily["currentSpendUsd"])


# --- The command ------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Print a line now."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def find_server(options: argparse.Namespace, environment: Mapping[str, str]) -> Server:
    """Address and credentials: from the options, else the environment, else the ready file or the data folder."""
    path = options.ready_file or data_folder(environment) / "demo.json"
    known: dict[str, Any] = {}
    try:
        known = json.loads(path.read_text())
    except FileNotFoundError as error:
        if options.ready_file:
            raise VerifyError(f"there is no {path}") from error
    except (OSError, ValueError) as error:
        raise VerifyError(f"{path} cannot be read: {error}") from error
    api_key = options.api_key or environment.get("OPSMETER_API_KEY") or known.get("apiKey")
    token = options.token or environment.get("OPSMETER_TOKEN") or known.get("bearerToken")
    if not api_key or not token:
        raise VerifyError(
            f"no API key and access token: there is no {path}. Start ./opsmeter up, or give --ready-file, "
            "or --api-key and --token"
        )
    url = options.url or environment.get("OPSMETER_URL") or known.get("url") or DEFAULT_URL
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise VerifyError(f"not an address such as {DEFAULT_URL}: {url}")
    return Server(url.rstrip("/"), api_key, token)


@contextmanager
def alone(stop: Stop) -> Iterator[None]:
    """Wait for another run on this machine: its temporary settings must not pass for the former ones."""
    with Path(__file__).open() as lock:
        for attempt in range(sys.maxsize):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not attempt:
                    say("Another verify-local is running; waiting for it.")
                stop.sleep(0.1)
        yield


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options; exits with argparse's own message where they are wrong."""
    parser = argparse.ArgumentParser(
        prog="./verify-local.sh",
        description="Loads demo data into a workspace and shows that the budget flags trip as docs/budgets.md says.",
        epilog="While it runs, the workspace's budgets are its own: soft stop, demo rows counted. They are put back.",
    )
    parser.add_argument("--url", help=f"the server (OPSMETER_URL, the ready file's, or {DEFAULT_URL})")
    parser.add_argument("--api-key", metavar="KEY", help="om_live_… (OPSMETER_API_KEY, or the ready file's)")
    parser.add_argument("--token", help="om_pat_… of an owner or admin (OPSMETER_TOKEN, or the ready file's)")
    parser.add_argument("--ready-file", metavar="F", type=Path, help="of ./opsmeter up (default: var/demo.json)")
    parser.add_argument("--docs", metavar="F", type=Path, default=DOCUMENT, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """0 if everything is as documented, 1 if not or if it could not be checked, 128 + n after signal n."""
    options = parse(arguments)
    with Stop() as stop:
        try:
            rows = documented(options.docs, (BELOW, WARNING, SOFT_STOP))
            server = find_server(options, os.environ)
            with alone(stop):
                check = Check(server, rows, stop)
                problems = check.run()
                problems += dict.fromkeys(docs_examples.problems(server.page, check.answers, check.last_status))
        except StopRequestedError:
            return 128 + (stop.received or 0)
        except VerifyError as error:
            sys.stderr.write(f"verify-local: FAILED: {error}\n")
            return 1
    for problem in problems:
        sys.stderr.write(f"verify-local: FAILED: {problem}\n")
    if not problems:
        say(f"The examples at {server.url}/docs/ say the same.")
        say("OK: flags, messages and soft stop are as docs/budgets.md says.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
