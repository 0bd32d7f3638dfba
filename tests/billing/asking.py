"""Requests of people as rows, and how pages of billing are read."""

from datetime import timedelta
from zoneinfo import ZoneInfo

from billing.models import ChangeKind, ChangeRequest, Plan
from opsmeter_site.lib.clock import utc_now

DAY = timedelta(days=1)
ZONE = "Europe/Berlin"
SOON = utc_now().replace(microsecond=0) + 5 * DAY


def card(main, heading):
    return main.one("section", aria_labelledby=heading)


def ask_for(subscription, kind=ChangeKind.CHANGE_PLAN, plan="team", ago=timedelta(), **stored):
    return ChangeRequest.objects.create(
        subscription=subscription,
        kind=kind,
        plan=Plan.objects.get(tier=plan) if plan else None,
        interval="month" if plan else "",
        variant_id="300" if plan else "",
        requested_at=utc_now() - ago,
        **stored,
    )


def there(moment):
    """As pages of the workspace write it."""
    return f"{moment.astimezone(ZoneInfo(ZONE)):%-d %b %Y, %H:%M}"
