"""The gateway itself. Order of checks: key → rate limit → payload → duplicate → plan limit → hard stop → store."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import structlog
from django.db import DatabaseError, InterfaceError

from ingest.gateway import answers, demo, otlp
from ingest.gateway.answers import Answer, BatchEntry
from ingest.gateway.committer import Committer, Receipt, UnavailableError, UnstorableError
from ingest.gateway.http import BodyError, Environ, StartResponse, read_json, send
from ingest.gateway.keys import Caller, KeyCache
from ingest.gateway.ledger import Submission, Verdict, price_event
from ingest.gateway.otlp_wire import Export, read_export
from ingest.gateway.payload import CheckedEvent, InvalidPayloadError, check_event, event_id_of, split_batch
from ingest.metrics import EVENTS, RATE_LIMIT_SKIPPED, REQUESTS, UNPRICED
from ingest.models import DataMode
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError
from opsmeter_site.lib.groups import GroupRunner, GroupTimeoutError
from opsmeter_site.lib.ratelimit import WINDOW_SECONDS, Hit, RateWindows

logger = structlog.get_logger(__name__)

MAX_BODY_BYTES = 64 * 1024
MAX_BATCH_BYTES = 5 * 1024 * 1024
_RATE_WAIT_SECONDS = 2.0
_RETRY_AFTER_SECONDS = "2"
_DATABASE_AWAY = (UnavailableError, DatabaseError, InterfaceError)

# What a route reads of a request is what its handler takes: the body, or for OTLP the body and its encoding.
Handler = Callable[["Gateway", Caller, Any], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """One path of the gateway: what its metrics are called, how large a body it takes, who handles it."""

    name: str
    max_bytes: int
    handle: Handler
    read: Callable[[Environ, int], Any] = read_json


class _UnauthorizedError(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Gateway:
    """A WSGI application for the ingest paths; every other path goes to `fallback` (Django)."""

    def __init__(self, conninfo: str, fallback: Callable[[Environ, StartResponse], Iterable[bytes]]) -> None:
        self._fallback = fallback
        self._keys = KeyCache()
        self._committer = Committer(conninfo)
        windows = RateWindows(RATE_LIMIT_SKIPPED.inc)
        self._rates: GroupRunner[UUID, Hit] = GroupRunner(windows.hit_all, timeout=_RATE_WAIT_SECONDS)

    def warm_up(self) -> None:
        """Connect before the first request asks for it; a database that is still away is no reason not to start."""
        try:
            self._committer.connect()
        except psycopg.OperationalError as error:
            logger.warning("gateway_starts_without_database", error=type(error).__name__)

    def close(self) -> None:
        """Close the connection to the database. Call when no request is under way any more."""
        self._committer.close()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """WSGI."""
        route = ROUTES.get(environ["PATH_INFO"])
        if route is None:
            return self._fallback(environ, start_response)
        answer = self._answer(route, environ)
        REQUESTS.labels(route.name, answer.outcome).inc()
        return send(answer, environ, start_response)

    def _answer(self, route: Route, environ: Environ) -> Answer:
        if environ["REQUEST_METHOD"] != "POST":
            return answers.error(405, "method_not_allowed", headers={"Allow": "POST"})
        try:
            return self._serve(route, environ)
        except _UnauthorizedError as error:
            return answers.error(401, error.reason)
        except _DATABASE_AWAY:
            return _unavailable()
        except Exception:
            logger.exception("gateway_error", route=route.name)
            return answers.error(500, "internal_error")

    def _serve(self, route: Route, environ: Environ) -> Answer:
        plain = environ.get("HTTP_X_API_KEY", "").strip()
        if not plain:
            raise _UnauthorizedError("missing_api_key")
        caller = self._keys.find(plain)
        if caller is None:
            raise _UnauthorizedError("invalid_api_key")
        hit = self._hit(caller)
        caller = self._keys.confirm(plain, caller, hit.epoch)
        if caller is None:
            raise _UnauthorizedError("invalid_api_key")
        headers = _rate_headers(hit, caller.requests_per_minute)
        if hit.count > caller.requests_per_minute:
            wait = str(max(1, math.ceil(hit.seconds_left)))
            answer = answers.error(429, "rate_limited", headers={"Retry-After": wait})
        else:
            answer = self._take(route, caller, environ)
        answer.headers += headers
        return answer

    def _hit(self, caller: Caller) -> Hit:
        try:
            return self._rates.run(caller.workspace_id)
        except GroupTimeoutError:
            RATE_LIMIT_SKIPPED.inc()
            return Hit(1, WINDOW_SECONDS, None)

    def _take(self, route: Route, caller: Caller, environ: Environ) -> Answer:
        try:
            return route.handle(self, caller, route.read(environ, route.max_bytes))
        except BodyError as error:
            return answers.error(error.status, error.reason)
        except InvalidPayloadError as error:
            return answers.error(400, error.reason, errors=error.errors)
        except _DATABASE_AWAY:
            return _unavailable()
        except UnstorableError:
            message = "The database cannot hold this event; its text may contain characters that no text may have."
            return answers.error(400, "invalid_payload", errors=[FieldError("", message)])

    def single(self, caller: Caller, body: bytes) -> Answer:
        """One event."""
        return self._one(caller, check_event(body, utc_now()))

    def batch(self, caller: Caller, body: bytes) -> Answer:
        """1 to 1,000 events; a bad one never fails the others."""
        return self._many(caller, split_batch(body), None)

    def demo(self, caller: Caller, body: bytes) -> Answer:
        """One demo event, or a small believable data set when the body is empty."""
        if not body.strip():
            return self._many(caller, demo.data_set(utc_now()), DataMode.DEMO.value)
        return self._one(caller, check_event(body, utc_now(), forced_data_mode=DataMode.DEMO.value))

    def otlp(self, caller: Caller, export: Export) -> Answer:
        """The model calls of an OpenTelemetry export, a batch at a time; a repeat goes on where the last one broke."""
        calls = otlp.model_calls(export, utc_now())
        verdicts: list[Verdict] = []
        for chunk in calls.chunks():
            verdicts += self._commit(caller, chunk).verdicts
        return otlp.answer(export.encoding, calls, verdicts)

    def _one(self, caller: Caller, event: CheckedEvent) -> Answer:
        receipt = self._commit(caller, [event])
        verdict = receipt.verdicts[0]
        if verdict.reason is not None:
            return answers.refused(verdict, receipt.standing)
        return answers.accepted(event.external_request_id, verdict, event.warnings, receipt.standing)

    def _many(self, caller: Caller, raws: Iterable[bytes], forced_data_mode: str | None) -> Answer:
        now = utc_now()
        entries: list[BatchEntry] = []
        events: list[CheckedEvent] = []
        valid: list[BatchEntry] = []
        for raw in raws:
            try:
                event = check_event(raw, now, forced_data_mode=forced_data_mode)
            except InvalidPayloadError as error:
                entries.append(BatchEntry(event_id_of(raw), errors=error.errors))
                continue
            entry = BatchEntry(event.external_request_id, warnings=event.warnings)
            entries.append(entry)
            events.append(event)
            valid.append(entry)
        receipt = self._commit(caller, events)
        for entry, verdict in zip(valid, receipt.verdicts, strict=True):
            entry.verdict = verdict
        return answers.batch(entries, receipt.standing)

    def _commit(self, caller: Caller, events: list[CheckedEvent]) -> Receipt:
        priced = [price_event(event, caller.workspace_id, caller.key.key_id) for event in events]
        submission = Submission(caller.workspace_id, priced)
        receipt = self._committer.commit(submission)
        _count(submission, receipt)
        return receipt


def _unavailable() -> Answer:
    return answers.error(503, "unavailable", headers={"Retry-After": _RETRY_AFTER_SECONDS})


def _count(submission: Submission, receipt: Receipt) -> None:
    for priced, verdict in zip(submission.events, receipt.verdicts, strict=True):
        outcome = verdict.reason or ("duplicate" if verdict.is_duplicate else "accepted")
        EVENTS.labels(outcome).inc()
        if outcome == "accepted" and priced.quote.cost_usd is None:
            UNPRICED.inc()


def _rate_headers(hit: Hit, limit: int) -> list[tuple[str, str]]:
    return [
        ("X-RateLimit-Limit", str(limit)),
        ("X-RateLimit-Remaining", str(max(0, limit - hit.count))),
        ("X-RateLimit-Reset", str(math.ceil(time.time() + hit.seconds_left))),
    ]


ROUTES: Mapping[str, Route] = {
    "/v1/ingest/llm-request": Route("single", MAX_BODY_BYTES, Gateway.single),
    "/v1/ingest/llm-requests": Route("batch", MAX_BATCH_BYTES, Gateway.batch),
    "/v1/ingest/demo": Route("demo", MAX_BODY_BYTES, Gateway.demo),
    "/v1/otlp/v1/traces": Route("otlp", MAX_BATCH_BYTES, Gateway.otlp, read_export),
}
