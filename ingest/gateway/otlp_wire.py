"""OTLP/HTTP as it stands on the wire: bodies in, spans out, answers back. What a span means is `otlp`'s business.

Both encodings end in the same `Span`s. In protobuf ids are bytes, in OTLP/JSON they are hexadecimal (not base64, which
protobuf's own JSON mapping would make of them), and 64-bit integers are strings or numbers; unknown fields are ignored.
"""

import re
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from ingest.gateway.answers import Answer
from ingest.gateway.http import BodyError, Environ, read_body
from ingest.gateway.payload import InvalidPayloadError
from opsmeter_site.lib.errors import FieldError

Value = str | int | float | bool
Attributes = dict[str, Value]

_MIN_INT64 = -(2**63)
_MAX_UINT64 = 2**64 - 1
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_ERROR_CODES = (2, "2", "STATUS_CODE_ERROR")


class Encoding(StrEnum):
    """The two encodings of OTLP/HTTP, by content type. An answer has that of its request."""

    JSON = "application/json"
    PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True, slots=True)
class Export:
    """The body of one export, inflated but not decoded."""

    encoding: Encoding
    body: bytes


@dataclass(slots=True)
class Span:
    """What is needed of a span. Ids as sent, in lower-case hexadecimal; times in Unix nanoseconds, 0 if missing."""

    trace_id: str
    span_id: str
    start_ns: int
    end_ns: int
    is_error: bool
    attributes: Attributes
    resource: Attributes


def read_export(environ: Environ, max_bytes: int) -> Export:
    """The request's body, at most `max_bytes` before and after inflation.

    Raises `BodyError` (413, 415), and `InvalidPayloadError` if it is not the gzip that it says it is.
    """
    kind, _, parameters = (environ.get("CONTENT_TYPE") or Encoding.JSON).lower().partition(";")
    charset = parameters.partition("charset=")[2].strip(' "') or "utf-8"
    compression = environ.get("HTTP_CONTENT_ENCODING", "").strip().lower() or "identity"
    try:
        encoding = Encoding(kind.strip())
    except ValueError:
        raise BodyError(415, "unsupported_media_type") from None
    if compression not in {"identity", "gzip"} or charset not in {"utf-8", "utf8"}:
        raise BodyError(415, "unsupported_media_type")
    body = read_body(environ, max_bytes)
    return Export(encoding, _inflate(body, max_bytes) if compression == "gzip" else body)


def _inflate(body: bytes, max_bytes: int) -> bytes:
    """The content of one gzip member. A bomb is given up at `max_bytes`, having taken no more memory than that."""
    inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(body, max_bytes + 1)
    except zlib.error:
        raise _invalid("The body is not valid gzip.") from None
    if len(inflated) > max_bytes:
        raise BodyError(413, "payload_too_large")
    if not inflater.eof or inflater.unused_data:
        raise _invalid("The body is not valid gzip: it is cut off, or something follows its end.")
    return inflated


def spans_of(export: Export, wanted: Collection[str]) -> Iterator[Span]:
    """The spans of an export that have `wanted` attributes, with those of them that hold one plain value.

    Raises `InvalidPayloadError` if the body is not what its content type says.
    """
    if export.encoding is Encoding.PROTOBUF:
        return _protobuf_spans(export.body, wanted)
    return _json_spans(export.body, wanted)


def success(encoding: Encoding, rejected_spans: int, message: str) -> Answer:
    """200 with an ExportTraceServiceResponse: empty, or a partial success that says how many spans and why."""
    if encoding is Encoding.JSON:
        partial = {"partialSuccess": {"rejectedSpans": str(rejected_spans), "errorMessage": message}}
        body = msgspec.json.encode(partial if rejected_spans else {})
    else:
        body = _protobuf_response(rejected_spans, message) if rejected_spans else b""
    return Answer(200, body, content_type=encoding.value)


def _invalid(message: str) -> InvalidPayloadError:
    return InvalidPayloadError("invalid_payload", [FieldError("", message)])


# --- protobuf. Its modules take 0.1 s to import: paid when the first such export comes, not at start. ---


