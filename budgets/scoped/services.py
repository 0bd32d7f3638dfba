"""Changing budgets on one scope, and raising or adjusting any budget: one transaction and one audit entry each.

Audit entries carry `data["budget_id"]`, which is how a budget's history is found.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from budgets.limit_specs import SOURCE, limit_spec
from budgets.models import WORKSPACE_NAMES, Budget, BudgetPeriod
from budgets.scoped.checks import LONGEST_NAME, check_adjustment, check_raise, checked, checked_change
from budgets.scoped.drafts import BudgetDraft, draft_of
from ingest.meters import record_crossings
from ingest.models import Limit, LimitAdjustment, WorkspacePolicy
from ingest.scope_words import key_names, scope_in_words
from ingest.scoped_meters import PreparedScope
from ingest.services import drop_limit, lock_ledger, note_limits_changed, prepare_scope, put_limit
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import Conflict, FieldError, NotAllowed, NotFound
from opsmeter_site.lib.periods import Period, window_of
from opsmeter_site.lib.wire import plain_number
from workspaces.models import AuditEntry, User, Workspace
from workspaces.services import record_audit

MOST_BUDGETS = 1_000

_PERIOD_WORDS = {BudgetPeriod.DAY.value: "daily", BudgetPeriod.MONTH.value: "monthly"}
_OF_SETTINGS = (
    "Amount, thresholds, enforcement and name of the whole workspace's budgets are set with its budget settings "
    "(/v1/settings/budgets)."
)


class BudgetChanged(Conflict):
    """Somebody else has changed the budget since it was shown; `now` is what it is."""

    def __init__(self, now: Budget) -> None:
        super().__init__("The budget has been changed since.")
        self.now = now


def create_budget(workspace: Workspace, draft: BudgetDraft, *, acting_user: User | None) -> Budget:
    """Store a budget; it holds from the next commit on and counts what was already spent.

    Raises `InvalidInput` with every field that is at fault (named as in `BudgetDraft`), `Conflict` for a name that is
    taken, `NotAllowed` beyond `MOST_BUDGETS`.
    """
    draft = checked(workspace.pk, draft)
    with transaction.atomic():
        # What the scope has spent is added up first: under the lock ingest would wait for it.
        prepared = prepare_scope(workspace.pk, draft.scope_kind, draft.scope_value, draft.is_each_value)
        return _create(workspace, draft, prepared, acting_user)


@transaction.atomic
def change_budget(budget: Budget, draft: BudgetDraft, *, acting_user: User | None, seen: str = "") -> Budget:
    """Make the budget say what `draft` says; scope and period cannot change. Nothing is written if nothing changes.

    With `seen` (a `version_of`) only if it still is what the person has seen; raises `BudgetChanged` otherwise.
    Of a budget of the whole workspace only what it makes of requests without a price: `Conflict` for the rest.
    Raises like `create_budget`, and `NotFound` for a budget that is gone.
    """
    budget = _locked(budget)
    if seen and version_of(budget) != seen:
        raise BudgetChanged(budget)
    if budget.is_of_workspace:
        _refuse_settings(budget, draft)
    draft = checked_change(draft_of(budget), draft)
    old = audit_values(budget)
    name = budget.name if draft.name == budget.name else _free_name(budget, draft)
    if replace(draft, name=name) == draft_of(budget):
        return budget
    _store(budget, replace(draft, name=name))
    _audit("budget.changed", budget, acting_user, old=old, new=audit_values(budget))
    return budget


@transaction.atomic
def delete_budget(budget: Budget, *, acting_user: User | None) -> None:
    """Remove a budget on a scope; leases go on, as they belong to calls.

    Raises `Conflict` for a budget of the whole workspace, `NotFound` for one that is gone.
    """
    budget = _locked(budget)
    if budget.is_of_workspace:
        raise Conflict(_OF_SETTINGS)
    drop_limit(budget.workspace_id, SOURCE, str(budget.pk))
    _audit("budget.deleted", budget, acting_user, old=audit_values(budget), new={})
    budget.delete()


@transaction.atomic
def raise_budget(
    budget: Budget, limit_usd: Decimal, until: datetime, reason: str, *, acting_user: User | None
) -> Budget:
    """Let `limit_usd` hold instead of the budget's limit until then (aware). Also budgets of the whole workspace.

    A second raise replaces the first. Raises `InvalidInput` (`limit_usd`, `until`, `reason`) and `NotFound`.
    """
    budget = _locked(budget)
    text = check_raise(budget.limit_usd, limit_usd, until, reason, utc_now())
    old = audit_values(budget)
    budget.raised_limit_usd, budget.raised_until, budget.raise_reason = limit_usd, until, text
    _save(budget)
    _audit("budget.raised", budget, acting_user, old=old, new=audit_values(budget))
    return budget


@transaction.atomic
def end_raise(budget: Budget, *, acting_user: User | None) -> Budget:
    """End a raise before its time; nothing happens if none holds. Raises `NotFound` for a budget that is gone."""
    budget = _locked(budget)
    if not budget.is_raised_at(utc_now()):
        return budget
    old = audit_values(budget)
    budget.end_raise()
    _save(budget)
    _audit("budget.raise_ended", budget, acting_user, old=old, new=audit_values(budget))
    return budget


@transaction.atomic
def adjust_budget(
    budget: Budget, usd: Decimal, reason: str, *, acting_user: User | None, scope_value: str = ""
) -> LimitAdjustment:
    """Add `usd` (below 0: take off) to what the budget counts in its running period; of one value, if on each.

    Raises `InvalidInput` (`usd`, `reason`, `scope_value`) and `NotFound` for a budget that is gone.
    """
    budget = _locked(budget)
    text, value = check_adjustment(budget.workspace_id, draft_of(budget), usd, reason, scope_value)
    now = utc_now()
    limit = Limit.objects.get(workspace=budget.workspace_id, source=SOURCE, source_id=str(budget.pk))
    adjustment = LimitAdjustment.objects.create(
        limit=limit,
        period_start=window_of(Period(budget.period), now).start,
        scope_value=value,
        usd=usd,
        reason=text,
        created_by=acting_user,
        created_at=now,
    )
    note_limits_changed(budget.workspace_id)
    record_crossings(budget.workspace_id, now, [limit])
    new = {
        "adjusted_usd": _text(usd),
        "scope_value": value,
        "period_start": adjustment.period_start.isoformat(),
        "reason": text,
    }
    _audit("budget.adjusted", budget, acting_user, old={}, new=new)
    return adjustment


def version_of(budget: Budget) -> str:
    """A short text that is the same if and only if all that the budget says is."""
    return sha256(json.dumps(audit_values(budget)).encode()).hexdigest()[:16]


def history(budget_id: UUID, workspace_id: UUID) -> "list[AuditEntry]":
    """What was done to the budget, newest first; also of one that is deleted.

    Of a budget of the whole workspace it includes the changes of the budget settings.
    """
    wanted = Q(action__startswith="budget.", data__budget_id=str(budget_id))
    if Budget.objects.filter(pk=budget_id, workspace=workspace_id, scope_kind="").exists():
        wanted |= Q(action="budgets.changed")
    entries = AuditEntry.objects.filter(wanted, workspace=workspace_id).select_related("actor")
    return list(entries.order_by("-created_at", "-pk"))


def audit_values(budget: Budget) -> dict[str, Any]:
    """What audit entries store of a budget: decimals as text."""
    values = asdict(draft_of(budget)) | {
        "raised_limit_usd": budget.raised_limit_usd,
        "raised_until": budget.raised_until,
        "raise_reason": budget.raise_reason,
    }
    return {name: _text(value) for name, value in values.items()}


def _text(value: Any) -> Any:
    """JSON keeps neither decimals nor moments."""
    match value:
        case Decimal():
            return f"{plain_number(value):f}"
        case datetime():
            return value.isoformat()
        case tuple():
            return [_text(each) for each in value]
    return value


def _create(
    workspace: Workspace, draft: BudgetDraft, prepared: PreparedScope | None, acting_user: User | None
) -> Budget:
    _lock(workspace.pk)
    if Budget.objects.filter(workspace=workspace).exclude(scope_kind="").count() >= MOST_BUDGETS:
        raise NotAllowed(f"A workspace has at most {MOST_BUDGETS:,} budgets; delete one that is no longer needed.")
    budget = Budget(workspace=workspace)
    _store(budget, replace(draft, name=_free_name(budget, draft)), prepared)
    _audit("budget.created", budget, acting_user, old={}, new=audit_values(budget))
    return budget


def _lock(workspace_id: UUID) -> None:
    try:
        lock_ledger(workspace_id)
    except WorkspacePolicy.DoesNotExist:
        raise NotFound("There is no such workspace.") from None


def _locked(budget: Budget) -> Budget:
    """The budget as it is, under the ledger lock."""
    _lock(budget.workspace_id)
    current = Budget.objects.select_related("workspace").filter(pk=budget.pk).first()
    if current is None:
        raise NotFound("There is no such budget any more.")
    return current


def _refuse_settings(budget: Budget, draft: BudgetDraft) -> None:
    stored = draft_of(budget)
    if draft != replace(stored, unpriced=draft.unpriced, estimate_usd_per_1m=draft.estimate_usd_per_1m):
        raise Conflict(_OF_SETTINGS)


def _store(budget: Budget, draft: BudgetDraft, prepared: PreparedScope | None = None) -> None:
    """Make the row and its limit say what `draft` says."""
    for name, value in asdict(draft).items():
        setattr(budget, name, list(value) if isinstance(value, tuple) else value)
    budget.end_useless_raise()
    _save(budget, prepared)


def _save(budget: Budget, prepared: PreparedScope | None = None) -> None:
    budget.updated_at = utc_now()
    budget.save()
    put_limit(budget.workspace_id, SOURCE, limit_spec(budget), prepared)


def _free_name(budget: Budget, draft: BudgetDraft) -> str:
    """The name that was chosen, or one made from scope and period. Raises `Conflict` for one that is taken."""
    others = Budget.objects.filter(workspace=budget.workspace_id).exclude(pk=budget.pk)
    taken = {name.casefold() for name in (*others.values_list("name", flat=True), *WORKSPACE_NAMES.values())}
    if not draft.name:
        return _default_name(budget.workspace_id, draft, taken)
    if draft.name.casefold() in taken:
        message = "Another budget of this workspace has this name."
        raise Conflict(message, errors=[FieldError("name", message)])
    return draft.name


def _default_name(workspace_id: UUID, draft: BudgetDraft, taken: Iterable[str]) -> str:
    """A name such as "Tenant acme, daily", shortened to fit; with a number if that one is taken."""
    # Values may hold line breaks; names, which stand in subjects of mails, may not.
    scope = re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", scope_in_words(draft, key_names(workspace_id)))
    ending = f", {_PERIOD_WORDS[draft.period]}"
    number = 1
    while True:
        tail = ending if number == 1 else f"{ending} ({number})"
        room = LONGEST_NAME - len(tail)
        name = (scope if len(scope) <= room else f"{scope[: room - 1]}…") + tail
        if name.casefold() not in taken:
            return name
        number += 1


def _audit(action: str, budget: Budget, acting_user: User | None, *, old: Any, new: Any) -> None:
    record_audit(
        action,
        workspace=budget.workspace,
        acting_user=acting_user,
        target=budget.name,
        data={"budget_id": str(budget.pk), "old": old, "new": new},
    )
