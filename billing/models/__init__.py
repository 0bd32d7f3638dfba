"""Plans, subscriptions and the inbox of the provider's messages."""

from billing.models.inbox import BillingEvent, EventSource, EventState, Outcome
from billing.models.plans import Interval, Plan, PlanVariant, WorkspacePlan
from billing.models.subscriptions import (
    ChangeKind,
    ChangeRequest,
    ChangeState,
    Checkout,
    Invoice,
    Status,
    Subscription,
)

__all__ = [
    "BillingEvent",
    "ChangeKind",
    "ChangeRequest",
    "ChangeState",
    "Checkout",
    "EventSource",
    "EventState",
    "Interval",
    "Invoice",
    "Outcome",
    "Plan",
    "PlanVariant",
    "Status",
    "Subscription",
    "WorkspacePlan",
]
