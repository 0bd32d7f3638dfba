"""What a replay says of a budget is what the gateway would have done, event by event."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest
import time_machine

from alerts.limit_texts import passed_at_once
from budgets.models import Enforcement
from budgets.scoped.drafts import BudgetDraft
from budgets.scoped.replays import BudgetReplay, replay_budget
from ingest.models import LimitCrossing, Measure, Refusal, ScopeKind, UnpricedPolicy
from ingest.services import LimitSpec, put_limit
from opsmeter_site.lib.periods import Period, window_of
from tests.conftest import INPUT_USD, Client, payload
from workspaces.models import ApiKey

NOW = datetime(2026, 11, 10, 12, 7, tzinfo=UTC)
START = datetime(2026, 10, 12, tzinfo=UTC)
MILLION = 1_000_000
NAMES = {ScopeKind.TENANT_ID: "tenantId", ScopeKind.USER_ID: "userId", ScopeKind.MODEL: "model"}
UNPRICED = "nobody-knows"


@dataclass(frozen=True)
class Sent:
    """One event: what the workspaces were sent."""

    occurred_at: datetime
    millions: int
    labels: tuple[tuple[str, str], ...]

    def payload(self) -> dict[str, Any]:
        return payload(
            createdAt=self.occurred_at.isoformat(),
            inputTokens=self.millions * MILLION,
            outputTokens=0,
            **dict(self.labels),
        )


Traffic = list[tuple[datetime, list[Sent]]]


def some_traffic(random: Random) -> Traffic:
    """Batches as they are received: most in the last days, some weeks ago; some events in them are late."""
    hours = {random.choice([random.randrange(72), random.randrange(40 * 24)]) for _ in range(12)}
    moments = [NOW - timedelta(hours=each) for each in sorted(hours, reverse=True)]
    return [(moment, [some_event(random, moment) for _ in range(random.choice([1, 1, 4, 8]))]) for moment in moments]


def some_event(random: Random, received_at: datetime) -> Sent:
    hours = random.choice([0, 0, random.randrange(10), random.randrange(48), 20 * 24])
    labels = {"tenantId": random.choice(["acme", "acme", "hooli"]), "userId": random.choice(["ada", "bob"])}
    if random.random() < 0.3:
        labels["model"] = UNPRICED
    if random.random() < 0.1:
        labels["dataMode"] = "test"
    return Sent(received_at - timedelta(hours=hours), random.randrange(5), tuple(labels.items()))


def some_draft(random: Random, kind: str) -> BudgetDraft:
    return BudgetDraft(
        scope_kind=kind,
        limit_usd=random.randint(1, 14) * INPUT_USD,
        is_each_value=random.random() < 0.5,
        period=random.choice([each.value for each in Period]),
        enforcement=random.choice(["hard", "hard", "soft"]),
        thresholds=random.choice([(), (Decimal("0.5"), Decimal("0.8")), (Decimal("0.3333"),)]),
        thresholds_usd=random.choice([(), (INPUT_USD,), (INPUT_USD * 2, INPUT_USD * 7)]),
        unpriced=random.choice(UnpricedPolicy.values),
        estimate_usd_per_1m=random.choice([INPUT_USD, Decimal("0.07")]),
    )


def key_of(client: Client) -> str:
    """The id of the workspace's only API key."""
    return str(ApiKey.objects.get(workspace_id=client.workspace_id).pk)


def fitted(draft: BudgetDraft, client: Client) -> BudgetDraft:
    """`draft` for one workspace: a value that its dimension has; none for each value or the whole workspace."""
    values = {"": "", "api_key_id": key_of(client), "tenant_id": "acme", "user_id": "ada", "model": UNPRICED}
    is_each = draft.is_each_value and bool(draft.scope_kind)
    return replace(draft, scope_value="" if is_each else values[draft.scope_kind], is_each_value=is_each)


