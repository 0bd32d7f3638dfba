"""Plans and workspaces as operators and new customers set them. What follows is a matter of `billing.entitlements`."""

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TypedDict, Unpack
from zoneinfo import ZoneInfo

from django.db import transaction

from billing.entitlements import apply_plan, hold_plans, settle
from billing.models import Plan, WorkspacePlan
from billing.plans import DEFAULT_PLANS, NUMBER_RANGES, Overrides, check_numbers, overrides_of
from ingest import services as ledger
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError, InvalidInput
from workspaces import services as workspace_services
from workspaces.inputs import clean_text, invalid_input
from workspaces.models import AccessToken, ApiKey, Role, Scope, User, Workspace

FIRST_PLAN = "free"
MOST_OWN_WORKSPACES = 10
_SENT_TWICE_WITHIN = timedelta(minutes=1)
_GENERATED_PASSWORD_BYTES = 12


@dataclass(frozen=True, slots=True)
class OpenedWorkspace:
    """A new workspace at the one moment when its secrets exist in plain text."""

    workspace: Workspace
    owner: User
    api_key: ApiKey
    access_token: AccessToken
    api_key_plain: str = field(repr=False)
    access_token_plain: str = field(repr=False)
    owner_password: str | None = field(repr=False)
    """None if the owner existed before: their password stays."""


class PlanChanges(TypedDict, total=False):
    """The facts of a plan that an operator may edit."""

    name: str
    monthly_requests: int | None
    requests_per_minute: int
    raw_retention_days: int
    rollup_retention_days: int
    members: int | None
    has_summaries: bool
    has_immediate_alerts: bool
    has_integrations: bool
    has_executive_report: bool
    has_price_overrides: bool


def ensure_plans() -> None:
    """Insert the default plans that are missing. Existing ones keep what operators made of them."""
    Plan.objects.bulk_create([Plan(**asdict(facts)) for facts in DEFAULT_PLANS], ignore_conflicts=True)


# --- Opening a workspace ----------------------------------------------------------------------------------------------


@transaction.atomic
def open_workspace(
    *,
    name: str,
    plan_tier: str,
    owner_email: str,
    owner_password: str | None = None,
    timezone: str | ZoneInfo = "UTC",
    monthly_requests: int | None = None,
    requests_per_minute: int | None = None,
    acting_user: User | None = None,
) -> OpenedWorkspace:
    """A workspace that is ready to take telemetry: owner, plan, limits, first API key and first access token.

    The person of that address becomes the owner; one who is new is stored with `owner_password` or a generated one.
    The two numbers replace the plan's. Raises `InvalidInput` for `name`, `plan`, `timezone`, `email`, `password`,
    `monthly_requests` or `requests_per_minute`; then nothing is stored.
    """
    overrides = Overrides(monthly_requests=monthly_requests, requests_per_minute=requests_per_minute)
    _check_overrides(overrides)
    owner, password = _owner(owner_email, owner_password, acting_user)
    workspace = workspace_services.create_workspace(name=name, owner=owner, timezone=timezone, acting_user=acting_user)
    api_key, api_key_plain = workspace_services.create_api_key(
        workspace, name="Default", created_by=owner, acting_user=acting_user
    )
    access_token, access_token_plain = workspace_services.create_access_token(
        user=owner, workspace=workspace, name="Default", scopes=Scope.values, acting_user=acting_user
    )
    _give_plan(workspace, plan_tier, overrides, acting_user)
    return OpenedWorkspace(
        workspace=workspace,
        owner=owner,
        api_key=api_key,
        access_token=access_token,
        api_key_plain=api_key_plain,
        access_token_plain=access_token_plain,
        owner_password=password,
    )


@transaction.atomic
def start_workspace(person: User, *, name: str, timezone: str | ZoneInfo) -> tuple[Workspace, str | None]:
    """A workspace that `person` opens for themselves, on the free plan, and the plain text of its first API key.

    Sent twice within a minute, the first one is answered again, without its key. Raises `InvalidInput` for `name` or
    `timezone`, or when the person owns `MOST_OWN_WORKSPACES` already.
    """
    User.objects.select_for_update(no_key=True).get(pk=person.pk)
    own = Workspace.objects.filter(memberships__user=person, memberships__role=Role.OWNER)
    just_made = own.filter(name=name.strip(), created_at__gt=utc_now() - _SENT_TWICE_WITHIN).first()
    if just_made is not None:
        return just_made, None
    if own.count() >= MOST_OWN_WORKSPACES:
        raise InvalidInput(f"You own {MOST_OWN_WORKSPACES} workspaces already. Write to us if you need more.")
    workspace = workspace_services.create_workspace(name=name, owner=person, timezone=timezone, acting_user=person)
    _, plain = workspace_services.create_api_key(workspace, name="Default", created_by=person, acting_user=person)
    _give_plan(workspace, FIRST_PLAN, Overrides(), person)
    return workspace, plain


