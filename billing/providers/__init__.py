"""The seam to whoever takes the money. There is one provider, or none: then operators set plans."""

from django.conf import settings

from billing.providers.base import BillingProvider
from billing.providers.lemonsqueezy import LemonSqueezy
from opsmeter_site.lib.errors import OpsmeterError


class BillingOff(OpsmeterError):
    """409: this installation has no billing."""

    status = 409
    reason = "billing_off"


def is_billing_on() -> bool:
    """Whether workspaces can subscribe here."""
    return bool(settings.LEMONSQUEEZY_API_KEY)


def provider() -> BillingProvider:
    """The provider of this installation. Raises `BillingOff` where there is none."""
    if not is_billing_on():
        raise BillingOff("This installation has no billing: the people who run it set plans.")
    return LemonSqueezy(
        base=settings.LEMONSQUEEZY_API_BASE,
        api_key=settings.LEMONSQUEEZY_API_KEY,
        webhook_secret=settings.LEMONSQUEEZY_WEBHOOK_SECRET,
        store_id=settings.LEMONSQUEEZY_STORE_ID,
    )