def _protobuf_spans(body: bytes, wanted: Collection[str]) -> Iterator[Span]:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        raise _invalid("The body is not an ExportTraceServiceRequest in protobuf.") from None
    for of_resource in request.resource_spans:
        resource = _protobuf_attributes(of_resource.resource.attributes, wanted)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                attributes = _protobuf_attributes(span.attributes, wanted)
                if not attributes:
                    continue
                yield Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    is_error=span.status.code in _ERROR_CODES,
                    attributes=attributes,
                    resource=resource,
                )


_PLAIN_VALUES = frozenset({"string_value", "bool_value", "int_value", "double_value"})


def _protobuf_attributes(pairs: Iterable[Any], wanted: Collection[str]) -> Attributes:
    found: Attributes = {}
    for pair in pairs:
        name = pair.key
        if name in wanted and (kind := pair.value.WhichOneof("value")) in _PLAIN_VALUES:
            found[name] = getattr(pair.value, kind)
    return found


def _protobuf_response(rejected_spans: int, message: str) -> bytes:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = rejected_spans
    response.partial_success.error_message = message
    encoded: bytes = response.SerializeToString()
    return encoded


# --- JSON. As in all of protobuf's JSON, null is the same as not there. ---


class _Message(msgspec.Struct, rename="camel"):
    pass


class _JsonValue(_Message):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | str | None = None
    double_value: float | str | None = None


class _JsonPair(_Message):
    key: str | None = None
    value: _JsonValue | None = None


class _JsonStatus(_Message):
    code: int | str | None = None


class _JsonSpan(_Message):
    trace_id: str | None = None
    span_id: str | None = None
    start_time_unix_nano: int | str | None = None
    end_time_unix_nano: int | str | None = None
    attributes: list[_JsonPair] | None = None
    status: _JsonStatus | None = None


class _JsonScopeSpans(_Message):
    spans: list[_JsonSpan] | None = None


class _JsonResource(_Message):
    attributes: list[_JsonPair] | None = None


class _JsonResourceSpans(_Message):
    resource: _JsonResource | None = None
    scope_spans: list[_JsonScopeSpans] | None = None


class _JsonRequest(_Message):
    resource_spans: list[_JsonResourceSpans] | None = None


_decoder = msgspec.json.Decoder(_JsonRequest)


def _json_spans(body: bytes, wanted: Collection[str]) -> Iterator[Span]:
    for of_resource in _decode_json(body).resource_spans or ():
        resource = _json_attributes((of_resource.resource or _JsonResource()).attributes, wanted)
        for of_scope in of_resource.scope_spans or ():
            for span in of_scope.spans or ():
                attributes = _json_attributes(span.attributes, wanted)
                if not attributes:
                    continue
                yield Span(
                    trace_id=(span.trace_id or "").lower(),
                    span_id=(span.span_id or "").lower(),
                    start_ns=_nanoseconds(span.start_time_unix_nano),
                    end_ns=_nanoseconds(span.end_time_unix_nano),
                    is_error=span.status is not None and span.status.code in _ERROR_CODES,
                    attributes=attributes,
                    resource=resource,
                )


def _decode_json(body: bytes) -> _JsonRequest:
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(f"The body is not an ExportTraceServiceRequest in JSON: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = "The body is not valid JSON in UTF-8."
        raise InvalidPayloadError("invalid_json", [FieldError("", message)]) from None


def _json_attributes(pairs: list[_JsonPair] | None, wanted: Collection[str]) -> Attributes:
    found: Attributes = {}
    for pair in pairs or ():
        if pair.key in wanted and pair.value is not None and (value := _json_value(pair.value)) is not None:
            found[pair.key or ""] = value
    return found


def _json_value(value: _JsonValue) -> Value | None:
    if value.string_value is not None:
        return value.string_value
    if value.int_value is not None:
        return _integer(value.int_value)
    return value.double_value if value.double_value is not None else value.bool_value


def _integer(value: int | str) -> int:
    """A 64-bit integer of protobuf's JSON: a number, or its digits as a string."""
    if isinstance(value, str):
        if not _INTEGER.fullmatch(value):
            raise _invalid("A 64-bit integer must be a whole number, or a string of its digits.")
        value = int(value)
    if not _MIN_INT64 <= value <= _MAX_UINT64:
        raise _invalid("A number does not fit into 64 bits.")
    return value


def _nanoseconds(value: int | str | None) -> int:
    moment = _integer(value) if value is not None else 0
    if moment < 0:
        raise _invalid("A time must be in nanoseconds since 1970.")
    return moment
