"""Exact under concurrency: 64 clients over two server processes."""

import random
from collections import Counter
from decimal import Decimal

import pytest
from django.db.models import Sum

from budgets.services import update_budget_settings
from ingest.audit import audit_workspace
from ingest.models import Event, Meter, Refusal
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import to_wire
from tests.conftest import payload
from tests.factories import make_workspace
from tests.servers import Crowd, serve

NO_RATE = 1_000_000


@pytest.fixture
def server(committed):
    """A server that has just read the prices: one that is shared may have seen another test empty the tables."""
    with serve(workers=2) as running:
        yield running


def meter_of(workspace_id, measure):
    return Meter.objects.get(workspace_id=workspace_id, measure=measure, period="month").value


def test_quota_is_exact(server):
    limit, distinct, repeats = 1_000, 3_000, 1_000
    opened = make_workspace("pro", monthly_requests=limit, requests_per_minute=NO_RATE)
    # Said, so that all of them are of one quarter hour, day and month whenever this runs.
    at = to_wire(utc_now())
    bodies = [payload(externalRequestId=f"q-{number}", createdAt=at) for number in range(distinct)]
    bodies += [dict(random.choice(bodies)) for _ in range(repeats)]
    random.shuffle(bodies)

    sent = Crowd(server, opened.api_key_plain, bodies).run()

    stored = set(Event.objects.filter(workspace_id=opened.workspace.id).values_list("external_request_id", flat=True))
    accepted = {one.body["externalRequestId"] for one in sent if one.status == 200 and not one.answer["duplicate"]}
    assert len(sent) == distinct + repeats
    assert len(stored) == limit
    assert accepted == stored
    assert meter_of(opened.workspace.id, "requests") == limit
    for one in sent:
        assert one.status == (200 if one.body["externalRequestId"] in stored else 402)
    refused = Counter(one.status for one in sent)[402]
    assert Refusal.objects.get(workspace_id=opened.workspace.id).requests == refused

    # Once everything is decided, a repeat of each stored row is still 200 and a repeat of each refused one is not.
    again = Crowd(server, opened.api_key_plain, bodies[:500]).run()
    assert all(one.status == (200 if one.body["externalRequestId"] in stored else 402) for one in again)
    assert meter_of(opened.workspace.id, "requests") == limit
    assert audit_workspace(opened.workspace.id, utc_now()).is_exact


def test_hard_stop_is_exact(server):
    opened = make_workspace("pro", requests_per_minute=NO_RATE)
    limit = Decimal("0.05")
    update_budget_settings(opened.workspace, acting_user=opened.owner, daily_limit_usd=limit, enforcement="hard")
    costs, at = random.Random(7), to_wire(utc_now())
    bodies = [
        payload(
            externalRequestId=f"h-{number}",
            createdAt=at,
            outputTokens=costs.randint(1, 300),
            inputTokens=costs.randint(1, 999),
        )
        for number in range(1_500)
    ]

    sent = Crowd(server, opened.api_key_plain, bodies).run()

    rows = Event.objects.filter(workspace_id=opened.workspace.id)
    total = rows.aggregate(total=Sum("cost_usd"))["total"]
    last = rows.order_by("-id").first().cost_usd
    assert Counter(one.status for one in sent).keys() == {200, 402}
    assert total > limit
    # The row that crossed is the last one: before it the spend was not above the limit, after it nothing was taken.
    assert total - last <= limit
    assert meter_of(opened.workspace.id, "usd") == total
    assert {one.body["externalRequestId"] for one in sent if one.status == 200} == set(
        rows.values_list("external_request_id", flat=True)
    )
    for one in sent:
        if one.status == 402:
            assert Decimal(str(one.answer["budget"]["currentSpendUsd"])) > limit
    assert audit_workspace(opened.workspace.id, utc_now()).is_exact
