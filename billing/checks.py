"""What must be true of billing before anybody pays, said at start-up by `manage.py check` and `migrate`."""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as CheckWarning
from django.db import OperationalError, connection

from billing.models import PlanVariant, Subscription
from billing.providers import is_billing_on
from billing.variants import PROVIDER

# The provider's rule for the signing secret of a webhook.
SHORTEST_SECRET, LONGEST_SECRET = 6, 40
_MOST_NAMED = 10


@register()
def check_settings(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:
    """The settings of the provider belong together."""
    if not is_billing_on():
        return _left_over()
    return [*_missing(), *_misshapen(), *_base(), *_mode()]


@register(Tags.database)
def check_variants(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **_kwargs: Any
) -> list[CheckMessage]:
    """Something is on offer, and what people pay for means a plan."""
    if not is_billing_on() or "default" not in (databases or ()):
        return []
    try:
        # This runs before the first migration, too.
        if PlanVariant._meta.db_table not in connection.introspection.table_names():
            return []
        return [*_nothing_offered(), *_unmapped()]
    except OperationalError:
        return []  # Without its database the service has other things to say.


def unmapped_variants() -> list[str]:
    """The variants that subscriptions are on and that mean no plan to us, in order."""
    known = PlanVariant.objects.filter(provider=PROVIDER).values("variant_id")
    on = Subscription.objects.filter(provider=PROVIDER).exclude(variant_id="").exclude(variant_id__in=known)
    return sorted(on.values_list("variant_id", flat=True).distinct(), key=lambda found: (len(found), found))


def _left_over() -> list[CheckMessage]:
    names = ("LEMONSQUEEZY_WEBHOOK_SECRET", "LEMONSQUEEZY_STORE_ID")
    return [
        CheckWarning(
            f"{name} is set but LEMONSQUEEZY_API_KEY is not, so there is no billing.",
            hint="Set the key, or unset the rest.",
            id="billing.W001",
        )
        for name in names
        if getattr(settings, name)
    ]


def _missing() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if not settings.LEMONSQUEEZY_WEBHOOK_SECRET:
        found.append(
            Error(
                "LEMONSQUEEZY_WEBHOOK_SECRET is empty, so every message of the provider is refused.",
                hint="Set it to the signing secret of the webhook in the provider's dashboard.",
                id="billing.E001",
            )
        )
    if not settings.LEMONSQUEEZY_STORE_ID:
        found.append(
            Error(
                "LEMONSQUEEZY_STORE_ID is empty, so nothing can be sold.",
                hint="The provider's dashboard shows the store's number.",
                id="billing.E002",
            )
        )
    return found


def _misshapen() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    secret, store_id = settings.LEMONSQUEEZY_WEBHOOK_SECRET, settings.LEMONSQUEEZY_STORE_ID
    if secret and not SHORTEST_SECRET <= len(secret) <= LONGEST_SECRET:
        found.append(
            Error(
                f"LEMONSQUEEZY_WEBHOOK_SECRET must have {SHORTEST_SECRET} to {LONGEST_SECRET} characters.",
                hint="That is the provider's rule. Take 40 random ones.",
                id="billing.E003",
            )
        )
    if store_id and not (store_id.isascii() and store_id.isdecimal()):
        found.append(
            Error(
                "LEMONSQUEEZY_STORE_ID must be a number.",
                hint='Not the store\'s name or address: "12345", as the dashboard shows it without "#".',
                id="billing.E004",
            )
        )
    key = settings.LEMONSQUEEZY_API_KEY
    if not (key.isascii() and key.isprintable()) or " " in key:
        found.append(
            Error(
                "LEMONSQUEEZY_API_KEY holds spaces, line breaks or characters that no key has.",
                hint="Copy it again, in one line.",
                id="billing.E005",
            )
        )
    return found


def _base() -> list[CheckMessage]:
    if _is_usable(settings.LEMONSQUEEZY_API_BASE):
        return []
    return [
        Error(
            "LEMONSQUEEZY_API_BASE must begin with https:// and a host.",
            hint="Unset it. Only the local double, outside production, is reached by plain HTTP on this machine.",
            id="billing.E006",
        )
    ]


def _is_usable(base: str) -> bool:
    try:
        address = urlsplit(base)
    except ValueError:
        return False
    is_double = address.scheme == "http" and _is_loopback(address.hostname or "")
    return bool(address.hostname) and (address.scheme == "https" or (is_double and not settings.IS_PRODUCTION))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _mode() -> list[CheckMessage]:
    if not (settings.LEMONSQUEEZY_TEST_MODE and settings.IS_PRODUCTION):
        return []
    return [
        CheckWarning(
            "LEMONSQUEEZY_TEST_MODE is on in production: plans cost nothing.",
            hint="Turn it off when the tests are over, and set the key of the live mode.",
            id="billing.W002",
        )
    ]


def _nothing_offered() -> list[CheckMessage]:
    if PlanVariant.objects.filter(provider=PROVIDER, is_offered=True).exists():
        return []
    return [
        CheckWarning(
            "Billing is on, but no plan is on offer.",
            hint="Map what the store sells to plans: manage.py map_variant, or in the operators' console.",
            id="billing.W003",
        )
    ]


def _unmapped() -> list[CheckMessage]:
    missing = unmapped_variants()
    if not missing:
        return []
    named = ", ".join(missing[:_MOST_NAMED]) + (", …" if len(missing) > _MOST_NAMED else "")
    return [
        CheckWarning(
            f"Subscriptions are on variants that mean no plan here: {named}.",
            hint="Map them: manage.py map_variant, or in the operators' console. Until then they keep their old plan.",
            id="billing.W004",
        )
    ]
