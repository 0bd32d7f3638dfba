"""What things look like on the wire: JSON:API documents with the provider's own keys, types and time format."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from billing.sandbox.attributes import Attributes
from billing.sandbox.catalogue import PRICES, PRODUCTS, VARIANTS, Price, Product, Store, User, Variant
from billing.sandbox.errors import NotFound, Refused
from billing.sandbox.links import Links
from billing.sandbox.records import Checkout, Customer, Invoice, Order, Subscription, Webhook
from billing.sandbox.state import State

KINDS: dict[type[Any], str] = {
    Subscription: "subscriptions",
    Invoice: "subscription-invoices",
    Checkout: "checkouts",
    Customer: "customers",
    Order: "orders",
    Store: "stores",
    Product: "products",
    Variant: "variants",
    Price: "prices",
    User: "users",
    Webhook: "webhooks",
}
FILTERS: dict[str, tuple[str, ...]] = {
    "subscriptions": (
        "store_id",
        "order_id",
        "order_item_id",
        "product_id",
        "variant_id",
        "user_email",
        "status",
    ),
    "subscription-invoices": ("store_id", "status", "refunded", "subscription_id"),
    "checkouts": ("store_id", "variant_id"),
    "customers": ("store_id", "email"),
    "orders": ("store_id", "user_email"),
    "products": ("store_id",),
    "variants": ("product_id", "status"),
    "prices": ("variant_id",),
    "webhooks": ("store_id",),
}


class Relation(NamedTuple):
    """How a kind of thing belongs to another one."""

    kind: str
    key: str
    """The attribute with the other's id: this thing's, or of a `many` theirs with this thing's id."""
    many: bool = False


_STORE, _CUSTOMER = Relation("stores", "store_id"), Relation("customers", "customer_id")
_PRODUCT, _VARIANT = Relation("products", "product_id"), Relation("variants", "variant_id")
# By name; None: there is a link to it, and nothing behind the link here.
_RELATIONS: dict[str, dict[str, Relation | None]] = {
    "subscriptions": {
        "store": _STORE,
        "customer": _CUSTOMER,
        "order": Relation("orders", "order_id"),
        "order-item": None,
        "product": _PRODUCT,
        "variant": _VARIANT,
        "subscription-items": None,
        "subscription-invoices": Relation("subscription-invoices", "subscription_id", many=True),
    },
    "subscription-invoices": {
        "store": _STORE,
        "subscription": Relation("subscriptions", "subscription_id"),
        "customer": _CUSTOMER,
    },
    "checkouts": {"store": _STORE, "variant": _VARIANT},
    "customers": {
        "store": _STORE,
        "orders": Relation("orders", "customer_id", many=True),
        "subscriptions": Relation("subscriptions", "customer_id", many=True),
        "license-keys": None,
    },
    "orders": {
        "store": _STORE,
        "customer": _CUSTOMER,
        "order-items": None,
        "subscriptions": Relation("subscriptions", "order_id", many=True),
        "license-keys": None,
        "discount-redemptions": None,
    },
    "stores": {
        "products": Relation("products", "store_id", many=True),
        "orders": Relation("orders", "store_id", many=True),
        "subscriptions": Relation("subscriptions", "store_id", many=True),
        "webhooks": Relation("webhooks", "store_id", many=True),
    },
    "products": {"store": _STORE, "variants": Relation("variants", "product_id", many=True)},
    "variants": {"product": _PRODUCT, "files": None, "price-model": None},
    "prices": {"variant": _VARIANT, "subscription-items": None, "usage-records": None},
    "users": {},
    "webhooks": {"store": _STORE},
}
_LARGEST_PAGE = 100
_SIZE = 10


