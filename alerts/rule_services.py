"""Changing what a workspace has watched beside its limits: each function one transaction and one audit entry."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any

from django.db import transaction

from alerts.models import AlertSettings, Rule, RuleDimension, RuleKind, RulePeriod
from alerts.rules.spikes import SpikeRule, spike_rules
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError, InvalidInput, NotFound
from workspaces.inputs import clean_text
from workspaces.models import User, Workspace
from workspaces.services import locked_workspace, record_audit

MOST_RULES = 50
MAX_USD = Decimal(10_000_000)
USD_DECIMALS = 12
MAX_FACTOR = Decimal(1_000)
FACTOR_DECIMALS = 2
USUAL_MINIMUM_REQUESTS = 20
MAX_MINIMUM_REQUESTS = 1_000_000
LONGEST_VALUE = 200

DIMENSIONS = {
    RuleKind.UNIT_COST: (RuleDimension.ENDPOINT, RuleDimension.MODEL),
    RuleKind.SPENDER_OVER: (RuleDimension.TENANT, RuleDimension.USER),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleValues:
    """All that can be set about a rule. `value` and `minimum_requests` are of unit costs, `period` is of spenders."""

    kind: str
    dimension: str
    threshold_usd: Decimal
    value: str = ""
    period: str = ""
    minimum_requests: int = USUAL_MINIMUM_REQUESTS
    is_enabled: bool = True


def values_of(rule: Rule) -> RuleValues:
    """What a stored rule says."""
    return RuleValues(**{name: getattr(rule, name) for name in RuleValues.__dataclass_fields__})


@transaction.atomic
def create_rule(workspace: Workspace, values: RuleValues, *, acting_user: User) -> Rule:
    """Store a rule. Raises `InvalidInput` with every field at fault, for a duplicate, and beyond `MOST_RULES`."""
    values = _checked(values)
    locked_workspace(workspace)
    if Rule.objects.filter(workspace=workspace).count() >= MOST_RULES:
        raise InvalidInput(f"A workspace has at most {MOST_RULES} rules. Delete one that is not needed any more.")
    _refuse_duplicate(workspace, values)
    rule = Rule.objects.create(workspace=workspace, created_by=acting_user, **asdict(values))
    _audit("alert_rule.created", rule, acting_user, _for_audit(values))
    return rule


@transaction.atomic
def update_rule(rule: Rule, values: RuleValues, *, acting_user: User) -> bool:
    """Make the rule say `values`, with the kind that it has; whether anything changed.

    Raises `InvalidInput` as `create_rule` does, and `NotFound` if the rule was deleted meanwhile.
    """
    values = _checked(replace(values, kind=rule.kind))
    locked_workspace(rule.workspace)
    stored = Rule.objects.filter(pk=rule.pk).first()
    if stored is None:
        raise NotFound("This rule has been deleted.")
    before = values_of(stored)
    if before == values:
        return False
    _refuse_duplicate(rule.workspace, values, but_for=stored.pk)
    Rule.objects.filter(pk=rule.pk).update(**asdict(values))
    stored.refresh_from_db()
    _audit("alert_rule.changed", stored, acting_user, {"old": _for_audit(before), "new": _for_audit(values)})
    return True


@transaction.atomic
def delete_rule(rule: Rule, *, acting_user: User) -> None:
    """Forget the rule; the alerts that it has made stay. Nothing happens if it is deleted already."""
    locked_workspace(rule.workspace)
    deleted, _ = Rule.objects.filter(pk=rule.pk).delete()
    if deleted:
        _audit("alert_rule.deleted", rule, acting_user, _for_audit(values_of(rule)))


@transaction.atomic
def set_spikes(workspace: Workspace, wanted: SpikeRule, *, acting_user: User) -> bool:
    """Say when spend is a spike, and whether that is watched; whether anything changed.

    Raises `InvalidInput` with every field at fault (`factor`, `minimum_usd`).
    """
    _refuse(
        [
            *_number_errors("factor", wanted.factor, MAX_FACTOR, FACTOR_DECIMALS, above=1),
            *_number_errors("minimum_usd", wanted.minimum_usd, MAX_USD, USD_DECIMALS),
        ]
    )
    locked_workspace(workspace)
    before = spike_rules([workspace.pk])[workspace.pk]
    if before == wanted:
        return False
    stored = {f"spike_{name}": value for name, value in asdict(wanted).items()}
    AlertSettings.objects.update_or_create(workspace=workspace, defaults={**stored, "updated_at": utc_now()})
    record_audit(
        "spend_spikes.changed",
        workspace=workspace,
        acting_user=acting_user,
        target=workspace.name,
        data={"old": _for_audit(before), "new": _for_audit(wanted)},
    )
    return True


# --- Checks -----------------------------------------------------------------------------------------------------------


def _checked(values: RuleValues) -> RuleValues:
    """The values as they are stored: what is of the other kind is left out. Raises `InvalidInput`."""
    errors = list(_rule_errors(values))
    _refuse(errors)
    if values.kind == RuleKind.SPENDER_OVER:
        return replace(values, value="", minimum_requests=USUAL_MINIMUM_REQUESTS)
    return replace(values, value=clean_text(values.value, "value", LONGEST_VALUE, required=False), period="")


def _rule_errors(values: RuleValues) -> Iterator[FieldError]:
    if values.kind not in RuleKind.values:
        yield FieldError("kind", f"Must be one of: {', '.join(RuleKind.values)}.")
        return
    kind = RuleKind(values.kind)
    if values.dimension not in DIMENSIONS[kind]:
        yield FieldError("dimension", f"Must be one of: {', '.join(DIMENSIONS[kind])}.")
    yield from _number_errors("threshold_usd", values.threshold_usd, MAX_USD, USD_DECIMALS)
    if kind == RuleKind.SPENDER_OVER and values.period not in RulePeriod.values:
        yield FieldError("period", f"Must be one of: {', '.join(RulePeriod.values)}.")
    if kind == RuleKind.UNIT_COST and not 1 <= values.minimum_requests <= MAX_MINIMUM_REQUESTS:
        yield FieldError("minimum_requests", f"Must be between 1 and {MAX_MINIMUM_REQUESTS:,}.")


def _number_errors(field: str, value: Decimal, most: Decimal, decimals: int, above: int = 0) -> Iterator[FieldError]:
    # The order matters: NaN cannot be compared.
    if not value.is_finite() or not above < value <= most:
        yield FieldError(field, f"Must be a number above {above} and at most {most:,}.")
    elif value != round(value, decimals):
        yield FieldError(field, f"At most {decimals} decimals.")


def _refuse(errors: list[FieldError]) -> None:
    if errors:
        raise InvalidInput(f"{errors[0].field}: {errors[0].message}", errors=errors)


def _refuse_duplicate(workspace: Workspace, values: RuleValues, but_for: int | None = None) -> None:
    """Raise `InvalidInput` if there is a rule about the same, other than the one with the id `but_for`."""
    ids = Rule.objects.filter(
        workspace=workspace,
        kind=values.kind,
        dimension=values.dimension,
        value=values.value,
        period=values.period,
    ).values_list("pk", flat=True)
    if set(ids) - {but_for}:
        message = "There is a rule about this already. Change that one."
        raise InvalidInput(message, errors=[FieldError("dimension", message)])


# --- The trail --------------------------------------------------------------------------------------------------------


def _audit(action: str, rule: Rule, acting_user: User, data: dict[str, Any]) -> None:
    record_audit(action, workspace=rule.workspace, acting_user=acting_user, target=rule, data=data)


def _for_audit(values: RuleValues | SpikeRule) -> dict[str, Any]:
    """JSON keeps no decimals, so they are written as text."""
    return {
        name: f"{value:f}" if isinstance(value, Decimal) else value
        for name, value in asdict(values).items()
        if value != ""
    }
