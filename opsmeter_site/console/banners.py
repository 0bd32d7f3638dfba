"""What every page of a workspace says first: limits near or reached, payments, and what will be deleted.

Nothing here ever blocks. The words about limits are those of the developer docs' client code, so that the console and
an application say the same.
"""

from dataclasses import dataclass
from datetime import datetime

from django.urls import reverse

from billing.models import Status
from billing.providers import is_billing_on
from billing.troubles import Troubles, troubles_of
from budgets.gauges import moment_in_words
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
    plans_url: str = ""
    """Where a larger plan can be chosen, for those who may."""


def banners_for(access: WorkspaceAccess) -> list[Banner]:
    """The banners of a workspace, the most urgent first."""
    now = utc_now()
    status = workspace_status(access.workspace.pk, now)
    troubles = troubles_of(access.workspace.pk, now)
    banners = [_plan_limit_reached(access, status)] if status.plan.is_limit_reached else []
    if troubles.status and role_includes(access.role, Role.ADMIN):
        banners.append(_payment(access, troubles, now))
    if troubles.kept_until:
        banners.append(_less_kept(access, troubles, troubles.kept_until, now))
    for budget in (status.daily, status.monthly):
        if budget.is_exceeded:
            banners.append(_budget_reached(access, status, budget))
        elif budget.is_warning:
            banners.append(_budget_warning(access, status, budget))
    return banners


# --- Payments and retention -------------------------------------------------------------------------------------------


def _payment(access: WorkspaceAccess, troubles: Troubles, now: datetime) -> Banner:
    zone, moment = access.workspace.timezone, troubles.moment
    plan = f"the {troubles.plan_name} plan" if troubles.plan_name else "the plan"
    # With its year: of a yearly subscription both moments can be many months ahead.
    when = moment_in_words(moment, zone, with_year=True) if moment else ""
    level = "bad"
    if troubles.status == Status.UNPAID:
        title = "Payment failed."
        text = f"{plan[0].upper()}{plan[1:]} is off until it is paid. Update the payment method."
    elif troubles.status == Status.PAST_DUE:
        title = "Payment failed."
        again = f"The next attempt is at {when}. " if moment and moment > now else ""
        text = f"{again}Nothing is stopped yet. Update the payment method."
    else:
        level, title = "warn", "The subscription is cancelled."
        text = f"{plan[0].upper()}{plan[1:]} stays usable until {when or 'the paid period ends'}."
    return Banner(
        key=f"billing-{troubles.status}-{moment or now:%Y-%m-%d}",
        level=level,
        title=title,
        text=text,
        url=reverse("settings-billing", args=[access.workspace.slug]),
        action="Plan and billing",
    )


def _less_kept(access: WorkspaceAccess, troubles: Troubles, kept_until: datetime, now: datetime) -> Banner:
    """For everybody, and back on the next day: what is deleted then cannot be had again."""
    return Banner(
        key=f"retention-{kept_until:%Y-%m-%d}-{now:%Y-%m-%d}",
        level="warn",
        title="Less will be kept.",
        text=(
            f"Single requests older than {troubles.announced_raw_days:,} days and sums older than "
            f"{troubles.announced_rollup_days:,} days are deleted from "
            f"{moment_in_words(kept_until, access.workspace.timezone, with_year=True)}. "
            "Export before what you want to keep."
        ),
        url=reverse("exports", args=[access.workspace.slug]),
        action="Export",
    )


# --- Limits -----------------------------------------------------------------------------------------------------------


def _plan_limit_reached(access: WorkspaceAccess, status: WorkspaceStatus) -> Banner:
    plan = status.plan
    title = "Telemetry paused. Plan limit reached." if plan.is_telemetry_paused else "Plan limit reached."
    return Banner(
        key=f"plan-{plan.window.start:%Y-%m}",
        level="bad",
        title=title,
        text=(
            f"Your LLM calls keep running; only telemetry is on hold. The {plan.name} plan’s requests start again on "
            f"{plan.window.end:%-d %B} at 00:00 UTC.{_upgrade(status)}{_who_upgrades(access, status)}"
        ),
        url=reverse("docs-page", args=["limits"]),
        action="What this means",
        plans_url=_plans_url(access, status),
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
        plans_url=_plans_url(access, status),
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
        plans_url=_plans_url(access, status),
    )


_PERIODS = {"daily": "today (UTC)", "monthly": "this month (UTC)"}


def _budget_step(access: WorkspaceAccess) -> str:
    if role_includes(access.role, Role.ADMIN):
        return "Raise the budget if this spend is meant."
    return "An admin of this workspace can raise the budget."


def _upgrade(status: WorkspaceStatus) -> str:
    step = NEXT_PLAN.get(status.plan.tier)
    return f" Consider upgrading to {step}." if step else ""


def _who_upgrades(access: WorkspaceAccess, status: WorkspaceStatus) -> str:
    """For those who read of a larger plan and cannot choose it."""
    if not _upgrade(status) or role_includes(access.role, Role.ADMIN):
        return ""
    return " An admin of this workspace can."


def _plans_url(access: WorkspaceAccess, status: WorkspaceStatus) -> str:
    """Where the upgrade that the text suggests is made; empty for those who cannot make it."""
    if not (_upgrade(status) and is_billing_on() and role_includes(access.role, Role.ADMIN)):
        return ""
    return reverse("settings-billing", args=[access.workspace.slug])
