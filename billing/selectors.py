"""Reading plans."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from billing.models import WorkspacePlan


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
