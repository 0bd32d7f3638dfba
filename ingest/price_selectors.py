"""What pages show of prices: the catalogue as one workspace sees it and uses it, and where it all is from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from uuid import UUID

from django.db.models import Q, Sum

from ingest.models import CatalogVersion, ModelPrice, Rollup, ServiceTier, WorkspacePolicy
from ingest.models.prices import PriceState
from ingest.price_book import Explanation, PriceBook
from ingest.price_names import Rule
from ingest.price_tables import Price
from ingest.pricing import current_book, look_again
from opsmeter_site.lib.periods import day_start
from workspaces.models import Workspace

# Over how many local days, today included, a workspace counts as a user of a model.
USE_DAYS = 30

Pair = tuple[str, str]  # the catalogue's provider and model


# --- The book, and where it is from ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Feed:
    """Where the catalogue stands: its version, the last import that succeeded, and the last change of any kind."""

    version: int = 0
    source: str = ""
    imported_at: datetime | None = None
    changed_at: datetime | None = None


def newest_book() -> tuple[PriceBook, Feed]:
    """The price book at the catalogue's current version: a page shows what was changed a moment ago, here or elsewhere.

    Raises like `pricing.current_book`.
    """
    stored = CatalogVersion.objects.first()
    feed = Feed(stored.version, stored.source, stored.imported_at, stored.changed_at) if stored else Feed()
    book = current_book()
    if book.version != feed.version:
        look_again()
        book = current_book()
    return book, feed


def waiting_prices() -> int:
    """How many prices wait for an operator's approval."""
    return ModelPrice.objects.filter(state=PriceState.PENDING).count()


def has_price_overrides(workspace_id: UUID) -> bool:
    """Whether the workspace's plan includes prices of its own."""
    return WorkspacePolicy.objects.filter(workspace_id=workspace_id, has_price_overrides=True).exists()


# --- What a workspace uses ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Use:
    """What a workspace did with one model: requests, tokens of all kinds, USD as stored, and the names it sent."""

    requests: int = 0
    unpriced_requests: int = 0
    tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    names: tuple[str, ...] = ()

    def __add__(self, other: "Use") -> "Use":
        return Use(
            self.requests + other.requests,
            self.unpriced_requests + other.unpriced_requests,
            self.tokens + other.tokens,
            self.cost_usd + other.cost_usd,
            tuple(dict.fromkeys((*self.names, *other.names))),
        )


def use_start(workspace: Workspace, now: datetime) -> datetime:
    """The UTC moment from which use counts: `USE_DAYS` local days, today included."""
    today = now.astimezone(workspace.timezone).date()
    return day_start(workspace.timezone, today - timedelta(days=USE_DAYS - 1))


def use_by_model(book: PriceBook, workspace: Workspace, now: datetime, provider: str = "") -> dict[Pair, Use]:
    """What the workspace used lately, by the model that each name it sent means now. Unknown names are left out.

    From roll-ups, so it counts all data modes; with `provider`, only names sent with that host.
    """
    rows = (
        Rollup.objects.filter(workspace_id=workspace.pk, bucket_start__gte=use_start(workspace, now))
        .values("provider", "model")
        .annotate(
            sent=Sum("requests"),
            unpriced=Sum("requests", filter=Q(is_priced=False), default=0),
            token_sum=token_sum(),
            cost=Sum("cost_usd"),
        )
        .order_by("-sent", "provider", "model")
    )
    used: dict[Pair, Use] = {}
    for row in rows:
        found = model_meant(book, row["provider"], row["model"], workspace.pk, now)
        if found is not None and provider in ("", found[0]):
            use = Use(row["sent"], row["unpriced"], row["token_sum"], row["cost"], (row["model"],))
            used[found] = used.get(found, Use()) + use
    return used


def token_sum() -> "Sum":
    """All tokens of some roll-ups, for `annotate` or `aggregate`; reasoning is part of the output."""
    buckets = ("uncached_input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
    return sum((Sum(bucket, default=0) for bucket in buckets[1:]), Sum(buckets[0], default=0))


def model_meant(book: PriceBook, provider: str, model: str, workspace_id: UUID | None, moment: datetime) -> Pair | None:
    """The model whose price a name pays, as the catalogue or the workspace's own price calls it; None if unknown."""
    found = decide(book, provider, model, workspace_id, moment)
    return None if found.model is None else (found.provider, found.model)


def decide(
    book: PriceBook, provider: str, model: str, workspace_id: UUID | None, moment: datetime, tokens: int = 0
) -> Explanation:
    """The price of a standard call with so many input tokens, and how its name was understood."""
    return book.resolve(
        workspace_id=workspace_id,
        provider=provider,
        model=model,
        service_tier=ServiceTier.STANDARD.value,
        occurred_at=moment,
        uncached_input_tokens=tokens,
    )


# --- The catalogue --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """One model with the standard base price that the workspace pays for it now."""

    provider: str
    model: str
    price: Price
    aliases: tuple[str, ...]
    use: Use | None = None

    @property
    def is_own(self) -> bool:
        """Whether the price is the workspace's own."""
        return self.price.workspace_id is not None

    @property
    def text(self) -> str:
        """What a search looks through."""
        return " ".join((f"{self.provider}/{self.model}", *self.aliases))


def catalogue(book: PriceBook, workspace: Workspace, now: datetime) -> list[CatalogueRow]:
    """Every model that has a price in this workspace: what it uses first, by its cost, then by name."""
    rows = dict(_listed(book, now.replace(second=0, microsecond=0)))
    for row in _own_rows(book, workspace, now):
        known = rows.get((row.provider, row.model))
        rows[row.provider, row.model] = row if known is None else replace(known, price=row.price)
    used = use_by_model(book, workspace, now)
    return sorted(
        (replace(row, use=used[pair]) if pair in used else row for pair, row in rows.items()),
        key=lambda row: (row.use is None, -row.use.cost_usd if row.use else 0, row.provider, row.model),
    )


@lru_cache(maxsize=2)
def _listed(book: PriceBook, minute: datetime) -> Mapping[Pair, CatalogueRow]:
    return {
        pair: CatalogueRow(*pair, price=price, aliases=tuple(aliases)) for pair, price, aliases in book.listed(minute)
    }


def _own_rows(book: PriceBook, workspace: Workspace, now: datetime) -> Iterable[CatalogueRow]:
    own = ModelPrice.objects.filter(workspace=workspace, state=PriceState.ACTIVE)
    for provider, model in own.values_list("provider", "model").distinct():
        found = decide(book, provider, model, workspace.pk, now)
        if found.price is not None and found.rule == Rule.WORKSPACE_OVERRIDE:
            yield CatalogueRow(provider, model, price=found.price, aliases=())


def listed_prices(book: PriceBook, moment: datetime) -> Mapping[Pair, Price]:
    """The catalogue's standard base prices in force at `moment`."""
    return {pair: row.price for pair, row in _listed(book, moment.replace(second=0, microsecond=0)).items()}


def hosts(book: PriceBook, moment: datetime) -> list[str]:
    """The providers that the catalogue has prices of."""
    return sorted({provider for provider, _ in _listed(book, moment.replace(second=0, microsecond=0))})


def models_of(book: PriceBook, provider: str, moment: datetime) -> Mapping[str, tuple[str, ...]]:
    """The catalogue's models on one host, each with its other names."""
    rows = _listed(book, moment.replace(second=0, microsecond=0))
    return {model: row.aliases for (host, model), row in rows.items() if host == provider}
