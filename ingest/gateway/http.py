"""The little of HTTP that the gateway needs: bodies with a limit, content types, sending an answer."""

import secrets
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from ingest.gateway.answers import STATUS_LINES, Answer

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

# Unique without asking the kernel for random bytes at every request.
_PROCESS = secrets.token_hex(4)
_numbers = count(1)

_COMMON_HEADERS = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
]


class BodyError(Exception):
    """The body cannot be taken: `reason` is `payload_too_large` (413) or `unsupported_media_type` (415)."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def read_body(environ: Environ, max_bytes: int) -> bytes:
    """The whole request body, at most `max_bytes`. Raises `BodyError`."""
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isdigit() and int(length) > max_bytes:
        raise BodyError(413, "payload_too_large")
    body: bytes = environ["wsgi.input"].read(max_bytes + 1)
    if len(body) > max_bytes:
        raise BodyError(413, "payload_too_large")
    return body


def require_json(environ: Environ) -> None:
    """Raise `BodyError` unless the body is declared as JSON in UTF-8, uncompressed, or not declared at all."""
    declared = environ.get("CONTENT_TYPE") or "application/json"
    kind, _, parameters = declared.lower().partition(";")
    charset = parameters.partition("charset=")[2].strip(' "') or "utf-8"
    encoding = environ.get("HTTP_CONTENT_ENCODING", "identity").lower()
    if kind.strip() != "application/json" or charset not in {"utf-8", "utf8"} or encoding != "identity":
        raise BodyError(415, "unsupported_media_type")


def read_json(environ: Environ, max_bytes: int) -> bytes:
    """The body of a request that must be JSON, at most `max_bytes`. Raises `BodyError`."""
    require_json(environ)
    return read_body(environ, max_bytes)


def send(answer: Answer, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Start the response and return its body; HEAD gets none."""
    request_id = environ.get("HTTP_X_REQUEST_ID", "")
    if not (0 < len(request_id) <= 64 and request_id.isascii() and request_id.isprintable()):
        request_id = f"{_PROCESS}{next(_numbers):x}"
    headers = [
        ("Content-Type", answer.content_type),
        *_COMMON_HEADERS,
        ("Content-Length", str(len(answer.body))),
        ("X-Request-Id", request_id),
        *answer.headers,
    ]
    start_response(STATUS_LINES[answer.status], headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]
