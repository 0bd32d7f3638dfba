"""The log of messages: what was sent where, newest first, as one member may see it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from django.db.models import Count, F, OuterRef, QuerySet, Subquery

from alerts.models import UNDER_WAY, Action, Alert, Attempt, Channel, Delivery, DeliveryState
from alerts.recipients import VisibleAddresses, visible_addresses
from opsmeter_site.lib.cursors import Cursor
from opsmeter_site.lib.errors import NotFound
from workspaces.access import WorkspaceAccess
from workspaces.models import Workspace

PAGE_ROWS = 50
# A message that was held may tell a thousand alerts; more than these are only counted.
MOST_ALERTS = 100


@dataclass(frozen=True, slots=True)
class DeliveryFilters:
    """Which messages are asked for. Empty texts and None narrow nothing."""

    state: str = ""
    action: str = ""
    channel_id: UUID | None = None
    alert_id: UUID | None = None
    report_id: UUID | None = None

    @classmethod
    def read(cls, params: Mapping[str, str]) -> Self:
        """From a query string; what makes no sense narrows nothing."""
        return cls(
            state=params.get("state", "") if params.get("state") in DeliveryState.values else "",
            action=params.get("action", "") if params.get("action") in Action.values else "",
            channel_id=_uuid(params.get("channel", "")),
            alert_id=_uuid(params.get("alert", "")),
            report_id=_uuid(params.get("report", "")),
        )

    def query(self) -> dict[str, str]:
        """As they stand in an address."""
        wanted = {
            "state": self.state,
            "action": self.action,
            "channel": self.channel_id,
            "alert": self.alert_id,
            "report": self.report_id,
        }
        return {name: str(each) for name, each in wanted.items() if each}

    def conditions(self) -> dict[str, Any]:
        """For a queryset of deliveries."""
        wanted = {
            "state": self.state,
            "action": self.action,
            "channel": self.channel_id,
            "alerts": self.alert_id,
            "report": self.report_id,
        }
        return {name: each for name, each in wanted.items() if each}


@dataclass(frozen=True, slots=True)
class Line:
    """A message in the log: what it was about, where it went, and what last went wrong, in words."""

    delivery: Delivery
    about: str
    to: str
    error: str

    @property
    def is_under_way(self) -> bool:
        """Whether its state will change by itself."""
        return self.delivery.state in UNDER_WAY

    @property
    def may_be_retried(self) -> bool:
        """Whether somebody can send it again."""
        has_ended = self.delivery.state in (DeliveryState.FAILED, DeliveryState.CANCELLED)
        return has_ended and self.delivery.channel_id is not None


@dataclass(frozen=True, slots=True)
class LogPage:
    """Messages, newest first; `older` is the cursor of the next page, empty on the last."""

    lines: list[Line]
    older: str


def log_page(access: WorkspaceAccess, filters: DeliveryFilters, cursor: str = "") -> LogPage:
    """The newest messages, or those after `cursor`; a cursor that makes no sense is the first page."""
    rows = _with_words(access.workspace).filter(**filters.conditions()).order_by("-created_at", "-pk")
    if after := Cursor.decode(cursor):
        rows = rows.filter(after.beyond("created_at"))
    found = list(rows[: PAGE_ROWS + 1])
    visible = visible_addresses(access)
    lines = [_line(row, visible) for row in found[:PAGE_ROWS]]
    last = found[PAGE_ROWS - 1] if len(found) > PAGE_ROWS else None
    return LogPage(lines, Cursor(last.created_at, last.pk).encode() if last else "")


def line_of(access: WorkspaceAccess, delivery_id: UUID) -> Line:
    """One message. Raises `NotFound`."""
    row = _with_words(access.workspace).filter(pk=delivery_id).first()
    if row is None:
        raise NotFound("There is no such message.")
    return _line(row, visible_addresses(access))


def attempts_of(line: Line) -> list[Attempt]:
    """The tries at sending it, the latest first."""
    attempts = list(line.delivery.attempts.order_by("-number"))
    for attempt in attempts:
        attempt.answer = _without_address(attempt.answer, line.delivery.recipient, line.to)
    return attempts


def alerts_in(delivery: Delivery) -> list[Alert]:
    """What the message tells, the first `MOST_ALERTS` of it, in the order in which it happened."""
    return list(delivery.alerts.order_by("opened_at", "pk")[:MOST_ALERTS])


def channels_of(workspace: Workspace) -> QuerySet[Channel]:
    """The channels to choose from."""
    return workspace.channels.order_by("name")


def _with_words(workspace: Workspace) -> QuerySet[Delivery]:
    """The workspace's messages, each with how many alerts it tells and the title of the first."""
    told = Alert.objects.filter(deliveries=OuterRef("pk")).order_by("opened_at", "pk")
    number = told.order_by().values(row=F("deliveries")).annotate(number=Count("pk")).values("number")
    rows = Delivery.objects.filter(workspace=workspace).select_related("channel", "report", "about", "requested_by")
    # What a summary says is long, and not said here.
    rows = rows.defer("report__content")
    return rows.annotate(first_title=Subquery(told.values("title")[:1]), alert_number=Subquery(number))


def _line(row: Any, visible: VisibleAddresses) -> Line:
    return Line(row, _about(row), receiver(row, visible), error_text(row, visible))


def _about(row: Any) -> str:
    match row.action:
        case Action.REPORT:
            return str(row.report) if row.report else "A summary that was deleted"
        case Action.TEST:
            return "Test message"
        case Action.CHANNEL_OFF:
            return f"“{row.about.name}” was switched off" if row.about else "A channel was switched off"
    if not row.alert_number:
        return "Alerts that were deleted"
    rest = row.alert_number - 1
    more = f" and {rest} more" if rest else ""
    resolved = "Resolved: " if row.action == Action.RESOLVE else ""
    return f"{resolved}{row.first_title}{more}"


def receiver(delivery: Delivery, visible: VisibleAddresses) -> str:
    """Who or what a message goes to."""
    if delivery.recipient:
        return visible.shown(delivery.recipient)
    return delivery.channel.name if delivery.channel else "a channel that was deleted"


def error_text(delivery: Delivery, visible: VisibleAddresses) -> str:
    """Why a message did not go out last time; mail servers' answers quote addresses."""
    return _without_address(delivery.last_error, delivery.recipient, receiver(delivery, visible))


def _without_address(text: str, recipient: str, shown: str) -> str:
    """What a mail server says quotes the address: to whoever may not read it, as it is shown."""
    if not recipient or shown == recipient:
        return text
    return re.sub(re.escape(recipient), shown, text, flags=re.IGNORECASE)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
