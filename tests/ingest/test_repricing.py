"""What a re-pricing makes of events, sums, meters and crossings; the workers' sweeps run in the test's process."""

import itertools
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from ingest import repricing
from ingest.cost_explained import as_charged, charge_of
from ingest.models import Event, RepricingState, Rollup, SummarySpan
from ingest.scopes import ScopeKind
from ingest.summaries import summarise_workspace
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import day_of, to_wire
from tests.conftest import Client
from tests.ingest.repricings import (
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
from tests.ledger import assert_exact, make_event

_names = (f"model-{number}" for number in itertools.count())


@pytest.fixture
def model() -> str:
    """A model that no price is known for yet."""
    return next(_names)


# --- Events, sums and meters ----------------------------------------------------------------------------------------


def test_events_without_a_price_get_it_and_every_sum_follows(meter: Client, model: str) -> None:
    limit(meter, "100", scope_kind=ScopeKind.TENANT_ID, is_each_value=True)
    limit(meter, "100", scope_kind=ScopeKind.MODEL, scope_value=model)
    for tenant in ("acme", "acme", "globex"):
        send(meter, model, tenantId=tenant, latencyMs=7, status="error")
    assert todays_meters(meter)["", ""] == (0, 3 * MILLION)
    new = price(model, "2")

    job = repriced(meter.opened)

    assert costs(meter.opened.workspace) == [2, 2, 2]
    assert todays_meters(meter) == {
        ("", ""): (6, 0),
        ("tenant_id", "acme"): (4, 0),
        ("tenant_id", "globex"): (2, 0),
        ("model", model): (6, 0),
    }
    (rollup,) = Rollup.objects.filter(workspace_id=meter.workspace_id)
    assert (rollup.is_priced, rollup.requests, rollup.errors, rollup.latency_ms_sum) == (True, 3, 3, 21)
    assert_exact(meter.opened.workspace)
    event = Event.objects.filter(workspace_id=meter.workspace_id).latest("pk")
    before = as_charged(event)
    assert before is not None
    assert (before.cost_usd, before.price, before.repricing) == (None, None, job)
    charge = charge_of(event)
    assert charge is not None
    assert (charge.price.id, charge.ledger_sum) == (new.id, 2)


@pytest.mark.parametrize("corrected", ["0.5", "3"])
def test_a_corrected_price_changes_what_was_charged_and_the_first_charge_is_kept(
    meter: Client, model: str, corrected: str
) -> None:
    first = price(model, "1")
    limit(meter, "100", scope_kind=ScopeKind.MODEL, scope_value=model)
    send(meter, model)
    for usd in ("2", corrected):
        price(model, usd)
        job = repriced(meter.opened)

    assert costs(meter.opened.workspace) == [Decimal(corrected)]
    assert set(todays_meters(meter).values()) == {(Decimal(corrected), 0)}
    assert_exact(meter.opened.workspace)
    before = as_charged(Event.objects.get(workspace_id=meter.workspace_id))
    assert before is not None
    assert before.price is not None
    assert (before.cost_usd, before.price.id, before.repricing) == (1, first.id, job)


def test_an_event_that_was_never_repriced_is_as_charged(meter: Client, model: str) -> None:
    price(model, "1")
    send(meter, model)
    repriced(meter.opened)
    assert as_charged(Event.objects.get(workspace_id=meter.workspace_id)) is None


def test_a_second_run_changes_nothing(meter: Client, model: str) -> None:
    send(meter, model)
    price(model, "2")
    first, second = repriced(meter.opened), repriced(meter.opened)

    assert (first.changed_rows, second.changed_rows, second.looked_at_rows) == (1, 0, 1)
    assert Event.objects.get(workspace_id=meter.workspace_id).repricing_id == first.pk
    assert_exact(meter.opened.workspace)


def test_a_priced_event_is_never_left_without_a_price(meter: Client) -> None:
    workspace = meter.opened.workspace
    make_event(workspace, provider="nobody", model="nothing", cost_usd=Decimal(3), occurred_at=utc_now())
    job = repriced(meter.opened)
    assert (costs(workspace), job.looked_at_rows, job.changed_rows) == ([3], 1, 0)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, ["2", "2", "2", "2"]),
        ({"models_sent": ["m-one"]}, ["2", "1", "2", None]),
        ({"provider": "OpenAI ", "models_sent": ["m-two", " m-three"]}, ["1", "2", "1", "2"]),
        ({"provider": "azure"}, ["1", "1", "1", None]),
        ({"only_unpriced": True}, ["1", "1", "1", "2"]),
        ({"days": (3, 1)}, ["1", "1", "2", None]),
    ],
)
def test_filters_say_which_events_are_meant(meter: Client, wanted: dict[str, Any], expected: list[Any]) -> None:
    """m-one now, m-two now, m-one two days ago, and m-three now, which had no price. All cost 2 USD by today's list."""
    workspace, now = meter.opened.workspace, utc_now()
    for name in ("m-one", "m-two", "m-three"):
        price(name, "2")
    facts = {"uncached_input_tokens": MILLION, "cache_read_tokens": 0, "cache_write_tokens": 0, "provider": HOST}
    for name, cost, age in (("m-one", 1, 0), ("m-two", 1, 0), ("m-one", 1, 2), ("m-three", None, 0)):
        moment = now - timedelta(days=age, seconds=5)
        make_event(workspace, model=name, cost_usd=cost, occurred_at=moment, received_at=moment, **facts)
    if "days" in wanted:
        since, until = wanted["days"]
        wanted = {"start": now - timedelta(days=since), "end": now - timedelta(days=until)}

    job = repriced(meter.opened, **wanted)

    assert costs(workspace) == [None if usd is None else Decimal(usd) for usd in expected]
    assert job.changed_rows == sum(usd == "2" for usd in expected)
    assert_exact(workspace)


