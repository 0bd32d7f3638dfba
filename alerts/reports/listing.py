"""Reports to read: a page of them, newest first, each with what became of its messages."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Q, QuerySet

from alerts.models import UNDER_WAY, Delivery, DeliveryState, Report, Schedule
from opsmeter_site.lib.errors import NotFound

PAGE_SIZE = 30


@dataclass(frozen=True, slots=True)
class ReportPage:
    """Some reports, each with its numbers of messages: `sent`, `failed`, `under_way`. `older`: a cursor."""

    reports: list[Report]
    older: str


def report_page(workspace_id: UUID, kind: str, state: str, cursor: str) -> ReportPage:
    """The reports of `kind` and `state` ("": all) from `cursor` on; a cursor that makes no sense is the first page."""
    reports = _counted(Report.objects.filter(workspace_id=workspace_id)).defer("content")
    if kind:
        reports = reports.filter(kind=kind)
    if state:
        reports = reports.filter(state=state)
    after = _position(cursor)
    if after:
        due_at, pk = after
        reports = reports.filter(Q(due_at__lt=due_at) | Q(due_at=due_at, pk__lt=pk))
    found = list(reports.order_by("-due_at", "-pk")[: PAGE_SIZE + 1])
    shown = found[:PAGE_SIZE]
    return ReportPage(shown, f"{shown[-1].due_at.isoformat()}~{shown[-1].pk}" if len(found) > PAGE_SIZE else "")


def report_of(workspace_id: UUID, report_id: UUID) -> Report:
    """One report with its counts. Raises `NotFound`."""
    reports = _counted(Report.objects.filter(workspace_id=workspace_id)).select_related("workspace", "requested_by")
    report = reports.filter(pk=report_id).first()
    if report is None:
        raise NotFound("There is no such summary.")
    return report


def messages_of(report: Report) -> "QuerySet[Delivery]":
    """Its messages, the first ones first."""
    return report.deliveries.select_related("channel").order_by("created_at", "recipient", "pk")


def first_due(workspace_id: UUID) -> datetime | None:
    """When the next summary comes; None if none is scheduled."""
    due = Schedule.objects.filter(workspace_id=workspace_id, is_enabled=True).order_by("next_due_at")
    return due.values_list("next_due_at", flat=True).first()


def _counted(reports: "QuerySet[Report]") -> "QuerySet[Report]":
    return reports.annotate(
        sent=Count("deliveries", filter=Q(deliveries__state=DeliveryState.SENT)),
        failed=Count("deliveries", filter=Q(deliveries__state=DeliveryState.FAILED)),
        under_way=Count("deliveries", filter=Q(deliveries__state__in=UNDER_WAY)),
    )


def _position(cursor: str) -> tuple[datetime, UUID] | None:
    moment, _, pk = cursor.partition("~")
    try:
        due_at = datetime.fromisoformat(moment)
        return (due_at, UUID(pk)) if due_at.tzinfo else None
    except ValueError:
        return None
