"""What operators see of limits: how much each counts now, and whether it is near or over."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ingest import meters
from ingest.limits import levels_of
from ingest.models import Limit, LimitAdjustment
from ingest.services import LimitSpec, put_limit
from ingest.standings import with_standing
from tests.ledger import NOON, make_event, make_workspace
from workspaces.models import Workspace

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def workspace() -> Workspace:
    """acme spent 6 USD today and 3 yesterday, umbrella 4 today and 1M unpriced tokens."""
    workspace = make_workspace()
    make_event(workspace, tenant_id="acme", cost_usd=Decimal(6))
    make_event(workspace, tenant_id="acme", cost_usd=Decimal(3), occurred_at=NOON - DAY)
    make_event(workspace, tenant_id="umbrella", cost_usd=Decimal(4))
    make_event(workspace, tenant_id="umbrella", cost_usd=None, output_tokens=999_900)
    return workspace


@pytest.mark.parametrize(
    ("fields", "used", "standing"),
    [
        ({}, 13, "below"),
        ({"amount": Decimal(13)}, 13, "near"),
        ({"amount": Decimal("12.99")}, 13, "over"),
        ({"period": "day"}, 10, "below"),
        ({"period": "day", "thresholds_usd": (Decimal(10),)}, 10, "near"),
        ({"period": "day", "amount": Decimal(9), "thresholds_usd": (Decimal(100),)}, 10, "over"),
        ({"measure": "requests", "amount": Decimal(5)}, 4, "near"),
        ({"measure": "requests", "amount": Decimal(4)}, 4, "over"),
        ({"scope_kind": "tenant_id", "scope_value": "acme"}, 9, "below"),
        ({"scope_kind": "tenant_id", "scope_value": "nobody"}, 0, "below"),
        ({"scope_kind": "tenant_id", "scope_value": "umbrella", "estimate_usd_per_1m": Decimal(2)}, 6, "below"),
        ({"scope_kind": "tenant_id", "is_each_value": True}, 9, "below"),
        ({"scope_kind": "tenant_id", "is_each_value": True, "amount": Decimal(8)}, 9, "over"),
        ({"scope_kind": "tenant_id", "is_each_value": True, "estimate_usd_per_1m": Decimal(10)}, 14, "below"),
        ({"scope_kind": "model", "is_each_value": True, "period": "day", "amount": Decimal(10)}, 10, "near"),
        ({"amount": Decimal(5), "raised_amount": Decimal(50), "raised_until": NOON + DAY}, 13, "below"),
        ({"amount": Decimal(5), "raised_amount": Decimal(50), "raised_until": NOON}, 13, "over"),
    ],
)
def test_it_is_what_the_limit_counts(workspace: Workspace, fields: dict[str, Any], used: int, standing: str) -> None:
    limit = _put(workspace, **fields)

    found: Any = with_standing(Limit.objects.all(), NOON).get()

    assert (found.used, found.standing) == (used, standing)
    # The same rule as everywhere.
    assert found.used == max(meters.counted(limit, NOON).values(), default=0)
    levels = levels_of(limit.amount_at(NOON), limit.thresholds, limit.thresholds_usd)
    assert (standing != "below") == any(level.is_crossed(limit.measure, found.used) for level in levels[:1])


@pytest.mark.parametrize(
    ("fields", "adjusted", "used"),
    [
        ({}, {"": 5}, 18),
        ({}, {"": -4}, 9),
        ({"scope_kind": "tenant_id", "scope_value": "acme"}, {"": 5}, 14),
        ({"scope_kind": "tenant_id", "is_each_value": True}, {"umbrella": 20}, 24),
        ({"scope_kind": "tenant_id", "is_each_value": True}, {"acme": -8}, 4),
        ({"scope_kind": "tenant_id", "is_each_value": True}, {"new": 50}, 50),
    ],
)
def test_adjustments_count(workspace: Workspace, fields: dict[str, Any], adjusted: dict[str, int], used: int) -> None:
    limit = _put(workspace, **fields)
    for value, usd in adjusted.items():
        for start in (JUNE, JUNE - DAY):
            LimitAdjustment.objects.create(
                limit=limit, period_start=start, scope_value=value, usd=Decimal(usd), reason="Credit"
            )

    found: Any = with_standing(Limit.objects.all(), NOON).get()

    assert found.used == used == max(meters.counted(limit, NOON).values())


def test_one_statement_serves_many_workspaces(workspace: Workspace) -> None:
    other = make_workspace()
    make_event(other, cost_usd=Decimal(1))
    for place in (workspace, other):
        _put(place)
    with CaptureQueriesContext(connection) as queries:
        found = {limit.workspace_id: limit.used for limit in with_standing(Limit.objects.all(), NOON)}
    assert len(queries) == 1
    assert found == {workspace.id: 13, other.id: 1}


def _put(workspace: Workspace, **fields: Any) -> Limit:
    defaults: dict[str, Any] = {
        "source_id": "one",
        "name": "Budget",
        "measure": "usd",
        "period": "month",
        "amount": Decimal(100),
        "thresholds": (Decimal("0.8"), Decimal(1)),
        "enforce": False,
    }
    return put_limit(workspace.id, "budgets", LimitSpec(**defaults | fields))