def test_events_of_many_days_and_pieces_change_by_what_was_previewed(
    meter: Client, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repricing, "PIECE_ROWS", 3)
    monkeypatch.setattr("ingest.repricing_preview.PIECE_ROWS", 4)
    monkeypatch.setattr("ingest.repricing_pieces.READS", 5)
    for number in range(20):
        moment = utc_now() - timedelta(hours=5 * number)
        send(
            meter,
            model if number % 3 else "unheard-of",
            createdAt=to_wire(moment),
            dataMode=("real", "test")[number % 2],
        )
    price(model, "0.000000000001")

    job = previewed(meter.opened)
    expected = days_of(job, is_preview=True)
    assert (job.looked_at_rows, job.expected_rows, job.changed_rows) == (20, 20, 13)
    run(job, meter.opened)

    assert days_of(job, is_preview=False) == expected
    assert sum(rows for _, rows, *_ in expected) == sum(newly for _, _, newly, *_ in expected) == 13
    assert set(costs(meter.opened.workspace, model=model)) == {Decimal("0.000000000001")}
    assert (job.looked_at_rows, job.changed_rows) == (20, 13)
    assert_exact(meter.opened.workspace)


def test_what_arrives_after_the_wish_is_left_as_it_came(meter: Client, model: str) -> None:
    send(meter, model)
    job = asked(meter.opened)
    send(meter, model)
    price(model, "2")
    run(worked_on(job, RepricingState.PREVIEWED), meter.opened)
    assert costs(meter.opened.workspace) == [2, None]
    assert_exact(meter.opened.workspace)


def test_a_repeat_of_a_repriced_event_is_told_its_new_cost(meter: Client, model: str) -> None:
    send(meter, model, externalRequestId="again")
    price(model, "2")
    repriced(meter.opened)
    fields = {"provider": HOST, "model": model, "inputTokens": MILLION, "outputTokens": 0}
    answer = meter.send(externalRequestId="again", **fields)
    assert (answer.json["duplicate"], answer.json["costUsd"]) == (True, 2)


