"""The price book of this process: loaded once, checked for changes every few seconds, never in a reader's way."""

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from time import monotonic, perf_counter
from typing import Any, TypedDict

import structlog
from django.db import DatabaseError, InterfaceError, OperationalError, connection, models

from ingest.models.prices import SINCE_EVER, UNIT_PRICE_FIELDS, CatalogVersion, ModelAlias, ModelPrice, PriceState
from ingest.price_book import UNPRICED, Explanation, PriceBook, Quote
from ingest.price_names import Rule, canonical_provider, clean
from ingest.price_tables import Price, PriceKey, UnitPrices
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import to_wire

__all__ = [
    "UNPRICED",
    "Explanation",
    "Listing",
    "PriceBook",
    "PriceBookUnavailable",
    "PricedModel",
    "Quote",
    "Rule",
    "current_book",
    "forget_book",
    "load_book",
    "look_again",
    "pricing_models",
    "warm_up",
]

logger = structlog.get_logger(__name__)

CHECK_EVERY_SECONDS = 5.0
# Without any book every call would ask the database; while it is away, most are told so at once.
RETRY_AFTER_SECONDS = 1.0


class PriceBookUnavailable(OperationalError):
    """There has never been a price book in this process, and the database cannot give one now."""


# --- The book of this process ---------------------------------------------------------------------------------------


class _Shelf:
    """Holds the current book. One thread at a time looks for a newer one; the others take what is there."""

    def __init__(self) -> None:
        self.book: PriceBook | None = None
        self.next_check = 0.0
        self.lock = threading.Lock()


_shelf = _Shelf()


def current_book() -> PriceBook:
    """The newest book that this process knows, at most about 5 s old. Waits only for the very first one.

    Raises `PriceBookUnavailable` (a `django.db.DatabaseError`) if there has never been one and the database is away.
    """
    shelf = _shelf
    book = shelf.book
    if book is None:
        return _first_book(shelf)
    if monotonic() >= shelf.next_check and shelf.lock.acquire(blocking=False):
        try:
            _refresh(shelf, book)
        finally:
            shelf.next_check = monotonic() + CHECK_EVERY_SECONDS
            shelf.lock.release()
        return shelf.book or book
    return book


def warm_up() -> None:
    """Load the book now (at process start), so that no call waits for it; a database that is away is only logged."""
    with suppress(PriceBookUnavailable):
        current_book()


def look_again() -> None:
    """Make the next use of the book look for changes: whoever has just made one wants to see it."""
    _shelf.next_check = 0.0


def forget_book() -> None:
    """Drop the book; the next use loads it. For tests."""
    global _shelf
    _shelf = _Shelf()


# A lock that another thread held at the moment of a fork would stay locked in the child for ever.
os.register_at_fork(after_in_child=lambda: setattr(_shelf, "lock", threading.Lock()))


def _first_book(shelf: _Shelf) -> PriceBook:
    with shelf.lock:
        if shelf.book is not None:
            return shelf.book
        if monotonic() < shelf.next_check:
            raise PriceBookUnavailable("The database was away a moment ago.")
        try:
            with _borrowed_connection():
                shelf.book = load_book()
        except (DatabaseError, InterfaceError) as error:
            shelf.next_check = monotonic() + RETRY_AFTER_SECONDS
            logger.warning("price_book_load_failed", error=type(error).__name__)
            raise PriceBookUnavailable(str(error)) from error
        shelf.next_check = monotonic() + CHECK_EVERY_SECONDS
        return shelf.book


def _refresh(shelf: _Shelf, book: PriceBook) -> None:
    """Put a newer book on the shelf if the catalogue has moved on; database errors leave the old one there."""
    try:
        with _borrowed_connection():
            if _catalogue_version() != book.version:
                shelf.book = load_book()
    except (DatabaseError, InterfaceError) as error:
        logger.warning("price_book_check_failed", error=type(error).__name__, version=book.version)


@contextmanager
def _borrowed_connection() -> Iterator[None]:
    """Use this thread's Django connection and leave it as it was found.

    Gateway threads are outside Django's request cycle: nobody else would close what is opened here, or would notice
    that a connection has died.
    """
    was_closed = connection.connection is None
    try:
        yield
    finally:
        if not connection.in_atomic_block:
            if was_closed:
                connection.close()
            else:
                connection.close_if_unusable_or_obsolete()


