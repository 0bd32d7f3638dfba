"""Whether something can be asked for, as the workspace stands, and what to do if it cannot."""

from dataclasses import dataclass

from billing.models import ChangeKind, Plan, Status, Subscription
from billing.plans import effective_numbers, overrides_of
from billing.selectors import CHECKOUT, Standing, is_over
from opsmeter_site.lib.errors import OpsmeterError


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something cannot be asked for now: `reason` for machines, `message` says what to do instead."""

    reason: str
    message: str


class ChangeRefused(OpsmeterError):
    """409: what was asked for does not fit how things stand. The provider was not called."""

    status = 409

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.reason = refusal.reason


NO_SUBSCRIPTION = Refusal("no_subscription", "There is no running subscription. Start one with a checkout.")
# Of a subscription that has not ended, why there is no second one.
_ALREADY_SUBSCRIBED = "There is a subscription already. Change its plan instead."
_ALREADY_SUBSCRIBED_AND = {
    Status.CANCELLED: "There is a cancelled subscription that has not ended yet. Resume it instead.",
    Status.PAUSED: "There is a paused subscription. Ask for it to be continued instead.",
    Status.PAST_DUE: "There is a subscription whose payment is late. Update the payment method instead.",
    Status.UNPAID: "There is an unpaid subscription. Pay it with another payment method, or cancel it, instead.",
}
_NO_OTHER_PLAN = {
    Status.CANCELLED: Refusal("subscription_cancelled", "The subscription is cancelled. Resume it first."),
    Status.PAUSED: Refusal("subscription_paused", "The subscription is paused. It has to be continued first."),
    Status.PAST_DUE: Refusal("payment_past_due", "A payment is late. Update the payment method first."),
    Status.UNPAID: Refusal("payment_past_due", "A payment is open. Update the payment method first."),
}


def obstacle_to_checkout(standing: Standing) -> Refusal | None:
    """Why nobody can subscribe now; None if they can."""
    if standing.subscription is not None and standing.is_subscribed:
        message = _ALREADY_SUBSCRIBED_AND.get(Status(standing.subscription.status), _ALREADY_SUBSCRIBED)
        return Refusal("already_subscribed", message)
    return _wait_for_checkout(standing)


def obstacle_to_change(standing: Standing, plan: Plan, interval: str) -> Refusal | None:
    """Why the subscription cannot be moved to `plan` and `interval` now; None if it can.

    Whether the plan is offered is another matter. A wish that is pending counts as an obstacle to itself here.
    """
    found = _manageable(standing)
    if isinstance(found, Refusal):
        return found
    if (refusal := _NO_OTHER_PLAN.get(Status(found.status))) is not None:
        return refusal
    if found.plan_id != plan.pk:
        return _obstacle_of_seats(standing, plan)
    if found.interval == interval:
        return Refusal(
            "already_on_plan", f"The subscription is to {plan.name} with this interval already. Choose another one."
        )
    return None


def obstacle_to_cancel(standing: Standing) -> Refusal | None:
    """Why the subscription cannot be cancelled now; None if it can."""
    found = _manageable(standing)
    if isinstance(found, Refusal):
        return found
    if found.status == Status.CANCELLED:
        return Refusal("already_cancelled", "The subscription is cancelled already and ends with its paid period.")
    return None


def obstacle_to_resume(standing: Standing) -> Refusal | None:
    """Why a cancellation cannot be taken back now; None if it can."""
    found = _manageable(standing)
    if isinstance(found, Refusal):
        return found
    if found.status != Status.CANCELLED:
        return Refusal("not_cancelled", "The subscription is not cancelled, so there is nothing to resume.")
    return None


def _manageable(standing: Standing) -> Subscription | Refusal:
    pending = standing.pending
    if pending is not None and pending.action != CHECKOUT:
        asked_for = ChangeKind(pending.action).label.lower()
        message = f"A {asked_for} waits for the payment provider’s word. Try again when that has come."
        return Refusal("change_pending", message)
    if standing.subscription is None or is_over(standing.subscription, standing.as_of):
        return _wait_for_checkout(standing) or NO_SUBSCRIPTION
    return standing.subscription


def _wait_for_checkout(standing: Standing) -> Refusal | None:
    """A second purchase in these minutes would be paid twice. Later the buyer's return has proved nothing."""
    pending = standing.pending
    if pending is None or pending.action != CHECKOUT or pending.is_overdue:
        return None
    message = "A checkout was finished just now and waits for the payment provider’s word. Try again in a few minutes."
    return Refusal("change_pending", message)


def _obstacle_of_seats(standing: Standing, plan: Plan) -> Refusal | None:
    larger = max(standing.granted, plan, key=lambda each: each.rank)
    seats = effective_numbers(larger, overrides_of(standing.holding)).members
    if seats is None or standing.people <= seats:
        return None
    missing = standing.people - seats
    message = (
        f"{plan.name} includes {seats:,} people, and the workspace has {standing.people:,}. "
        f"Remove {missing:,} first, or choose a larger plan."
    )
    return Refusal("too_many_members", message)
