"""The gateway itself. Order of checks: key → rate limit → payload → duplicate → plan limit → hard stop → store."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable

import psycopg
import structlog

from ingest.gateway import answers
from ingest.gateway.answers import Answer
from ingest.gateway.committer import Receipt, UnstorableError, WorkspaceGoneError
from ingest.gateway.http import BodyError, Environ, StartResponse, send
from ingest.gateway.intake import DATABASE_AWAY, Entry, Intake, Result
from ingest.gateway.keys import Caller
from ingest.gateway.payload import InvalidPayloadError
from ingest.gateway.priced import price_events
from ingest.gateway.routes import ROUTES, Prepared, Route
from ingest.metrics import ASKS, EVENTS, REQUESTS, UNPRICED
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError
from opsmeter_site.lib.ratelimit import Hit

logger = structlog.get_logger(__name__)

_RETRY_AFTER_SECONDS = "2"


class Gateway:
    """A WSGI application for the ingest paths; every other path goes to `fallback` (Django)."""

    def __init__(self, conninfo: str, fallback: Callable[[Environ, StartResponse], Iterable[bytes]]) -> None:
        self._fallback = fallback
        self._intake = Intake(conninfo)

    def warm_up(self) -> None:
        """Connect before the first request asks for it; a database that is still away is no reason not to start."""
        try:
            self._intake.committer.connect()
        except psycopg.OperationalError as error:
            logger.warning("gateway_starts_without_database", error=type(error).__name__)

    def close(self) -> None:
        """Close the connection to the database. Call when no request is under way any more."""
        self._intake.committer.close()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """WSGI."""
        route = ROUTES.get(environ["PATH_INFO"])
        if route is None or environ["REQUEST_METHOD"] in route.methods_of_django:
            return self._fallback(environ, start_response)
        answer = self._answer(route, environ)
        REQUESTS.labels(route.name, answer.outcome).inc()
        return send(answer, environ, start_response)

    def _answer(self, route: Route, environ: Environ) -> Answer:
        if environ["REQUEST_METHOD"] != "POST":
            allowed = ", ".join((*route.methods_of_django, "POST"))
            return answers.error(405, "method_not_allowed", headers={"Allow": allowed})
        plain_key = environ.get("HTTP_X_API_KEY", "").strip()
        if not plain_key:
            return answers.error(401, "missing_api_key")
        try:
            caller = self._intake.keys.find(plain_key)
            if caller is None:
                return answers.error(401, "invalid_api_key")
            return self._serve(route, environ, plain_key, caller)
        except DATABASE_AWAY as error:
            return _failed(error)
        except Exception:
            logger.exception("gateway_error", route=route.name)
            return answers.error(500, "internal_error")

    def _serve(self, route: Route, environ: Environ, plain_key: str, caller: Caller) -> Answer:
        prepared, problem = _prepare(route, environ)
        entries = _entries(route, prepared, plain_key, caller)
        first = self._intake.take(entries[0])
        if first.caller is None:
            return answers.error(401, "invalid_api_key")
        if first.is_rate_limited:
            answer = _rate_limited(first)
        elif problem is not None or prepared is None:
            answer = problem or answers.error(500, "internal_error")
        else:
            answer = self._finish(prepared, entries, first)
        if first.hit is not None:
            answer.headers += _rate_headers(first.hit, first.caller.requests_per_minute)
        return answer

    def _finish(self, prepared: Prepared, entries: list[Entry], first: Result) -> Answer:
        receipts: list[Receipt] = []
        for entry in entries:
            result = first if entry is entries[0] else self._intake.take(entry)
            if entry.submission is None:
                continue
            if result.receipt is None:
                return _failed(result.error)
            receipts.append(result.receipt)
            _count(entry, result.receipt)
        return prepared.answer(receipts)


def _entries(route: Route, prepared: Prepared | None, plain_key: str, caller: Caller) -> list[Entry]:
    """What the request wants of the ledger, one commit after another. The first, which may want nothing, is counted."""
    now = utc_now()
    if prepared is None:
        return [Entry(plain_key, caller, route.lane)]
    if prepared.question is not None:
        ask = prepared.question.ask(caller.workspace_id, caller.key.key_id, now)
        return [Entry(plain_key, caller, route.lane, ask=ask)]
    chunks = [price_events(chunk, caller.workspace_id, caller.key.key_id, now) for chunk in prepared.chunks]
    first = Entry(plain_key, caller, route.lane, chunks[0] if chunks else None)
    return [first, *(Entry(plain_key, caller, "", chunk) for chunk in chunks[1:])]


def _prepare(route: Route, environ: Environ) -> tuple[Prepared | None, Answer | None]:
    """What the request asks for, or what is wrong with it: said only after the rate limit has had its say."""
    try:
        return route.prepare(environ), None
    except BodyError as error:
        return None, answers.error(error.status, error.reason)
    except InvalidPayloadError as error:
        return None, answers.error(400, error.reason, errors=error.errors)


def _failed(error: Exception | None) -> Answer:
    if isinstance(error, WorkspaceGoneError):
        return answers.error(401, "invalid_api_key")
    if isinstance(error, UnstorableError):
        message = "The database cannot hold this event; its text may contain characters that no text may have."
        return answers.error(400, "invalid_payload", errors=[FieldError("", message)])
    return answers.error(503, "unavailable", headers={"Retry-After": _RETRY_AFTER_SECONDS})


def _rate_limited(result: Result) -> Answer:
    seconds = result.hit.seconds_left if result.hit else 0
    return answers.error(429, "rate_limited", headers={"Retry-After": str(max(1, math.ceil(seconds)))})


def _count(entry: Entry, receipt: Receipt) -> None:
    outcomes = Counter(
        verdict.reason or ("duplicate" if verdict.is_duplicate else "accepted") for verdict in receipt.verdicts
    )
    for outcome, number in outcomes.items():
        EVENTS.labels(outcome).inc(number)
    unpriced = sum(1 for priced in entry.events or () if priced.quote.cost_usd is None)
    if unpriced:
        UNPRICED.inc(unpriced)
    if entry.ask is not None and receipt.decision is not None:
        ASKS.labels(entry.ask.what, receipt.decision.reason or "allowed").inc()


def _rate_headers(hit: Hit, limit: int) -> list[tuple[str, str]]:
    return [
        ("X-RateLimit-Limit", str(limit)),
        ("X-RateLimit-Remaining", str(max(0, limit - hit.count))),
        ("X-RateLimit-Reset", str(math.ceil(time.time() + hit.seconds_left))),
    ]