def test_summaries_over_the_events_are_made_again(meter: Client, model: str) -> None:
    send(meter, model, createdAt=to_wire(utc_now() - timedelta(days=9)))
    summarise_workspace(meter.workspace_id, utc_now())
    spans = SummarySpan.objects.filter(workspace_id=meter.workspace_id)
    assert spans.exists()
    assert not spans.filter(is_stale=True).exists()

    price(model, "2")
    repriced(meter.opened)

    assert spans.filter(is_stale=True).count() == spans.count()


# --- Limits ---------------------------------------------------------------------------------------------------------


def test_a_budget_that_is_no_longer_exceeded_takes_events_again(meter: Client, model: str) -> None:
    price(model, "10")
    limit(meter, "5")
    send(meter, model)
    refused = meter.send(provider=HOST, model=model, inputTokens=1)
    assert (refused.status, refused.json["reason"]) == (402, "budget_exceeded")

    price(model, "1")
    job = previewed(meter.opened)
    (effect,) = job.limits_affected
    assert (effect["before"], effect["after"], effect["amount"]) == (
        "10.000000000000", "1.000000000000", "5.000000000000",
    )  # fmt: skip
    assert (effect["would_be_exceeded"], effect["no_longer_exceeded"]) == (False, True)
    run(job, meter.opened)

    send(meter, model)
    assert_exact(meter.opened.workspace)


def test_a_budget_that_is_over_now_is_told_once_and_refuses(meter: Client, model: str) -> None:
    send(meter, model)
    limit(meter, "5")
    price(model, "6")
    repriced(meter.opened)
    start = day_of(utc_now()).start
    told = [("Daily", Decimal("0.5"), start), ("Daily", Decimal(1), start)]
    assert crossed(meter.opened.workspace) == told
    assert meter.send(provider=HOST, model=model, inputTokens=1).status == 402

    price(model, "7")
    repriced(meter.opened)
    assert crossed(meter.opened.workspace) == told


def test_nothing_is_told_of_periods_that_are_over(meter: Client, model: str) -> None:
    send(meter, model, createdAt=to_wire(utc_now() - timedelta(days=2)))
    limit(meter, "5")
    price(model, "6")
    job = repriced(meter.opened)
    assert (job.changed_rows, crossed(meter.opened.workspace)) == (1, [])


def test_scoped_budgets_follow_and_tell_for_the_value_that_is_over(meter: Client, model: str) -> None:
    limit(meter, "5", name="Each tenant", scope_kind=ScopeKind.TENANT_ID, is_each_value=True)
    for tenant, number in (("acme", 3), ("globex", 1)):
        for _ in range(number):
            send(meter, model, tenantId=tenant)
    price(model, "2")

    job = previewed(meter.opened)
    assert [(row["scope_value"], row["after"], row["would_be_exceeded"]) for row in job.limits_affected] == [
        ("acme", "6.000000000000", True),
        ("globex", "2.000000000000", False),
    ]
    run(job, meter.opened)

    assert [share for name, share, _ in crossed(meter.opened.workspace)] == [Decimal("0.5"), Decimal(1)]
    fields = {"provider": HOST, "model": model, "inputTokens": 1}
    assert [meter.send(tenantId=tenant, **fields).status for tenant in ("acme", "globex")] == [402, 200]


def test_an_estimate_gives_way_to_the_price(meter: Client, model: str) -> None:
    """10 USD were assumed; 1 USD is what it was."""
    limit(meter, "5", unpriced="estimate", estimate_usd_per_1m=Decimal(10))
    send(meter, model)
    assert meter.send(provider=HOST, model=model, inputTokens=1).status == 402
    price(model, "1")

    job = previewed(meter.opened)
    (effect,) = job.limits_affected
    assert (Decimal(effect["before"]), Decimal(effect["after"])) == (10, 1)
    run(job, meter.opened)

    send(meter, model)
