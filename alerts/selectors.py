"""Reading the inbox: its pages, its numbers, and what became of telling people."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, IntegerField, Max, Q, QuerySet, Subquery

from alerts.models import UNDER_WAY, Alert, AlertState, Delivery, DeliveryState
from opsmeter_site.lib.cursors import Cursor
from opsmeter_site.lib.errors import NotFound
from workspaces.models import Workspace

PAGE_ROWS = 30
# Beyond so many the page says "more than"; counting on would only take longer.
MOST_COUNTED = 1_000


# --- The inbox --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InboxFilters:
    """Which alerts are asked for. Empty texts and None narrow nothing."""

    state: str = AlertState.OPEN.value
    kind: str = ""
    severity: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class InboxPage:
    """Alerts, newest first, and where the pages before and after begin."""

    alerts: list[Alert]
    newer: Cursor | None
    older: Cursor | None


def inbox_page(workspace_id: UUID, filters: InboxFilters, cursor: Cursor | None = None) -> InboxPage:
    """The newest alerts, or with a cursor those beside a place in the list."""
    matching = _narrowed(workspace_id, filters).filter(state=filters.state)
    matching = matching.select_related("acknowledged_by", "resolved_by")
    if cursor is not None:
        matching = matching.filter(cursor.beyond("opened_at"))
    if cursor is not None and cursor.is_newer:
        found = list(matching.order_by("opened_at", "id")[: PAGE_ROWS + 1])
        alerts = found[:PAGE_ROWS][::-1]
        newer_is_more, older_is_more = len(found) > PAGE_ROWS, True
    else:
        found = list(matching.order_by("-opened_at", "-id")[: PAGE_ROWS + 1])
        alerts = found[:PAGE_ROWS]
        newer_is_more, older_is_more = cursor is not None, len(found) > PAGE_ROWS
    return InboxPage(
        alerts,
        Cursor(alerts[0].opened_at, alerts[0].pk, is_newer=True) if alerts and newer_is_more else None,
        Cursor(alerts[-1].opened_at, alerts[-1].pk) if alerts and older_is_more else None,
    )


def _narrowed(workspace_id: UUID, filters: InboxFilters) -> QuerySet[Alert]:
    """The workspace's alerts of whatever state."""
    wanted = {"kind": filters.kind, "severity": filters.severity, "opened_at__gte": filters.since}
    return Alert.objects.filter(workspace_id=workspace_id, **{name: each for name, each in wanted.items() if each})


class _HowMany(Subquery):
    """How many rows a query has."""

    template = "(SELECT count(*) FROM (%(subquery)s) AS found)"
    output_field = IntegerField()


def inbox_counts(workspace_id: UUID, filters: InboxFilters) -> dict[str, int]:
    """How many alerts each state has under these filters, counted to `MOST_COUNTED`."""
    matching = _narrowed(workspace_id, filters)
    row = (
        Workspace.objects.filter(pk=workspace_id)
        .values_list(*(_HowMany(matching.filter(state=state).values("pk")[:MOST_COUNTED]) for state in AlertState))
        .get()
    )
    return dict(zip(AlertState.values, row, strict=True))


def open_alerts(workspace_id: UUID) -> int:
    """How many alerts nobody has looked after yet, counted to `MOST_COUNTED`."""
    return Alert.objects.filter(workspace_id=workspace_id, state=AlertState.OPEN)[:MOST_COUNTED].count()


def has_alerts(workspace_id: UUID) -> bool:
    """Whether there has ever been one."""
    return Alert.objects.filter(workspace_id=workspace_id).exists()


def alert_of(workspace_id: UUID, alert_id: UUID) -> Alert:
    """One alert with the people who dealt with it. Raises `NotFound`."""
    alerts = Alert.objects.select_related("acknowledged_by", "resolved_by", "recovers")
    alert = alerts.filter(workspace_id=workspace_id, pk=alert_id).first()
    if alert is None:
        raise NotFound("There is no such alert.")
    return alert


def alerts_of(workspace_id: UUID, alert_ids: Collection[UUID]) -> list[Alert]:
    """Those of the alerts that are the workspace's, newest first."""
    return list(Alert.objects.filter(workspace_id=workspace_id, pk__in=alert_ids).order_by("-opened_at", "-id"))


# --- What became of telling people ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Messages:
    """The messages about one alert: how many are on their way, have arrived, and have not."""

    under_way: int = 0
    sent: int = 0
    failed: int = 0
    total: int = 0
    last_sent_at: datetime | None = None

    @property
    def is_withdrawn(self) -> bool:
        """Whether there were some, and all of them were cancelled."""
        return self.total > 0 == self.under_way + self.sent + self.failed


def messages_about(alert_ids: Collection[UUID]) -> Mapping[UUID, Messages]:
    """What became of the messages about these alerts; an empty `Messages` for those without any."""
    found: dict[UUID, Messages] = defaultdict(Messages)
    rows = (
        Delivery.objects.filter(alerts__in=list(alert_ids))
        .values_list("alerts")
        .annotate(
            under_way=Count("pk", filter=Q(state__in=UNDER_WAY)),
            sent=Count("pk", filter=Q(state=DeliveryState.SENT)),
            failed=Count("pk", filter=Q(state=DeliveryState.FAILED)),
            total=Count("pk"),
            last_sent_at=Max("sent_at"),
        )
    )
    found |= {alert_id: Messages(*numbers) for alert_id, *numbers in rows}
    return found


def deliveries_about(alert: Alert, most: int) -> list[Delivery]:
    """The first `most` messages about an alert, in the order in which they were queued."""
    return list(alert.deliveries.select_related("channel").order_by("created_at", "pk")[:most])
