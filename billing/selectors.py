"""Reading plans, and what workspaces pay for."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db.models import Case, IntegerField, Q, When

from billing.models import (
    ChangeKind,
    ChangeRequest,
    ChangeState,
    Checkout,
    Plan,
    PlanVariant,
    Status,
    Subscription,
    WorkspacePlan,
)
from billing.providers import is_billing_on
from ingest.snapshots import snapshot
from workspaces.models import Membership, User


@dataclass(frozen=True, slots=True)
class PlanFeatures:
    """What the plan of a workspace lets it be told, and how."""

    tier: str
    name: str
    has_summaries: bool
    has_immediate_alerts: bool
    has_integrations: bool
    has_executive_report: bool


NO_PLAN = PlanFeatures("", "", False, False, False, False)


def plan_features(workspace_id: UUID) -> PlanFeatures:
    """The features of the workspace's plan; none of them without a plan."""
    return features_of([workspace_id]).get(workspace_id, NO_PLAN)


def features_of(workspace_ids: Iterable[UUID]) -> dict[UUID, PlanFeatures]:
    """The same for many workspaces, in one query; those without a plan are missing."""
    plans = WorkspacePlan.objects.filter(workspace_id__in=list(workspace_ids)).select_related("plan")
    return {
        each.workspace_id: PlanFeatures(
            each.plan.tier,
            each.plan.name,
            each.plan.has_summaries,
            each.plan.has_immediate_alerts,
            each.plan.has_integrations,
            each.plan.has_executive_report,
        )
        for each in plans
    }


# --- What a workspace pays for ----------------------------------------------------------------------------------------

# A request, or a return from a checkout, that the provider has not confirmed by then is looked into.
OVERDUE = timedelta(minutes=3)
# For how long a return from a checkout is waited for, and a request that came to nothing is shown.
REMEMBERED = timedelta(days=1)
# What `Pending.action` says of a first subscription; the others are those of `ChangeKind`.
CHECKOUT = "checkout"
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Pending:
    """What somebody asked for and the provider has not confirmed yet."""

    action: str
    """`checkout`, or one of `billing.models.ChangeKind`."""
    plan: Plan
    """Requested; of a cancellation what follows it, of a resumption what goes on."""
    interval: str
    """Of a change of plan how often it renews then, if that is another interval than now; otherwise empty."""
    requested_at: datetime
    requested_by: User | None
    is_overdue: bool
    """It should have been confirmed long ago: the provider is being asked."""
    is_unsure: bool
    """The provider did not answer properly, so it may or may not act."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a workspace is on, what it pays for, and what is on its way, at `as_of`."""

    is_billing_on: bool
    plan: Plan
    granted: Plan
    subscription: Subscription | None
    """The one that people manage here: those that renew before cancelled ones, these before ended ones; then the
    highest plan, then the newest."""
    other_live: int
    """Further subscriptions of the workspace that renew; more than none is a mistake that costs somebody money."""
    pending: Pending | None
    last_failure: ChangeRequest | None
    """The newest request, if it was refused or never confirmed, and not older than a day."""
    kept_until: datetime | None
    """Set: less will be kept from then on, `announced_raw_days` and `announced_rollup_days`."""
    announced_raw_days: int | None
    announced_rollup_days: int | None
    holding: WorkspacePlan
    people: int
    """Members of the workspace."""
    as_of: datetime

    @property
    def is_subscribed(self) -> bool:
        """Whether there is a subscription that has not ended, paid or not."""
        return self.subscription is not None and not is_over(self.subscription, self.as_of)


def is_over(subscription: Subscription, now: datetime) -> bool:
    """Whether it has ended for good: the provider says so, or the end that it named has passed."""
    if subscription.status == Status.CANCELLED:
        return subscription.ends_at is not None and subscription.ends_at <= now
    return not subscription.is_live


def standing(workspace_id: UUID, now: datetime) -> Standing:
    """Where the workspace stands with what it pays for, all of one moment.

    Five queries, however much there is to tell.
    """
    with snapshot():
        return _standing(workspace_id, now)


