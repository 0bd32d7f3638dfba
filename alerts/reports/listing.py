"""Reports to read: a page of them, newest first, each with what became of its messages."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Q, QuerySet

from alerts.models import UNDER_WAY, Delivery, DeliveryState, Report, ReportKind, Schedule
from alerts.schedules import plan_includes
from billing.selectors import plan_features
from opsmeter_site.lib.cursors import Cursor
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
    if after := Cursor.decode(cursor):
        reports = reports.filter(after.beyond("due_at"))
    found = list(reports.order_by("-due_at", "-pk")[: PAGE_SIZE + 1])
    last = found[PAGE_SIZE - 1] if len(found) > PAGE_SIZE else None
    return ReportPage(found[:PAGE_SIZE], Cursor(last.due_at, last.pk).encode() if last else "")


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
    """When the next summary comes; None if none is scheduled, or none that the plan includes."""
    plan = plan_features(workspace_id)
    kinds = [kind for kind in ReportKind if plan_includes(plan, kind)]
    due = Schedule.objects.filter(workspace_id=workspace_id, is_enabled=True, kind__in=kinds).order_by("next_due_at")
    return due.values_list("next_due_at", flat=True).first()


def _counted(reports: "QuerySet[Report]") -> "QuerySet[Report]":
    return reports.annotate(
        sent=Count("deliveries", filter=Q(deliveries__state=DeliveryState.SENT)),
        failed=Count("deliveries", filter=Q(deliveries__state=DeliveryState.FAILED)),
        under_way=Count("deliveries", filter=Q(deliveries__state__in=UNDER_WAY)),
    )
