"""One POST to a receiver, and what its answer means."""

import re
from collections.abc import Callable, Mapping
from enum import Enum
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httpx2

from alerts.channels.base import Answer
from alerts.channels.texts import cut
from alerts.models import LONGEST_ANSWER, AttemptOutcome
from opsmeter_site.lib.errors import FieldError, InvalidInput
from opsmeter_site.lib.http import Blocked, HttpError, Reply, check_url, post_json

# Shorter parts of an address, such as "webhooks", are words rather than secrets.
_SHORTEST_SECRET = 12
_WORTH_ANOTHER_TRY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


class Verdict(Enum):
    """What an answer means. A bad message is refused for good, and the channel stays on.

    `DOUBTED` is a refusal that may pass: it is believed when it is repeated.
    """

    SENT = AttemptOutcome.SENT
    RETRY = AttemptOutcome.RETRY
    REFUSED = AttemptOutcome.REFUSED
    DOUBTED = "doubted"
    BAD_MESSAGE = "bad message"


Judge = Callable[[Reply], Verdict]


def usual(reply: Reply) -> Verdict:
    """What a status alone says."""
    if 200 <= reply.status < 300:
        return Verdict.SENT
    if reply.status >= 500 or reply.status in _WORTH_ANOTHER_TRY:
        return Verdict.RETRY
    return Verdict.BAD_MESSAGE if reply.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else Verdict.REFUSED


def strict(reply: Reply) -> Verdict:
    """The same for services whose format is documented: 400 says that we wrote it wrongly."""
    return Verdict.BAD_MESSAGE if reply.status == HTTPStatus.BAD_REQUEST else usual(reply)


def post(
    config: Mapping[str, Any],
    body: bytes | Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
    *,
    judge: Judge = usual,
) -> Answer:
    """POST to the channel's URL and say what became of it. Never raises for what a receiver or network does."""
    try:
        reply = post_json(config["url"], body, headers)
    except Blocked as error:
        return Answer(AttemptOutcome.REFUSED, None, str(error))
    except HttpError as error:
        return Answer(AttemptOutcome.RETRY, None, str(error))
    verdict = judge(reply)
    return Answer(
        _outcome(verdict),
        reply.status,
        _in_words(reply, config),
        reply.retry_after,
        is_message_fault=verdict is Verdict.BAD_MESSAGE,
        is_doubted=verdict is Verdict.DOUBTED,
    )


def _outcome(verdict: Verdict) -> AttemptOutcome:
    match verdict:
        case Verdict.BAD_MESSAGE:
            return AttemptOutcome.REFUSED
        case Verdict.DOUBTED:
            return AttemptOutcome.RETRY
    return AttemptOutcome(verdict.value)


def _in_words(reply: Reply, config: Mapping[str, Any]) -> str:
    if 300 <= reply.status < 400:
        return f"HTTP {reply.status}: redirects are not followed. Give the address that it leads to."
    text = _without_secrets(reply.text.strip(), config) or "an empty answer"
    return cut(f"HTTP {reply.status}: {text}", LONGEST_ANSWER)


def _without_secrets(text: str, config: Mapping[str, Any]) -> str:
    """`text` without what is stored encrypted: many receivers say what they were sent, "Cannot POST /hooks/…"."""
    target = httpx2.URL(config["url"]).raw_path.decode()
    path, _, query = target.partition("?")
    parts = [each for each in re.split("[/&=]", f"{path}/{query}") if len(each) >= _SHORTEST_SECRET]
    secrets = {*config.values(), target, path, *parts} - {"", "/"}
    for secret in sorted(secrets | set(map(unquote, secrets)), key=len, reverse=True):
        text = text.replace(secret, "(hidden)")
    return text


def clean_url(config: Mapping[str, str]) -> str:
    """The typed URL. Raises `InvalidInput`."""
    url = config.get("url", "").strip()
    try:
        check_url(url)
    except Blocked as error:
        raise invalid("url", str(error)) from None
    return url


def invalid(field: str, message: str) -> InvalidInput:
    """What is wrong with one field of a channel's configuration."""
    return InvalidInput(message, errors=[FieldError(field, message)])
