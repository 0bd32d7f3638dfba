"""What operators do about summaries that did not arrive. Nobody gets anything twice."""

from datetime import datetime, timedelta

from django.db import transaction

from alerts import delivery_services
from alerts.models import DeliveryState, Report, ReportState, Schedule
from alerts.report_runs import retry_report
from alerts.report_windows import DueReport, due_until
from alerts.schedules import place, timetable_of
from opsmeter_site.lib.clock import utc_now
from workspaces.models import User
from workspaces.services import record_audit

# Two weekly reports have been due in this time, whatever the weekday and the zone.
_LONG_ENOUGH = timedelta(days=22)
_ENDED_UNSENT = (DeliveryState.FAILED, DeliveryState.CANCELLED)


def send_again(report: Report, *, acting_user: User) -> int:
    """Send a report's messages that have failed or were cancelled once more; how many."""
    unsent = report.deliveries.filter(state__in=_ENDED_UNSENT, channel__isnull=False)
    return len([delivery_services.retry(delivery, acting_user=acting_user) for delivery in unsent])


@transaction.atomic
def run_again(schedule: Schedule, *, acting_user: User) -> str:
    """See to it that the summary that was due last gets made and sent; what that took, in words."""
    stored = Schedule.objects.select_related("workspace").select_for_update(of=("self",)).get(pk=schedule.pk)
    before, last = _last_two(stored, utc_now())
    report = Report.objects.filter(schedule=stored, first_day=last.days.first_day).first()
    if report is None:
        place(stored, before.next_day).save(update_fields=["next_day", "next_due_at"])
        record_audit("summary_schedule.run_again", acting_user=acting_user, workspace=stored.workspace, target=stored)
        return "is due now"
    if report.state == ReportState.FAILED:
        retry_report(report, acting_user=acting_user)
        return "is made again"
    number = send_again(report, acting_user=acting_user)
    return f"is sent again to {number} that did not get it" if number else "was made, and nothing of it is unsent"


def _last_two(schedule: Schedule, now: datetime) -> tuple[DueReport, DueReport]:
    """The last two reports whose moment has come."""
    begin = now.date() - _LONG_ENOUGH
    *_, before, last = due_until(timetable_of(schedule), begin, now)
    return before, last
