"""What a summary holds: plain values, kept as JSON with money as decimal text.

Stored summaries stay readable: fields are only ever added, with a default. Whoever gives a field another meaning raises
`VERSION` and translates the older ones in `ReportContent.from_json`.
"""

from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints
from zoneinfo import ZoneInfo

from ingest.report_rows import Figures

VERSION = 1
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What some requests add up to. `cost_usd` in USD counts the `unpriced_requests` as nothing."""

    requests: int = 0
    unpriced_requests: int = 0
    errors: int = 0
    tokens: int = 0
    cost_usd: Decimal = _ZERO

    @classmethod
    def of(cls, figures: Figures) -> "Usage":
        """What a summary keeps of a report's figures."""
        return cls(
            requests=figures.requests,
            unpriced_requests=figures.unpriced_requests,
            errors=figures.errors,
            tokens=figures.tokens,
            cost_usd=figures.cost_usd,
        )

    @property
    def cost_per_request(self) -> Decimal | None:
        """USD; None without requests."""
        return self.cost_usd / self.requests if self.requests else None

    @property
    def error_rate(self) -> Decimal | None:
        """0 to 1; None without requests."""
        return Decimal(self.errors) / self.requests if self.requests else None

    @property
    def unpriced_share(self) -> Decimal | None:
        """0 to 1; None without requests."""
        return Decimal(self.unpriced_requests) / self.requests if self.requests else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One local day, or one hour of the one day: its start (UTC), its cost, and that of the matching one before."""

    start: datetime
    cost_usd: Decimal
    before_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What one driver (`ingest.drivers.Driver`) added to spend, or took from it. All of them are the difference."""

    driver: str
    amount_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Mover:
    """An endpoint whose cost changed, and the driver that moved it most ("" if none did)."""

    endpoint_tag: str
    before_usd: Decimal
    now_usd: Decimal
    driver: str = ""

    @property
    def difference(self) -> Decimal:
        """USD."""
        return self.now_usd - self.before_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Why spend differs. `main` is the driver that moved it most, and `main_endpoint` where it did so most."""

    effects: tuple[Effect, ...] = ()
    main: str = ""
    main_endpoint: str = ""
    movers: tuple[Mover, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One value of a dimension, now and before; `provider` only with a model."""

    value: str
    provider: str = ""
    now: Usage
    before: Usage

    @property
    def is_new(self) -> bool:
        """Seen now, not before."""
        return self.now.requests > 0 and self.before.requests == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The values of a dimension that cost most. `more`: how many others there are, `others`: what these add up to."""

    dimension: str
    rows: tuple[Row, ...]
    more: int = 0
    others: Usage = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """An endpoint or model that was used for the first time."""

    dimension: str
    value: str
    provider: str = ""
    requests: int
    cost_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertLine:
    """One alert, as it stood when the summary was made."""

    id: str
    kind: str
    severity: str
    state: str
    handling: str
    title: str
    opened_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerts:
    """The alerts of the window: the most important ones, and numbers of all of them.

    `held`: messages that a cooldown or quiet hours kept back; `repeats`: what was found again and only counted.
    """

    lines: tuple[AlertLine, ...] = ()
    total: int = 0
    critical: int = 0
    held: int = 0
    repeats: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetDay:
    """What a UTC day has cost; `is_running`: it was not over."""

    day: date
    spend_usd: Decimal
    is_running: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyBudget:
    """The UTC days with the dates of the window, against the daily budget."""

    limit_usd: Decimal
    warning_ratio: Decimal
    days: tuple[BudgetDay, ...]

    @property
    def highest(self) -> BudgetDay:
        """The first of the dearest days."""
        return max(self.days, key=lambda each: each.spend_usd)

    @property
    def exceeded(self) -> int:
        """How many days went above it."""
        return sum(each.spend_usd > self.limit_usd for each in self.days)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthlyBudget:
    """The UTC month of the window's last day; `limit_usd` None: there is no budget."""

    month: date
    spend_usd: Decimal
    limit_usd: Decimal | None = None
    warning_ratio: Decimal = Decimal("0.8")
    is_running: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthForecast:
    """What the running UTC month will have cost, in USD, and when its budget would be exceeded."""

    month: date
    spend_usd: Decimal
    expected_usd: Decimal
    low_usd: Decimal
    high_usd: Decimal
    limit_usd: Decimal | None = None
    is_exceeded: bool = False
    expected_at: datetime | None = None
    earliest_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedSpell:
    """A time `[start, end)` in which events were refused for one reason."""

    start: datetime
    end: datetime
    reason: str
    requests: int
    cost_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """What was refused in the window and is in none of the figures: in all, and the first times of it."""

    requests: int = 0
    cost_usd: Decimal = _ZERO
    spells: tuple[RefusedSpell, ...] = ()
    more: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContent:
    """One summary. Its days are local ones of `zone`; `data_modes` are those that count, of all environments."""

    version: int = VERSION
    kind: str
    zone: str
    first_day: date
    last_day: date
    before_first_day: date
    before_last_day: date
    as_of: datetime
    newest_data_at: datetime | None = None
    data_modes: tuple[str, ...] = ("real",)
    now: Usage = Usage()
    before: Usage = Usage()
    bars: tuple[Bar, ...] = ()
    change: Change = Change()
    rankings: tuple[Ranking, ...] = ()
    arrivals: tuple[Arrival, ...] = ()
    arrivals_days: int = 0
    unpriced_models: tuple[str, ...] = ()
    refused: Refused = Refused()
    alerts: Alerts = Alerts()
    open_critical: tuple[AlertLine, ...] = ()
    daily_budget: DailyBudget | None = None
    monthly_budget: MonthlyBudget | None = None
    forecast: MonthForecast | None = None

    @property
    def time_zone(self) -> ZoneInfo:
        """The zone whose days these are."""
        return ZoneInfo(self.zone)

    @property
    def days(self) -> int:
        """How many local days."""
        return (self.last_day - self.first_day).days + 1

    @property
    def difference(self) -> Decimal:
        """USD more than before."""
        return self.now.cost_usd - self.before.cost_usd

    @property
    def refused_share(self) -> Decimal | None:
        """Of all requests that arrived, 0 to 1; None without any."""
        arrived = self.now.requests + self.refused.requests
        return Decimal(self.refused.requests) / arrived if arrived else None

    @property
    def is_empty(self) -> bool:
        """Whether nothing happened: no request, none refused, no alert."""
        return not (self.now.requests or self.refused.requests or self.alerts.total or self.open_critical)

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        stored: dict[str, Any] = _stored(self)
        return stored

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "ReportContent":
        """What `to_json` has made, of this version or an older one."""
        content: ReportContent = _read(cls, stored)
        return content


def _stored(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _stored(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_stored(each) for each in value]
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.isoformat() if isinstance(value, date) else value


@cache
def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read(kind: Any, stored: Any) -> Any:
    if stored is None:
        return None
    if is_dataclass(kind):
        known = _types(kind)  # type: ignore[arg-type]
        return kind(**{name: _read(known[name], each) for name, each in stored.items() if name in known})  # type: ignore[operator]
    if get_origin(kind) is tuple:
        return tuple(_read(get_args(kind)[0], each) for each in stored)
    if isinstance(kind, UnionType):
        return _read(next(each for each in get_args(kind) if each is not NoneType), stored)
    if kind is Decimal:
        return Decimal(stored)
    return kind.fromisoformat(stored) if kind in (date, datetime) else stored
