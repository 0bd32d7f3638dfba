"""A webhook of the customer's own: JSON, signed by Standard Webhooks (https://www.standardwebhooks.com)."""

import base64
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import httpx2
from standardwebhooks import Webhook

from alerts.channels.base import Answer
from alerts.channels.posting import Verdict, clean_url, post, usual
from alerts.channels.texts import cut
from alerts.messages import AlertItem, Fact, Message
from alerts.models import Action
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.http import Reply
from opsmeter_site.lib.wire import encode

IS_ONE_BY_ONE = False
TAKES_SUMMARIES = True

# So long after a rotation messages carry a signature of the old secret beside that of the new one.
OLD_SECRET_SIGNS_FOR = timedelta(hours=24)
MOST_ALERTS = 100
_SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix is public
_SECRET_BYTES = 32
_LONGEST_TITLE = 300
_LONGEST_TEXT = 10_000
TYPES = {
    Action.ALERT: "alert.opened",
    Action.RESOLVE: "alert.resolved",
    Action.REPORT: "summary.ready",
    Action.TEST: "channel.test",
    Action.CHANNEL_OFF: "channel.off",
}


def clean(config: Mapping[str, str]) -> dict[str, Any]:
    """The receiver's URL. The signing secret is ours: see `with_new_secret`."""
    return {"url": clean_url(config)}


def with_new_secret(config: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """`config` with a new signing secret; the one before signs along for `OLD_SECRET_SIGNS_FOR`."""
    fresh = _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    if "secret" not in config:
        return {**config, "secret": fresh}
    until = (now + OLD_SECRET_SIGNS_FOR).isoformat()
    return {**config, "secret": fresh, "old_secret": config["secret"], "old_secret_until": until}


def hint(config: Mapping[str, Any]) -> str:
    """The host; paths and queries often hold a token."""
    return f"{httpx2.URL(config['url']).netloc.decode()}/…"


def payload(config: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """Names and times as in the API. The time is that of the message, the same for every attempt."""
    return {
        "type": TYPES[message.action],
        "timestamp": _utc(message.created_at),
        "data": {
            "id": message.id,
            "workspace": {"id": message.workspace_id, "name": message.workspace_name, "slug": message.workspace_slug},
            "severity": message.severity.value,
            "title": cut(message.title, _LONGEST_TITLE),
            "text": cut(message.text, _LONGEST_TEXT),
            "url": message.url,
            "facts": [_fact(fact) for fact in message.facts],
            "alerts": [_alert(item) for item in message.items[:MOST_ALERTS]],
            "alertCount": len(message.items),
        },
    }


def send(config: Mapping[str, Any], message: Message) -> Answer:
    """Post once, signed now."""
    body = encode(payload(config, message))
    return post(config, body, _signed(config, message.id, body, utc_now()), judge=_judge)


def _judge(reply: Reply) -> Verdict:
    """Of refusals only 410 is sure: while a program is being deployed, others may answer in its place."""
    verdict = usual(reply)
    return Verdict.DOUBTED if verdict is Verdict.REFUSED and reply.status != HTTPStatus.GONE else verdict


def _signed(config: Mapping[str, Any], message_id: str, body: bytes, now: datetime) -> dict[str, str]:
    keys = [config["secret"]]
    if "old_secret" in config and now < datetime.fromisoformat(config["old_secret_until"]):
        keys.append(config["old_secret"])
    signatures = [Webhook(key).sign(message_id, now, body.decode()) for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _alert(item: AlertItem) -> dict[str, Any]:
    return {
        "id": item.id,
        "kind": item.kind.value,
        "severity": item.severity.value,
        "title": cut(item.title, _LONGEST_TITLE),
        "text": cut(item.text, _LONGEST_TEXT),
        "url": item.url,
        "dedupKey": item.dedup_key,
        "openedAt": _utc(item.opened_at),
        "windowStart": _utc(item.window_start),
        "windowEnd": _utc(item.window_end),
        "hasCleared": item.has_cleared,
        "facts": [_fact(fact) for fact in item.facts],
        "figures": {_camel(name): value for name, value in item.figures.items()},
    }


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _fact(fact: Fact) -> dict[str, str]:
    return {"label": fact.label, "value": fact.value}


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
