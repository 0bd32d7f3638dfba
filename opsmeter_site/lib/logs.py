"""Log hygiene: no key, token or password reaches a log line, and no line says what is no news."""

import logging
import re
from collections.abc import MutableMapping
from typing import Any

_SECRET_TEXT = re.compile(
    r"\b(om_(?:live|pat|inv)_[A-Za-z0-9]{8}_)[A-Za-z0-9]+"
    r"|(?i:(bearer\s+))[^\s\"',]+"
    # The links of mails, as they stand in lines about requests.
    r"|(/accounts/(?:confirm-email|password/reset/key)/|/mail/(?:confirm|subscribe|unsubscribe)/)[^\s/?\"']+"
)
_SECRET_NAMES = frozenset({"authorization", "x-api-key", "api_key", "apikey", "token", "password", "secret", "cookie"})
_HIDDEN = "[hidden]"


def redact_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: hides values under secret names and anything that looks like one of our keys."""
    for name, value in event.items():
        if name.lower() in _SECRET_NAMES:
            event[name] = _HIDDEN
        elif isinstance(value, str):
            event[name] = redact_text(value)
    return event


def redact_text(text: str) -> str:
    """`text` with keys, tokens, bearer credentials and what mailed links carry replaced by a marker."""
    return _SECRET_TEXT.sub(lambda match: str(match[match.lastindex or 0]) + _HIDDEN, text)


# Anybody can send forgeries there, by the thousand; they are counted, and that is all.
_COUNTED_INSTEAD = "/v1/webhooks/lemon-squeezy"
_REFUSED = frozenset({400, 401, 404, 405, 413})


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """A filter: beat asks every second, and what waited too long expires. After a pause that is no news.

    Nor is a webhook that was turned away: whoever sends forgeries must not fill the logs.
    """
    said = record.msg if isinstance(record.msg, dict) else {}
    if said.get("request") == f"POST {_COUNTED_INSTEAD}":
        return said.get("event") != "request_started" and said.get("code") not in _REFUSED
    if record.name == "django.request" and getattr(record, "status_code", 0) in _REFUSED:
        return getattr(getattr(record, "request", None), "path", "") != _COUNTED_INSTEAD
    return not (said.get("event") == "task_revoked" and said.get("expired"))
