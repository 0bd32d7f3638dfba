"""One workspace on one page, for whoever answers a customer: what is set, what is counted, what came last."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from allauth.mfa.models import Authenticator
from django.db import transaction
from django.db.models import Case, Exists, Max, OuterRef, QuerySet, Sum, When
from rest_framework.renderers import JSONRenderer

from alerts.models import Channel, Delivery, Schedule
from billing.plans import effective_numbers, overrides_of
from billing.selectors import standing
from budgets.selectors import budget_values, workspace_status
from budgets.serializers import WorkspaceStatusSerializer
from ingest.models import Event, Lease, Limit, LimitCrossing, ModelPrice, Refusal, Rollup
from ingest.selectors import range_sums
from ingest.standings import NEAR, OVER, with_standing
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import QUARTER_HOUR, quarter_hour_of
from workspaces.models import AuditEntry, Membership, User, Workspace
from workspaces.services import record_audit

LOOKED = "operator.looked_at_workspace"
# One entry says that somebody was looking; one for every click would bury the changes.
_ONE_LOOK = timedelta(hours=1)
_DAY = timedelta(days=1)
_WEEK = timedelta(days=7)
_FEW, _MANY = 20, 100


def workspace_for_support(workspace_id: UUID) -> Workspace | None:
    """The workspace with its one-to-one companions, or None."""
    companions = ("policy", "plan__plan", "plan__granted", "ledger_coverage", "ledger_audit")
    return Workspace.objects.select_related(*companions).filter(pk=workspace_id).first()


@transaction.atomic
def note_look(workspace: Workspace, operator: User) -> None:
    """Record in the workspace's audit trail that an operator looks at it: at most once an hour."""
    # The operator's lock makes two tabs opened at once one look.
    User.objects.select_for_update(no_key=True).get(pk=operator.pk)
    looks = AuditEntry.objects.filter(
        workspace=workspace, actor=operator, action=LOOKED, created_at__gt=utc_now() - _ONE_LOOK
    )
    if not looks.exists():
        record_audit(LOOKED, acting_user=operator, workspace=workspace, target=workspace)


def facts(workspace: Workspace, now: datetime) -> dict[str, Any]:
    """What the page shows of a workspace from `workspace_for_support`, at `now` (aware)."""
    until = quarter_hour_of(now) + QUARTER_HOUR
    status = WorkspaceStatusSerializer(workspace_status(workspace.pk, now)).data
    return {
        "numbers": effective_numbers(workspace.plan.plan, overrides_of(workspace.plan)),
        "billing": standing(workspace.pk, now),
        "last_day": range_sums(workspace.pk, until - _DAY, until),
        **_limits(workspace, now),
        "live_leases": Lease.objects.filter(workspace=workspace, closed_at=None, expires_at__gt=now).count(),
        "budgets": budget_values(workspace.pk),
        "status": JSONRenderer().render(status, "application/json; indent=2").decode(),
        "members": _members(workspace),
        "keys": workspace.api_keys.select_related("created_by").order_by("-created_at")[:_FEW],
        "events": Event.objects.filter(workspace=workspace).order_by("-occurred_at")[:_FEW],
        "refusals": Refusal.objects.filter(workspace=workspace).order_by("-bucket_start")[:_FEW],
        "unpriced": _unpriced(workspace, now),
        "crossings": _crossings(workspace),
        "channels": Channel.objects.filter(workspace=workspace).order_by("created_at"),
        "deliveries": _deliveries(workspace),
        "schedules": Schedule.objects.filter(workspace=workspace).order_by("kind"),
        "overrides": ModelPrice.objects.filter(workspace=workspace).order_by("-created_at")[:_FEW],
        "trail": workspace.audit_entries.select_related("actor").order_by("-created_at")[:_FEW],
    }


def _limits(workspace: Workspace, now: datetime) -> dict[str, Any]:
    """Each limit with its amount in force: those of the whole workspace, then of those on scopes the worst."""
    limits = Limit.objects.filter(workspace=workspace)
    order = Case(When(scope_kind="", then=0), When(standing=OVER, then=1), When(standing=NEAR, then=2), default=3)
    standing: Any = with_standing(limits, now)
    ordered = standing.order_by(order, "measure", "period", "-used", "name")
    return {
        "limits": [(limit, limit.amount_at(now)) for limit in ordered[:_FEW]],
        "scoped_limits": limits.exclude(scope_kind="").count(),
    }


def _members(workspace: Workspace) -> "QuerySet[Membership]":
    factors = Authenticator.objects.filter(user=OuterRef("user"), type=Authenticator.Type.TOTP)
    members = Membership.objects.filter(workspace=workspace).select_related("user")
    return members.annotate(has_mfa=Exists(factors)).order_by("created_at")[:_MANY]


def _unpriced(workspace: Workspace, now: datetime) -> "QuerySet[Rollup, Any]":
    rollups = Rollup.objects.filter(workspace=workspace, bucket_start__gte=now - _WEEK, is_priced=False)
    tokens = Sum("uncached_input_tokens") + Sum("cache_read_tokens") + Sum("cache_write_tokens") + Sum("output_tokens")
    sums = rollups.values("provider", "model").annotate(
        sum_tokens=tokens, sum_requests=Sum("requests"), last_seen=Max("bucket_start")
    )
    return sums.order_by("-sum_tokens")[:_FEW]


def _crossings(workspace: Workspace) -> "QuerySet[LimitCrossing]":
    crossings = LimitCrossing.objects.filter(limit__workspace=workspace).select_related("limit")
    return crossings.order_by("-crossed_at")[:_FEW]


def _deliveries(workspace: Workspace) -> "QuerySet[Delivery]":
    deliveries = Delivery.objects.filter(workspace=workspace).select_related("channel")
    return deliveries.order_by("-created_at")[:_FEW]
