"""From bytes to a checked event. Every entry point (single, batch, demo, OTLP) passes here; camelCase ends here.

Shapes, limits and defaults are those of the wire contract, section 1. Errors name the field as the client wrote it.
"""

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from json import JSONDecodeError, loads
from typing import Annotated, Any, TypeVar

import msgspec

from ingest.models import UNKNOWN, DataMode, Environment, Outcome, ServiceTier
from opsmeter_site.lib.errors import FieldError
from opsmeter_site.lib.money import to_ledger

MAX_TOKENS = 1_000_000_000
MAX_LATENCY_MS = 86_400_000
MAX_REPORTED_COST_USD = Decimal(10_000_000)
MAX_METADATA_BYTES = 4_096
MAX_AGE = timedelta(days=35)
MAX_AHEAD = timedelta(minutes=5)

Tokens = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]
Name100 = Annotated[str, msgspec.Meta(max_length=100)]
Name200 = Annotated[str, msgspec.Meta(max_length=200)]
Scalar = str | int | float | bool | None


class Payload(msgspec.Struct, rename="camel", forbid_unknown_fields=False, kw_only=True):
    """One telemetry row as it stands on the wire."""

    provider: Name100
    model: Name200
    input_tokens: Tokens
    output_tokens: Tokens
    status: str
    external_request_id: Name200 | None = None
    prompt_version: Name200 | None = None
    endpoint_tag: Name200 | None = None
    total_tokens: Annotated[int, msgspec.Meta(ge=0, le=4 * MAX_TOKENS)] | None = None
    latency_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_LATENCY_MS)] | None = None
    error_code: str | int | None = None
    user_id: Name200 | None = None
    tenant_id: Name200 | None = None
    feature_tag: Name200 | None = None
    created_at: str | None = None
    occurred_at: str | None = None
    data_mode: str | None = None
    environment: str | None = None
    metadata: dict[str, Scalar] | None = None
    cached_input_tokens: Tokens | None = None
    cache_write_tokens: Tokens | None = None
    reasoning_tokens: Tokens | None = None
    usage_convention: str | None = None
    service_tier: str | None = None
    cost_usd: Decimal | None = None


