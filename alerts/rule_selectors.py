"""What the page of rules shows: each rule with what it would say right now, by the functions that decide it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db.models import Sum

from alerts.models import Rule, RuleDimension, RuleKind
from alerts.rules import spenders, spikes, unit_cost
from ingest.models import Rollup, WorkspacePolicy
from ingest.reports import snapshot
from opsmeter_site.lib.formats import count
from opsmeter_site.lib.periods import Period, window_of
from workspaces.models import Workspace

_SUGGESTED_FROM = timedelta(days=30)
_MOST_SUGGESTED = 100


@dataclass(frozen=True, slots=True)
class Standing:
    """How a rule stands: the highest value that it sees now, whose that is, and how many are over its threshold.

    `amount_usd` is None where there is nothing to see; `note` says of what it is the figure.
    """

    rule: Rule
    who: str = ""
    amount_usd: Decimal | None = None
    note: str = ""
    over: int = 0


def standings(workspace: Workspace, now: datetime) -> list[Standing]:
    """Every rule of the workspace, in order of kind and age."""
    rules = list(Rule.objects.filter(workspace=workspace).order_by("-kind", "pk"))
    modes = WorkspacePolicy.objects.values_list("counted_data_modes", flat=True).get(pk=workspace.pk)
    unit_costs: dict[str, list[unit_cost.UnitCost]] = {}
    found = []
    with snapshot():
        for rule in rules:
            if rule.kind == RuleKind.SPENDER_OVER:
                found.append(_spender_standing(rule, modes, now))
                continue
            if rule.dimension not in unit_costs:
                read = unit_cost.unit_costs([workspace.pk], RuleDimension(rule.dimension), now)
                unit_costs[rule.dimension] = read.get(workspace.pk, [])
            found.append(_unit_cost_standing(rule, unit_costs[rule.dimension], rules))
    return found


def _unit_cost_standing(rule: Rule, costs: Sequence[unit_cost.UnitCost], rules: Sequence[Rule]) -> Standing:
    siblings = [each for each in rules if each.kind == RuleKind.UNIT_COST]
    watched = unit_cost.watched_by(rule, costs, siblings)
    enough = [cost for cost in watched if cost.requests >= rule.minimum_requests]
    if enough:
        dearest = enough[0]
        note = f"a request, {count(dearest.requests)} priced requests in the last hour"
        return Standing(rule, dearest.value, dearest.usd_per_request, note, sum(cost.is_over(rule) for cost in enough))
    most = max((cost.requests for cost in watched), default=0)
    note = f"Too few priced requests in the last hour to say: at most {count(most)}" if most else ""
    return Standing(rule, note=note)


def _spender_standing(rule: Rule, modes: Sequence[str], now: datetime) -> Standing:
    found = spenders.spenders(rule.workspace_id, rule, window_of(Period(rule.period), now), modes)
    if not found:
        return Standing(rule)
    return Standing(rule, found[0].value, found[0].cost_usd, f"this UTC {rule.period}", len(spenders.over(rule, found)))


def spike_comparison(workspace: Workspace, now: datetime) -> spikes.Comparison:
    """The last hours of the workspace against its usual ones."""
    return spikes.comparisons({workspace.pk: workspace.timezone}, now)[workspace.pk]


def suggestions(workspace_id: UUID, now: datetime) -> Mapping[str, list[str]]:
    """Endpoints and models of the last 30 days, by dimension, the most used first."""
    return {
        dimension.value: list(
            Rollup.objects.filter(workspace_id=workspace_id, bucket_start__gte=now - _SUGGESTED_FROM)
            .values(dimension.value)
            .annotate(sent=Sum("requests"))
            .order_by("-sent", dimension.value)
            .values_list(dimension.value, flat=True)[:_MOST_SUGGESTED]
        )
        for dimension in (RuleDimension.ENDPOINT, RuleDimension.MODEL)
    }


def has_traffic(rule: Rule, now: datetime) -> bool:
    """Whether anything of the last 30 days is what the rule is about."""
    rollups = Rollup.objects.filter(workspace_id=rule.workspace_id, bucket_start__gte=now - _SUGGESTED_FROM)
    return not rule.value or rollups.filter(**{rule.dimension: rule.value}).exists()
