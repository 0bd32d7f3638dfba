"""One POST to a receiver, and what its answer means."""

from collections.abc import Callable, Mapping
from enum import Enum
from http import HTTPStatus
from typing import Any

from alerts.channels.base import LONGEST_ANSWER, Answer
from alerts.channels.texts import cut
from alerts.models import AttemptOutcome
from opsmeter_site.lib.errors import FieldError, InvalidInput
from opsmeter_site.lib.http import Blocked, HttpError, Reply, check_url, post_json

_WORTH_ANOTHER_TRY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


class Verdict(Enum):
    """What an answer means. A bad message is refused for good, and the channel stays on."""

    SENT = AttemptOutcome.SENT
    RETRY = AttemptOutcome.RETRY
    REFUSED = AttemptOutcome.REFUSED
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
    url: str, body: bytes | Mapping[str, Any], headers: Mapping[str, str] | None = None, *, judge: Judge = usual
) -> Answer:
    """POST and say what became of it. Never raises for what a receiver or network does."""
    try:
        reply = post_json(url, body, headers)
    except Blocked as error:
        return Answer(AttemptOutcome.REFUSED, None, str(error))
    except HttpError as error:
        return Answer(AttemptOutcome.RETRY, None, str(error))
    verdict = judge(reply)
    is_message_fault = verdict is Verdict.BAD_MESSAGE
    return Answer(
        AttemptOutcome.REFUSED if is_message_fault else AttemptOutcome(verdict.value),
        reply.status,
        _in_words(reply),
        reply.retry_after,
        is_message_fault=is_message_fault,
    )


def _in_words(reply: Reply) -> str:
    if 300 <= reply.status < 400:
        return f"HTTP {reply.status}: redirects are not followed. Give the address that it leads to."
    text = reply.text.strip() or "an empty answer"
    return cut(f"HTTP {reply.status}: {text}", LONGEST_ANSWER)


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
