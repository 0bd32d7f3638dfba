"""What reports answer with: plain facts, no queries."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Self

from ingest.selectors import Sums

# Under which name a series keeps what its named values do not hold.
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Figures(Sums):
    """What some events add up to, and what follows from that. Amounts in USD; shares from 0 to 1."""

    @classmethod
    def total(cls, parts: "Iterable[Figures]") -> Self:
        """All of `parts` together."""
        parts = list(parts)
        return cls(**{name: sum((getattr(part, name) for part in parts), start) for name, start in _NOTHING.items()})

    def __sub__(self, other: "Figures") -> "Figures":
        return Figures(**{name: getattr(self, name) - getattr(other, name) for name in _NOTHING})

    @property
    def input_tokens(self) -> int:
        """Everything that went in: uncached, read from the cache and written to it."""
        return self.uncached_input_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def tokens(self) -> int:
        """Input and output; reasoning is part of the output."""
        return self.input_tokens + self.output_tokens

    @property
    def cost_per_request(self) -> Decimal | None:
        """USD; None without requests."""
        return self.cost_usd / self.requests if self.requests else None

    @property
    def error_rate(self) -> Decimal | None:
        """The share of the requests that failed; None without requests."""
        return Decimal(self.errors) / self.requests if self.requests else None

    @property
    def unpriced_share(self) -> Decimal | None:
        """The share of the requests that no price is known for; None without requests."""
        return Decimal(self.unpriced_requests) / self.requests if self.requests else None

    @property
    def mean_latency_ms(self) -> float | None:
        """Over the requests that reported a latency; None if none did."""
        return self.latency_ms_sum / self.latency_count if self.latency_count else None


_NOTHING: Mapping[str, Any] = {name: getattr(Figures(), name) for name in Figures.__dataclass_fields__}
FIGURE_COLUMNS = tuple(_NOTHING)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Latency in milliseconds, estimated from a histogram to within 5 %; None without samples.

    `is_complete` is False if part of the range has no such detail any more.
    """

    p50_ms: float | None
    p95_ms: float | None
    samples: int
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a series: `[start, end)` in UTC, the local `day` or None for an hour, and cost in USD by value."""

    start: datetime
    end: datetime
    day: date | None
    parts: dict[str, Decimal]
    figures: Figures


@dataclass(frozen=True, slots=True)
class Series:
    """Bars in order of time; `values` in order of their cost, `OTHER` last if there is more than these.

    `known_from`: the first local day whose users, tenants or features are known, if not all are; cost before it is
    under `OTHER`.
    """

    bars: list[Bar]
    values: list[str]
    known_from: date | None = None


@dataclass(frozen=True, slots=True)
class TopRow:
    """One value of a dimension, now and before. `share` of the range's whole cost; `provider` only with a model."""

    value: str
    provider: str
    now: Figures
    before: Figures
    share: Decimal | None

    @property
    def difference(self) -> Decimal:
        """USD."""
        return self.now.cost_usd - self.before.cost_usd

    @property
    def is_new(self) -> bool:
        """Seen now, not before."""
        return self.now.requests > 0 and self.before.requests == 0

    @property
    def is_gone(self) -> bool:
        """Seen before, not now."""
        return self.now.requests == 0 and self.before.requests > 0


@dataclass(frozen=True, slots=True)
class Top:
    """The values with the highest cost. `others`: what the further values add up to; `distinct`: values seen now.

    `known_from`: the first local day with such detail, if that is later than the first day compared with.
    """

    rows: list[TopRow]
    others: Figures
    distinct: int
    known_from: date | None


@dataclass(frozen=True, slots=True)
class Movers:
    """The values whose cost has changed most, by the size of the change, and how many of all values came and went."""

    rows: list[TopRow]
    new: int
    gone: int


@dataclass(frozen=True, slots=True)
class RefusedSpell:
    """A time `[start, end)` in which events were refused for one reason, and what these add up to."""

    start: datetime
    end: datetime
    reason: str
    requests: int
    tokens: int
    cost_usd: Decimal

    def followed_by(self, later: "RefusedSpell") -> "RefusedSpell":
        """One spell of both; `later` begins where this one ends."""
        return RefusedSpell(
            self.start,
            later.end,
            self.reason,
            self.requests + later.requests,
            self.tokens + later.tokens,
            self.cost_usd + later.cost_usd,
        )


@dataclass(frozen=True, slots=True)
class UsageCell:
    """What the events add up to that agree in all of this. `price_id` None: unpriced, or no longer known."""

    provider: str
    model: str
    endpoint_tag: str
    prompt_version: str
    price_id: int | None
    figures: Figures


@dataclass(frozen=True, slots=True)
class Moments:
    """Sample size, mean and sample variance; the mean is None without samples, the variance with fewer than two."""

    count: int
    mean: Decimal | None
    variance: Decimal | None


@dataclass(frozen=True, slots=True)
class VersionStats:
    """One prompt version of an endpoint. Moments per request: USD of priced ones, tokens, reported milliseconds.

    The moments cover the part of the range whose detail is known; `percentiles.is_complete` says whether that is all.
    """

    prompt_version: str
    requests: int
    errors: int
    cost_usd: Moments
    tokens: Moments
    latency_ms: Moments
    percentiles: Percentiles
