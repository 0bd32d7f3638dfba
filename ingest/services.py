"""Changes to a workspace's limits and policy. Each takes the workspace's ledger lock, so commits see all of it or none.

Lock order everywhere: the `WorkspacePolicy` row first, then anything else of the workspace.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import structlog
from django.db import Error, connection, transaction
from django.db.models import F, Q

from ingest import meters, recounting, scoped_meters
from ingest.models import Limit, UnpricedPolicy, WorkspacePolicy
from ingest.recounting import PreparedModes
from ingest.scope_sums import Scope
from ingest.scoped_meters import PreparedScope
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.redis import bump_epoch

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """One limit as its owner (`billing`, `budgets`) wants it; fields as those of `ingest.models.Limit`."""

    source_id: str
    name: str
    measure: str
    period: str
    amount: Decimal
    thresholds: tuple[Decimal, ...]
    enforce: bool
    scope_kind: str = ""
    scope_value: str = ""
    is_each_value: bool = False
    thresholds_usd: tuple[Decimal, ...] = ()
    unpriced: str = UnpricedPolicy.IGNORE.value
    estimate_usd_per_1m: Decimal = Decimal(0)
    raised_amount: Decimal | None = None
    raised_until: datetime | None = None


def lock_ledger(workspace_id: UUID) -> WorkspacePolicy:
    """Hold the workspace's ledger until the transaction ends. Every writer of its ledger calls this first."""
    return WorkspacePolicy.objects.select_for_update(no_key=True).get(workspace_id=workspace_id)


def prepare_scope(workspace_id: UUID, kind: str, value: str, is_each_value: bool) -> PreparedScope | None:
    """Write the meters of the scope of a limit that is about to be set; nothing if it is metered already.

    For `put_limit`, which otherwise does it under the lock, while ingest waits. Call it first in the same transaction.
    """
    return scoped_meters.prepare(workspace_id, Scope(kind, value, is_each_value)) if kind else None


def prepare_data_modes(workspace_id: UUID, counted_data_modes: Sequence[str]) -> PreparedModes | None:
    """Work out what counting these data modes changes; nothing if they are counted already.

    For `set_budget_policy`, which otherwise does it under the lock, while ingest waits. Call it first in the same
    transaction. Raises `WorkspacePolicy.DoesNotExist`.
    """
    return recounting.prepare(workspace_id, counted_data_modes)


@transaction.atomic
def put_limit(workspace_id: UUID, source: str, spec: LimitSpec, prepared: PreparedScope | None = None) -> Limit:
    """Make the limit that `source` calls `spec.source_id` say what `spec` says.

    Its scope is metered from then on, from what the ledger still has on. An unchanged amount keeps its crossings.
    `prepared` (see `prepare_scope`) only saves time.
    """
    policy = lock_ledger(workspace_id)
    values = {field.name: getattr(spec, field.name) for field in fields(spec) if field.name != "source_id"}
    limit, _ = Limit.objects.update_or_create(
        workspace_id=workspace_id,
        source=source,
        source_id=spec.source_id,
        defaults=values
        | {"thresholds": list(spec.thresholds), "thresholds_usd": list(spec.thresholds_usd), "updated_at": utc_now()},
    )
    scoped_meters.follow_limits(workspace_id, policy, prepared)
    note_limits_changed(workspace_id)
    meters.record_crossings(workspace_id, utc_now(), [limit])
    return limit


@transaction.atomic
def drop_limit(workspace_id: UUID, source: str, source_id: str) -> None:
    """Remove a limit and its crossings, if there is one; the meters of its scope, if no other limit needs them."""
    policy = lock_ledger(workspace_id)
    Limit.objects.filter(workspace_id=workspace_id, source=source, source_id=source_id).delete()
    scoped_meters.follow_limits(workspace_id, policy)
    note_limits_changed(workspace_id)


@transaction.atomic
def replace_limits(workspace_id: UUID, source: str, specs: Sequence[LimitSpec]) -> None:
    """Make `specs` the only limits that `source` has set on the workspace. Unchanged limits keep their crossings."""
    lock_ledger(workspace_id)
    for spec in specs:
        put_limit(workspace_id, source, spec)
    kept = Q(source_id__in=[spec.source_id for spec in specs])
    others = Limit.objects.filter(~kept, workspace_id=workspace_id, source=source)
    for source_id in others.values_list("source_id", flat=True):
        drop_limit(workspace_id, source, source_id)


def note_limits_changed(workspace_id: UUID) -> None:
    """Make the commit path, which keeps limits in memory, read them again. Under the ledger lock."""
    WorkspacePolicy.objects.filter(workspace_id=workspace_id).update(limits_version=F("limits_version") + 1)


def note_rewrite(workspace_id: UUID) -> None:
    """Say that stored events were changed or deleted: sums that were made before no longer hold. Under the lock."""
    WorkspacePolicy.objects.filter(workspace_id=workspace_id).update(rewrites=F("rewrites") + 1)


@transaction.atomic
def end_raises(workspace_id: UUID, now: datetime) -> int:
    """Clear the raises of the workspace that are over at `now`, and record what is crossed without; how many.

    Limits look at the clock themselves: this is for those who are to be told although no event arrives.
    """
    lock_ledger(workspace_id)
    ended = list(Limit.objects.filter(workspace_id=workspace_id, raised_until__lte=now))
    for limit in ended:
        limit.raised_amount = limit.raised_until = None
        limit.save(update_fields=["raised_amount", "raised_until"])
    if ended:
        note_limits_changed(workspace_id)
        meters.record_crossings(workspace_id, now, ended)
    return len(ended)


def end_all_raises(now: datetime) -> int:
    """`end_raises` of every workspace that has one; answers how many workspaces failed. The next run tries again."""
    over = Limit.objects.filter(raised_until__lte=now).order_by("workspace_id")
    failed = 0
    for workspace_id in list(over.values_list("workspace_id", flat=True).distinct()):
        try:
            end_raises(workspace_id, now)
        except (Error, WorkspacePolicy.DoesNotExist):
            failed += 1
            connection.close_if_unusable_or_obsolete()
            logger.exception("ending_raises_failed", workspace_id=str(workspace_id))
    return failed


@transaction.atomic
def set_plan_policy(workspace_id: UUID, **facts: Any) -> None:
    """Store the plan's part of the policy (name, tier, numbers, features); creates the policy of a new workspace."""
    WorkspacePolicy.objects.update_or_create(workspace_id=workspace_id, defaults=facts)
    transaction.on_commit(lambda: bump_epoch(workspace_id))


@transaction.atomic
def set_budget_policy(
    workspace_id: UUID,
    *,
    observe_mode: bool,
    counted_data_modes: Sequence[str],
    prepared: PreparedModes | None = None,
) -> None:
    """Store the budgets' part of the policy. A change of the counted data modes moves the USD meters.

    It also records what they have crossed then. `prepared` (see `prepare_data_modes`) only saves time.
    """
    policy = lock_ledger(workspace_id)
    changed = set(policy.counted_data_modes) ^ set(counted_data_modes)
    if changed:
        recounting.recount(workspace_id, policy, counted_data_modes, prepared)
    policy.observe_mode = observe_mode
    policy.counted_data_modes = sorted(counted_data_modes)
    policy.save(update_fields=["observe_mode", "counted_data_modes"])
    if changed:
        scoped_meters.recount_holds(workspace_id, policy, changed)
        meters.record_crossings(workspace_id, utc_now())
