"""Re-pricing while other things happen: ingest, clean-ups, failures, prices that move, and somebody who cancels."""

import itertools
import threading
from decimal import Decimal
from typing import Any

import pytest
from django.db import connections

from ingest import pricing, repricing
from ingest.cleanup import delete_rows
from ingest.models import Repricing, RepricingState
from ingest.scopes import ScopeKind
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import NotAllowed
from tests.conftest import Client, payload
from tests.factories import OperatorFactory
from tests.ingest.repricings import (
    DAY,
    HOST,
    MILLION,
    asked,
    costs,
    crossed,
    days_of,
    limit,
    previewed,
    price,
    repriced,
    run,
    send,
    todays_meters,
    worked_on,
)
from tests.ingest.scoped_limits import put_prepared
from tests.ledger import assert_exact, make_event
from tests.together import run_together
from workspaces.models import AuditEntry

_names = (f"moving-model-{number}" for number in itertools.count())


@pytest.fixture
def model() -> str:
    """A model that no price is known for yet."""
    return next(_names)


def test_ingest_goes_on_meanwhile_and_nothing_is_lost(
    client_of: Any, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of("pro", monthly_requests=10**6, requests_per_minute=10**6)
    limit(client, "1000000", scope_kind=ScopeKind.TENANT_ID, is_each_value=True)
    monkeypatch.setattr(repricing, "PIECE_ROWS", 5)
    fields = {"provider": HOST, "model": model, "inputTokens": MILLION, "outputTokens": 0}
    for _ in range(4):
        batch = [payload(tenantId=f"tenant-{number % 7}", **fields) for number in range(50)]
        assert client.send_batch(batch).status == 200
    price(model, "2")
    job = previewed(client.opened)
    repricing.run_repricing(job, acting_user=client.opened.owner)

    is_over = threading.Event()
    sent: list[int] = []

    def keep_sending(number: int) -> None:
        while not is_over.is_set():
            sent.append(client.send(tenantId=f"tenant-{number}", **fields).status)

    senders = [threading.Thread(target=keep_sending, args=(number,)) for number in range(3)]
    for sender in senders:
        sender.start()
    try:
        worked_on(job, RepricingState.DONE)
    finally:
        is_over.set()
        for sender in senders:
            sender.join()
        connections.close_all()

    assert set(sent) == {200}
    assert costs(client.opened.workspace) == [Decimal(2)] * (200 + len(sent))
    assert todays_meters(client)["", ""] == (2 * (200 + len(sent)), 0)
    assert_exact(client.opened.workspace)


def test_events_deleted_while_a_piece_is_worked_out_are_left_out(
    meter: Client, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The piece is done again with what is left."""
    for mode in ("real", "test"):
        send(meter, model, dataMode=mode)
    price(model, "2")
    job = previewed(meter.opened)
    repricing.run_repricing(job, acting_user=meter.opened.owner)
    limits = repricing.limit_set_of

    def deleted_first(workspace_id: Any) -> Any:
        run_together(lambda: delete_rows(workspace_id, "test", created_by_id=None, acting_user=None))
        return limits(workspace_id)

    monkeypatch.setattr(repricing, "limit_set_of", deleted_first)
    worked_on(job, RepricingState.DONE)
    assert (costs(meter.opened.workspace), job.changed_rows) == ([2], 1)
    assert [rows for _, rows, *_ in days_of(job, is_preview=False)] == [1]
    assert_exact(meter.opened.workspace)


def test_whoever_sets_a_limit_has_the_right_of_way(client_of: Any, model: str) -> None:
    """What its scope adds up to would otherwise be void, and be added up again while ingest waits."""
    busy, other = client_of(), client_of()
    for client in (busy, other):
        send(client, model)
    price(model, "2")
    jobs = [previewed(client.opened) for client in (busy, other)]
    for job in jobs:
        repricing.run_repricing(job, acting_user=busy.opened.owner)

    sums = put_prepared(busy.opened.workspace, "tenant_id", meanwhile=lambda: repricing.work_on_repricings(0.3))

    assert sums == 1
    for job in jobs:
        job.refresh_from_db()
    assert [(job.state, job.changed_rows) for job in jobs] == [("running", 0), ("done", 1)]
    worked_on(jobs[0], RepricingState.DONE)
    assert costs(busy.opened.workspace) == [2]
    assert_exact(busy.opened.workspace)


def test_events_that_a_process_still_stores_by_the_old_prices_are_priced_again(meter: Client, model: str) -> None:
    """For some seconds after a change of prices there are such processes."""
    send(meter, model)
    price(model, "2")
    job = previewed(meter.opened, end=utc_now() + DAY)
    stale = {"provider": HOST, "model": model, "cost_usd": None}
    make_event(meter.opened.workspace, occurred_at=utc_now(), **stale)

    run(job, meter.opened)

    assert None not in costs(meter.opened.workspace)
    assert (job.changed_rows, len(costs(meter.opened.workspace))) == (2, 2)
    assert_exact(meter.opened.workspace)


def test_the_job_goes_on_where_the_last_sweep_ended(meter: Client, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repricing, "PIECE_ROWS", 2)
    for _ in range(5):
        send(meter, model)
    price(model, "2")
    job = previewed(meter.opened)
    repricing.run_repricing(job, acting_user=meter.opened.owner)
    done = []
    for _ in range(3):
        repricing.work_on_repricings(0)
        job.refresh_from_db()
        done.append((job.state, job.changed_rows))
        assert_exact(meter.opened.workspace)
    assert done == [("running", 2), ("running", 4), ("done", 5)]


def test_a_failure_is_told_and_other_jobs_go_on(client_of: Any, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, well = client_of(), client_of()
    jobs = []
    for client in (broken, well):
        send(client, model)
        jobs.append(asked(client.opened))
    read = repricing.repricing_preview.read_piece

    def fails_for_one(job: Repricing, *rest: Any) -> Any:
        if job.workspace_id == broken.workspace_id:
            raise ZeroDivisionError
        return read(job, *rest)

    monkeypatch.setattr(repricing.repricing_preview, "read_piece", fails_for_one)
    worked_on(jobs[1], RepricingState.DONE)
    jobs[0].refresh_from_db()
    assert (jobs[0].state, jobs[0].error[:21]) == ("failed", "Something went wrong.")
    monkeypatch.undo()
    repriced(broken.opened)


def test_a_finished_job_says_in_the_audit_log_what_it_did(meter: Client, model: str) -> None:
    price(model, "1")
    send(meter, model)
    price(model, "3")
    repriced(meter.opened)
    entries = AuditEntry.objects.filter(workspace_id=meter.workspace_id, action__startswith="repricing.")
    assert list(entries.order_by("pk").values_list("action", "actor__email")) == [
        ("repricing.requested", meter.opened.owner.email),
        ("repricing.started", meter.opened.owner.email),
        ("repricing.finished", None),
    ]
    data = entries.latest("pk").data
    assert (data["rows"], Decimal(data["before_usd"]), Decimal(data["after_usd"])) == (1, 1, 3)


# --- Prices that move -----------------------------------------------------------------------------------------------


def test_prices_that_move_after_the_preview_want_another_one(meter: Client, model: str) -> None:
    send(meter, model)
    price(model, "2")
    job = previewed(meter.opened)
    price(model, "3")
    with pytest.raises(NotAllowed, match="Preview again"):
        repricing.run_repricing(job, acting_user=meter.opened.owner)

    repricing.preview_again(job, acting_user=meter.opened.owner)
    worked_on(job, RepricingState.PREVIEWED)
    assert [after for *_, after in days_of(job, is_preview=True)] == [3]
    run(job, meter.opened)
    assert costs(meter.opened.workspace) == [3]


def test_prices_that_move_during_the_preview_begin_it_anew(
    meter: Client, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.repricing_preview.PIECE_ROWS", 2)
    for _ in range(3):
        send(meter, model)
    price(model, "2")
    job = asked(meter.opened)
    repricing.work_on_repricings(0)
    price(model, "3")
    worked_on(job, RepricingState.PREVIEWED)
    assert [(rows, after) for _, rows, _, _, after in days_of(job, is_preview=True)] == [(3, 9)]
    assert (job.catalogue_version, job.changed_rows) == (pricing.current_book().version, 3)


def test_prices_that_move_during_the_run_end_it(meter: Client, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was confirmed is what happens. The rest is asked for again."""
    monkeypatch.setattr(repricing, "PIECE_ROWS", 2)
    for _ in range(3):
        send(meter, model)
    limit(meter, "1")
    price(model, "2")
    job = previewed(meter.opened)
    repricing.run_repricing(job, acting_user=meter.opened.owner)
    repricing.work_on_repricings(0)
    price(model, "3")
    worked_on(job, RepricingState.FAILED)
    assert "Prices have changed" in job.error
    assert costs(meter.opened.workspace) == [2, 2, None]
    assert len(crossed(meter.opened.workspace)) == 2
    assert_exact(meter.opened.workspace)

    repriced(meter.opened)
    assert costs(meter.opened.workspace) == [3, 3, 3]


def test_a_cancelled_run_keeps_what_is_done(meter: Client, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repricing, "PIECE_ROWS", 1)
    for _ in range(2):
        send(meter, model)
    limit(meter, "1")
    price(model, "2")
    job = previewed(meter.opened)
    repricing.run_repricing(job, acting_user=meter.opened.owner)
    repricing.work_on_repricings(0)
    repricing.cancel_repricing(job, acting_user=OperatorFactory())
    worked_on(job, RepricingState.CANCELLED)
    assert costs(meter.opened.workspace) == [2, None]
    assert len(crossed(meter.opened.workspace)) == 2
    assert_exact(meter.opened.workspace)
    repriced(meter.opened)
    assert costs(meter.opened.workspace) == [2, 2]