def put(client: Client, draft: BudgetDraft) -> None:
    """Make the budget real."""
    estimate = draft.estimate_usd_per_1m if draft.unpriced == UnpricedPolicy.ESTIMATE else None
    spec = LimitSpec(
        source_id="the-one",
        name="The one",
        measure=Measure.USD.value,
        period=draft.period,
        amount=draft.limit_usd,
        thresholds=(*draft.thresholds, Decimal(1)),
        enforce=draft.enforcement == Enforcement.HARD,
        scope_kind=draft.scope_kind,
        scope_value=draft.scope_value,
        is_each_value=draft.is_each_value,
        thresholds_usd=draft.thresholds_usd,
        unpriced=draft.unpriced,
        estimate_usd_per_1m=estimate or Decimal(0),
    )
    put_limit(client.workspace_id, "budgets", spec)


def value_of(event: Sent, draft: BudgetDraft, client: Client) -> str:
    """The event's value of the budget's dimension, as stored in the workspace."""
    if draft.scope_kind in NAMES:
        return dict(event.labels).get(NAMES[ScopeKind(draft.scope_kind)], "model-one")
    return key_of(client) if draft.scope_kind else ""


def send(bare: Client, limited: Client, traffic: Traffic) -> Iterator[Sent]:
    """The same to both, in the same order; yields what the limited one refused."""
    for moment, events in traffic:
        with time_machine.travel(moment, tick=False):
            body = [event.payload() for event in events]
            assert bare.send_batch(body).json["rejected"] == 0
            results = limited.send_batch(body).json["results"]
        for event, result in zip(events, results, strict=True):
            assert result["accepted"] == (result["reason"] is None)
            if not result["accepted"]:
                assert result["reason"] == "budget_exceeded"
                yield event


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["", ScopeKind.API_KEY_ID.value, *(kind.value for kind in NAMES)])
def test_a_replay_is_what_the_gateway_would_have_done(client_of: Any, kind: str, seed: int) -> None:
    random = Random(f"{kind} {seed}")
    draft, traffic = some_draft(random, kind), some_traffic(random)
    bare, limited = client_of(), client_of()
    put(limited, fitted(draft, limited))
    draft = fitted(draft, bare)
    refused = list(send(bare, limited, traffic))

    replay = replay_budget(bare.workspace_id, draft, NOW)

    assert_same_refusals(replay, refused, bare, limited)
    assert_same_crossings(replay, traffic, bare, limited)


def assert_same_refusals(replay: BudgetReplay, refused: list[Sent], bare: Client, limited: Client) -> None:
    """As many of each period and value, and as many in all as ingest has tallied."""
    period = Period(replay.draft.period)
    tallied = Refusal.objects.filter(workspace_id=limited.workspace_id).values_list("requests", flat=True)
    assert sum(tallied) == len(refused)
    assert replay.refused_requests == sum(event.occurred_at >= START for event in refused)
    assert {
        (each.window.start, each.scope_value): each.refused_requests for each in replay.periods if each.refused_requests
    } == Counter(
        (window_of(period, event.occurred_at).start, value_of(event, replay.draft, bare))
        for event in refused
        if event.occurred_at >= window_of(period, START).start
    )


def assert_same_crossings(replay: BudgetReplay, traffic: Traffic, bare: Client, limited: Client) -> None:
    """The same thresholds of the same periods and values at the same moment; at the same spend if alone in a commit."""
    replayed = {
        (each.window.start, each.scope_value, crossing.share, crossing.threshold_usd, crossing.crossed_at): (
            crossing.spend_usd
        )
        for each in replay.periods
        for crossing in each.crossings
    }
    first = window_of(Period(replay.draft.period), START).start
    values = {key_of(limited): key_of(bare)} if replay.draft.is_each_value else {"": replay.draft.scope_value}
    rows = LimitCrossing.objects.filter(limit__workspace_id=limited.workspace_id, period_start__gte=first)
    real = {
        (
            row.period_start,
            values.get(row.scope_value, row.scope_value),
            row.threshold,
            row.threshold_usd,
            row.crossed_at,
        ): row
        for row in rows
    }
    assert set(replayed) == set(real)
    sizes = {moment: len(events) for moment, events in traffic}
    for key, row in real.items():
        assert row.amount == replay.draft.limit_usd
        assert replayed[key] == row.value if sizes[row.crossed_at] == 1 else replayed[key] <= row.value
    told = passed_at_once(rows.select_related("limit"))
    assert replay.alerts == sum(highest.crossed_at >= START for *_, highest in told)
