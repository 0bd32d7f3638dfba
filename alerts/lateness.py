"""What is late: said once, for the operators' first page and for the lists behind it."""

from datetime import datetime, timedelta

from django.db.models import Q

from alerts.models import UNDER_WAY

# A crossing is in the inbox within seconds; after this long it is not just about to be.
CROSSING_IS_LATE_AFTER = timedelta(minutes=5)
DELIVERY_IS_LATE_AFTER = timedelta(minutes=2)
SCHEDULE_IS_LATE_AFTER = timedelta(minutes=5)


def delivery_is_late(now: datetime) -> Q:
    """Messages that should have been tried, or whose sender was lost."""
    return Q(state__in=UNDER_WAY, next_attempt_at__lt=now - DELIVERY_IS_LATE_AFTER)


def schedule_is_late(now: datetime) -> Q:
    """Schedules whose moment has passed and that nobody has started."""
    return Q(is_enabled=True, next_due_at__lt=now - SCHEDULE_IS_LATE_AFTER)
