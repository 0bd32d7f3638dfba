"""What a request of an endpoint or model costs on average, against the rules of a workspace."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from alerts.alert_facts import window_text
from alerts.findings import Finding
from alerts.lists import listed, short
from alerts.models import AlertKind, Rule, RuleDimension, RuleKind, Severity
from alerts.rules.told import Told, scope_of, told
from billing.selectors import features_of
from ingest.snapshots import fetch
from opsmeter_site.lib.formats import count, usd_exact, usd_fine
from opsmeter_site.lib.periods import QUARTER_HOUR, day_of, quarter_hour_of

# The running quarter hour and the four before it: the last 60 to 75 minutes.
_QUARTERS_BEFORE = 4
_METRIC = "usd_per_request"
_DRILL = {RuleDimension.ENDPOINT: "endpoint", RuleDimension.MODEL: "model"}

# The grouping inside the LATERAL keeps the planner from reading all of the table: one index range a workspace.
_UNIT_COSTS = """
SELECT policy.workspace_id, sums.value, sums.requests::bigint, sums.cost_usd
FROM ingest_workspacepolicy AS policy
CROSS JOIN LATERAL (
    SELECT {dimension} AS value, sum(requests) AS requests, sum(cost_usd) AS cost_usd
    FROM ingest_rollup
    WHERE workspace_id = policy.workspace_id AND bucket_start >= %(since)s AND bucket_start < %(until)s
        AND is_priced AND data_mode = ANY(policy.counted_data_modes)
    GROUP BY 1
) AS sums
WHERE policy.workspace_id = ANY(%(workspaces)s)
"""


@dataclass(frozen=True, slots=True)
class UnitCost:
    """What the priced requests of one endpoint or model have cost, in USD, in the last hour."""

    value: str
    requests: int
    cost_usd: Decimal

    @property
    def usd_per_request(self) -> Decimal:
        """The mean."""
        return self.cost_usd / self.requests

    def is_over(self, rule: Rule) -> bool:
        """Whether the rule says something about it; compared without a rounded quotient."""
        return self.requests >= rule.minimum_requests and self.cost_usd > rule.threshold_usd * self.requests


def hour_before(now: datetime) -> datetime:
    """The beginning of what counts as the last hour."""
    return quarter_hour_of(now) - _QUARTERS_BEFORE * QUARTER_HOUR


def unit_costs(workspace_ids: Sequence[UUID], dimension: RuleDimension, now: datetime) -> Mapping[UUID, list[UnitCost]]:
    """By workspace: each endpoint or model of the last hour, the dearest first. Counts the data that budgets count."""
    parameters = {
        "workspaces": list(workspace_ids),
        "since": hour_before(now),
        "until": quarter_hour_of(now) + QUARTER_HOUR,
    }
    found: dict[UUID, list[UnitCost]] = defaultdict(list)
    for workspace_id, *columns in fetch(_UNIT_COSTS.format(dimension=dimension.value), parameters):
        found[workspace_id].append(UnitCost(*columns))
    for costs in found.values():
        costs.sort(key=lambda cost: (-cost.usd_per_request, cost.value))
    return found


def watched_by(rule: Rule, costs: Sequence[UnitCost], siblings: Sequence[Rule]) -> list[UnitCost]:
    """Those of `costs` that the rule is about; what has a rule of its own is not the business of one about each."""
    if rule.value:
        return [cost for cost in costs if cost.value == rule.value]
    own = {each.value for each in siblings if each.dimension == rule.dimension and each.is_enabled}
    return [cost for cost in costs if cost.value not in own]


def find(workspace_ids: Sequence[UUID], now: datetime) -> list[Finding]:
    """What is dearer than a rule allows and was not told in this UTC day; one finding a rule."""
    rules = _rules(workspace_ids)
    over = []
    for dimension in (RuleDimension.ENDPOINT, RuleDimension.MODEL):
        asked = [key for key, each in rules.items() if any(rule.dimension == dimension for rule in each)]
        costs = unit_costs(asked, dimension, now) if asked else {}
        for workspace_id in costs:
            siblings = rules[workspace_id]
            for rule in (each for each in siblings if each.dimension == dimension):
                watched = watched_by(rule, costs[workspace_id], siblings)
                over.append((rule, {cost.value: cost for cost in watched if cost.is_over(rule)}))
    over = [(rule, costs) for rule, costs in over if costs]
    before = told(AlertKind.UNIT_COST, (rule.workspace_id for rule, _ in over), day_of(now).start) if over else {}
    findings = (
        _finding(rule, costs, before.get((rule.workspace_id, _subject(rule)), Told()), now) for rule, costs in over
    )
    return [finding for finding in findings if finding is not None]


def _rules(workspace_ids: Sequence[UUID]) -> dict[UUID, list[Rule]]:
    """The rules that are on, of the workspaces whose plan includes them."""
    found: dict[UUID, list[Rule]] = defaultdict(list)
    for rule in Rule.objects.filter(workspace_id__in=list(workspace_ids), kind=RuleKind.UNIT_COST, is_enabled=True):
        found[rule.workspace_id].append(rule)
    features = features_of(found)
    return {key: rules for key, rules in found.items() if key in features and features[key].has_integrations}


def _subject(rule: Rule) -> str:
    # Another threshold is another promise.
    return f"rule:{rule.pk}:{rule.threshold_usd:f}"


def _finding(rule: Rule, over: Mapping[str, UnitCost], before: Told, now: datetime) -> Finding | None:
    new = [over[value] for value in before.news(over, now)]
    if not new:
        return None
    day, since = day_of(now), hour_before(now)
    name = rule.get_dimension_display()
    lines = [f"{short(cost.value)} {usd_fine(cost.usd_per_request)} ({count(cost.requests)} requests)" for cost in new]
    dearest = new[0]
    if len(new) == 1:
        title = f"{name} {short(dearest.value)} costs {usd_fine(dearest.usd_per_request)} a request"
    else:
        title = f"{count(len(new))} {name.lower()}s cost more than {usd_exact(rule.threshold_usd)} a request"
    facts: dict[str, Any] = {
        "rule": rule.pk,
        "threshold_usd": f"{rule.threshold_usd:f}",
        "usd_per_request": f"{dearest.usd_per_request:.12f}",
        "requests": dearest.requests,
        "told": [cost.value for cost in new],
        "drill": {_DRILL[RuleDimension(rule.dimension)]: dearest.value} if len(new) == 1 else {},
    }
    return Finding(
        workspace_id=rule.workspace_id,
        kind=AlertKind.UNIT_COST,
        severity=Severity.WARNING,
        scope=scope_of(_subject(rule), before),
        metric=_METRIC,
        title=title,
        text=(
            f"Mean USD a priced request, {window_text(since, now)}, by {name.lower()}: {listed(lines)}. "
            f"The rule allows {usd_exact(rule.threshold_usd)}."
        ),
        window_start=day.start,
        window_end=day.end,
        occurred_at=now,
        facts=facts,
    )
