"""Telling people. Every task may run twice, be killed at any time, and goes on where it was."""

from celery import shared_task

from alerts.deliveries import ALL_BUT_SUMMARIES, SUMMARIES, deliver_due
from alerts.noticing import notice_crossings
from alerts.recovery import recover
from alerts.report_runs import make_due_reports
from alerts.rules import evaluate_all
from alerts.schedules import start_due_reports
from opsmeter_site.lib.clock import utc_now

# Short enough that a stop is not waited for; the next sweep goes on. What is being sent then takes seconds more.
_DELIVER_SECONDS = 5.0
_REPORT_SECONDS = 5.0
_RULES_SECONDS = 15.0


@shared_task(name="alerts.notice")  # type: ignore[untyped-decorator]
def notice() -> None:
    """Put crossings into inboxes and on their way, and send at once."""
    if notice_crossings(utc_now()):
        deliver_due(_DELIVER_SECONDS, ALL_BUT_SUMMARIES)


@shared_task(name="alerts.deliver")  # type: ignore[untyped-decorator]
def deliver() -> None:
    """Send what is due. Summaries are sent where they are made: a morning's thousands never stand before an alert."""
    deliver_due(_DELIVER_SECONDS, ALL_BUT_SUMMARIES)


@shared_task(name="alerts.recover")  # type: ignore[untyped-decorator]
def resolve_what_is_over() -> None:
    """Resolve alerts whose period is over or whose limit was raised."""
    recover(utc_now())


@shared_task(name="alerts.evaluate_rules")  # type: ignore[untyped-decorator]
def evaluate_rules() -> None:
    """Look for spikes, unit costs, spenders, names without a price and old prices."""
    evaluate_all(utc_now(), _RULES_SECONDS)


@shared_task(name="alerts.report")  # type: ignore[untyped-decorator]
def report() -> None:
    """Start the summaries that are due, make those that are waiting, and send them."""
    start_due_reports(utc_now())
    make_due_reports(_REPORT_SECONDS)
    deliver_due(_REPORT_SECONDS, SUMMARIES)
