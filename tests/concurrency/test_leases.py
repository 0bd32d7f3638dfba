"""Leases under concurrency: 64 clients over two server processes, one hard budget, and never more held than is left."""

import json
import random
from decimal import Decimal

import pytest
from django.db.models import Sum

from ingest.audit import audit_workspace
from ingest.models import Event, Hold, Lease
from ingest.services import LimitSpec, put_limit
from opsmeter_site.lib.clock import utc_now
from tests.conftest import payload
from tests.factories import make_workspace
from tests.servers import serve, wait_until
from tests.together import run_together

CLIENTS, CALLS = 64, 8
LIMIT = Decimal("0.01")
ESTIMATE = Decimal("0.00018")
LEASE, RELEASE, INGEST = "/v1/budgets/leases", "/v1/budgets/leases/release", "/v1/ingest/llm-request"
SECONDS = 2


class Caller:
    """One program with a connection of its own: leases, then settles, releases or forgets."""

    def __init__(self, server, api_key, number):
        self.answers = []
        self._connection = server.connect()
        self._headers = {"X-API-Key": api_key, "Content-Type": "application/json"}
        self._number = number
        self._chance = random.Random(number)

    def run(self):
        for call in range(CALLS):
            name = f"c{self._number}-{call}"
            what = self._chance.choice(["settle", "settle", "settle", "release", "abandon"])
            answer = self.post(LEASE, {**question(name), "leaseSeconds": SECONDS if what == "abandon" else 600})
            self.answers.append((name, what, answer))
            if answer["allowed"] and what == "settle":
                # At most what was estimated: up to 0.00018 USD.
                tokens = self._chance.randint(1, 400)
                self.post(INGEST, payload(externalRequestId=name, inputTokens=tokens, outputTokens=tokens // 2))
            elif answer["allowed"] and what == "release":
                assert self.post(RELEASE, {"externalRequestId": name})["released"] is True
        self.close()

    def close(self):
        self._connection.close()

    def post(self, path, body):
        self._connection.request("POST", path, json.dumps(body), self._headers)
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200, answer
        return answer


def question(name):
    body = payload(externalRequestId=name)
    return {
        "externalRequestId": name,
        "provider": body["provider"],
        "model": body["model"],
        "tenantId": "acme",
        "estimatedCostUsd": float(ESTIMATE),
    }


@pytest.fixture
def server(committed):
    """A server that has just read the prices: one that is shared may have seen another test empty the tables."""
    with serve(workers=2) as running:
        yield running


def test_held_and_settled_together_never_pass_the_limit_and_everything_comes_free(server):
    opened = make_workspace("pro", requests_per_minute=1_000_000)
    workspace_id = opened.workspace.id
    spec = LimitSpec(
        source_id="hard",
        name="Hard",
        measure="usd",
        period="month",
        amount=LIMIT,
        thresholds=(Decimal(1),),
        enforce=True,
    )
    put_limit(workspace_id, "budgets", spec)
    callers = [Caller(server, opened.api_key_plain, number) for number in range(CLIENTS)]

    run_together(*(caller.run for caller in callers))

    answers = [one for caller in callers for one in caller.answers]
    allowed = [one for one in answers if one[2]["allowed"]]
    assert len(answers) == CLIENTS * CALLS
    assert 0 < len(allowed) < len(answers)
    for _, _, answer in answers:
        budget = answer["budget"]
        assert exact(budget["currentSpendUsd"]) + exact(budget["heldUsd"]) <= LIMIT
        if not answer["allowed"]:
            assert answer["reason"] == "budget_exceeded"
            assert exact(budget["remainingUsd"]) < ESTIMATE
    assert Event.objects.filter(workspace_id=workspace_id).aggregate(usd=Sum("cost_usd"))["usd"] <= LIMIT

    outcomes = {row.external_request_id: row.outcome for row in Lease.objects.filter(workspace_id=workspace_id)}
    expected = {"settle": "settled", "release": "released", "abandon": ""}
    assert outcomes == {name: expected[what] for name, what, _ in allowed}

    # What was abandoned is free again when its time is up; nobody had to clean up.
    abandoned = Lease.objects.filter(workspace_id=workspace_id, closed_at=None)
    over = max((row.expires_at for row in abandoned), default=utc_now())
    wait_until(lambda: utc_now() >= over, SECONDS + 2)
    held = Hold.objects.filter(workspace_id=workspace_id, expires_at__gt=utc_now())
    assert {row.usd for row in held} <= {Decimal(0)}
    last = Caller(server, opened.api_key_plain, CLIENTS)
    spent = Event.objects.filter(workspace_id=workspace_id).aggregate(usd=Sum("cost_usd"))["usd"]
    rest = {**question("rest"), "estimatedCostUsd": float(LIMIT - spent)}
    assert last.post(LEASE, rest)["allowed"] is True
    assert last.post(LEASE, question("one too many"))["allowed"] is False
    # No id is stuck: those that were given up or forgotten can be leased again, those with an event cannot.
    last.post(RELEASE, {"externalRequestId": "rest"})
    for name, what, _ in allowed[:: len(allowed) // 10]:
        again = last.post(LEASE, {**question(name), "estimatedCostUsd": 0})
        assert again["reason"] == ("already_recorded" if what == "settle" else None)
    last.close()
    assert audit_workspace(workspace_id, utc_now()).is_exact


def exact(number):
    return Decimal(repr(number))
