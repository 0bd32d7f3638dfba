"""Changing a workspace's budgets: one function, one transaction, one audit entry.

Limits and policy travel down to `ingest`, which enforces them without asking who set them.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any, TypedDict, Unpack

from django.db import transaction

from budgets.limit_specs import SOURCE, limit_spec
from budgets.models import WORKSPACE_NAMES, Budget, BudgetPeriod, BudgetSettings, Enforcement
from budgets.scoped.checks import LIMIT_DECIMALS, MAX_LIMIT_USD, THRESHOLD_DECIMALS, number_errors
from budgets.selectors import BudgetValues, budget_values
from ingest.limits import OVER
from ingest.models import DataMode, WorkspacePolicy
from ingest.recounting import PreparedModes
from ingest.services import drop_limit, lock_ledger, prepare_data_modes, put_limit, set_budget_policy
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError, InvalidInput, NotFound
from workspaces.models import User, Workspace
from workspaces.services import record_audit

_FIELD_OF_PERIOD = {BudgetPeriod.DAY: "daily_limit_usd", BudgetPeriod.MONTH: "monthly_limit_usd"}


class BudgetChanges(TypedDict, total=False):
    """What to change; a limit of None removes the limit. USD; the threshold is a share of the limit."""

    daily_limit_usd: Decimal | None
    monthly_limit_usd: Decimal | None
    warning_threshold_ratio: Decimal
    enforcement: str
    observe_mode: bool
    counted_data_modes: Collection[str]


@dataclass(frozen=True, slots=True)
class LockedSettings:
    """A workspace's budgets, which nobody else changes until the transaction ends."""

    values: BudgetValues
    prepared: PreparedModes | None


@transaction.atomic
def update_budget_settings(
    workspace: Workspace, *, acting_user: User | None, **changes: Unpack[BudgetChanges]
) -> BudgetValues:
    """Apply `changes` and return all values as they then are. Nothing is written when nothing changes.

    Raises `InvalidInput` with every field that is at fault, named as in `BudgetChanges`, and `NotFound` for a workspace
    without a policy.
    """
    locked = lock_settings(workspace, changes.get("counted_data_modes"))
    values: dict[str, Any] = dict(changes)
    return store_settings(workspace, locked, replace(locked.values, **values), acting_user=acting_user)


def lock_settings(workspace: Workspace, counted_data_modes: Collection[str] | None) -> LockedSettings:
    """Hold the workspace's ledger to change its budgets, perhaps to ones that count these data modes.

    First in the caller's transaction. Raises `NotFound` for a workspace without a policy.
    """
    modes = list(counted_data_modes or ())
    try:
        # What other data modes add up to is worked out first: under the lock ingest would wait for it.
        prepared = None if any(_mode_errors(modes)) else prepare_data_modes(workspace.pk, modes)
        lock_ledger(workspace.pk)
    except WorkspacePolicy.DoesNotExist:
        raise NotFound("There is no such workspace.") from None
    return LockedSettings(budget_values(workspace.pk), prepared)


def store_settings(
    workspace: Workspace, locked: LockedSettings, new: BudgetValues, *, acting_user: User | None
) -> BudgetValues:
    """Make the budgets say what `new` says, after `lock_settings`; answers and raises like `update_budget_settings`."""
    # Sorted, so that order makes no difference; a repeated mode is still there for the validation to see.
    new = replace(new, counted_data_modes=tuple(sorted(new.counted_data_modes)))
    _refuse_invalid(new)
    old = locked.values
    if new == old:
        return old
    budgets = _store(workspace, new)
    # The policy first: a change of the counted data modes moves the meters that the new limits are held against.
    set_budget_policy(
        workspace.pk,
        observe_mode=new.observe_mode,
        counted_data_modes=new.counted_data_modes,
        prepared=locked.prepared,
    )
    for budget in budgets:
        put_limit(workspace.pk, SOURCE, limit_spec(budget))
    record_audit(
        "budgets.changed",
        workspace=workspace,
        acting_user=acting_user,
        target=workspace.name,
        data={"old": _for_audit(old), "new": _for_audit(new)},
    )
    return new


def _refuse_invalid(values: BudgetValues) -> None:
    errors = [
        *number_errors("daily_limit_usd", values.daily_limit_usd, MAX_LIMIT_USD, LIMIT_DECIMALS),
        *number_errors("monthly_limit_usd", values.monthly_limit_usd, MAX_LIMIT_USD, LIMIT_DECIMALS),
        *number_errors("warning_threshold_ratio", values.warning_threshold_ratio, OVER, THRESHOLD_DECIMALS),
        *_mode_errors(values.counted_data_modes),
    ]
    if values.enforcement not in Enforcement.values:
        errors.append(FieldError("enforcement", f"Must be one of: {', '.join(Enforcement.values)}."))
    if errors:
        raise InvalidInput(f"{errors[0].field}: {errors[0].message}", errors=errors)


def _mode_errors(modes: Sequence[str]) -> Iterator[FieldError]:
    if not modes:
        yield FieldError("counted_data_modes", "Name at least one data mode.")
    if len(set(modes)) != len(modes):
        yield FieldError("counted_data_modes", "Name each data mode once.")
    if not set(modes) <= set(DataMode.values):
        yield FieldError("counted_data_modes", f"Each must be one of: {', '.join(DataMode.values)}.")


def _store(workspace: Workspace, values: BudgetValues) -> list[Budget]:
    """Make the rows say what `values` say; a budget that exists keeps its id, and with it its crossings."""
    budgets = []
    warning = values.warning_threshold_ratio
    for period, field in _FIELD_OF_PERIOD.items():
        limit = getattr(values, field)
        if limit is None:
            for gone in Budget.objects.filter(workspace=workspace, scope_kind="", period=period):
                drop_limit(workspace.pk, SOURCE, str(gone.pk))
                gone.delete()
            continue
        budget = Budget.objects.filter(workspace=workspace, scope_kind="", period=period).first() or Budget(
            workspace=workspace, period=period, name=WORKSPACE_NAMES[period]
        )
        budget.limit_usd = limit
        budget.enforcement = values.enforcement
        budget.thresholds = [] if warning == OVER else [warning]
        budget.end_useless_raise()
        budget.updated_at = utc_now()
        budget.save()
        budgets.append(budget)
    BudgetSettings.objects.update_or_create(
        workspace=workspace,
        defaults={"warning_threshold_ratio": warning, "enforcement": values.enforcement, "updated_at": utc_now()},
    )
    return budgets


def _for_audit(values: BudgetValues) -> dict[str, Any]:
    """JSON keeps no decimals, so they are written as text."""
    return {
        name: f"{value:f}" if isinstance(value, Decimal) else list(value) if isinstance(value, tuple) else value
        for name, value in asdict(values).items()
    }
