"""Small price catalogues for tests: what a source says, and what a call then costs."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from ingest import catalog, pricing
from ingest.catalog_plan import AliasSpec, Plan, PriceSpec, SourceCatalogue
from ingest.models import ModelPrice
from ingest.models.prices import SINCE_EVER
from ingest.price_tables import PriceKey, UnitPrices
from workspaces.models import User

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)


def usd(*units: str | None) -> UnitPrices:
    """Unit prices in the order input, output, cached input, cache write, call."""
    return UnitPrices(*(None if unit is None else Decimal(unit) for unit in units))


def says(
    units: UnitPrices | None,
    since: datetime = SINCE_EVER,
    *,
    model: str = "gpt",
    tier: str = "standard",
    above: int = 0,
    window: tuple[Any, Any] = (None, None),
) -> PriceSpec:
    """One row of a source."""
    return PriceSpec("openai", model, PriceKey(tier, since, above, *window), units, "https://example.com/prices")


def source(*rows: PriceSpec, aliases: Any = (), name: str = "genai-prices 9.9.9") -> SourceCatalogue:
    """A source that says `rows`, and knows `aliases` (alias, model)."""
    return SourceCatalogue(name, rows, tuple(AliasSpec("openai", *alias) for alias in aliases), ())


def bring_in(*rows: PriceSpec, **more: Any) -> Plan:
    """Import such a source; what that did."""
    return catalog.import_catalogue(source(*rows, **more)).plan


def add(operator: User, **fields: Any) -> ModelPrice:
    """An operator's entry: 2 and 8 USD for openai/gpt since ever, unless told otherwise."""
    defaults = {"provider": "openai", "model": "gpt", "effective_from": SINCE_EVER, "unit_prices": usd("2", "8")}
    return catalog.add_price(acting_user=operator, **defaults | fields)


def cost(
    model: str = "gpt",
    at: datetime = JUNE,
    *,
    tier: str = "standard",
    tokens: int = 1_000_000,
    workspace_id: Any = None,
    provider: str = "openai",
) -> Decimal | None:
    """What so many input tokens cost by what is stored now."""
    found = pricing.load_book().resolve(
        workspace_id=workspace_id,
        provider=provider,
        model=model,
        service_tier=tier,
        occurred_at=at,
        uncached_input_tokens=tokens,
    )
    return found.cost_usd
