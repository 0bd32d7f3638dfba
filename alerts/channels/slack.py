"""Slack: an incoming webhook, written as Block Kit.

https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import httpx2
from django.conf import settings

from alerts.channels.base import Answer
from alerts.channels.posting import Verdict, clean_url, invalid, post, strict
from alerts.channels.texts import MOST_ITEMS, button, cut, item_title, listed, rest
from alerts.messages import Fact, Message
from alerts.models import Severity
from opsmeter_site.lib.http import Reply

IS_ONE_BY_ONE = False
TAKES_SUMMARIES = True

_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")
_LONGEST_HEADER = 150
_LONGEST_SECTION = 3_000
_LONGEST_FALLBACK = 3_000
_LONGEST_ITEM_TITLE = 300
_LONGEST_ITEM_TEXT = 1_000
_MOST_FIELDS = 10
# Together within the 2,000 characters of a field.
_LONGEST_LABEL = 200
_LONGEST_VALUE = 1_500
_SIGNS = {Severity.INFO: "ℹ️", Severity.WARNING: "⚠️", Severity.CRITICAL: "🚨"}
# What says, whatever the status, that this address will take no message.
_CHANNEL_FAULTS = {
    "action_prohibited",
    "channel_is_archived",
    "channel_not_found",
    "invalid_token",
    "no_active_hooks",
    "no_service",
    "no_service_id",
    "no_team",
    "posting_to_general_channel_denied",
    "team_disabled",
    "token_revoked",
    "user_not_found",
}


def clean(config: Mapping[str, str]) -> dict[str, Any]:
    """The webhook's URL."""
    url = clean_url(config)
    parsed = httpx2.URL(url)
    is_ours = parsed.host in _HOSTS and parsed.path.startswith("/services/")
    if not is_ours and parsed.netloc.decode() not in settings.CHANNEL_HOSTS_ALLOWED:
        raise invalid("url", "A webhook URL of Slack begins with https://hooks.slack.com/services/.")
    return {"url": url}


def hint(config: Mapping[str, Any]) -> str:
    """The host and the public ids in the path; the last part is the secret."""
    parsed = httpx2.URL(config["url"])
    ids = parsed.path.split("/")[2:4] if parsed.host in _HOSTS else []
    return "/".join([parsed.host, *ids, "…"])


def payload(config: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """Header, text and figures, then the alerts one by one, then a button."""
    header = cut(f"{_SIGNS[message.severity]} {message.title}", _LONGEST_HEADER)
    blocks = [
        {"type": "header", "text": {"type": "plain_text", "text": header, "emoji": True}},
        _section(_escaped(message.text, _LONGEST_SECTION), message.facts),
    ]
    shown = listed(message)[:MOST_ITEMS]
    for item in shown:
        title = _escaped(item_title(item), _LONGEST_ITEM_TITLE)
        text = f"*<{item.url}|{title}>*\n{_escaped(item.text, _LONGEST_ITEM_TEXT)}"
        blocks += [{"type": "divider"}, _section(text)]
    remainder = rest(message, len(shown))
    if remainder:
        blocks.append(_section(remainder))
    blocks += [
        {
            "type": "actions",
            "elements": [
                {"type": "button", "text": {"type": "plain_text", "text": button(message)}, "url": message.url}
            ],
        },
        {
            "type": "context",
            "elements": [
                {"type": "plain_text", "text": cut(f"Opsmeter · {message.workspace_name}", _LONGEST_ITEM_TITLE)}
            ],
        },
    ]
    fallback = _escaped(f"{message.title}\n{message.text}", _LONGEST_FALLBACK)
    return {"text": fallback, "blocks": blocks}


def send(config: Mapping[str, Any], message: Message) -> Answer:
    """Post once."""
    return post(config, payload(config, message), judge=_judge)


def _judge(reply: Reply) -> Verdict:
    verdict, text = strict(reply), reply.text.strip()
    if text in _CHANNEL_FAULTS:
        return Verdict.REFUSED
    return Verdict.RETRY if verdict is Verdict.SENT and text != "ok" else verdict


def _section(text: str, facts: Sequence[Fact] = ()) -> dict[str, Any]:
    section: dict[str, Any] = {"type": "section", "text": {"type": "mrkdwn", "text": text or " "}}
    if facts:
        section["fields"] = [
            {
                "type": "mrkdwn",
                "text": f"*{_escaped(fact.label, _LONGEST_LABEL)}*\n{_escaped(fact.value, _LONGEST_VALUE)}",
            }
            for fact in facts[:_MOST_FIELDS]
        ]
    return section


def _escaped(text: str, longest: int) -> str:
    """`text` with Slack's three signs escaped, cut so that it fits with them."""
    signs = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
    pieces = [signs.get(sign, sign) for sign in text]
    ends = list(accumulate(map(len, pieces)))
    if not ends or ends[-1] <= longest:
        return "".join(pieces)
    # One place is kept for the ellipsis; no sign is cut in two.
    return "".join(pieces[: bisect_right(ends, longest - 1)]).rstrip() + "…"
