"""What every page of a workspace says first when a limit is near or reached. Nothing here ever blocks.

The words are those of the developer docs' client code, so that the console and an application say the same.
"""

from dataclasses import dataclass

from django.urls import reverse

from budgets.selectors import BudgetStatus, WorkspaceStatus, workspace_status
from opsmeter_site.lib import formats
from opsmeter_site.lib.clock import utc_now
from workspaces.access import WorkspaceAccess, role_includes
from workspaces.models import Role

# The polite next step of each plan, as the toasts and banners of the client code have it.
NEXT_PLAN = {"free": "Pro", "starter": "Pro", "pro": "Team", "team": "Enterprise"}


@dataclass(frozen=True, slots=True)
class Banner:
    """One message. `key` tells it from the same one of another period, so that it can be dismissed."""

    key: str
    level: str
    title: str
    text: str
    url: str
    action: str


def banners_for(access: WorkspaceAccess) -> list[Banner]:
    """The banners of a workspace, the most urgent first."""
    status = workspace_status(access.workspace.pk, utc_now())
    banners = [_plan_limit_reached(access, status)] if status.plan.is_limit_reached else []
    for budget in (status.daily, status.monthly):
        if budget.is_exceeded:
            banners.append(_budget_reached(access, status, budget))
        elif budget.is_warning:
            banners.append(_budget_warning(access, status, budget))
    return banners


def _plan_limit_reached(access: WorkspaceAccess, status: WorkspaceStatus) -> Banner:
    plan = status.plan
    title = "Telemetry paused. Plan limit reached." if plan.is_telemetry_paused else "Plan limit reached."
    return Banner(
        key=f"plan-{plan.window.start:%Y-%m}",
        level="bad",
        title=title,
        text=(
            f"Your LLM calls keep running; only telemetry is on hold. The {plan.name} plan's requests start again on "
            f"{plan.window.end:%-d %B} at 00:00 UTC.{_upgrade(status)}"
        ),
        url=reverse("docs-page", args=["limits"]),
        action="What this means",
    )


def _budget_reached(access: WorkspaceAccess, status: WorkspaceStatus, budget: BudgetStatus) -> Banner:
    spent = f"{formats.usd(budget.spend_usd)} of {formats.usd(budget.limit_usd)}"
    return Banner(
        key=f"exceeded-{budget.period}-{budget.window.start:%Y-%m-%d}-{budget.limit_usd:f}",
        level="bad",
        title=f"Budget reached: {spent} {_PERIODS[budget.period]}.",
        text=f"Your LLM calls keep running. {_budget_step(access)}{_upgrade(status)}",
        url=reverse("settings-budgets", args=[access.workspace.slug]),
        action="Budgets",
    )


def _budget_warning(access: WorkspaceAccess, status: WorkspaceStatus, budget: BudgetStatus) -> Banner:
    spent = f"{formats.usd(budget.spend_usd)} of {formats.usd(budget.limit_usd)}"
    return Banner(
        key=f"warning-{budget.period}-{budget.window.start:%Y-%m-%d}-{budget.limit_usd:f}",
        level="warn",
        title=f"Budget warning threshold reached: {spent} {_PERIODS[budget.period]}.",
        text=f"Nothing is stopped.{_upgrade(status)}",
        url=reverse("investigate", args=[access.workspace.slug]),
        action="What changed?",
    )


_PERIODS = {"daily": "today (UTC)", "monthly": "this month (UTC)"}


def _budget_step(access: WorkspaceAccess) -> str:
    if role_includes(access.role, Role.ADMIN):
        return "Raise the budget if this spend is meant."
    return "An admin of this workspace can raise the budget."


def _upgrade(status: WorkspaceStatus) -> str:
    step = NEXT_PLAN.get(status.plan.tier)
    return f" Consider upgrading to {step}." if step else ""
