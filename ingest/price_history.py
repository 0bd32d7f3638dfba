"""Every price that one model has had, has and will have, for everybody and for one workspace."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from django.db.models import QuerySet

from ingest.models import ModelPrice, ServiceTier
from ingest.models.prices import PriceState
from ingest.price_tables import Price, PriceKey
from ingest.pricing import price_rows

_TIERS = list(ServiceTier.values)


class Standing(StrEnum):
    """What a price row means now."""

    IN_FORCE = "In force"
    AHEAD = "Begins later"
    EARLIER = "Earlier"
    CORRECTED = "Corrected"
    WITHDRAWN = "Withdrawn"
    WAITING = "Waiting for approval"
    REJECTED = "Rejected"
    SUPERSEDED = "Overtaken"


_UNDECIDED = {
    PriceState.PENDING.value: Standing.WAITING,
    PriceState.REJECTED.value: Standing.REJECTED,
    PriceState.SUPERSEDED.value: Standing.SUPERSEDED,
}


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """A price row with what it means now, who entered it and who decided on it ("" for imports)."""

    price: Price
    standing: Standing
    created_at: datetime
    entered_by: str
    decided_at: datetime | None
    decided_by: str

    @property
    def is_own(self) -> bool:
        """Whether it is the workspace's own."""
        return self.price.workspace_id is not None

    @property
    def is_live(self) -> bool:
        """Whether calls pay it, or will."""
        return self.standing in {Standing.IN_FORCE, Standing.AHEAD}


def history(prices: "QuerySet[ModelPrice]", now: datetime, *, names_operators: bool = False) -> list[HistoryRow]:
    """`prices` with all their revisions, the youngest start first. One query.

    Members see each other by name. Who works for the service is shown to operators (`names_operators`) only.
    """
    people = ("created_by__name", "created_by__email", "decided_by__name", "decided_by__email")
    read = list(price_rows(prices, "state", "created_at", "decided_at", *people))
    standings = standings_of((price for price, more in read if more[0] == PriceState.ACTIVE), now)
    rows = [
        HistoryRow(
            price=price,
            standing=_UNDECIDED.get(state) or standings[price.id],
            created_at=created_at,
            entered_by=_person(*names[:2], is_shown=names_operators or price.workspace_id is not None),
            decided_at=decided_at,
            decided_by=_person(*names[2:], is_shown=names_operators or price.workspace_id is not None),
        )
        for price, (state, created_at, decided_at, *names) in read
    ]
    return sorted(rows, key=lambda row: (row.price.key.effective_from, row.price.revision, row.price.id), reverse=True)


def _person(name: str | None, email: str | None, *, is_shown: bool) -> str:
    if email is None:
        return ""
    return name or email if is_shown else "an operator"


def live_rows(rows: Iterable[HistoryRow]) -> list[HistoryRow]:
    """Those of `rows` that calls pay, or will: the workspace's own first, then by tier, size, time of day and start."""
    return sorted((row for row in rows if row.is_live), key=_reading_order)


def charges_calls(rows: Iterable[HistoryRow]) -> bool:
    """Whether any of `rows` has a price per call, so that a table needs a column for it."""
    return any(row.price.unit_prices.request is not None for row in rows)


def _reading_order(row: HistoryRow) -> tuple[object, ...]:
    key = row.price.key
    window = "" if key.window_start is None else key.window_start.isoformat()
    names = (row.price.provider, row.price.model)
    return (not row.is_own, *names, _TIERS.index(key.service_tier), key.context_above, window, key.effective_from)


def standings_of(active: Iterable[Price], now: datetime) -> dict[int, Standing]:
    """What each of these rows (active ones, whole timelines) means at `now`, by row id; as `Timeline` reads them."""
    lines: dict[tuple[object, ...], list[Price]] = defaultdict(list)
    for price in active:
        lines[price.workspace_id, price.provider, price.model, price.key.service_tier].append(price)
    return {number: standing for line in lines.values() for number, standing in _of_line(line, now).items()}


def _of_line(line: list[Price], now: datetime) -> dict[int, Standing]:
    first = line[0]
    is_catalogues_standard = first.workspace_id is None and first.key.service_tier == ServiceTier.STANDARD
    # The oldest standard price of the catalogue reaches back over all time before it.
    moment = max(now, min(price.key.effective_from for price in line)) if is_catalogues_standard else now
    slots: dict[PriceKey, list[Price]] = defaultdict(list)
    for price in sorted(line, key=lambda price: (price.key.effective_from, price.revision)):
        slots[price.key._replace(effective_from=now)].append(price)
    return {number: standing for rows in slots.values() for number, standing in _of_slot(rows, moment).items()}


def _of_slot(rows: list[Price], moment: datetime) -> dict[int, Standing]:
    newest = {price.key.effective_from: price for price in rows}
    begun = [start for start in newest if start <= moment]
    return {price.id: _standing(price, newest, begun, moment) for price in rows}


def _standing(price: Price, newest: dict[datetime, Price], begun: list[datetime], moment: datetime) -> Standing:
    start = price.key.effective_from
    if newest[start] is not price:
        return Standing.CORRECTED
    if price.is_withdrawn:
        return Standing.WITHDRAWN
    if start > moment:
        return Standing.AHEAD
    return Standing.IN_FORCE if start == begun[-1] else Standing.EARLIER
