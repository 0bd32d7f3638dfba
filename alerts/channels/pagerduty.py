"""PagerDuty: Events API v2. An alert triggers an incident, its end resolves it, both under one key.

https://developer.pagerduty.com/docs/events-api-v2-overview
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC
from typing import Any

from alerts.channels.base import Answer
from alerts.channels.posting import Verdict, invalid, post, strict
from alerts.channels.texts import button, cut
from alerts.messages import Message
from alerts.models import Action, AttemptOutcome
from opsmeter_site.lib.http import Reply

IS_ONE_BY_ONE = True
TAKES_SUMMARIES = False

ENDPOINTS = {
    "us": "https://events.pagerduty.com/v2/enqueue",
    "eu": "https://events.eu.pagerduty.com/v2/enqueue",
}
_KEY = re.compile(r"[A-Za-z0-9]{32}")
_LONGEST_KEY = 255
_LONGEST_SUMMARY = 1_024
_LONGEST_DETAIL = 4_000
# What status 400 says although the event is well.
_KEY_FAULT = "routing key"


def clean(config: Mapping[str, str]) -> dict[str, Any]:
    """The integration key, and the service region's endpoint."""
    key, region = config.get("routing_key", "").strip(), config.get("region", "us")
    if not _KEY.fullmatch(key):
        raise invalid("routing_key", "An integration key has 32 letters and digits.")
    if region not in ENDPOINTS:
        raise invalid("region", "Choose one of the regions.")
    return {"routing_key": key, "url": ENDPOINTS[region]}


def hint(config: Mapping[str, Any]) -> str:
    """The region, and the beginning of the key."""
    region = "EU" if config["url"] == ENDPOINTS["eu"] else "US"
    return f"{region} region, key {config['routing_key'][:4]}…"


def payload(config: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """The event for the one alert of `message`; other messages are incidents of their own."""
    item = message.items[0] if message.items else None
    event = {
        "routing_key": config["routing_key"],
        "dedup_key": _dedup_key(message.workspace_id, item.dedup_key if item else message.id),
    }
    if message.action == Action.RESOLVE:
        return {**event, "event_action": "resolve"}
    details = {fact.label: cut(fact.value, _LONGEST_DETAIL) for fact in message.facts}
    happened_at = item.opened_at if item else message.created_at
    return {
        **event,
        "event_action": "trigger",
        "client": "Opsmeter",
        "client_url": message.url,
        "links": [{"href": message.url, "text": button(message)}],
        "payload": {
            "summary": cut(message.title, _LONGEST_SUMMARY),
            "source": f"opsmeter/{message.workspace_slug}",
            "severity": message.severity.value,
            "timestamp": happened_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "component": "LLM spend",
            "group": cut(message.workspace_name, 200),
            "class": item.kind.value if item else message.action.value,
            "custom_details": {"Text": cut(message.text, _LONGEST_DETAIL), **details},
        },
    }


def send(config: Mapping[str, Any], message: Message) -> Answer:
    """Post once. A test resolves what it has triggered, so that nobody has to."""
    event = payload(config, message)
    answer = post(config, event, judge=_judge)
    if message.action == Action.TEST and answer.outcome == AttemptOutcome.SENT:
        post(config, {name: event[name] for name in ("routing_key", "dedup_key")} | {"event_action": "resolve"})
    return answer


def _judge(reply: Reply) -> Verdict:
    verdict = strict(reply)
    if verdict is Verdict.SENT and not _says_success(reply.text):
        return Verdict.RETRY
    if verdict is Verdict.BAD_MESSAGE and _KEY_FAULT in reply.text.lower().replace("_", " "):
        return Verdict.REFUSED
    return verdict


def _says_success(text: str) -> bool:
    try:
        answered = json.loads(text)
    except ValueError:
        return False
    return isinstance(answered, dict) and answered.get("status") == "success"


def _dedup_key(workspace_id: str, key: str) -> str:
    """One key per workspace and alert: several workspaces may report to one service of PagerDuty."""
    whole = f"{workspace_id}|{key}"
    return whole if len(whole) <= _LONGEST_KEY else hashlib.sha256(whole.encode()).hexdigest()
