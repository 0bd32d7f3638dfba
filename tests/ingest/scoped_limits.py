"""A workspace that has spent in every dimension, and limits on scopes of it."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from ingest.models import Limit, MeteredScope
from ingest.services import LimitSpec, drop_limit, prepare_scope, put_limit
from tests.ledger import NOON, make_event, make_workspace
from tests.together import run_together
from workspaces.models import Workspace

CENT = Decimal("0.01")
DAY = timedelta(days=1)
ROWS_OF_KIND = {
    "endpoint_tag": ("chat", "search"),
    "tenant_id": ("acme", "umbrella"),
    "user_id": ("ann", "bob"),
    "model": ("small", "large"),
    "provider": ("openai", "google"),
    "prompt_version": ("v1", "v2"),
    "environment": ("prod", "dev"),
    "api_key_id": ("7", "8"),
}


def make_spending_workspace() -> Workspace:
    """Two values of every dimension: the first spent 3 cents over two days, the second one, and 150 tokens unpriced."""
    workspace = make_workspace()
    first, second = ({kind: values[at] for kind, values in ROWS_OF_KIND.items()} for at in (0, 1))
    make_event(workspace, cost_usd=CENT, **first)
    make_event(workspace, cost_usd=2 * CENT, occurred_at=NOON - DAY, **first)
    make_event(workspace, cost_usd=CENT, **second)
    make_event(workspace, cost_usd=None, **second)
    make_event(workspace, cost_usd=Decimal(100), data_mode="test", **first)
    return workspace


def limit_spec(kind: str, value: str = "", **more: Any) -> LimitSpec:
    fields: dict[str, Any] = {
        "source_id": f"{kind}:{value}",
        "name": "Budget",
        "measure": "usd",
        "period": "month",
        "amount": Decimal(1_000),
        "thresholds": (Decimal("0.5"), Decimal(1)),
        "enforce": True,
    }
    return LimitSpec(**fields | more, scope_kind=kind, scope_value=value)


def put(workspace: Workspace, kind: str, value: str = "", **more: Any) -> Limit:
    return put_limit(workspace.id, "budgets", limit_spec(kind, value, **more))


def put_prepared(
    workspace: Workspace, kind: str, value: str = "", *, meanwhile: Callable[[], object] | None = None, **more: Any
) -> int:
    """Set a limit as budgets do, and do something on another connection before the lock is taken.

    Answers how many times all of a scope was added up.
    """
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        prepared = prepare_scope(workspace.id, kind, value, not value)
        if meanwhile is not None:
            run_together(meanwhile)
        put_limit(workspace.id, "budgets", limit_spec(kind, value, is_each_value=not value, **more), prepared)
    return sum("INSERT INTO ingest_meter" in query["sql"] and "max(id)" in query["sql"] for query in queries)


def drop(workspace: Workspace, kind: str, value: str) -> None:
    drop_limit(workspace.id, "budgets", f"{kind}:{value}")


def metered_scopes(workspace: Workspace) -> set[tuple[Any, ...]]:
    rows = MeteredScope.objects.filter(workspace=workspace)
    return set(rows.values_list("kind", "value", "is_each_value", "counts_from"))
