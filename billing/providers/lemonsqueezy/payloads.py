"""Lemon Squeezy's words made ours: subscriptions, invoices and webhook messages.

Identifiers come as text in one place and as numbers in another; times are UTC in whole seconds; optional things are
null, missing, or an empty list where an object belongs. What is not known is passed over.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar

from rest_framework.exceptions import ParseError

from billing.providers.base import InvoiceFacts, Notice, SubscriptionFacts, UnreadableMessage
from opsmeter_site.lib.errors import InvalidInput
from opsmeter_site.lib.wire import decode_object

T = TypeVar("T")

SUBSCRIPTIONS = "subscriptions"
INVOICES = "subscription-invoices"

# As long as the columns that they are stored in.
_LONGEST_ID = 64
_LONGEST_NAME = 100
_LONGEST_TYPE = 50
_LONGEST_STATUS = 20
_LONGEST_KEY = 80
_LONGEST_EMAIL = 254


class Unfit(ValueError):
    """A resource lacks what every documented one has, or has it in a shape that means nothing."""


def read_notice(body: bytes) -> Notice:
    """The message in the body of a webhook. Raises `UnreadableMessage` if not even its subject can be made out.

    A subject that cannot be read in full is left out: then the provider has to be asked.
    """
    message = _message(body)
    # A sample of the documentation has what is in `data` elsewhere beside `meta`.
    meta, resource = mapping(message.get("meta")), mapping(message.get("data", message))
    name, kind, resource_id = text(meta.get("event_name")), text(resource.get("type")), identifier(resource.get("id"))
    if not (name and kind and resource_id) or len(name) > _LONGEST_NAME:
        raise UnreadableMessage("There is no event name, or no type and id of what it is about.")
    attributes = mapping(resource.get("attributes"))
    subscription = invoice = None
    subscription_id = ""
    if kind == SUBSCRIPTIONS:
        subscription_id = resource_id
        subscription = fitting(read_subscription, resource)
    elif kind == INVOICES:
        subscription_id = identifier(attributes.get("subscription_id"))
        invoice = fitting(read_invoice, resource)
    return Notice(
        dedupe_key=_dedupe_key(meta, body),
        name=name,
        resource_type=kind[:_LONGEST_TYPE],
        resource_id=resource_id,
        is_test=_first_bool(meta.get("test_mode"), attributes.get("test_mode")),
        store_id=identifier(attributes.get("store_id")),
        subscription_id=subscription_id,
        checkout_id=identifier(mapping(meta.get("custom_data")).get("checkout_id")),
        subscription=subscription,
        invoice=invoice,
    )


def read_subscription(resource: object) -> SubscriptionFacts:
    """A `subscriptions` resource. Raises `Unfit`."""
    found = mapping(resource)
    its = mapping(found.get("attributes"))
    updated_at = _needed(moment(its.get("updated_at")))
    return SubscriptionFacts(
        subscription_id=_needed(identifier(found.get("id"))),
        customer_id=identifier(its.get("customer_id")),
        store_id=identifier(its.get("store_id")),
        variant_id=_needed(identifier(its.get("variant_id"))),
        status=_needed(text(its.get("status"))[:_LONGEST_STATUS]),
        pause_mode=text(mapping(its.get("pause")).get("mode"))[:10],
        renews_at=moment(its.get("renews_at")),
        ends_at=moment(its.get("ends_at")),
        trial_ends_at=moment(its.get("trial_ends_at")),
        card_brand=text(its.get("card_brand"))[:30],
        # The documentation has a sample with five digits.
        card_last_four=text(its.get("card_last_four"))[-4:],
        buyer_email=text(its.get("user_email"))[:_LONGEST_EMAIL],
        created_at=moment(its.get("created_at")) or updated_at,
        updated_at=updated_at,
        is_test=its.get("test_mode") is True,
    )


def read_invoice(resource: object) -> InvoiceFacts:
    """A `subscription-invoices` resource. Raises `Unfit`."""
    found = mapping(resource)
    its = mapping(found.get("attributes"))
    updated_at = _needed(moment(its.get("updated_at")))
    return InvoiceFacts(
        invoice_id=_needed(identifier(found.get("id"))),
        subscription_id=_needed(identifier(its.get("subscription_id"))),
        store_id=identifier(its.get("store_id")),
        reason=text(its.get("billing_reason"))[:20],
        status=_needed(text(its.get("status"))[:_LONGEST_STATUS]),
        # Older samples of the documentation have 0 and 1.
        is_refunded=its.get("refunded") in (True, 1),
        total_text=text(its.get("total_formatted"))[:60],
        refunded_text=text(its.get("refunded_amount_formatted"))[:60] if its.get("refunded_amount") else "",
        currency=text(its.get("currency"))[:3],
        card_brand=text(its.get("card_brand"))[:30],
        card_last_four=text(its.get("card_last_four"))[-4:],
        created_at=moment(its.get("created_at")) or updated_at,
        updated_at=updated_at,
        is_test=its.get("test_mode") is True,
    )


# --- Pieces -----------------------------------------------------------------------------------------------------------


def mapping(value: object) -> Mapping[str, Any]:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: object) -> str:
    """`value` as text that can be stored and shown; empty for anything else than text."""
    if not isinstance(value, str):
        return ""
    return "".join(_shown(sign) for sign in value.strip())


def identifier(value: object) -> str:
    """An id as text, whether it came as text or as a number; empty if it is neither, or too long for one."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    found = text(value)
    return found if len(found) <= _LONGEST_ID else ""


def moment(value: object) -> datetime | None:
    """A time with its offset, in UTC; None for null. Raises `Unfit` for anything else."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise Unfit("Not a time.")
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise Unfit("Not a time with its offset.")


def _shown(sign: str) -> str:
    if sign.isprintable():
        return sign
    # Amounts are written with spaces of several kinds.
    return " " if sign.isspace() else "\N{REPLACEMENT CHARACTER}"


def _needed(value: T | None) -> T:
    if not value:
        raise Unfit("Something that every one has is missing.")
    return value


def fitting(read: Callable[[object], T], resource: object) -> T | None:
    """What `read` makes of the resource; None if that is unfit."""
    try:
        return read(resource)
    except Unfit:
        return None


def _first_bool(*values: object) -> bool | None:
    return next((value for value in values if isinstance(value, bool)), None)


def _message(body: bytes) -> dict[str, Any]:
    try:
        return decode_object(body)
    except (ParseError, InvalidInput):
        raise UnreadableMessage("The body is not a JSON object that can be read safely.") from None


def _dedupe_key(meta: Mapping[str, Any], body: bytes) -> str:
    """The message's own id if it has one that fits; else what the message says, byte for byte."""
    own = meta.get("webhook_id")
    key = f"id:{own}"
    is_usable = isinstance(own, str) and own.isascii() and own.isprintable() and " " not in own
    return key if own and is_usable and len(key) <= _LONGEST_KEY else f"sha256:{sha256(body).hexdigest()}"