class Documents:
    """Reads the state and writes documents. Callers hold the state's lock."""

    def __init__(self, state: State, links: Links) -> None:
        self._state = state
        self.attributes = Attributes(state, links)

    def find(self, kind: str, record_id: str) -> Any:
        """The one record of a kind with an id, as it stands in URLs. Raises NotFound."""
        for record in self._everything(kind):
            if str(record.id) == record_id:
                return record
        raise NotFound(f"There is no such thing in {kind}.")

    def matching(self, kind: str, filters: Mapping[str, str]) -> list[Any]:
        """Records of a kind, newest first. Raises Refused for filters that the kind does not have."""
        for name in filters:
            if name not in FILTERS.get(kind, ()):
                raise Refused(f"Filter parameter {name} is not allowed.")
        if kind == "subscription-invoices" and "status" in filters:
            # So it was seen to answer, though the filter is documented.
            return []
        return [record for record in self._everything(kind) if self._holds(record, filters)]

    def resource(self, record: Any) -> dict[str, Any]:
        """A record as an object of JSON:API."""
        kind = KINDS[type(record)]
        url = f"{self._base}/{kind}/{record.id}"
        return {
            "type": kind,
            "id": str(record.id),
            "attributes": self.attributes.of(record),
            "relationships": {
                name: {"links": {"related": f"{url}/{name}", "self": f"{url}/relationships/{name}"}}
                for name in _RELATIONS[kind]
            },
            "links": {"self": url},
        }

    def one(self, record: Any, include: Sequence[str] = ()) -> dict[str, Any]:
        """The document of one record."""
        data = self.resource(record)
        document = {"jsonapi": {"version": "1.0"}, "links": {"self": data["links"]["self"]}, "data": data}
        return document | self._included([record], include)

    def page(
        self,
        records: Sequence[Any],
        *,
        number: int = 1,
        size: int = _SIZE,
        include: Sequence[str] = (),
        address: Callable[[int], str],
    ) -> dict[str, Any]:
        """A page of a list. `address` makes the URL of another page of it."""
        size = min(max(size, 1), _LARGEST_PAGE)
        last = max(-(-len(records) // size), 1)
        start = (number - 1) * size
        shown = records[start : start + size]
        links = {"first": address(1), "last": address(last)}
        if number < last:
            links["next"] = address(number + 1)
        if number > 1:
            links["prev"] = address(number - 1)
        position = {
            "currentPage": number,
            "from": start + 1 if shown else None,
            "lastPage": last,
            "perPage": size,
            "to": start + len(shown) if shown else None,
            "total": len(records),
        }
        document = {
            "meta": {"page": position},
            "jsonapi": {"version": "1.0"},
            "links": links,
            "data": [self.resource(record) for record in shown],
        }
        return document | self._included(shown, include)

    def related(self, record: Any, name: str) -> Any:
        """What belongs to a record under a relationship's name: one record or a list. Raises NotFound."""
        relation = _RELATIONS[KINDS[type(record)]].get(name)
        if relation is None:
            raise NotFound(f"There is nothing under {name}.")
        if relation.many:
            theirs = self._everything(relation.kind)
            return [other for other in theirs if self.attributes.of(other)[relation.key] == record.id]
        return self.find(relation.kind, str(self.attributes.of(record)[relation.key]))

    def _included(self, records: Sequence[Any], include: Sequence[str]) -> dict[str, Any]:
        if not include:
            return {}
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for record in records:
            for name in include:
                related = self.related(record, name)
                for other in related if isinstance(related, list) else [related]:
                    resource = self.resource(other)
                    found[resource["type"], resource["id"]] = resource
        return {"included": list(found.values())}

    def _holds(self, record: Any, filters: Mapping[str, str]) -> bool:
        if not filters:
            return True
        attributes = self.attributes.of(record)
        return all(_as_text(attributes[name]) == value for name, value in filters.items())

    def _everything(self, kind: str) -> list[Any]:
        state = self._state
        tables: dict[str, Mapping[Any, Any]] = {
            "subscriptions": state.subscriptions,
            "subscription-invoices": state.invoices,
            "checkouts": state.checkouts,
            "customers": state.customers,
            "orders": state.orders,
            "stores": {state.store_id: Store(state.store_id)},
            "products": PRODUCTS,
            "variants": VARIANTS,
            "prices": PRICES,
            "users": {1: User()},
            "webhooks": state.webhooks,
        }
        if kind not in tables:
            raise NotFound(f"There is no such thing as {kind}.")
        return list(tables[kind].values())[::-1]

    @property
    def _base(self) -> str:
        return f"{self._state.base_url}/v1"


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
