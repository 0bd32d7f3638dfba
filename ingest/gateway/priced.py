"""From a checked event to one that is ready to be stored: its price, its roll-up and its line for COPY.

All of it is done before the workspace's ledger is locked, so that the lock is held for as short as possible.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec

from ingest.gateway.payload import CheckedEvent
from ingest.limit_sets import LimitSet, Match
from ingest.models import ScopeKind
from ingest.pricing import PriceBook, Quote, current_book
from ingest.rollups import dimensions_key

# The columns of a line, in its order.
EVENT_COLUMNS = (
    "workspace_id, occurred_at, received_at, api_key_id, price_id, fingerprint, total_tokens, uncached_input_tokens, "
    "cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, latency_ms, cost_usd, reported_cost_usd, "
    "environment, data_mode, service_tier, status, error_code, metadata, external_request_id, provider, model, "
    "endpoint_tag, prompt_version, user_id, tenant_id, feature_tag"
)
_NULL = "\\N"
_API_KEY = ScopeKind.API_KEY_ID.value
_SPECIAL = re.compile(r"[\\\n\r\t]")
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


class PricedEvent(msgspec.Struct, gc=False):
    """A checked event with its price, the key of its roll-up, and its line in COPY's text format.

    `matched` remembers the limits that it was last compared with, and what matched.
    """

    event: CheckedEvent
    quote: Quote
    rollup_key: UUID
    line: str
    api_key_id: int
    matched: tuple[LimitSet, list[Match]] | None = None

    def matches(self, limits: LimitSet) -> list[Match]:
        """`limits.matching` of this event, worked out once."""
        if self.matched is None or self.matched[0] is not limits:
            self.matched = (limits, limits.matching(self))
        return self.matched[1]

    def scope_value(self, kind: str) -> str:
        """Its value of a dimension that limits can be set on."""
        value: str = str(self.api_key_id) if kind == _API_KEY else getattr(self.event, kind)
        return value


def price_events(
    events: Iterable[CheckedEvent], workspace_id: UUID, api_key_id: int, now: datetime
) -> list[PricedEvent]:
    """Price checked events of one workspace at the current book; `now` (aware UTC) is when they were received.

    Raises `django.db.DatabaseError` if there has never been a book.
    """
    book = current_book()
    owner, receipt = str(workspace_id), f"{now.isoformat()}\t{api_key_id}"
    return [_price(event, book, workspace_id, api_key_id, owner, receipt) for event in events]


def _price(
    event: CheckedEvent, book: PriceBook, workspace_id: UUID, api_key_id: int, owner: str, receipt: str
) -> PricedEvent:
    quote = book.quote(
        workspace_id=workspace_id,
        provider=event.provider,
        model=event.model,
        service_tier=event.service_tier,
        occurred_at=event.occurred_at,
        uncached_input_tokens=event.uncached_input_tokens,
        cache_read_tokens=event.cache_read_tokens,
        cache_write_tokens=event.cache_write_tokens,
        output_tokens=event.output_tokens,
    )
    is_priced = quote.cost_usd is not None
    if not is_priced:
        event.warnings.append(f"No price is known for {event.provider}/{event.model}; stored as unpriced.")
    key = dimensions_key(
        event.provider,
        event.model,
        event.endpoint_tag,
        event.prompt_version,
        event.environment,
        event.data_mode,
        is_priced,
    )
    return PricedEvent(event, quote, key, _line(event, quote, owner, receipt), api_key_id)


def _line(event: CheckedEvent, quote: Quote, owner: str, receipt: str) -> str:
    return (
        f"{owner}\t{event.occurred_at.isoformat()}\t{receipt}\t"
        f"{_or_null(quote.price_id)}\t{event.fingerprint}\t{event.total_tokens}\t{event.uncached_input_tokens}\t"
        f"{event.cache_read_tokens}\t{event.cache_write_tokens}\t{event.output_tokens}\t{event.reasoning_tokens}\t"
        f"{_or_null(event.latency_ms)}\t{_or_null(quote.cost_usd)}\t{_or_null(event.reported_cost_usd)}\t"
        f"{event.environment}\t{event.data_mode}\t{event.service_tier}\t{event.status}\t"
        f"{_NULL if event.error_code is None else _escaped((event.error_code,))}\t"
        f"{_NULL if event.metadata is None else _escaped((event.metadata,))}\t{_escaped(_labels(event))}\n"
    )


def _or_null(value: object) -> object:
    return _NULL if value is None else value


def _labels(event: CheckedEvent) -> tuple[str, ...]:
    return (
        event.external_request_id,
        event.provider,
        event.model,
        event.endpoint_tag,
        event.prompt_version,
        event.user_id,
        event.tenant_id,
        event.feature_tag,
    )


def _escaped(texts: tuple[str, ...]) -> str:
    """`texts` as fields of a line. Hardly any text needs an escape, so all are searched for one at once."""
    if _SPECIAL.search("".join(texts)):
        texts = tuple(text.translate(_ESCAPES) for text in texts)
    return "\t".join(texts)
