"""JSON at the edge of the API: strict on the way in, exact on the way out.

Bodies are refused when they say anything twice, hold NUL characters or numbers that JSON does not know, nest deeply or
are too large. Decimals leave as JSON numbers with exactly their digits, never by way of a float.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import IO, Any, cast

import msgspec
from django.http import HttpResponse
from rest_framework.exceptions import NotAcceptable, ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.utils.mediatypes import media_type_matches
from rest_framework.views import APIView

from opsmeter_site.lib.errors import FieldError, InvalidInput, OpsmeterError

MAX_BODY_BYTES = 64 * 1024
_MAX_DEPTH = 20
_MAX_NUMBER_LENGTH = 400

_encoder = msgspec.json.Encoder(decimal_format="number")


class PayloadTooLargeError(OpsmeterError):
    """413: the body is larger than the endpoint reads."""

    status = 413
    reason = "payload_too_large"


def plain_number(value: Decimal) -> Decimal:
    """`value` without trailing zeros or exponent, as a person would write it: 41.25, 50, 0."""
    shortened = value.normalize()
    return shortened.quantize(Decimal(1)) if shortened.as_tuple().exponent > 0 else shortened  # type: ignore[operator]


def encode(data: Any) -> bytes:
    """`data` as JSON in UTF-8; decimals become numbers with exactly their digits."""
    return _encoder.encode(data)


def decode_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`; numbers with a fraction or exponent become `Decimal`.

    Raises `ParseError` when it is not JSON, `InvalidInput` when it is JSON that a careful reader refuses.
    """
    refused: list[FieldError] = []
    try:
        data = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=lambda pairs: _object(pairs, refused),
            parse_float=_fraction,
            parse_int=_integer,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError:
        raise ParseError("The body is not text in UTF-8.") from None
    except RecursionError:
        raise ParseError("The body is nested too deeply.") from None
    except ValueError as error:
        raise ParseError(f"The body is not valid JSON: {error}.") from None
    if not isinstance(data, dict):
        message = "The body must be a JSON object."
        raise InvalidInput(message, errors=[FieldError("", message)])
    if _depth_exceeds(data, _MAX_DEPTH):
        raise ParseError("The body is nested too deeply.")
    _find_nul(data, "", refused)
    if refused:
        raise InvalidInput("The body is ambiguous or holds characters that cannot be stored.", errors=refused)
    return data


class StrictJSONParser(BaseParser):
    """Reads `application/json` by the rules of this module. Register it as the only parser: others get 415."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The body as a dictionary. Raises `PayloadTooLargeError`, `ParseError` or `InvalidInput`."""
        raw = stream.read(MAX_BODY_BYTES + 1)
        if len(raw) > MAX_BODY_BYTES:
            raise PayloadTooLargeError(f"The body is larger than {MAX_BODY_BYTES // 1024} KiB.")
        return decode_object(raw)


class ExactJSONRenderer(BaseRenderer):
    """Writes `application/json` with exact decimals."""

    media_type = "application/json"
    format = "json"
    charset = None  # JSON is UTF-8 by definition

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        """`data` encoded; None (an answer without a body) as nothing."""
        return b"" if data is None else encode(data)


class WireNegotiation(DefaultContentNegotiation):
    """One format, so `Accept` either allows it or not; the framework's `?format=` would turn paths into 404s."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """The renderer and its media type. Raises `NotAcceptable`."""
        renderer = next(iter(renderers))
        media_type = str(renderer.media_type)
        # An empty header says nothing, so it rules nothing out.
        wanted = [entry for entry in self.get_accept_list(request) if entry]
        if wanted and not any(media_type_matches(media_type, entry) for entry in wanted):
            raise NotAcceptable
        return renderer, media_type


class WireView(APIView):
    """The base of every endpoint under `/v1`: this module's parser and renderer, and no answer to OPTIONS but 405.

    Each view narrows `http_method_names` to what it serves, so that `Allow` tells the truth.
    """

    parser_classes = (StrictJSONParser,)
    renderer_classes = (ExactJSONRenderer,)
    content_negotiation_class = WireNegotiation


def json_body(request: Request) -> dict[str, Any]:
    """The request's JSON object. Raises `ParseError` for an empty body: no body must not pass for "all defaults"."""
    if request.stream is None:
        raise ParseError("The body is empty; send a JSON object with a Content-Length.")
    return cast("dict[str, Any]", request.data)


def conditional(request: Request, document: tuple[bytes, str], *, max_age: int) -> HttpResponse:
    """An answer of (JSON, entity tag) that anyone may cache for `max_age` seconds; 304 to who has it already."""
    body, etag = document
    headers = {"Cache-Control": f"public, max-age={max_age}", "ETag": etag}
    if _is_known(request.headers.get("If-None-Match", ""), etag):
        return HttpResponse(status=304, headers=headers)
    return HttpResponse(body, content_type="application/json", headers=headers)


def _is_known(if_none_match: str, etag: str) -> bool:
    """Weak comparison: proxies that compress an answer weaken its tag."""
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in tags or "*" in tags


def _integer(digits: str) -> int:
    if len(digits) > _MAX_NUMBER_LENGTH:
        raise ValueError("a number has too many digits")
    return int(digits)


def _fraction(digits: str) -> Decimal:
    if len(digits) > _MAX_NUMBER_LENGTH:
        raise ValueError("a number has too many digits")
    try:
        return Decimal(digits)
    except InvalidOperation:
        raise ValueError("a number is out of range") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _object(pairs: list[tuple[str, Any]], refused: list[FieldError]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        refused.extend(
            FieldError(_printable(name), "Appears twice; send each field once.")
            for name, count in counts.items()
            if count > 1
        )
    return data


def _depth_exceeds(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    if depth == 0:
        return True
    children = value.values() if isinstance(value, dict) else value
    return any(_depth_exceeds(child, depth - 1) for child in children)


def _find_nul(value: Any, field: str, refused: list[FieldError]) -> None:
    """Note every text with a NUL character or half of a surrogate pair: neither can be stored."""
    if isinstance(value, str):
        if not _is_storable(value):
            refused.append(FieldError(field, "Must not contain NUL or broken Unicode characters."))
    elif isinstance(value, dict):
        for name, child in value.items():
            path = f"{field}.{_printable(name)}".lstrip(".")
            if not _is_storable(name):
                refused.append(FieldError(path, "A field name must not contain NUL or broken Unicode characters."))
            _find_nul(child, path, refused)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            _find_nul(child, f"{field}[{index}]", refused)


def _is_storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _printable(name: str) -> str:
    """A field name that is safe to send back: at most 100 characters, no control or broken characters."""
    return "".join(letter for letter in name[:100] if letter.isprintable())