class InvalidPayloadError(Exception):
    """The payload is refused as a whole. `reason` is `invalid_json` or `invalid_payload`; `errors` say where."""

    def __init__(self, reason: str, errors: Sequence[FieldError]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.errors = list(errors)


class CheckedEvent(msgspec.Struct, kw_only=True, gc=False):
    """One valid event, before its price. Token buckets are disjoint; reasoning is part of output."""

    external_request_id: str
    fingerprint: int
    occurred_at: datetime
    provider: str
    model: str
    endpoint_tag: str
    prompt_version: str
    environment: str
    data_mode: str
    service_tier: str
    status: str
    error_code: str | None
    user_id: str
    tenant_id: str
    feature_tag: str
    uncached_input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    total_tokens: int
    latency_ms: int | None
    reported_cost_usd: Decimal | None
    metadata: str | None
    warnings: list[str] = []

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.uncached_input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.output_tokens


Shape = TypeVar("Shape", bound=msgspec.Struct)

_decode_json = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_FIELD_PATH = re.compile(r" - at `\$\.?([^`]*)`$")


def choices(values: Sequence[str], default: str | None = None) -> dict[str | None, str]:
    """What an enum field may say; None, where there is a default, stands for a field that is missing."""
    allowed: dict[str | None, str] = {value: value for value in values}
    return allowed if default is None else allowed | {None: default}


_STATUSES = choices(Outcome.values)
DATA_MODES = choices(DataMode.values, DataMode.REAL.value)
ENVIRONMENTS = choices(Environment.values, Environment.PROD.value)
SERVICE_TIERS = choices(ServiceTier.values, ServiceTier.STANDARD.value)
_CONVENTIONS = choices(("inclusive", "exclusive"), "inclusive")


def check_event(raw: bytes, now: datetime, *, forced_data_mode: str | None = None) -> CheckedEvent:
    """Decode and check one event. `raw` is one JSON object in UTF-8; `now` is aware UTC.

    Raises `InvalidPayloadError` with every field that is at fault.
    """
    payload = decode(raw, Payload)
    errors: list[FieldError] = []
    event = _build(payload, now, errors, forced_data_mode)
    if errors:
        raise InvalidPayloadError("invalid_payload", errors)
    return event


def decode(raw: bytes, shape: type[Shape]) -> Shape:
    """The one JSON object in `raw` (UTF-8). Raises `InvalidPayloadError` with every field of a wrong type or size."""
    try:
        data = _decode_json(raw)
        payload = msgspec.convert(data, shape)
    except msgspec.ValidationError:
        raise InvalidPayloadError("invalid_payload", _all_shape_errors(raw, shape)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from None
    # As many names in the text as in what it decoded to: nothing was said twice. An unusual layout, a deeper nesting
    # or an escape spoils the count; only then is the exact, slower look needed.
    if raw.count(b'":') != len(data) + len(getattr(payload, "metadata", None) or ()) or b"\\" in raw:
        _refuse_repeats_and_nul(raw)
    return payload


def _not_json(error: Exception) -> InvalidPayloadError:
    text = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return InvalidPayloadError("invalid_json", [FieldError("", f"The body is not valid JSON in UTF-8: {text}.")])


def _refuse_repeats_and_nul(raw: bytes) -> None:
    errors: list[FieldError] = []

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for name, value in pairs:
            if name in seen:
                errors.append(FieldError(name, "Appears twice; send each field once."))
            if "\x00" in name or (isinstance(value, str) and "\x00" in value):
                errors.append(FieldError(name.replace("\x00", ""), "Must not contain NUL characters."))
            seen[name] = value
        return seen

    try:
        loads(raw, object_pairs_hook=check)
    except (JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from None
    if errors:
        raise InvalidPayloadError("invalid_payload", errors)


def _all_shape_errors(raw: bytes, shape: type[msgspec.Struct]) -> list[FieldError]:
    """Every field whose type or size is wrong. The fast decoder stops at the first; a client wants the list."""
    try:
        data = _decode_json(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from None
    if not isinstance(data, dict):
        return [FieldError("", "The body must be a JSON object.")]
    errors = []
    for spec in msgspec.structs.fields(shape):
        name = spec.encode_name
        if name not in data:
            if spec.required:
                errors.append(FieldError(name, "Required."))
            continue
        try:
            msgspec.convert(data[name], spec.type)
        except msgspec.ValidationError as error:
            errors.append(FieldError(_deeper(name, str(error)), _plain(str(error))))
    return errors


def _deeper(name: str, message: str) -> str:
    found = _FIELD_PATH.search(message)
    return f"{name}.{found.group(1)}".rstrip(".") if found and found.group(1) else name


def _plain(message: str) -> str:
    return _FIELD_PATH.sub("", message).replace("`", "") + "."


def _build(payload: Payload, now: datetime, errors: list[FieldError], forced_data_mode: str | None) -> CheckedEvent:
    warnings: list[str] = []
    metadata = payload.metadata or {}
    uncached, cache_read, cache_write = _input_buckets(payload, errors)
    reasoning = payload.reasoning_tokens or 0
    if reasoning > payload.output_tokens:
        errors.append(FieldError("reasoningTokens", "Part of outputTokens, so it cannot be larger."))
    return CheckedEvent(
        external_request_id=_request_id(payload, warnings),
        fingerprint=int.from_bytes(blake2b(_encode(payload), digest_size=8).digest(), "big", signed=True),
        occurred_at=_moment(payload, now, errors) if payload.created_at or payload.occurred_at else now,
        provider=required("provider", payload.provider, errors).lower(),
        model=required("model", payload.model, errors),
        endpoint_tag=label(payload.endpoint_tag),
        prompt_version=label(payload.prompt_version),
        environment=ENVIRONMENTS.get(payload.environment)
        or choice("environment", payload.environment, ENVIRONMENTS, errors),
        data_mode=forced_data_mode
        or DATA_MODES.get(payload.data_mode)
        or choice("dataMode", payload.data_mode, DATA_MODES, errors),
        service_tier=SERVICE_TIERS.get(payload.service_tier)
        or choice("serviceTier", payload.service_tier, SERVICE_TIERS, errors),
        status=_STATUSES.get(payload.status) or choice("status", payload.status, _STATUSES, errors),
        error_code=None if payload.error_code is None else _error_code(payload.error_code, errors),
        user_id=label(payload.user_id),
        tenant_id=label(payload.tenant_id or _from_metadata("tenantId", metadata, errors)),
        feature_tag=label(payload.feature_tag or _from_metadata("feature", metadata, errors)),
        uncached_input_tokens=uncached,
        cache_read_tokens=cache_read,
        cache_write_tokens=cache_write,
        output_tokens=payload.output_tokens,
        reasoning_tokens=reasoning,
        total_tokens=_total(payload, uncached + cache_read + cache_write + payload.output_tokens, warnings),
        latency_ms=payload.latency_ms,
        reported_cost_usd=None if payload.cost_usd is None else usd("costUsd", payload.cost_usd, errors),
        metadata=_metadata(metadata, errors) if metadata else None,
        warnings=warnings,
    )


def _request_id(payload: Payload, warnings: list[str]) -> str:
    given = (payload.external_request_id or "").strip()
    if given:
        return given
    warnings.append("externalRequestId is missing; a generated one was used, so a retry would be counted twice.")
    return f"gen_{secrets.token_hex(12)}"


def _input_buckets(payload: Payload, errors: list[FieldError]) -> tuple[int, int, int]:
    """Uncached input, cache read and cache write tokens, disjoint, whatever the caller's convention."""
    cache_read = payload.cached_input_tokens or 0
    cache_write = payload.cache_write_tokens or 0
    convention = _CONVENTIONS.get(payload.usage_convention)
    if convention is None:
        convention = choice("usageConvention", payload.usage_convention, _CONVENTIONS, errors)
    if convention == "exclusive":
        return payload.input_tokens, cache_read, cache_write
    uncached = payload.input_tokens - cache_read - cache_write
    if uncached < 0:
        named = "cachedInputTokens" if cache_read > payload.input_tokens or not cache_write else "cacheWriteTokens"
        errors.append(
            FieldError(
                named,
                "Cached and cache-write tokens are part of inputTokens, so they cannot be more together. "
                'If your provider reports them on top, send usageConvention "exclusive".',
            )
        )
        uncached = 0
    return uncached, cache_read, cache_write


def _total(payload: Payload, expected: int, warnings: list[str]) -> int:
    if payload.total_tokens is None or payload.total_tokens == expected:
        return expected
    warnings.append(f"totalTokens is {payload.total_tokens}, but input and output add up to {expected}.")
    return payload.total_tokens


def _moment(payload: Payload, now: datetime, errors: list[FieldError]) -> datetime:
    name, text = ("createdAt", payload.created_at) if payload.created_at else ("occurredAt", payload.occurred_at)
    try:
        moment = datetime.fromisoformat((text or "").strip())
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        errors.append(FieldError(name, 'Not an ISO 8601 time such as "2026-03-07T10:15:00Z".'))
        return now
    if not now - MAX_AGE <= moment <= now + MAX_AHEAD:
        errors.append(
            FieldError(name, "Must be at most 35 days ago and at most 5 minutes ahead of the server's clock.")
        )
        return now
    return moment


def required(name: str, text: str, errors: list[FieldError]) -> str:
    """`text` without surrounding blanks; an error if nothing is left."""
    text = text.strip()
    if not text:
        errors.append(FieldError(name, "Must not be empty."))
    return text


def label(text: str | None) -> str:
    """An optional name as events carry it."""
    return (text and text.strip()) or UNKNOWN


def choice(name: str, text: str | None, allowed: dict[str | None, str], errors: list[FieldError]) -> str:
    """The value that `text` means, however it is written; "" with an error if there is none."""
    found = allowed.get(text) or allowed.get((text or "").strip().casefold())
    if found is None:
        errors.append(FieldError(name, f"Must be one of: {', '.join(dict.fromkeys(allowed.values()))}."))
    return found or ""


def _error_code(code: str | int, errors: list[FieldError]) -> str | None:
    # Python refuses to print integers of thousands of digits; such a number is no error code anyway.
    if (isinstance(code, int) and code.bit_length() > 600) or (isinstance(code, str) and len(code) > 200):
        errors.append(FieldError("errorCode", "At most 200 characters."))
        return None
    return str(code)


def _from_metadata(name: str, metadata: dict[str, Scalar], errors: list[FieldError]) -> str | None:
    value = metadata.get(name)
    if value is None:
        return None
    text = str(value)
    if len(text) > 200:
        errors.append(FieldError(f"metadata.{name}", "At most 200 characters."))
    return text


def usd(name: str, amount: Decimal, errors: list[FieldError]) -> Decimal | None:
    """An amount that a client names, at the ledger's 12 decimals; None with an error if it is none."""
    if not amount.is_finite() or not 0 <= amount <= MAX_REPORTED_COST_USD:
        errors.append(FieldError(name, f"Must be a number from 0 to {MAX_REPORTED_COST_USD:,}."))
        return None
    return to_ledger(amount)


def _metadata(metadata: dict[str, Scalar], errors: list[FieldError]) -> str | None:
    encoded = _encode(metadata)
    if len(encoded) > MAX_METADATA_BYTES:
        errors.append(FieldError("metadata", f"At most {MAX_METADATA_BYTES} bytes as JSON."))
        return None
    return encoded.decode()


class _Batch(msgspec.Struct):
    events: list[msgspec.Raw]


MAX_BATCH_EVENTS = 1_000
_batch_decoder = msgspec.json.Decoder(_Batch)
_id_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def split_batch(body: bytes) -> list[bytes]:
    """The events of a batch body, still undecoded. Raises `InvalidPayloadError` if the envelope itself is wrong."""
    try:
        events = _batch_decoder.decode(body).events
    except msgspec.ValidationError as error:
        message = f'The body must be {{"events": [ … ]}}: {_plain(str(error))}'
        raise InvalidPayloadError("invalid_payload", [FieldError("events", message)]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from None
    if not 1 <= len(events) <= MAX_BATCH_EVENTS:
        message = f"Must hold 1 to {MAX_BATCH_EVENTS:,} events; this one holds {len(events):,}."
        raise InvalidPayloadError("invalid_payload", [FieldError("events", message)])
    return [bytes(event) for event in events]


def event_id_of(raw: bytes) -> str | None:
    """The externalRequestId of an event that was refused, if it can be read."""
    try:
        value = msgspec.json.decode(_id_decoder.decode(raw)["externalRequestId"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return None
    return value if isinstance(value, str) else None
