"""The figures of alerts on the console's first page: what should have been told, and what is on its way."""

from datetime import datetime

from django.db.models import Count, Min, Q
from django.urls import reverse

from alerts.lateness import CROSSING_IS_LATE_AFTER, delivery_is_late, schedule_is_late
from alerts.models import UNDER_WAY, Channel, ChannelState, Delivery, DeliveryState, Report, ReportState, Schedule
from ingest.models import LimitCrossing
from opsmeter_site.lib import formats
from opsmeter_site.operators.figures import BAD, DAY, WARN, Figure


def of_crossings(now: datetime) -> list[Figure]:
    """Crossings of limits that are in no inbox yet."""
    found = LimitCrossing.objects.filter(claimed_at=None).aggregate(number=Count("pk"), oldest=Min("crossed_at"))
    oldest = found["oldest"]
    is_late = oldest is not None and now - oldest > CROSSING_IS_LATE_AFTER
    return [
        Figure(
            "Crossings without an alert",
            formats.count(found["number"]),
            f"the oldest {formats.ago(oldest, now)}" if oldest else "now",
            f"{reverse('admin:ingest_limitcrossing_changelist')}?claimed_at__isempty=1",
            BAD if is_late else "",
        )
    ]


def of_deliveries(now: datetime) -> list[Figure]:
    """Messages that wait, are being sent, and have failed."""
    found = Delivery.objects.filter(state__in=UNDER_WAY).aggregate(
        waiting=Count("pk", filter=Q(state=DeliveryState.WAITING)),
        sending=Count("pk", filter=Q(state=DeliveryState.SENDING)),
        oldest_due=Min("next_attempt_at"),
        late=Count("pk", filter=delivery_is_late(now)),
    )
    failed = Delivery.objects.filter(state=DeliveryState.FAILED, created_at__gte=now - DAY).count()
    channels_off = Channel.objects.filter(state=ChannelState.OFF).count()
    where = reverse("admin:alerts_delivery_changelist")
    oldest = found["oldest_due"]
    return [
        Figure("Messages waiting", formats.count(found["waiting"]), "now", f"{where}?state__exact=waiting"),
        Figure("Messages being sent", formats.count(found["sending"]), "now", f"{where}?state__exact=sending"),
        Figure(
            "Messages overdue",
            formats.count(found["late"]),
            f"by 2 minutes; the oldest was due {formats.ago(oldest, now)}" if found["late"] else "by 2 minutes",
            f"{where}?due=late",
            BAD if found["late"] else "",
        ),
        Figure(
            "Messages failed",
            formats.count(failed),
            "queued in the last 24 hours",
            f"{where}?state__exact=failed",
            WARN if failed else "",
        ),
        Figure(
            "Channels switched off",
            formats.count(channels_off),
            "after a permanent failure",
            f"{reverse('admin:alerts_channel_changelist')}?state__exact=off",
        ),
    ]


def of_reports(now: datetime) -> list[Figure]:
    """Summaries to be made, those that could not be, and schedules that nobody has started."""
    unmade = Q(state=ReportState.PENDING)
    failed = Q(state=ReportState.FAILED, due_at__gte=now - DAY)
    found = Report.objects.filter(unmade | failed).aggregate(
        pending=Count("pk", filter=unmade), failed=Count("pk", filter=failed)
    )
    late = Schedule.objects.filter(schedule_is_late(now)).count()
    where = reverse("admin:alerts_report_changelist")
    schedules = reverse("admin:alerts_schedule_changelist")
    return [
        Figure("Summaries to be made", formats.count(found["pending"]), "now", f"{where}?state__exact=pending"),
        Figure(
            "Summaries failed",
            formats.count(found["failed"]),
            "due in the last 24 hours",
            f"{where}?state__exact=failed",
            WARN if found["failed"] else "",
        ),
        Figure(
            "Schedules overdue",
            formats.count(late),
            "by 5 minutes",
            f"{schedules}?due=late",
            BAD if late else "",
        ),
    ]