def _give_plan(workspace: Workspace, plan_tier: str, overrides: Overrides, acting_user: User | None) -> None:
    hold_plans()
    plan = _known_plan(plan_tier)
    holding = WorkspacePlan(workspace=workspace, plan=plan, granted=plan, **_columns(overrides))
    settle(holding, None, cause={}, acting_user=acting_user)
    _record_plan(holding, "workspace_plan.set", acting_user, {"overrides": asdict(overrides)})


def _owner(email: str, password: str | None, acting_user: User | None) -> tuple[User, str | None]:
    existing = _person(email)
    if existing is not None:
        return existing, None
    if password is None:
        password = secrets.token_urlsafe(_GENERATED_PASSWORD_BYTES)
    try:
        return workspace_services.create_user(email=email, password=password, acting_user=acting_user), password
    except InvalidInput:
        # Another transaction may have stored the person since the look above.
        existing = _person(email)
        if existing is None:
            raise
        return existing, None


def _person(email: str) -> User | None:
    person = User.objects.filter(email=email.strip().lower()).first()
    if person is not None and not person.is_active:
        raise InvalidInput("Inactive person.", errors=[FieldError("email", "This person has been deactivated.")])
    return person


# --- Changing plans


@transaction.atomic
def change_workspace_plan(
    workspace: Workspace, *, plan_tier: str, overrides: Overrides | None = None, acting_user: User | None
) -> WorkspacePlan:
    """Grant the workspace a plan and, if `overrides` is given, replace its own numbers. Holds from the commit on.

    A subscription to a higher plan still counts. Raises `InvalidInput` for an unknown `plan` or a number out of range.
    """
    if overrides is not None:
        _check_overrides(overrides)
    hold_plans()
    plan = _known_plan(plan_tier)
    policy = ledger.lock_ledger(workspace.pk)
    holding = WorkspacePlan.objects.select_related("plan", "granted").get(workspace=workspace)
    before, granted_before = overrides_of(holding), holding.granted.tier
    after = before if overrides is None else overrides
    holding.granted = plan
    for column, number in _columns(after).items():
        setattr(holding, column, number)
    settle(holding, policy, cause={}, acting_user=acting_user)
    _record_plan(
        holding,
        "workspace_plan.granted",
        acting_user,
        {
            "granted": plan.tier,
            "granted_before": granted_before,
            "overrides_before": asdict(before),
            "overrides": asdict(after),
        },
    )
    return holding


@transaction.atomic
def update_plan(plan: Plan, *, acting_user: User | None, **changes: Unpack[PlanChanges]) -> Plan:
    """Edit facts of a plan and, once that is committed, push them to every workspace on it.

    Each workspace is updated in a transaction of its own, so that no ledger waits for all the others; should that be
    interrupted, saving the plan again, also unchanged, reaches the rest. Raises `InvalidInput` for the facts at fault.
    """
    stored = Plan.objects.select_for_update(no_key=True).get(pk=plan.pk)
    before = {fact: getattr(stored, fact) for fact in changes}
    for fact, value in changes.items():
        setattr(stored, fact, value)
    _check_plan(stored)
    stored.save()
    changed = {fact: [old, getattr(stored, fact)] for fact, old in before.items() if getattr(stored, fact) != old}
    workspace_services.record_audit("plan.changed", acting_user=acting_user, target=stored, data=changed)
    transaction.on_commit(lambda: _apply_to_all(stored.tier))
    return stored


def _apply_to_all(plan_tier: str) -> None:
    on_plan = WorkspacePlan.objects.filter(plan=plan_tier).order_by("pk").values_list("pk", flat=True)
    for workspace_id in on_plan:
        apply_plan(workspace_id)


# --- Checks


def _known_plan(tier: str) -> Plan:
    plan = Plan.objects.filter(tier=tier).first()
    if plan is None:
        known = ", ".join(Plan.objects.values_list("tier", flat=True))
        raise InvalidInput("Unknown plan.", errors=[FieldError("plan", f"One of: {known}.")])
    return plan


def _check_overrides(overrides: Overrides) -> None:
    errors = check_numbers(asdict(overrides))
    if errors:
        raise InvalidInput("Number out of range.", errors=errors)


def _check_plan(plan: Plan) -> None:
    plan.name = clean_text(plan.name, "name", 50)
    errors = check_numbers({name: getattr(plan, name) for name in NUMBER_RANGES})
    if not errors and plan.rollup_retention_days < plan.raw_retention_days:
        errors = [FieldError("rollup_retention_days", "Sums are kept at least as long as raw rows.")]
    if errors:
        raise InvalidInput("The plan's facts do not make sense.", errors=errors)
    with invalid_input():
        plan.full_clean()


def _columns(overrides: Overrides) -> dict[str, int | None]:
    return {f"{name}_override": number for name, number in asdict(overrides).items()}


def _record_plan(holding: WorkspacePlan, action: str, acting_user: User | None, data: Mapping[str, object]) -> None:
    workspace_services.record_audit(
        action,
        acting_user=acting_user,
        workspace=holding.workspace,
        target=holding,
        data={"plan": holding.plan.tier, **data},
    )
