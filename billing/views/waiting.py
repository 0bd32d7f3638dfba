"""Waiting for the provider's word: the card of what is pending, and how it ended for whoever has seen it."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import F
from django.http import HttpRequest

from billing.models import ChangeKind, Checkout, Interval, Status
from billing.selectors import CHECKOUT, Pending, Standing, new_interval
from workspaces.models import Workspace

_QUICK, _SLOW = "2s", "15s"


def pending_state(pending: Pending | None) -> str:
    """What the card shows of it: the same text, the same card."""
    if pending is None:
        return ""
    flags = f"{int(pending.is_overdue)}{int(pending.is_unsure)}"
    return f"{pending.action}-{pending.plan.tier}-{flags}-{pending.requested_at.timestamp():.0f}"


def pending_context(standing: Standing) -> dict[str, Any]:
    """What the card's template reads."""
    pending = standing.pending
    return {
        "standing": standing,
        "pending": pending,
        "pending_state": pending_state(pending),
        "failure_interval": new_interval(standing.last_failure) if standing.last_failure else "",
        "poll_every": _SLOW if pending and pending.is_overdue else _QUICK,
    }


def follow(request: HttpRequest, workspace: Workspace, standing: Standing) -> None:
    """Say how what this person has seen pending came out, and keep in mind what is pending now."""
    name = f"billing-pending-{workspace.pk}"
    seen: dict[str, str] | None = request.session.get(name)
    now = _note(standing.pending)
    if seen == now:
        return
    if seen is not None:
        _tell(request, seen, standing)
    if now is None:
        request.session.pop(name, None)
    else:
        request.session[name] = now


def say_if_confirmed(request: HttpRequest, workspace: Workspace, checkout_id: UUID) -> None:
    """Tell a buyer who comes back after the provider's word, and so sees nothing pending, that it has come."""
    checkout = Checkout.objects.filter(
        pk=checkout_id, workspace=workspace, returned_at=None, subscription__plan=F("plan")
    ).select_related("plan")
    for each in checkout:
        messages.success(request, _CONFIRMED[CHECKOUT].format(plan=each.plan.name))


def _note(pending: Pending | None) -> dict[str, str] | None:
    if pending is None:
        return None
    return {
        "action": pending.action,
        "plan": pending.plan.name,
        "interval": pending.interval,
        "at": pending.requested_at.isoformat(),
    }


def _tell(request: HttpRequest, seen: dict[str, str], standing: Standing) -> None:
    """A success only where things stand as they were asked for; the page itself says what failed, and why."""
    if _has_come_true(seen, standing):
        renewed = f", renewed {Interval(seen['interval']).label.lower()}" if seen.get("interval") else ""
        messages.success(request, _CONFIRMED[seen["action"]].format(plan=seen["plan"], renewed=renewed))


def _has_come_true(seen: dict[str, str], standing: Standing) -> bool:
    subscription = standing.subscription
    if subscription is None:
        return False
    is_cancelled = subscription.status == Status.CANCELLED or not standing.is_subscribed
    match seen["action"]:
        case ChangeKind.CANCEL:
            return is_cancelled
        case ChangeKind.RESUME:
            return not is_cancelled
        case ChangeKind.CHANGE_PLAN:
            return subscription.plan is not None and subscription.plan.name == seen["plan"]
    return standing.is_subscribed


_CONFIRMED = {
    CHECKOUT: "The subscription is confirmed: it is for the {plan} plan.",
    ChangeKind.CHANGE_PLAN.value: "Confirmed: the subscription is for the {plan} plan now{renewed}.",
    ChangeKind.CANCEL.value: "Confirmed: the subscription is cancelled.",
    ChangeKind.RESUME.value: "Confirmed: the subscription goes on.",
}
