"""Log hygiene: no key, token or password reaches a log line."""

import re
from collections.abc import MutableMapping
from typing import Any

_SECRET_TEXT = re.compile(r"\b(om_(?:live|pat|inv)_[A-Za-z0-9]{8}_)[A-Za-z0-9]+|(?i:(bearer\s+))[^\s\"',]+")
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
    """`text` with API keys, access tokens and bearer credentials replaced by a marker."""
    return _SECRET_TEXT.sub(lambda match: (match.group(1) or match.group(2)) + _HIDDEN, text)
