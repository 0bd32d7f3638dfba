"""Workspaces with a ledger, and events in it, for tests that do not go through the gateway."""

import hashlib
import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import transaction

from ingest import meters, scoped_meters
from ingest.audit import LedgerReport, audit_workspace
from ingest.models import UNKNOWN, Event, Meter, WorkspacePolicy
from ingest.rollups import rebuild_rollups
from ingest.services import lock_ledger
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import QUARTER_HOUR, quarter_hour_of
from workspaces.models import ApiKey, User, Workspace

# A fixed moment in the middle of a month: tests that pass times in need no frozen clock.
NOON = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)

_number = itertools.count(1)


def make_workspace(**policy: Any) -> Workspace:
    """A workspace with a policy: 30 days of raw rows, 180 of roll-ups, unless told otherwise."""
    n = next(_number)
    workspace = Workspace.objects.create(name=f"Workspace {n}", slug=f"workspace-{n}")
    facts: dict[str, Any] = {
        "plan_tier": "starter",
        "plan_name": "Starter",
        "requests_per_minute": 300,
        "raw_retention_days": 30,
        "rollup_retention_days": 180,
    }
    WorkspacePolicy.objects.create(workspace=workspace, **facts | policy)
    return workspace


def make_user() -> User:
    return User.objects.create(email=f"person-{next(_number)}@example.com")


def make_key(workspace: Workspace, user: User) -> ApiKey:
    n = next(_number)
    digest = hashlib.sha256(str(n).encode()).digest()
    return ApiKey.objects.create(
        workspace=workspace, name=f"Key {n}", lookup=f"{n:08d}", digest=digest, created_by=user
    )


def new_event(workspace: Workspace, **fields: Any) -> Event:
    """An event that is not stored yet: real, priced at 0.01 USD, at `NOON`, received when it occurred."""
    n = next(_number)
    occurred_at = fields.get("occurred_at", NOON)
    defaults: dict[str, Any] = {
        "workspace": workspace,
        "occurred_at": occurred_at,
        "received_at": occurred_at,
        "fingerprint": n,
        "total_tokens": 150,
        "uncached_input_tokens": 70,
        "cache_read_tokens": 20,
        "cache_write_tokens": 10,
        "output_tokens": 50,
        "reasoning_tokens": 5,
        "latency_ms": 900,
        "cost_usd": Decimal("0.010000000001"),
        "external_request_id": f"ext-{n}",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "endpoint_tag": UNKNOWN,
        "prompt_version": UNKNOWN,
        "environment": "prod",
        "data_mode": "real",
        "service_tier": "standard",
        "status": "success",
        "user_id": UNKNOWN,
        "tenant_id": UNKNOWN,
        "feature_tag": UNKNOWN,
    }
    return Event(**defaults | fields)


@transaction.atomic
def store_events(events: Iterable[Event]) -> list[Event]:
    """Store events of one workspace with their roll-ups and meters."""
    stored = Event.objects.bulk_create(events)
    workspace_id = stored[0].workspace_id
    policy = lock_ledger(workspace_id)
    for bucket in sorted({quarter_hour_of(event.occurred_at) for event in stored}):
        rebuild_rollups(workspace_id, bucket, bucket + QUARTER_HOUR)
    meters.rebuild(workspace_id, policy)
    scoped_meters.rebuild(workspace_id, policy)
    return stored


def make_event(workspace: Workspace, **fields: Any) -> Event:
    """One stored event with its roll-up and meters; `fields` replace the defaults of `new_event`."""
    return store_events([new_event(workspace, **fields)])[0]


def make_events(workspace: Workspace, number: int, *, apart: timedelta = timedelta(0), **fields: Any) -> list[Event]:
    """`number` stored events, each `apart` later than the one before."""
    start = fields.pop("occurred_at", NOON)
    return store_events([new_event(workspace, occurred_at=start + n * apart, **fields) for n in range(number)])


def meter_values(workspace: Workspace) -> dict[tuple[str, str, str], Decimal]:
    """Every meter of the whole workspace that is not at zero, by measure, period and first day."""
    return {
        (meter.measure, meter.period, f"{meter.period_start:%Y-%m-%d}"): meter.value
        for meter in Meter.objects.filter(workspace=workspace, scope_kind="").exclude(value=0)
    }


def scoped_values(workspace: Workspace, kind: str) -> dict[tuple[str, str, str], tuple[Decimal, int]]:
    """USD and unpriced tokens of every meter of a dimension, by scope value, period and first day."""
    return {
        (meter.scope_value, meter.period, f"{meter.period_start:%Y-%m-%d}"): (meter.value, meter.unpriced_tokens)
        for meter in Meter.objects.filter(workspace=workspace, scope_kind=kind)
    }


def audit(workspace_id: UUID) -> LedgerReport:
    """An audit of one workspace, now."""
    return audit_workspace(workspace_id, utc_now())


def assert_exact(workspace: Workspace) -> None:
    """The ledger agrees with itself to the last digit."""
    report = audit(workspace.id)
    assert report.is_exact, report.to_json()
