"""Making the reports that are due: claimed by lease, made once, handed to their recipients' deliveries.

A report is made from the ledger itself, so it need not wait for summaries (`ingest.summaries`) to be fresh.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import structlog
from django.db import transaction
from django.db.models import F, QuerySet

from alerts.channel_sets import active_channels, email_channel
from alerts.channels import MODULES
from alerts.models import Action, Channel, ChannelKind, Delivery, MailTopic, Report, ReportKind, ReportState
from alerts.recipients import mail_addresses
from alerts.report_windows import last_completed
from alerts.reports.content import build_content, is_empty
from alerts.schedules import plan_includes, schedules_of, timetable_of
from billing.selectors import plan_features
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import NotAllowed
from workspaces.models import User, Workspace
from workspaces.services import record_audit

logger = structlog.get_logger(__name__)

# Much longer than a report takes, and short enough that one whose maker was killed is not late.
LEASE = timedelta(seconds=90)
MOST_ATTEMPTS = 10
MOST_BY_HAND_AN_HOUR = 10
_CLAIMED_AT_ONCE = 4
_PAUSES = (timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=10), timedelta(minutes=30))
_HOUR = timedelta(hours=1)


def make_due_reports(seconds: float) -> int:
    """Make what is due until nothing is left or `seconds` are over; how many reports."""
    until = monotonic() + seconds
    made = 0
    while monotonic() < until:
        claimed = _claim(utc_now())
        if not claimed:
            break
        made += sum(_make(report) for report in claimed)
    return made


@transaction.atomic
def retry_report(report: Report, *, acting_user: User) -> None:
    """Make a report that was given up after all. Any other stays as it is."""
    is_reset = Report.objects.filter(pk=report.pk, state=ReportState.FAILED).update(
        state=ReportState.PENDING, next_attempt_at=utc_now(), attempts_made=0
    )
    if is_reset:
        record_audit("report.retried", acting_user=acting_user, workspace=report.workspace, target=report)


# --- By hand ----------------------------------------------------------------------------------------------------------


def make_report_now(workspace: Workspace, kind: str, user: User, *, queue_mail: bool) -> Report:
    """Make the report of the period that was over last, to look at; with `queue_mail` it goes to `user` alone.

    Raises `NotAllowed` if the plan has no such summary, or after too many in an hour.
    """
    features = plan_features(workspace.pk)
    if not plan_includes(features, kind):
        raise NotAllowed(f"The plan {features.name} has no such summary.")
    now = utc_now()
    _check_rate(workspace, user, now)
    report = _report_by_hand(workspace, ReportKind(kind), user, now)
    report.title, report.content = build_content(report)
    with transaction.atomic():
        report.save()
        if queue_mail:
            Delivery.objects.bulk_create([_mail(report, email_channel(workspace.pk), user.email)])
        label = ReportKind(kind).label.lower()
        record_audit("report.requested", acting_user=user, workspace=workspace, target=label, data={"mail": queue_mail})
    return report


def _check_rate(workspace: Workspace, user: User, now: datetime) -> None:
    lately = Report.objects.filter(workspace=workspace, schedule=None, requested_by=user, due_at__gt=now - _HOUR)
    if lately.count() >= MOST_BY_HAND_AN_HOUR:
        raise NotAllowed(f"{MOST_BY_HAND_AN_HOUR} summaries by hand an hour are enough. Try again a little later.")


def _report_by_hand(workspace: Workspace, kind: ReportKind, user: User, now: datetime) -> Report:
    schedule = next(each for each in schedules_of(workspace, now) if each.kind == kind)
    days = last_completed(timetable_of(schedule), now).days
    return Report(
        workspace=workspace,
        kind=kind,
        zone=days.zone.key,
        first_day=days.first_day,
        last_day=days.last_day,
        starts_at=days.start,
        ends_at=days.end,
        due_at=now,
        requested_by=user,
        state=ReportState.READY,
        made_at=now,
    )


# --- One report -------------------------------------------------------------------------------------------------------


@transaction.atomic
def _claim(now: datetime) -> list[Report]:
    """Some reports that nobody else makes now, oldest first. Who is slower than the lease has lost them."""
    due = Report.objects.filter(state=ReportState.PENDING, next_attempt_at__lte=now).order_by("next_attempt_at")
    reports = list(
        due.select_related("workspace", "schedule").select_for_update(skip_locked=True, of=("self",))[:_CLAIMED_AT_ONCE]
    )
    Report.objects.filter(pk__in=[report.pk for report in reports]).update(
        next_attempt_at=now + LEASE, attempts_made=F("attempts_made") + 1
    )
    for report in reports:
        report.attempts_made += 1
    return reports


def _make(report: Report) -> bool:
    """Make a claimed report; False if it failed or somebody else has taken it over."""
    try:
        title, content = build_content(report)
        return _finish(report, title, content)
    except Exception as error:  # whatever it is, it must not keep the other reports from being made
        logger.exception("report_failed", report=str(report.pk), workspace=str(report.workspace_id))
        _note_failure(report, error)
        return False


@transaction.atomic
def _finish(report: Report, title: str, content: dict[str, Any]) -> bool:
    """Store a made report and its messages, both or neither. False if this maker's lease was lost meanwhile."""
    schedule = report.schedule
    is_skipped = schedule is not None and schedule.skips_empty and is_empty(content)
    is_stored = _own(report).update(
        state=ReportState.SKIPPED if is_skipped else ReportState.READY,
        title=title,
        content=content,
        made_at=utc_now(),
        last_error="",
    )
    if is_stored and not is_skipped:
        Delivery.objects.bulk_create(_messages(report))
    return bool(is_stored)


def _note_failure(report: Report, error: Exception) -> None:
    """Try it again later, or give it up. Only the error's class is kept: its text may hold anything."""
    pause = _PAUSES[min(report.attempts_made, len(_PAUSES)) - 1]
    has_time = report.attempts_made < MOST_ATTEMPTS
    _own(report).update(
        state=ReportState.PENDING if has_time else ReportState.FAILED,
        next_attempt_at=utc_now() + pause,
        last_error=type(error).__name__,
    )


def _own(report: Report) -> "QuerySet[Report]":
    """The row of a claimed report, as long as it is this maker's."""
    return Report.objects.filter(pk=report.pk, state=ReportState.PENDING, attempts_made=report.attempts_made)


# --- Who gets it ------------------------------------------------------------------------------------------------------


def _messages(report: Report) -> Iterator[Delivery]:
    """One message to each recipient of mail, and to each other channel that takes summaries."""
    plan = plan_features(report.workspace_id)
    if not plan_includes(plan, report.kind):
        return
    for channel in active_channels(report.workspace_id):
        if not (channel.takes_summaries and MODULES[ChannelKind(channel.kind)].TAKES_SUMMARIES):
            continue
        if channel.kind == ChannelKind.EMAIL:
            for address in mail_addresses(report.workspace_id, MailTopic.SUMMARIES):
                yield _mail(report, channel, address)
        elif plan.has_integrations:
            yield _message(report, channel)


def _mail(report: Report, channel: Channel, address: str) -> Delivery:
    message = _message(report, channel)
    message.recipient, message.requested_by = address.lower(), report.requested_by
    return message


def _message(report: Report, channel: Channel) -> Delivery:
    return Delivery(
        workspace_id=report.workspace_id,
        channel=channel,
        channel_kind=channel.kind,
        action=Action.REPORT,
        report=report,
    )
