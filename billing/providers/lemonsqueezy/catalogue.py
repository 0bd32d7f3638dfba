"""What a store sells by subscription, put together from its products, their variants and the variants' prices."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from billing.providers.base import VariantFacts
from billing.providers.lemonsqueezy.payloads import identifier, mapping, text


def sold_by_subscription(
    store_id: str, products: Iterable[Any], variants: Sequence[Any], prices: Iterable[Any]
) -> list[VariantFacts]:
    """The variants of the store's products that renew. Drafts are not sold.

    A product has a `pending` variant from its beginning, which is sold only as long as it is the only one.
    """
    names = {
        identifier(each.get("id")): text(_of(each).get("name"))
        for each in map(mapping, products)
        if identifier(_of(each).get("store_id")) == store_id
    }
    intervals = _intervals(prices)
    siblings = Counter(identifier(_of(mapping(each)).get("product_id")) for each in variants)
    sold = []
    for each in map(mapping, variants):
        its, variant_id = _of(each), identifier(each.get("id"))
        product_id, status = identifier(its.get("product_id")), its.get("status")
        is_hidden = status == "draft" or (status == "pending" and siblings[product_id] > 1)
        if product_id in names and variant_id in intervals and not is_hidden:
            sold.append(
                VariantFacts(
                    variant_id=variant_id,
                    store_id=store_id,
                    name=f"{names[product_id]} · {text(its.get('name'))}",
                    interval=intervals[variant_id],
                    is_test=its.get("test_mode") is True,
                )
            )
    return sold


def _intervals(prices: Iterable[Any]) -> dict[str, str]:
    """How often each variant renews, by its newest price; those that do not renew are missing."""
    newest = sorted(map(mapping, prices), key=lambda price: text(_of(price).get("created_at")))
    found = {identifier(_of(each).get("variant_id")): _interval(_of(each)) for each in newest}
    return {variant_id: interval for variant_id, interval in found.items() if interval}


def _interval(price: Mapping[str, Any]) -> str:
    unit, quantity = text(price.get("renewal_interval_unit")), price.get("renewal_interval_quantity")
    return unit if not unit or quantity == 1 else f"{quantity} {unit}s"


def _of(resource: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(resource.get("attributes"))
