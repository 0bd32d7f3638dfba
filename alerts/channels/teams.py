"""Microsoft Teams: a workflow's webhook ("When a Teams webhook request is received"), written as an Adaptive Card.

https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook
"""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
from django.conf import settings

from alerts.channels.base import Answer
from alerts.channels.posting import Verdict, clean_url, invalid, post, strict
from alerts.channels.texts import MOST_ITEMS, button, cut, item_title, listed, rest
from alerts.messages import Fact, Message
from alerts.models import Severity
from opsmeter_site.lib.http import Reply
from opsmeter_site.lib.wire import encode

IS_ONE_BY_ONE = False
TAKES_SUMMARIES = True

# Teams takes 28 KB; a workflow wraps the card before it hands it on.
MOST_BYTES = 24 * 1024
_ENDINGS = (
    ".logic.azure.com",
    ".logic.azure.us",
    ".logic.azure.cn",
    ".api.powerplatform.com",
    ".api.powerplatform.us",
)
_RETIRED_ENDING = ".webhook.office.com"
_LONGEST_TITLE = 300
_LONGEST_TEXT = 4_000
_LONGEST_ITEM_TEXT = 1_000
_MOST_FACTS = 10
_COLORS = {Severity.INFO: "Accent", Severity.WARNING: "Warning", Severity.CRITICAL: "Attention"}
_SCHEMA = "http://adaptivecards.io/schemas/adaptive-card.json"
# What a success says that is none: a throttled or failed hand-over to Teams.
_FAILURES = ("throttl", "too many requests", "failed", "error")
# What status 400 says although the message is well.
_CHANNEL_FAULTS = ("workflowtriggerisnotenabled", "workflownotfound", "triggernotfound")


def clean(config: Mapping[str, str]) -> dict[str, Any]:
    """The workflow's URL."""
    url = clean_url(config)
    parsed = httpx2.URL(url)
    if parsed.host.endswith(_RETIRED_ENDING):
        message = "Microsoft has retired the connectors behind such addresses. Make a workflow and give its address."
        raise invalid("url", message)
    if not parsed.host.endswith(_ENDINGS) and parsed.netloc.decode() not in settings.CHANNEL_HOSTS_ALLOWED:
        message = "This is not the address of a workflow: its host ends in .api.powerplatform.com or .logic.azure.com."
        raise invalid("url", message)
    return {"url": url}


def hint(config: Mapping[str, Any]) -> str:
    """The host; the rest of the address is the secret."""
    return f"{httpx2.URL(config['url']).host}/…"


def payload(config: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """The message with one card, with as many alerts as fit."""
    most = min(MOST_ITEMS, len(listed(message)))
    for shown in range(most, 0, -1):
        written = _envelope(message, shown)
        if len(encode(written)) <= MOST_BYTES:
            return written
    return _envelope(message, 0)


def send(config: Mapping[str, Any], message: Message) -> Answer:
    """Post once."""
    return post(config, payload(config, message), judge=_judge)


def _judge(reply: Reply) -> Verdict:
    verdict, text = strict(reply), reply.text.lower()
    if verdict is Verdict.SENT and any(word in text for word in _FAILURES):
        return Verdict.RETRY
    if verdict is Verdict.BAD_MESSAGE and any(code in text for code in _CHANNEL_FAULTS):
        return Verdict.REFUSED
    return verdict


def _envelope(message: Message, shown: int) -> dict[str, Any]:
    card = {
        "$schema": _SCHEMA,
        "type": "AdaptiveCard",
        "version": "1.4",
        "fallbackText": _plain(cut(message.title, _LONGEST_TITLE)),
        "msteams": {"width": "Full"},
        "body": _body(message, shown),
        "actions": [{"type": "Action.OpenUrl", "title": button(message), "url": message.url}],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _body(message: Message, shown: int) -> list[dict[str, Any]]:
    color = _COLORS[message.severity]
    body = [
        _text(message.title, _LONGEST_TITLE, size="Large", weight="Bolder", color=color),
        *[_text(part, _LONGEST_TEXT) for part in [message.text] if part],
        *_facts(message.facts),
    ]
    for item in listed(message)[:shown]:
        color = _COLORS[item.severity]
        body += [
            _text(item_title(item), _LONGEST_TITLE, weight="Bolder", color=color, separator=True),
            _text(item.text or item.title, _LONGEST_ITEM_TEXT, spacing="Small"),
        ]
    remainder = rest(message, shown)
    if remainder:
        body.append(_text(remainder, _LONGEST_TITLE, separator=True))
    return [*body, _text(f"Opsmeter · {message.workspace_name}", _LONGEST_TITLE, size="Small", isSubtle=True)]


def _text(text: str, longest: int, **style: Any) -> dict[str, Any]:
    return {"type": "TextBlock", "text": _plain(cut(text, longest)), "wrap": True, **style}


def _facts(facts: Sequence[Fact]) -> list[dict[str, Any]]:
    rows = [
        {"title": _plain(cut(fact.label, 100)), "value": _plain(cut(fact.value, 500))} for fact in facts[:_MOST_FACTS]
    ]
    return [{"type": "FactSet", "facts": rows}] if rows else []


def _plain(text: str) -> str:
    """`text` in which names of endpoints and tenants cannot make links: cards read Markdown."""
    return text.replace("](", "] (")
