"""The gateway's paths: how each reads a request, which events it asks to store, and how it answers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ingest.gateway import answers, ask_answers, demo, otlp
from ingest.gateway.answers import Answer, BatchEntry
from ingest.gateway.ask_payload import Question, check_question
from ingest.gateway.asks import What
from ingest.gateway.committer import Receipt
from ingest.gateway.http import Environ, read_json
from ingest.gateway.otlp_wire import read_export
from ingest.gateway.payload import CheckedEvent, InvalidPayloadError, check_event, event_id_of, split_batch
from ingest.models import DataMode
from opsmeter_site.lib.clock import utc_now

MAX_BODY_BYTES = 64 * 1024
MAX_BATCH_BYTES = 5 * 1024 * 1024

# Each has its own rate, so that asking before a call does not halve what can be sent after it.
INGEST, ASKS = "ingest", "asks"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that was understood: its events, in chunks that are committed one after another, or its question."""

    chunks: list[list[CheckedEvent]]
    answer: Callable[[Sequence[Receipt]], Answer]
    question: Question | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """One path: what its metrics are called, how a request is understood, and for which rate it counts.

    `prepare` raises `BodyError` or `InvalidPayloadError`. `methods_of_django` of the same path are not the gateway's.
    """

    name: str
    prepare: Callable[[Environ], Prepared]
    lane: str = INGEST
    methods_of_django: tuple[str, ...] = ()


def single(environ: Environ) -> Prepared:
    """One event."""
    return _one(check_event(read_json(environ, MAX_BODY_BYTES), utc_now()))


def batch(environ: Environ) -> Prepared:
    """1 to 1,000 events; a bad one never fails the others."""
    return _many(split_batch(read_json(environ, MAX_BATCH_BYTES)), None)


def demo_data(environ: Environ) -> Prepared:
    """One demo event, or a small believable data set when the body is empty."""
    body = read_json(environ, MAX_BODY_BYTES)
    if not body.strip():
        return _many(demo.data_set(utc_now()), DataMode.DEMO.value)
    return _one(check_event(body, utc_now(), forced_data_mode=DataMode.DEMO.value))


def otlp_traces(environ: Environ) -> Prepared:
    """The model calls of an OpenTelemetry export, a batch at a time; a repeat goes on where the last one broke."""
    export = read_export(environ, MAX_BATCH_BYTES)
    calls = otlp.model_calls(export, utc_now())

    def answer(receipts: Sequence[Receipt]) -> Answer:
        return otlp.answer(export.encoding, calls, [verdict for receipt in receipts for verdict in receipt.verdicts])

    return Prepared(list(calls.chunks()), answer)


def _ask(what: What) -> Callable[[Environ], Prepared]:
    """A question about one call to come."""

    def prepare(environ: Environ) -> Prepared:
        question = check_question(read_json(environ, MAX_BODY_BYTES), what)

        def answer(receipts: Sequence[Receipt]) -> Answer:
            (decision,) = [receipt.decision for receipt in receipts if receipt.decision is not None]
            return ask_answers.answer(question, decision)

        return Prepared([], answer, question)

    return prepare


def _one(event: CheckedEvent) -> Prepared:
    def answer(receipts: Sequence[Receipt]) -> Answer:
        verdict, standing = receipts[0].verdicts[0], receipts[0].standing
        if verdict.reason is not None:
            return answers.refused(verdict, standing)
        return answers.accepted(event.external_request_id, verdict, event.warnings, standing)

    return Prepared([[event]], answer)


def _many(raws: Iterable[bytes], forced_data_mode: str | None) -> Prepared:
    now = utc_now()
    entries: list[BatchEntry] = []
    valid: list[BatchEntry] = []
    events: list[CheckedEvent] = []
    for raw in raws:
        try:
            event = check_event(raw, now, forced_data_mode=forced_data_mode)
        except InvalidPayloadError as error:
            entries.append(BatchEntry(event_id_of(raw), errors=error.errors))
            continue
        entry = BatchEntry(event.external_request_id, warnings=event.warnings)
        entries.append(entry)
        valid.append(entry)
        events.append(event)

    def answer(receipts: Sequence[Receipt]) -> Answer:
        for entry, verdict in zip(valid, receipts[0].verdicts, strict=True):
            entry.verdict = verdict
        return answers.batch(entries, receipts[0].standing)

    return Prepared([events], answer)


ROUTES: Mapping[str, Route] = {
    "/v1/ingest/llm-request": Route("single", single),
    "/v1/ingest/llm-requests": Route("batch", batch),
    "/v1/ingest/demo": Route("demo", demo_data),
    "/v1/otlp/v1/traces": Route("otlp", otlp_traces),
    "/v1/budgets/check": Route("check", _ask(What.CHECK), ASKS),
    "/v1/budgets/leases": Route("lease", _ask(What.LEASE), ASKS, ("GET", "HEAD")),
    "/v1/budgets/leases/release": Route("release", _ask(What.RELEASE), ASKS),
}