def _standing(workspace_id: UUID, now: datetime) -> Standing:
    holding = WorkspacePlan.objects.select_related("plan", "granted").get(workspace_id=workspace_id)
    subscriptions = _most_telling_first(workspace_id, now)
    shown = subscriptions[0] if subscriptions else None
    request = _newest_request(workspace_id)
    pending = _pending_change(request, holding, now)
    if pending is None and (shown is None or is_over(shown, now)):
        pending = _pending_checkout(workspace_id, now)
    return Standing(
        is_billing_on=is_billing_on(),
        plan=holding.plan,
        granted=holding.granted,
        subscription=shown,
        other_live=sum(_standing_order(each, now) == 0 for each in subscriptions[1:]),
        pending=pending,
        last_failure=request if request is not None and _is_recent_failure(request, now) else None,
        kept_until=holding.kept_until,
        announced_raw_days=holding.announced_raw_days,
        announced_rollup_days=holding.announced_rollup_days,
        holding=holding,
        people=Membership.objects.filter(workspace_id=workspace_id).count(),
        as_of=now,
    )


def _most_telling_first(workspace_id: UUID, now: datetime) -> list[Subscription]:
    """Those that the provider has described. In the order of `Standing.subscription`."""
    known = Subscription.objects.filter(workspace_id=workspace_id).exclude(status="").select_related("plan")
    newest_first = sorted(known, key=lambda each: each.started_at or _LONG_AGO, reverse=True)
    return sorted(newest_first, key=lambda each: (_standing_order(each, now), -each.plan.rank if each.plan else 0))


def _standing_order(subscription: Subscription, now: datetime) -> int:
    if is_over(subscription, now):
        return 2
    return 1 if subscription.status == Status.CANCELLED else 0


def _newest_request(workspace_id: UUID) -> ChangeRequest | None:
    """A pending one if there is any."""
    pending_first = Case(When(state=ChangeState.PENDING, then=0), default=1, output_field=IntegerField())
    requests = ChangeRequest.objects.filter(subscription__workspace_id=workspace_id)
    related = requests.select_related("plan", "subscription__plan", "requested_by")
    return related.order_by(pending_first, "-requested_at").first()


def _is_recent_failure(request: ChangeRequest, now: datetime) -> bool:
    failed = request.state in (ChangeState.REFUSED, ChangeState.LAPSED)
    return failed and now - (request.resolved_at or request.requested_at) <= REMEMBERED


def requested_plan(request: ChangeRequest, holding: WorkspacePlan) -> Plan:
    """What the workspace is on if `request` comes true: of a cancellation, once the paid period is over."""
    match request.kind:
        case ChangeKind.CANCEL:
            return holding.granted
        case ChangeKind.RESUME:
            return request.subscription.plan or holding.plan
    return request.plan or holding.plan


def new_interval(request: ChangeRequest) -> str:
    """How often the subscription renews if a change of plan comes true, where that differs from now."""
    return "" if request.interval == request.subscription.interval else request.interval


def _pending_change(request: ChangeRequest | None, holding: WorkspacePlan, now: datetime) -> Pending | None:
    if request is None or request.state != ChangeState.PENDING:
        return None
    return Pending(
        action=request.kind,
        plan=requested_plan(request, holding),
        interval=new_interval(request),
        requested_at=request.requested_at,
        requested_by=request.requested_by,
        is_overdue=now - request.requested_at > OVERDUE,
        is_unsure=request.is_unsure,
    )


def _pending_checkout(workspace_id: UUID, now: datetime) -> Pending | None:
    """The newest checkout that somebody came back from and that no subscription has come of yet."""
    awaited = Q(workspace_id=workspace_id, subscription=None, returned_at__gte=now - REMEMBERED)
    checkout = Checkout.objects.filter(awaited).select_related("plan", "requested_by").order_by("-returned_at").first()
    if checkout is None or checkout.returned_at is None:
        return None
    return Pending(
        action=CHECKOUT,
        plan=checkout.plan,
        interval="",
        requested_at=checkout.returned_at,
        requested_by=checkout.requested_by,
        is_overdue=now - checkout.returned_at > OVERDUE,
        is_unsure=False,
    )


@dataclass(frozen=True, slots=True)
class Offer:
    """A plan that can be chosen: the variants offered, by interval."""

    plan: Plan
    variants: dict[str, PlanVariant]


def offers() -> list[Offer]:
    """The plans with at least one offered variant, smallest first."""
    found: dict[str, Offer] = {}
    variants = PlanVariant.objects.filter(is_offered=True).select_related("plan")
    for each in variants.order_by("plan__rank", "interval"):
        offer = found.setdefault(each.plan_id, Offer(each.plan, {}))
        offer.variants[each.interval] = each
    return list(found.values())