# --- Loading --------------------------------------------------------------------------------------------------------


def _catalogue_version() -> int:
    return CatalogVersion.objects.values_list("version", flat=True).first() or 0


def load_book() -> PriceBook:
    """A new book from the database: three queries."""
    started = perf_counter()
    # First: rows that a change adds meanwhile then look like news at the next check, instead of being missed.
    version = _catalogue_version()
    prices = [price for price, _ in price_rows(ModelPrice.objects.filter(state=PriceState.ACTIVE))]
    aliases = list(ModelAlias.objects.values_list("provider", "alias", "model"))
    book = PriceBook(version=version, prices=prices, aliases=aliases)
    milliseconds = round((perf_counter() - started) * 1000)
    logger.info("price_book_loaded", version=version, prices=len(prices), aliases=len(aliases), ms=milliseconds)
    if not prices:
        logger.warning("price_book_empty", hint="manage.py import_prices")
    return book


_COLUMNS = (
    "id",
    "workspace_id",
    "provider",
    "model",
    *PriceKey._fields,
    *UNIT_PRICE_FIELDS,
    "is_withdrawn",
    "revision",
    "source",
    "source_url",
    "checked_on",
)
_KEY, _UNITS = 4, 4 + len(PriceKey._fields)
_REST, _EXTRA = _UNITS + len(UNIT_PRICE_FIELDS), len(_COLUMNS)


def price_rows(rows: "models.QuerySet[ModelPrice]", *extra: str) -> Iterator[tuple[Price, tuple[Any, ...]]]:
    """`rows` as plain values, each with the values of the `extra` columns."""
    for row in rows.values_list(*_COLUMNS, *extra):
        nested = (PriceKey(*row[_KEY:_UNITS]), UnitPrices(*row[_UNITS:_REST]))
        fields = (*row[:_KEY], *nested, *row[_REST:_EXTRA])
        yield Price(*fields), row[_EXTRA:]


# --- The public list ------------------------------------------------------------------------------------------------


class PricedModel(TypedDict):
    """One entry of `GET /v1/public/pricing-models`, ready to be written as JSON."""

    provider: str
    model: str
    aliases: list[str]
    inputUsdPer1M: float | None
    outputUsdPer1M: float | None
    cachedInputUsdPer1M: float | None
    cacheWriteUsdPer1M: float | None
    effectiveFrom: str | None  # null: since ever, as far as is known
    checkedOn: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The models that match (not to be changed), and an entity tag (quoted) that changes whenever any price does."""

    models: list[PricedModel]
    etag: str


def pricing_models(*, provider: str = "", model: str = "", now: datetime | None = None) -> Listing:
    """The catalogue's standard base prices in force now: of one host, of one model (by id or alias), or all of them.

    From the book, without a query. A price that begins or ends by the clock changes the tag, too. Raises like
    `current_book`.
    """
    minute = (now or utc_now()).replace(second=0, microsecond=0)
    everything = _everything(current_book(), minute)
    host, name = canonical_provider(provider), clean(model)
    if not host and not name:
        return everything
    models = [
        row
        for row in everything.models
        if host in ("", row["provider"]) and (name in ("", row["model"]) or name in row["aliases"])
    ]
    return Listing(models, everything.etag)


@lru_cache(maxsize=2)
def _everything(book: PriceBook, minute: datetime) -> Listing:
    digest = hashlib.sha256(b"%d" % book.version)
    models: list[PricedModel] = []
    for (provider, model), price, aliases in book.listed(minute):
        digest.update(b",%d" % price.id)
        models.append(_listed(price, provider, model, aliases))
    return Listing(models, f'"{digest.hexdigest()[:32]}"')


def _listed(price: Price, provider: str, model: str, aliases: list[str]) -> PricedModel:
    starts = price.key.effective_from
    return {
        "provider": provider,
        "model": model,
        "aliases": aliases,
        "inputUsdPer1M": _number(price.unit_prices.input),
        "outputUsdPer1M": _number(price.unit_prices.output),
        "cachedInputUsdPer1M": _number(price.unit_prices.cached_input),
        "cacheWriteUsdPer1M": _number(price.unit_prices.cache_write),
        "effectiveFrom": None if starts == SINCE_EVER else to_wire(starts),
        "checkedOn": price.checked_on.isoformat(),
    }


def _number(unit_price: Decimal | None) -> float | None:
    return None if unit_price is None else float(unit_price)
