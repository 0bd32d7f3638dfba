"""Changes to a workspace's limits and policy. Each takes the workspace's ledger lock, so commits see all of it or none.

Lock order everywhere: the `WorkspacePolicy` row first, then anything else of the workspace.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q

from ingest import meters
from ingest.models import Limit, WorkspacePolicy
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.redis import bump_epoch


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """One limit as its owner (`billing`, `budgets`) wants it; `amount` in USD or requests, `thresholds` ascending."""

    source_id: str
    name: str
    measure: str
    period: str
    amount: Decimal
    thresholds: tuple[Decimal, ...]
    enforce: bool


def lock_ledger(workspace_id: UUID) -> WorkspacePolicy:
    """Hold the workspace's ledger until the transaction ends. Every writer of its ledger calls this first."""
    return WorkspacePolicy.objects.select_for_update(no_key=True).get(workspace_id=workspace_id)


@transaction.atomic
def replace_limits(workspace_id: UUID, source: str, specs: Sequence[LimitSpec]) -> None:
    """Make `specs` the only limits that `source` has set on the workspace. Unchanged limits keep their crossings."""
    lock_ledger(workspace_id)
    for spec in specs:
        Limit.objects.update_or_create(
            workspace_id=workspace_id,
            source=source,
            source_id=spec.source_id,
            defaults={
                "name": spec.name,
                "measure": spec.measure,
                "period": spec.period,
                "amount": spec.amount,
                "thresholds": list(spec.thresholds),
                "enforce": spec.enforce,
                "updated_at": utc_now(),
            },
        )
    kept = Q(source_id__in=[spec.source_id for spec in specs])
    Limit.objects.filter(~kept, workspace_id=workspace_id, source=source).delete()
    # The commit path keeps limits in memory and reads them again only when this moved on.
    WorkspacePolicy.objects.filter(workspace_id=workspace_id).update(limits_version=F("limits_version") + 1)
    meters.record_crossings(workspace_id, utc_now())


@transaction.atomic
def set_plan_policy(workspace_id: UUID, **facts: Any) -> None:
    """Store the plan's part of the policy (name, tier, numbers, features); creates the policy of a new workspace."""
    WorkspacePolicy.objects.update_or_create(workspace_id=workspace_id, defaults=facts)
    transaction.on_commit(lambda: bump_epoch(workspace_id))


@transaction.atomic
def set_budget_policy(workspace_id: UUID, *, observe_mode: bool, counted_data_modes: Sequence[str]) -> None:
    """Store the budgets' part of the policy. A change of the counted data modes rebuilds the USD meters.

    Call `replace_limits` after it, in the same transaction: it records what the rebuilt meters have crossed.
    """
    policy = lock_ledger(workspace_id)
    modes_changed = set(policy.counted_data_modes) != set(counted_data_modes)
    policy.observe_mode = observe_mode
    policy.counted_data_modes = sorted(counted_data_modes)
    policy.save(update_fields=["observe_mode", "counted_data_modes"])
    if modes_changed:
        meters.rebuild(workspace_id, policy)
