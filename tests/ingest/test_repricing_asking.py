"""Asking for a re-pricing, confirming it and giving it up: what is refused, and what is written down."""

from datetime import timedelta
from typing import Any

import pytest

from ingest import repricing
from ingest.models import CatalogVersion, RepricingState
from ingest.retention import purge_workspace
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput, NotAllowed, NotFound
from tests.conftest import Client
from tests.ingest.repricings import asked, previewed, price, repriced, worked_on
from tests.ledger import make_event
from workspaces.models import AuditEntry


def test_a_wish_is_stored_with_what_it_is_about(meter: Client) -> None:
    now = utc_now()
    CatalogVersion.objects.update(changed_at=now - timedelta(minutes=1))
    events = [
        make_event(meter.opened.workspace, model=name, occurred_at=now - timedelta(minutes=20))
        for name in ("gpt-4o", "gpt-4o", "o1")
    ]
    job = asked(meter.opened, models_sent=[" gpt-4o", "gpt-4o", ""], end=now + timedelta(days=400), reason=" wrong ")
    assert (job.state, job.models_sent, job.reason) == (RepricingState.PREVIEWING, ["gpt-4o"], "wrong")
    assert (job.last_id, job.expected_rows) == (events[-1].pk, 2)
    assert job.end <= utc_now()
    entry = AuditEntry.objects.get(workspace=meter.opened.workspace, action="repricing.requested")
    assert (entry.actor, entry.data["filters"]["models"]) == (meter.opened.owner, "gpt-4o")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("end", {"start": timedelta(hours=1), "end": timedelta(hours=2)}),
        ("end", {"start": timedelta(hours=-1), "end": timedelta(hours=-1)}),
        ("start", {"start": timedelta(days=-91)}),
        ("models_sent", {"models_sent": [f"model-{number}" for number in range(91)]}),
        ("reason", {"reason": "  "}),
        ("reason", {"reason": "x" * 201}),
    ],
)
def test_a_wish_that_cannot_be_met_names_the_field(meter: Client, field: str, changes: dict[str, Any]) -> None:
    now = utc_now()
    moments = {name: now + value for name, value in changes.items() if isinstance(value, timedelta)}
    with pytest.raises(InvalidInput) as refusal:
        asked(meter.opened, **changes | moments)
    assert [error.field for error in refusal.value.errors] == [field]


def test_what_retention_has_removed_cannot_be_repriced_also_after_an_upgrade(meter: Client) -> None:
    purge_workspace(meter.workspace_id, utc_now() + timedelta(days=85))
    with pytest.raises(InvalidInput, match="kept since"):
        asked(meter.opened, start=utc_now() - timedelta(days=6))
    asked(meter.opened, start=utc_now() - timedelta(days=4))


def test_one_at_a_time_in_each_workspace(meter: Client, client_of: Any) -> None:
    job = asked(meter.opened)
    with pytest.raises(NotAllowed, match="not finished"):
        asked(meter.opened)
    asked(client_of().opened)
    repricing.cancel_repricing(job, acting_user=meter.opened.owner)
    asked(meter.opened)


def test_only_a_finished_preview_is_confirmed_and_only_once(meter: Client) -> None:
    owner = meter.opened.owner
    price("confirmed-once", "2")
    make_event(meter.opened.workspace, provider="openai", model="confirmed-once", occurred_at=utc_now())
    job = asked(meter.opened)
    for step in (repricing.run_repricing, repricing.preview_again):
        with pytest.raises(NotAllowed):
            step(job, acting_user=owner)
    worked_on(job, RepricingState.PREVIEWED)
    repricing.run_repricing(job, acting_user=owner)
    with pytest.raises(NotAllowed):
        repricing.run_repricing(job, acting_user=owner)


def test_what_is_over_cannot_be_cancelled(meter: Client) -> None:
    job = repriced(meter.opened)
    with pytest.raises(NotAllowed, match="finished already"):
        repricing.cancel_repricing(job, acting_user=meter.opened.owner)
    job.delete()
    with pytest.raises(NotFound):
        repricing.cancel_repricing(job, acting_user=meter.opened.owner)


def test_a_preview_that_finds_nothing_ends_by_itself_and_the_next_may_be_asked_for(meter: Client) -> None:
    job = worked_on(asked(meter.opened), RepricingState.DONE)
    assert job.finished_at is not None
    assert AuditEntry.objects.filter(workspace=meter.opened.workspace, action="repricing.finished").exists()
    asked(meter.opened)


def test_a_cancelled_preview_is_not_worked_on(meter: Client) -> None:
    job = asked(meter.opened)
    repricing.cancel_repricing(job, acting_user=meter.opened.owner)
    worked_on(job, RepricingState.CANCELLED)
    assert job.finished_at is not None
    assert AuditEntry.objects.filter(workspace=meter.opened.workspace, action="repricing.cancelled").exists()


def test_a_preview_changes_nothing(meter: Client) -> None:
    price("preview-only", "2")
    event = make_event(meter.opened.workspace, provider="openai", model="preview-only", occurred_at=utc_now())
    job = previewed(meter.opened)
    cost = event.cost_usd
    event.refresh_from_db()
    assert (job.changed_rows, event.cost_usd, event.repricing_id) == (1, cost, None)
