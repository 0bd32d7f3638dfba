"""A worker that is killed while it re-prices leaves an exact ledger, and the next one goes on where it was."""

from decimal import Decimal
from typing import Any

from ingest import repricing
from ingest.models import Event, Meter, RepricingState
from ingest.scopes import ScopeKind
from ingest.services import LimitSpec, put_limit
from tests.conftest import payload
from tests.ingest.repricings import HOST, MILLION, costs, days_of, previewed, price, worked_on
from tests.killed import run_and_kill
from tests.ledger import assert_exact

EVENTS = 1_500
MODEL = "killed-midway"


def test_a_killed_worker_leaves_an_exact_ledger_and_the_next_one_finishes(client_of: Any) -> None:
    client = client_of("pro", monthly_requests=10**6, requests_per_minute=10**6)
    spec = LimitSpec(
        source_id="each",
        name="Each tenant",
        measure="usd",
        period="month",
        amount=Decimal(10**6),
        thresholds=(Decimal(1),),
        enforce=True,
        scope_kind=ScopeKind.TENANT_ID,
        is_each_value=True,
    )
    put_limit(client.workspace_id, "tests", spec)
    fields = {"provider": HOST, "model": MODEL, "inputTokens": MILLION, "outputTokens": 0}
    for start in range(0, EVENTS, 500):
        batch = [payload(tenantId=f"tenant-{number % 5}", **fields) for number in range(start, start + 500)]
        assert client.send_batch(batch).status == 200
    price(MODEL, "2")
    job = previewed(client.opened)
    repricing.run_repricing(job, acting_user=client.opened.owner)
    waiting = Event.objects.filter(workspace_id=client.workspace_id, cost_usd=None)

    run_and_kill(
        "from ingest import repricing\nrepricing.PIECE_ROWS = 2\nrepricing.work_on_repricings(60)",
        lambda: waiting.count() < EVENTS - 40,
    )

    left = waiting.count()
    assert 0 < left < EVENTS
    assert_exact(client.opened.workspace)
    job.refresh_from_db()
    assert (job.state, job.changed_rows) == (RepricingState.RUNNING, EVENTS - left)

    worked_on(job, RepricingState.DONE)
    assert set(costs(client.opened.workspace)) == {Decimal(2)}
    assert job.changed_rows == sum(rows for _, rows, *_ in days_of(job, is_preview=False)) == EVENTS
    meters = Meter.objects.filter(workspace_id=client.workspace_id, period="month", scope_kind=ScopeKind.TENANT_ID)
    assert sorted(meters.values_list("value", "unpriced_tokens")) == [(2 * EVENTS / 5, 0)] * 5
    assert_exact(client.opened.workspace)
