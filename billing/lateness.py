"""What billing's operators should look at: said once, for their first page and for the lists behind it."""

from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Q

from billing.models import ChangeState, PlanVariant, Status, Subscription

# Every subscription is asked about once a day; after this long nobody asks any more.
CHECK_IS_LATE_AFTER = timedelta(days=2)
# A request is asked about after 3 minutes and given up at the next look.
REQUEST_IS_LATE_AFTER = timedelta(minutes=10)
# Messages are processed every second, and tried again with growing pauses.
EVENT_IS_LATE_AFTER = timedelta(minutes=5)

LIVE = ~Q(status__in=["", Status.EXPIRED])
"""Subscriptions that the provider can still change or charge for."""


def check_is_late(now: datetime) -> Q:
    """Subscriptions that should have been asked about long ago."""
    return Q(next_check_at__lt=now - CHECK_IS_LATE_AFTER)


def is_doubtful(now: datetime) -> Q:
    """Subscriptions whose money is late, or that should have renewed or ended by now."""
    is_over = Q(renews_at__lt=now, status__in=[Status.ACTIVE, Status.ON_TRIAL]) | Q(
        ends_at__lt=now, status=Status.CANCELLED
    )
    return is_over | Q(status__in=[Status.PAST_DUE, Status.UNPAID])


def is_paid_twice() -> Q:
    """Subscriptions that renew, of workspaces with another such one: somebody pays for nothing.

    The same rule as `billing.selectors.Standing.other_live`: a cancelled one costs nothing more.
    """
    renews = LIVE & ~Q(status=Status.CANCELLED)
    others = Subscription.objects.filter(renews, workspace_id=OuterRef("workspace_id")).exclude(pk=OuterRef("pk"))
    return renews & Q(workspace__isnull=False) & Q(Exists(others))


def is_unmapped() -> Q:
    """Live subscriptions to something that no plan is known for."""
    known = PlanVariant.objects.filter(provider=OuterRef("provider"), variant_id=OuterRef("variant_id"))
    return LIVE & ~Q(Exists(known))


def request_is_late(now: datetime) -> Q:
    """Requests that the provider has neither confirmed nor refused."""
    return Q(state=ChangeState.PENDING, requested_at__lt=now - REQUEST_IS_LATE_AFTER)
