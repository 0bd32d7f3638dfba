"""What every page should say about a workspace's payments and retention, read in one query."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from billing.models import Status, WorkspacePlan

_SUBSCRIPTION = "workspace__subscriptions"


@dataclass(frozen=True, slots=True)
class Troubles:
    """What needs attention; all of it empty where everything is in order."""

    status: str = ""
    """`past_due`, `unpaid` or `cancelled`: the worst of the workspace's subscriptions that have not ended."""
    plan_name: str = ""
    """Of that subscription."""
    moment: datetime | None = None
    """Past due: the next attempt at the payment. Cancelled: its end."""
    kept_until: datetime | None = None
    """Set: less will be kept from then on."""
    announced_raw_days: int | None = None
    announced_rollup_days: int | None = None


def troubles_of(workspace_id: UUID, now: datetime) -> Troubles:
    """What to tell about the workspace at `now`."""
    rows = list(
        WorkspacePlan.objects.filter(workspace_id=workspace_id).values(
            "kept_until",
            "announced_raw_days",
            "announced_rollup_days",
            *(f"{_SUBSCRIPTION}__{name}" for name in ("status", "renews_at", "ends_at", "plan__name")),
        )
    )
    if not rows:
        return Troubles()
    kept = {name: rows[0][name] for name in ("kept_until", "announced_raw_days", "announced_rollup_days")}
    live = [row for row in rows if _is_live(row, now)]
    for status, moment in ((Status.UNPAID, ""), (Status.PAST_DUE, "renews_at"), (Status.CANCELLED, "ends_at")):
        found = next((row for row in live if row[f"{_SUBSCRIPTION}__status"] == status), None)
        # A cancelled one beside another that goes on is no news to anybody.
        if found is None or (status == Status.CANCELLED and _goes_on(live)):
            continue
        return Troubles(
            status=status,
            plan_name=found[f"{_SUBSCRIPTION}__plan__name"] or "",
            moment=found[f"{_SUBSCRIPTION}__{moment}"] if moment else None,
            **kept,
        )
    return Troubles(**kept)


def _is_live(row: dict[str, Any], now: datetime) -> bool:
    status, ends_at = row[f"{_SUBSCRIPTION}__status"], row[f"{_SUBSCRIPTION}__ends_at"]
    if status == Status.CANCELLED:
        return ends_at is None or now < ends_at
    return status not in (None, "", Status.EXPIRED)


def _goes_on(live: list[dict[str, Any]]) -> bool:
    return any(row[f"{_SUBSCRIPTION}__status"] != Status.CANCELLED for row in live)
