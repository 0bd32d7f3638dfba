"""What a workspace may use: what operators granted and what its subscriptions give, pushed to where it holds.

Lock order: the `Plan` rows (shared), then the workspace's ledger (`ingest.services.lock_ledger`), then its
`WorkspacePlan`. Whoever changes a `Subscription` locks it before all of these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from billing.models import Plan, WorkspacePlan
from billing.plans import EffectiveNumbers, effective_numbers, overrides_of
from ingest import services as ledger
from ingest.models import Measure, WorkspacePolicy
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import Period
from workspaces import services as workspace_services
from workspaces.models import User

LIMIT_SOURCE = "billing"
LIMIT_SOURCE_ID = "plan"
LIMIT_THRESHOLDS = (Decimal("0.8"), Decimal(1))
# How long people are told that less will be kept before anything is deleted for it.
RETENTION_NOTICE = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class RetentionDays:
    """For how many days raw rows and quarter-hour sums are kept."""

    raw: int
    rollups: int

    def covers(self, other: "RetentionDays") -> bool:
        """Whether nothing that `other` keeps would go."""
        return self.raw >= other.raw and self.rollups >= other.rollups

    def at_least(self, other: "RetentionDays") -> "RetentionDays":
        """What both keep together."""
        return RetentionDays(max(self.raw, other.raw), max(self.rollups, other.rollups))


@transaction.atomic
def apply_plan(
    workspace_id: UUID,
    *,
    cause: Mapping[str, Any] | None = None,
    acting_user: User | None = None,
    now: datetime | None = None,
) -> WorkspacePlan:
    """Bring the workspace to the plan that it is entitled to now and push its numbers. Repeating it changes nothing.

    `cause` goes into the audit entry of a change, such as the provider's id of a subscription. `now` is the moment at
    which ends and notices are judged, without it the present one.
    """
    hold_plans()
    policy = ledger.lock_ledger(workspace_id)
    holding = WorkspacePlan.objects.select_related("plan", "granted", "workspace").get(workspace_id=workspace_id)
    return settle(holding, policy, cause=cause or {}, acting_user=acting_user, now=now)


def settle(
    holding: WorkspacePlan,
    policy: WorkspacePolicy | None,
    *,
    cause: Mapping[str, Any],
    acting_user: User | None,
    now: datetime | None = None,
) -> WorkspacePlan:
    """The same for a `holding` whose grant or own numbers were just changed, inside the caller's locks.

    `policy` is what holds until now; None for a new workspace.
    """
    now = now or utc_now()
    before = holding.plan
    holding.plan = entitled_plan(holding, now)
    numbers = effective_numbers(holding.plan, overrides_of(holding))
    if policy is not None:
        _keep_what_was_promised(holding, policy, numbers, now)
    holding.updated_at = now
    holding.save()
    _push(holding, numbers)
    if before.pk != holding.plan.pk:
        workspace_services.record_audit(
            "workspace_plan.changed",
            acting_user=acting_user,
            workspace=holding.workspace,
            target=holding,
            data={"plan": holding.plan.tier, "plan_before": before.tier, **cause},
        )
    return holding


def hold_plans() -> None:
    """Keep the facts of all plans as they are until the transaction ends; others may do the same meanwhile.

    An edit of a plan either is seen here, or comes after this workspace is on the plan and then reaches it, too.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM billing_plan FOR SHARE")


def entitled_plan(holding: WorkspacePlan, now: datetime) -> Plan:
    """The highest of what was granted and what the workspace's subscriptions give at `now`."""
    paid = holding.workspace.subscriptions.select_related("plan").exclude(plan=None)
    plans = [each.plan for each in paid if each.plan is not None and each.gives_access(now)]
    return max([holding.granted, *plans], key=lambda plan: plan.rank)


# --- Retention is never shortened without notice ----------------------------------------------------------------------


def _keep_what_was_promised(
    holding: WorkspacePlan, policy: WorkspacePolicy, numbers: EffectiveNumbers, now: datetime
) -> None:
    """Set, move on or clear the columns that hold retention up for `RETENTION_NOTICE` after a reduction.

    What holds until now is the most that anybody can rely on: the numbers of the plan, or more while a notice runs.
    """
    wanted = RetentionDays(numbers.raw_retention_days, numbers.rollup_retention_days)
    held = RetentionDays(policy.raw_retention_days, policy.rollup_retention_days)
    announced = _announced(holding)
    if wanted.covers(held):
        _clear_notice(holding)
    elif announced is None or not wanted.covers(announced):
        _start_notice(holding, held.at_least(wanted), wanted, now)
    elif _is_notice_over(holding, now):
        _clear_notice(holding)
        workspace_services.record_audit(
            "retention.shortened",
            acting_user=None,
            workspace=holding.workspace,
            target=holding,
            data={
                "old": {"raw_retention_days": held.raw, "rollup_retention_days": held.rollups},
                "new": {"raw_retention_days": wanted.raw, "rollup_retention_days": wanted.rollups},
            },
        )
    else:
        holding.announced_raw_days, holding.announced_rollup_days = wanted.raw, wanted.rollups


def _announced(holding: WorkspacePlan) -> RetentionDays | None:
    if holding.announced_raw_days is None or holding.announced_rollup_days is None:
        return None
    return RetentionDays(holding.announced_raw_days, holding.announced_rollup_days)


def _is_notice_over(holding: WorkspacePlan, now: datetime) -> bool:
    return holding.kept_until is not None and holding.kept_until <= now and holding.notice_mailed_at is not None


def _start_notice(holding: WorkspacePlan, kept: RetentionDays, announced: RetentionDays, now: datetime) -> None:
    holding.kept_raw_days, holding.kept_rollup_days = kept.raw, kept.rollups
    holding.announced_raw_days, holding.announced_rollup_days = announced.raw, announced.rollups
    holding.kept_until = now + RETENTION_NOTICE
    holding.notice_mailed_at = None


def _clear_notice(holding: WorkspacePlan) -> None:
    holding.kept_raw_days = holding.kept_rollup_days = None
    holding.announced_raw_days = holding.announced_rollup_days = None
    holding.kept_until = holding.notice_mailed_at = None


# --- Pushing ----------------------------------------------------------------------------------------------------------


def _push(holding: WorkspacePlan, numbers: EffectiveNumbers) -> None:
    workspace_id, plan = holding.workspace_id, holding.plan
    ledger.set_plan_policy(
        workspace_id,
        plan_tier=plan.tier,
        plan_name=plan.name,
        requests_per_minute=numbers.requests_per_minute,
        raw_retention_days=max(numbers.raw_retention_days, holding.kept_raw_days or 0),
        rollup_retention_days=max(numbers.rollup_retention_days, holding.kept_rollup_days or 0),
        has_price_overrides=plan.has_price_overrides,
    )
    limits = []
    if numbers.monthly_requests is not None:
        limits.append(
            ledger.LimitSpec(
                source_id=LIMIT_SOURCE_ID,
                name="Plan limit",
                measure=Measure.REQUESTS,
                period=Period.MONTH,
                amount=Decimal(numbers.monthly_requests),
                thresholds=LIMIT_THRESHOLDS,
                enforce=True,
            )
        )
    ledger.replace_limits(workspace_id, LIMIT_SOURCE, limits)
    workspace_services.set_member_limit(workspace_id, numbers.members)
