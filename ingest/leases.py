"""Live leases for people: which there are, and giving one up by hand. Programs do this through the gateway."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import Count, F, Q, QuerySet, Sum

from ingest.models import Hold, Lease, LeaseOutcome, ScopeKind, WorkspacePolicy
from ingest.services import lock_ledger
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import NotFound
from workspaces.models import User
from workspaces.services import record_audit


@dataclass(frozen=True, slots=True)
class LiveLeases:
    """What is held in one scope: the leases that end next, how many there are in all, and their sum in USD."""

    next_to_end: Sequence[Lease]
    number: int
    usd: Decimal


def live_leases(workspace_id: UUID, kind: str, value: str, now: datetime, *, most: int) -> LiveLeases:
    """The live leases of counted data modes in a scope; an empty `value` stands for each, an empty `kind` for all."""
    leases = _live(workspace_id, now).filter(data_mode__in=_counted(workspace_id))
    if kind and value:
        leases = leases.filter(**{kind: value})
    sums = leases.aggregate(number=Count("pk"), usd=Sum("usd"))
    shown = list(leases.order_by("expires_at", "pk")[:most]) if sums["number"] else []
    return LiveLeases(shown, sums["number"], sums["usd"] or Decimal(0))


@transaction.atomic
def release_lease(workspace_id: UUID, external_request_id: str, *, acting_user: User | None) -> Lease:
    """Give up a live lease: nothing is held for its call any more. The call itself is not stopped.

    Raises `NotFound` if no live lease has this id.
    """
    try:
        policy = lock_ledger(workspace_id)
    except WorkspacePolicy.DoesNotExist:
        raise NotFound("There is no such workspace.") from None
    now = utc_now()
    found = _live(workspace_id, now).select_related("workspace").filter(external_request_id=external_request_id)
    # No id holds a NUL, and the database refuses to compare with one.
    lease = None if "\x00" in external_request_id else found.first()
    if lease is None:
        raise NotFound("There is no live lease with this id: it has been settled, released, or has expired.")
    lease.closed_at, lease.outcome = now, LeaseOutcome.RELEASED
    lease.save(update_fields=["closed_at", "outcome"])
    if lease.data_mode in policy.counted_data_modes:
        _holds(lease).update(usd=F("usd") - lease.usd, unpriced_tokens=F("unpriced_tokens") - lease.unpriced_tokens)
    record_audit(
        "lease.released",
        workspace=lease.workspace,
        acting_user=acting_user,
        target=external_request_id,
        data={"usd": f"{lease.usd:f}", "expires_at": lease.expires_at.isoformat()},
    )
    return lease


def _live(workspace_id: UUID, now: datetime) -> QuerySet[Lease]:
    return Lease.objects.filter(workspace_id=workspace_id, closed_at=None, expires_at__gt=now)


def _counted(workspace_id: UUID) -> list[str]:
    rows = WorkspacePolicy.objects.filter(workspace_id=workspace_id).values_list("counted_data_modes", flat=True)
    return rows.first() or []


def _holds(lease: Lease) -> QuerySet[Hold]:
    """The sums that the lease is part of: that of the whole workspace, and those of its scopes that have any."""
    scopes = Q(scope_kind="", scope_value="")
    for kind in ScopeKind.values:
        scopes |= Q(scope_kind=kind, scope_value=str(getattr(lease, kind)))
    return Hold.objects.filter(scopes, workspace_id=lease.workspace_id, expires_at=lease.expires_at)
