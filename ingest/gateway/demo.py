"""Believable demo traffic: a small product with a support chat, a document search and a nightly job.

The same clock time gives the same shape, so that charts look alive: busy working hours, quiet nights, a few errors, one
prompt version that became cheaper, cached prompts, and one model that nobody has a price for.
"""

import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from ingest.gateway.committer import Committer, UnstorableError
from ingest.gateway.ledger import Submission
from ingest.gateway.payload import check_event
from ingest.gateway.priced import price_events
from ingest.models import DataMode
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.database import conninfo

DATA_SET_EVENTS = 60
DATA_SET_DAYS = 7

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class _Feature:
    endpoint: str
    provider: str
    model: str
    versions: tuple[str, ...]
    input_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    cached_share: float
    weight: int


_FEATURES = (
    _Feature("support.chat", "openai", "gpt-4o", ("v12", "v13"), (900, 4_200), (120, 700), 0.5, 30),
    _Feature("support.classify", "openai", "gpt-4o-mini", ("v4",), (200, 900), (5, 40), 0.0, 28),
    _Feature("docs.answer", "anthropic", "claude-sonnet-4-5", ("v7", "v8-short"), (2_000, 9_000), (200, 900), 0.6, 18),
    _Feature("docs.embed", "openai", "text-embedding-3-small", ("v1",), (300, 2_000), (0, 0), 0.0, 12),
    _Feature("reports.nightly", "google", "gemini-2.5-pro", ("v2",), (8_000, 40_000), (800, 3_000), 0.2, 5),
    _Feature("lab.experiment", "in-house", "llama-lab-70b", ("draft",), (500, 3_000), (100, 800), 0.0, 2),
)
_TENANTS = ("acme", "globex", "initech", "umbrella", "hooli")
# Share of a day's traffic by UTC hour, roughly a European and an American working day.
_HOURS = (1, 1, 1, 1, 1, 2, 4, 8, 12, 14, 14, 12, 11, 14, 16, 16, 14, 12, 10, 8, 6, 4, 2, 1)


def data_set(now: datetime, *, events: int = DATA_SET_EVENTS, days: int = DATA_SET_DAYS) -> Iterator[bytes]:
    """`events` telemetry rows as JSON objects, spread over the `days` before `now` (aware UTC), under fresh ids."""
    run = secrets.token_hex(4)
    chance = random.Random(run)  # noqa: S311 (believable, not secret)
    for number in range(events):
        feature = chance.choices(_FEATURES, [one.weight for one in _FEATURES])[0]
        yield _encode(_row(feature, _moment(now, days, chance), f"demo_{run}_{number}", chance))


def load_history(workspace_id: UUID, api_key_id: int, *, events: int, days: int) -> int:
    """Store `events` demo rows, spread over the last `days`, in the workspace; how many were accepted."""
    now = utc_now()
    committer = Committer(conninfo())
    checked = (
        check_event(raw, now, forced_data_mode=DataMode.DEMO.value) for raw in data_set(now, events=events, days=days)
    )
    try:
        submission = Submission(workspace_id, price_events(checked, workspace_id, api_key_id, now))
        (receipt,) = committer.commit([submission])
    finally:
        committer.close()
    if isinstance(receipt, UnstorableError):
        raise receipt
    return sum(1 for verdict in receipt.verdicts if verdict.reason is None and not verdict.is_duplicate)


def _moment(now: datetime, days: int, chance: random.Random) -> datetime:
    day = now - timedelta(days=chance.randrange(days))
    hour = chance.choices(range(24), _HOURS)[0]
    moment = day.replace(hour=hour, minute=chance.randrange(60), second=chance.randrange(60), microsecond=0)
    return moment if moment <= now else moment - timedelta(days=1)


def _row(feature: _Feature, moment: datetime, external_request_id: str, chance: random.Random) -> dict[str, object]:
    failed = chance.random() < 0.02
    used = chance.randint(*feature.input_tokens)
    tenant = chance.choices(_TENANTS, (8, 5, 3, 2, 1))[0]
    output = 0 if failed else chance.randint(*feature.output_tokens)
    return {
        "externalRequestId": external_request_id,
        "provider": feature.provider,
        "model": feature.model,
        "promptVersion": chance.choice(feature.versions),
        "endpointTag": feature.endpoint,
        "inputTokens": used,
        "cachedInputTokens": int(used * feature.cached_share * chance.random()),
        "outputTokens": output,
        "latencyMs": 180 + used // 20 + output * 9 + chance.randrange(400),
        "status": "error" if failed else "success",
        "errorCode": "timeout" if failed else None,
        "userId": f"user-{chance.randrange(40)}",
        "tenantId": tenant,
        "featureTag": feature.endpoint.partition(".")[0],
        "createdAt": moment.isoformat(),
        "dataMode": "demo",
        "metadata": {"source": "demo"},
    }
