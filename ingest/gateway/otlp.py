"""From spans to events: the GenAI semantic conventions, read for what a model call cost.

Only a span of a single model call becomes an event. Agent, tool and workflow spans may repeat the tokens of the calls
beneath them, so nothing of theirs is counted. Of a span only the attributes named here are ever looked at: prompts and
completions are not among them. Every event is built as the contract's own payload and checked like any other.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

import msgspec

from ingest.gateway.answers import Answer
from ingest.gateway.ledger import Verdict
from ingest.gateway.otlp_wire import Attributes, Encoding, Export, Span, Value, spans_of, success
from ingest.gateway.payload import MAX_BATCH_EVENTS, CheckedEvent, InvalidPayloadError, check_event
from ingest.price_names import canonical_provider
from opsmeter_site.lib.errors import FieldError

_encode = msgspec.json.Encoder().encode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NANOSECONDS_IN_MS = 1_000_000
_MAX_MESSAGE = 500
_TRACE_ID = re.compile(r"(?!0+$)[0-9a-f]{32}")
_SPAN_ID = re.compile(r"(?!0+$)[0-9a-f]{16}")

_OPERATION = "gen_ai.operation.name"
_MODEL_CALLS = frozenset({"chat", "text_completion", "generate_content", "embeddings"})

# Each field's attributes, the one that wins first. The conventions' own names, then older ones that are still sent.
_PROVIDER = ("gen_ai.provider.name", "gen_ai.system")
_MODEL = ("gen_ai.response.model", "gen_ai.request.model")
_INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
_OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
_CACHE_READ = ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens")
_CACHE_WRITE = ("gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_creation_input_tokens")
_REASONING = ("gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens")
_SERVICE_TIER = (
    "openai.response.service_tier", "gen_ai.response.service_tier", "gen_ai.openai.response.service_tier",
    "openai.request.service_tier", "gen_ai.request.service_tier", "gen_ai.openai.request.service_tier",
)  # fmt: skip
_ERROR = "error.type"
_OF_THE_CALL = (_OPERATION, *_PROVIDER, *_MODEL, *_INPUT, *_OUTPUT, *_CACHE_READ, *_CACHE_WRITE, *_REASONING,
                *_SERVICE_TIER, _ERROR)  # fmt: skip

# These may also stand on the resource, for everything that a process sends.
_ENVIRONMENT = ("deployment.environment.name", "deployment.environment")
_CONVENTION = ("opsmeter.usage_convention",)
_LABELS = {
    "endpointTag": ("opsmeter.endpoint_tag", "service.name"),
    "promptVersion": ("opsmeter.prompt_version",),
    "userId": ("opsmeter.user_id", "enduser.id", "user.id"),
    "tenantId": ("opsmeter.tenant_id",),
    "featureTag": ("opsmeter.feature_tag",),
    "dataMode": ("opsmeter.data_mode",),
}
_OF_THE_RESOURCE = frozenset((*_ENVIRONMENT, *_CONVENTION, *(name for names in _LABELS.values() for name in names)))
_WANTED = _OF_THE_RESOURCE | frozenset(_OF_THE_CALL)

# Where the conventions' name of a provider is not one that the price catalogue knows.
_PROVIDERS = {"moonshot_ai": "moonshotai"}
_PRICED_TIERS = frozenset({"batch", "flex", "priority"})
_ENVIRONMENTS = {"prod": "prod", "stag": "staging", "dev": "dev"}

# A hostile body of 5 MiB can take a hundred times that when decoded. Decoding holds the interpreter's lock anyway, so
# one at a time costs nothing and bounds the memory.
_one_at_a_time = Lock()


@dataclass(slots=True)
class ModelCalls:
    """The model calls of an export: those that may be stored, and what is wrong with each other."""

    events: list[CheckedEvent] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)

    def chunks(self) -> Iterator[list[CheckedEvent]]:
        """The events, as many at a time as a batch may have."""
        for start in range(0, len(self.events), MAX_BATCH_EVENTS):
            yield self.events[start : start + MAX_BATCH_EVENTS]


def model_calls(export: Export, now: datetime) -> ModelCalls:
    """The model calls among an export's spans, checked; other spans are passed over without a word.

    Raises `InvalidPayloadError` if the body as a whole cannot be read.
    """
    calls = ModelCalls()
    with _one_at_a_time:
        for span in spans_of(export, _WANTED):
            if str(span.attributes.get(_OPERATION, "")).strip().lower() not in _MODEL_CALLS:
                continue
            try:
                calls.events.append(_event(span, now))
            except InvalidPayloadError as error:
                problems = "; ".join(f"{one.field}: {one.message}".lstrip(": ") for one in error.errors)
                calls.invalid.append(f"span {span.span_id[:32] or '(without id)'}: {problems}")
    return calls


def answer(encoding: Encoding, calls: ModelCalls, verdicts: Sequence[Verdict]) -> Answer:
    """200, with a partial success if model calls were refused. Never 402, which exporters take for the whole export."""
    reasons = Counter(verdict.reason for verdict in verdicts if verdict.reason is not None)
    if calls.invalid:
        reasons["invalid_payload"] = len(calls.invalid)
    rejected = reasons.total()
    if not rejected:
        return success(encoding, 0, "")
    listed = ", ".join(f"{reason} ({count})" for reason, count in reasons.items())
    message = f"{rejected} of {len(verdicts) + len(calls.invalid)} model calls were not stored: {listed}."
    if calls.invalid:
        message += f" The first invalid one: {calls.invalid[0]}"
    return success(encoding, rejected, message[:_MAX_MESSAGE])


def _event(span: Span, now: datetime) -> CheckedEvent:
    if not _TRACE_ID.fullmatch(span.trace_id) or not _SPAN_ID.fullmatch(span.span_id):
        message = "The trace id must be 16 bytes and the span id 8 (in JSON as hexadecimal digits), not all zero."
        raise InvalidPayloadError("invalid_payload", [FieldError("", message)])
    payload = _payload(span)
    return check_event(_encode({name: value for name, value in payload.items() if value is not None}), now)


def _payload(span: Span) -> dict[str, Any]:
    """The span as a payload of the contract; None where it says nothing."""
    call = span.attributes
    labels = {name: value for name, value in span.resource.items() if name in _OF_THE_RESOURCE} | call
    error = _text(call, _ERROR)
    return {
        "externalRequestId": f"otel_{span.trace_id}_{span.span_id}",
        "provider": _provider(_text(call, *_PROVIDER)),
        "model": _text(call, *_MODEL),
        **_usage(call, _text(labels, *_CONVENTION)),
        "status": "error" if span.is_error or error else "success",
        "errorCode": error,
        "createdAt": (_EPOCH + timedelta(microseconds=span.start_ns // 1_000)).isoformat() if span.start_ns else None,
        "latencyMs": _latency_ms(span),
        "environment": _environment(_text(labels, *_ENVIRONMENT)),
        "serviceTier": _service_tier(_text(call, *_SERVICE_TIER)),
        **{name: _text(labels, *attributes) for name, attributes in _LABELS.items()},
    }


def _usage(call: Attributes, convention: str | None) -> dict[str, Any]:
    """The tokens. A failed call has none, and embeddings have no output: what is not there is 0."""
    usage = {
        "inputTokens": _number(call, 0, *_INPUT),
        "outputTokens": _number(call, 0, *_OUTPUT),
        "cachedInputTokens": _number(call, None, *_CACHE_READ),
        "cacheWriteTokens": _number(call, None, *_CACHE_WRITE),
        "reasoningTokens": _number(call, None, *_REASONING),
    }
    return {**usage, "usageConvention": convention or _convention(usage)}


def _convention(usage: dict[str, Value | None]) -> str:
    """Inclusive, as the conventions say; unless the parts are more than the whole, which proves the opposite."""
    parts = [usage["cachedInputTokens"] or 0, usage["cacheWriteTokens"] or 0]
    whole = usage["inputTokens"]
    if isinstance(whole, int) and all(isinstance(part, int) and part >= 0 for part in parts):
        return "exclusive" if sum(map(int, parts)) > whole else "inclusive"
    return "inclusive"


def _latency_ms(span: Span) -> int | None:
    if not span.start_ns or span.end_ns < span.start_ns:
        return None
    return round((span.end_ns - span.start_ns) / _NANOSECONDS_IN_MS)


def _provider(name: str | None) -> str | None:
    """The price catalogue's name of the provider, so that one provider's calls stand together however they came."""
    if name is None:
        return None
    known = canonical_provider(name)
    return _PROVIDERS.get(known, known)


def _environment(name: str | None) -> str | None:
    """`production`, `staging-eu` or `development` as the contract has it; any other name is prod, the default."""
    lowered = (name or "").lower()
    return next((value for start, value in _ENVIRONMENTS.items() if lowered.startswith(start)), None)


def _service_tier(name: str | None) -> str | None:
    """A tier with a price of its own; `default`, `auto`, `scale` and unknown ones are standard, the default."""
    lowered = (name or "").lower()
    return lowered if lowered in _PRICED_TIERS else None


def _text(attributes: Attributes, *names: str) -> str | None:
    """The first of `names` that says something, as text."""
    for name in names:
        value = attributes.get(name)
        text = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value).strip()
        if text:
            return text
    return None


def _number(attributes: Attributes, default: int | None, *names: str) -> Value | None:
    """The first of `names` that is there; whole numbers as integers, the rest as it is, for the check to refuse."""
    for name in names:
        value = attributes.get(name)
        if value is not None:
            return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
    return default
