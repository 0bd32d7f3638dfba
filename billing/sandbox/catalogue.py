"""What the double's one store sells. The ids are fixed, so that a mapping of them can be written down once."""

from dataclasses import dataclass
from datetime import UTC, datetime

OPENED_AT = datetime(2026, 1, 1, tzinfo=UTC)
LEGACY_VARIANT = 901


@dataclass(frozen=True, slots=True)
class Store:
    """The one store."""

    id: int


@dataclass(frozen=True, slots=True)
class User:
    """The store's owner."""

    id: int = 1


@dataclass(frozen=True, slots=True)
class Product:
    """A plan."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to buy a product."""

    id: int
    product_id: int
    name: str
    price_id: int


@dataclass(frozen=True, slots=True)
class Price:
    """What a variant costs, in cents, for each `interval`: one `month` or one `year`."""

    id: int
    variant_id: int
    cents: int
    interval: str


_MONTHLY, _YEARLY = ("Monthly", "month"), ("Yearly", "year")
# Variant, product, name and interval, cents. A year costs ten months.
_SOLD = [
    (101, 11, _MONTHLY, 1900),
    (102, 11, _YEARLY, 19000),
    (201, 12, _MONTHLY, 4900),
    (202, 12, _YEARLY, 49000),
    (301, 13, _MONTHLY, 19900),
    (302, 13, _YEARLY, 199000),
    # Mapped by nobody: what a product meets that does not know a variant.
    (LEGACY_VARIANT, 19, _MONTHLY, 2900),
]
PRODUCTS = {id_: Product(id_, name) for id_, name in [(11, "Starter"), (12, "Pro"), (13, "Team"), (19, "Legacy")]}
VARIANTS = {id_: Variant(id_, product_id, name, id_ + 5000) for id_, product_id, (name, _), _ in _SOLD}
PRICES = {id_ + 5000: Price(id_ + 5000, id_, cents, interval) for id_, _, (_, interval), cents in _SOLD}


def product_of(variant_id: int) -> Product:
    """The product that a variant belongs to."""
    return PRODUCTS[VARIANTS[variant_id].product_id]


def price_of(variant_id: int) -> Price:
    """What a variant costs."""
    return PRICES[VARIANTS[variant_id].price_id]
