"""One call of Lemon Squeezy's HTTP API: sent within fixed limits, answered with JSON or with one of our errors."""

import json
import logging
import os
from collections.abc import Mapping
from functools import cache
from time import monotonic
from typing import Any, Literal

import httpx2
import structlog

from billing.providers.base import (
    ProviderError,
    ProviderNotFound,
    ProviderRefused,
    ProviderUnavailable,
    ProviderUnsure,
)
from billing.providers.lemonsqueezy import budget

logger = structlog.get_logger(__name__)
# It logs the address of every call, and filters in it hold people's e-mail addresses.
logging.getLogger("httpx2").setLevel(logging.WARNING)

CONNECT_SECONDS = 3.0
READ_SECONDS = 5.0
TOTAL_SECONDS = 15.0
MOST_READ = 4 * 1024 * 1024  # bytes
LONGEST_REASON = 300
_LONGEST_RETRY_AFTER = 3_600  # seconds
_RETRY_AFTER = 30  # seconds, where nobody says anything else
_RETRY_AFTER_BAD_KEY = 300  # seconds: people must act first
_MEDIA_TYPE = "application/vnd.api+json"
_ATTRIBUTES = "/data/attributes/"

Method = Literal["GET", "POST", "PATCH", "DELETE"]

_NOTHING_WAS_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.UnsupportedProtocol,
    httpx2.InvalidURL,
    # A key that no header can hold.
    httpx2.LocalProtocolError,
    UnicodeEncodeError,
)


class AttributeRefused(ProviderRefused):
    """It said no because of one attribute, of what it was sent or of what it has."""

    def __init__(self, message: str, attribute: str) -> None:
        super().__init__(message)
        self.attribute = attribute
        """By the provider's name."""


class _Endless(Exception):
    """The answer is too large, or drips."""


def call(
    base: str,
    api_key: str,
    method: Method,
    path: str,
    *,
    params: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    urgent: bool = True,
) -> dict[str, Any]:
    """The JSON object that is answered. Raises `ProviderError`; none of them names the key or the address."""
    budget.take(urgent=urgent)
    try:
        request = _client(base, os.getpid()).build_request(
            method,
            f"{base}{path}",
            params=params,
            content=None if body is None else json.dumps(body).encode(),
            headers={"Accept": _MEDIA_TYPE, "Content-Type": _MEDIA_TYPE, "Authorization": f"Bearer {api_key}"},
            timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        )
        response, content = _send(base, request)
    except _NOTHING_WAS_SENT:
        raise ProviderUnavailable(
            "The payment provider cannot be reached. Nothing was changed.", headers=_retry_after(_RETRY_AFTER)
        ) from None
    except (httpx2.HTTPError, _Endless):
        raise _no_answer(method) from None
    if response.headers.get("X-Ratelimit-Remaining") == "0":
        budget.exhaust()
    return _read(method, response, content)


def _send(base: str, request: httpx2.Request) -> tuple[httpx2.Response, bytes]:
    """The answer and its whole body. The time-outs are for each piece of it: this end is for all of them."""
    end = monotonic() + TOTAL_SECONDS
    response = _client(base, os.getpid()).send(request, stream=True)
    content = bytearray()
    try:
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > MOST_READ or monotonic() > end:
                raise _Endless
    finally:
        response.close()
    return response, bytes(content)


def _read(method: Method, response: httpx2.Response, content: bytes) -> dict[str, Any]:
    status, answer = response.status_code, _json_object(content)
    if status == httpx2.codes.TOO_MANY_REQUESTS:
        budget.exhaust()
        raise ProviderUnavailable(
            "The payment provider has too much to do just now. Nothing was changed.",
            headers=_retry_after(_seconds(response.headers.get("Retry-After", ""))),
        )
    if status in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
        logger.error("billing_key_refused", status=status)
        raise ProviderUnavailable(
            "The payment provider refuses this installation’s key. Nothing was changed. Its operators must renew it.",
            headers=_retry_after(_RETRY_AFTER_BAD_KEY),
        )
    # Whoever does not speak its language is not the provider but something in between.
    if answer is None:
        raise _no_answer(method)
    if response.is_success:
        return answer
    if status == httpx2.codes.NOT_FOUND:
        raise ProviderNotFound("The payment provider does not know this.")
    if response.is_client_error:
        reason = _reason(answer) or "The payment provider refused this without saying why."
        attribute = _attribute(answer)
        raise AttributeRefused(reason, attribute) if attribute else ProviderRefused(reason)
    raise _no_answer(method)


def _no_answer(method: Method) -> ProviderError:
    if method == "GET":
        message = "The payment provider gave no proper answer. Nothing was changed."
        return ProviderUnavailable(message, headers=_retry_after(_RETRY_AFTER))
    message = "The payment provider gave no proper answer, so it may or may not have acted."
    return ProviderUnsure(message, headers=_retry_after(_RETRY_AFTER))


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _reason(answer: Mapping[str, Any]) -> str:
    """What the provider says is wrong, in any of its three ways of saying it, as text for people."""
    said = [each.get("detail") or each.get("title") for each in _errors(answer)]
    said += [answer.get("error"), answer.get("message")]
    text = " ".join(each for each in said if isinstance(each, str))
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:LONGEST_REASON]


def _attribute(answer: Mapping[str, Any]) -> str:
    """The one attribute that its errors point at; empty if there are more, or none."""
    sources = [each.get("source") for each in _errors(answer)]
    pointers = [str(each.get("pointer")) if isinstance(each, dict) else "" for each in sources]
    is_one = len(pointers) == 1 and pointers[0].startswith(_ATTRIBUTES)
    return pointers[0].removeprefix(_ATTRIBUTES) if is_one else ""


def _errors(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    errors = answer.get("errors")
    return [each for each in errors if isinstance(each, dict)] if isinstance(errors, list) else []


def _seconds(value: str) -> int:
    is_number = value.isascii() and value.isdecimal() and len(value) <= len(str(_LONGEST_RETRY_AFTER))
    return min(int(value), _LONGEST_RETRY_AFTER) if is_number else budget.seconds_left()


def _retry_after(seconds: int) -> dict[str, str]:
    return {"Retry-After": str(max(1, seconds))}


@cache
def _client(_base: str, _process_id: int) -> httpx2.Client:
    """One for each address, so that connections are used again; and for each process, as they cannot be shared."""
    return httpx2.Client(headers={"User-Agent": "Opsmeter"}, follow_redirects=False, trust_env=False)
