"""The events that a re-pricing looks at, a piece at a time in the order of their ids, and what each would cost now."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from django.db import connection

from ingest.limit_sets import WORKSPACE, ZERO, LimitSet
from ingest.meters import MeterPlace
from ingest.models import Repricing, ScopeKind
from ingest.price_book import PriceBook
from opsmeter_site.lib.periods import Period, window_of

# How many rows of all kinds are read, at most, to find the events of one piece.
READS = 10_000

# Along the primary key. The last row that was read is answered also if it does not match: the next piece begins there.
_READ = """
SELECT is_match, place = %(reads)s, id, occurred_at, api_key_id, price_id, cost_usd, uncached_input_tokens,
    cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, latency_ms, provider, model, endpoint_tag,
    prompt_version, environment, data_mode, service_tier, status, user_id, tenant_id
FROM (
    SELECT *, row_number() OVER (ORDER BY id) AS place, (
        occurred_at >= %(start)s AND occurred_at < %(end)s
        AND (%(provider)s = '' OR provider = %(provider)s)
        AND (cardinality(%(models)s::text[]) = 0 OR model = ANY(%(models)s::text[]))
        AND (NOT %(only_unpriced)s OR cost_usd IS NULL)
    ) AS is_match
    FROM (
        SELECT * FROM ingest_event
        WHERE workspace_id = %(workspace)s AND id > %(cursor)s AND id <= %(last_id)s
        ORDER BY id
        LIMIT %(reads)s
    ) AS page
) AS walked
WHERE is_match OR place = %(reads)s
ORDER BY id
LIMIT %(rows)s
"""

_API_KEY = ScopeKind.API_KEY_ID.value


class StoredEvent(NamedTuple):
    """What a re-pricing needs to know of an event; fields as those of `ingest.models.Event`."""

    id: int
    occurred_at: datetime
    api_key_id: int | None
    price_id: int | None
    cost_usd: Decimal | None
    uncached_input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    latency_ms: int | None
    provider: str
    model: str
    endpoint_tag: str
    prompt_version: str
    environment: str
    data_mode: str
    service_tier: str
    status: str
    user_id: str
    tenant_id: str

    @property
    def tokens(self) -> int:
        """Input and output tokens, as meters count them of events without a price."""
        return self.uncached_input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.output_tokens

    def scope_value(self, kind: str) -> str:
        """Its value of a dimension that limits can be set on."""
        value = getattr(self, kind)
        return str(value) if kind == _API_KEY else value


class Change(NamedTuple):
    """An event that costs something else by today's prices; USD."""

    event: StoredEvent
    cost_usd: Decimal
    price_id: int | None

    @property
    def is_newly_priced(self) -> bool:
        """Whether it had no price."""
        return self.event.cost_usd is None

    @property
    def before_usd(self) -> Decimal:
        """What it counted as until now: nothing, if it had no price."""
        return self.event.cost_usd or ZERO

    @property
    def added_usd(self) -> Decimal:
        """By how much its cost moves."""
        return self.cost_usd - self.before_usd

    @property
    def spend(self) -> "Spend":
        """By how much it moves the meters that count it."""
        return Spend(self.added_usd, -self.event.tokens if self.is_newly_priced else 0)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some events of a job: how many match, which of them change, and the id of the last one that was looked at."""

    events: int
    changes: list[Change]
    cursor: int


class Spend(NamedTuple):
    """By how much a meter moves: USD, and tokens of events without a price."""

    usd: Decimal = ZERO
    unpriced_tokens: int = 0

    def plus(self, other: "Spend") -> "Spend":
        """Both together."""
        return Spend(self.usd + other.usd, self.unpriced_tokens + other.unpriced_tokens)


def read_piece(job: Repricing, book: PriceBook, rows: int) -> Piece:
    """The next `rows` events of the job after its cursor, or fewer, priced by `book`."""
    with connection.cursor() as cursor:
        cursor.execute(
            _READ,
            {
                "workspace": job.workspace_id,
                "cursor": job.cursor,
                "last_id": job.last_id,
                "start": job.start,
                "end": job.end,
                "provider": job.provider,
                "models": job.models_sent,
                "only_unpriced": job.only_unpriced,
                "reads": READS,
                "rows": rows,
            },
        )
        read = cursor.fetchall()
    matching = [StoredEvent(*row[2:]) for row in read if row[0]]
    is_cut = len(read) == rows or (bool(read) and read[-1][1])
    return Piece(
        events=len(matching),
        changes=list(_changes(job.workspace_id, book, matching)),
        cursor=read[-1][2] if is_cut else job.last_id,
    )


def _changes(workspace_id: UUID, book: PriceBook, events: Iterable[StoredEvent]) -> Iterator[Change]:
    for event in events:
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
        # What has a price keeps it, rather than having none.
        if quote.cost_usd is not None and quote.cost_usd != event.cost_usd:
            yield Change(event, quote.cost_usd, quote.price_id)


def spend_of(changes: Iterable[Change], limits: LimitSet, counted_data_modes: Iterable[str]) -> dict[MeterPlace, Spend]:
    """By how much changes move the USD meters of the workspace and of the scopes that have limits."""
    counted = frozenset(counted_data_modes)
    moved: dict[MeterPlace, Spend] = {}
    for change in changes:
        event = change.event
        if event.data_mode not in counted:
            continue
        spend = change.spend
        scopes = [WORKSPACE, *(match.scope for match in limits.matching(event))]
        for period in Period:
            start = window_of(period, event.occurred_at).start
            for scope in scopes:
                place = MeterPlace(*scope, period.value, start)
                moved[place] = moved.get(place, Spend()).plus(spend)
    return moved
