"""Overlapping hard budgets under 64 clients: every decision is the one that the stored order says."""

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction

from budgets.services import update_budget_settings
from ingest.audit import audit_workspace
from ingest.models import CatalogVersion, Event, Limit, LimitCrossing, Meter, ModelPrice, Refusal
from ingest.models.prices import SINCE_EVER
from ingest.scopes import wire_name
from ingest.services import LimitSpec, drop_limit, prepare_scope, put_limit
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import to_wire
from tests.conftest import payload
from tests.factories import make_workspace
from tests.servers import Crowd, Sent, Server, serve

NO_RATE = 1_000_000
NO_LIMIT = Decimal(1_000_000)
HOST = "testhost"
# USD per 1M input tokens.
MODELS = {"scoped-small": Decimal(1), "scoped-large": Decimal(20)}
TENANTS = ("acme", "umbrella", "initech", "hooli")
PEOPLE = tuple(f"person-{number}" for number in range(12))


@pytest.fixture
def server(committed: None) -> Iterator[Server]:
    """A server that has just read the prices."""
    for model, usd in MODELS.items():
        ModelPrice.objects.get_or_create(
            provider=HOST,
            model=model,
            defaults={
                "effective_from": SINCE_EVER,
                "input_usd_per_1m": usd,
                "output_usd_per_1m": usd,
                "source": "operator",
                "checked_on": date(2026, 1, 1),
            },
        )
    version, _ = CatalogVersion.objects.get_or_create(id=CatalogVersion.THE_ROW)
    version.version += 1
    version.save()
    with serve(workers=2) as running:
        yield running


@dataclass(frozen=True)
class Hard:
    """A hard stop of the test: its scope and its amount in USD."""

    kind: str
    value: str
    period: str
    usd: Decimal

    @property
    def is_each_value(self) -> bool:
        return bool(self.kind) and not self.value

    def key(self, event: dict[str, Any] | Event) -> str | None:
        """Whose meter of it an event is held against; None if it does not concern the event."""
        if not self.kind:
            return ""
        value = getattr(event, self.kind) if isinstance(event, Event) else event[wire_name(self.kind)]
        return value if self.is_each_value or value == self.value else None


BUDGETS = (
    Hard("", "", "month", Decimal("0.60")),
    Hard("tenant_id", "acme", "month", Decimal("0.10")),
    Hard("tenant_id", "umbrella", "day", Decimal("0.15")),
    Hard("model", "scoped-large", "month", Decimal("0.40")),
    Hard("user_id", "", "day", Decimal("0.06")),
    Hard("tenant_id", "", "month", Decimal("0.30")),
)


def test_overlapping_budgets_are_exact(server: Server) -> None:
    opened = make_workspace("pro", requests_per_minute=NO_RATE)
    limits = {hard: _put(opened.workspace.id, hard) for hard in BUDGETS}

    sent = Crowd(server, opened.api_key_plain, _bodies()).run()

    assert Counter(one.status for one in sent).keys() == {200, 402}
    events = list(Event.objects.filter(workspace_id=opened.workspace.id).order_by("id"))
    assert {event.external_request_id for event in events} == _ids(sent, 200)
    spent = _replay(events)
    _check_refusals([one for one in sent if one.status == 402], limits, spent)
    _check_meters(opened.workspace.id, spent)
    _check_crossings(limits, spent)
    assert Refusal.objects.get(workspace_id=opened.workspace.id).requests == len(_ids(sent, 402))
    report = audit_workspace(opened.workspace.id, utc_now())
    assert report.is_exact, report.to_json()


def test_a_limit_that_is_set_while_events_arrive_counts_each_of_them_once(server: Server) -> None:
    opened = make_workspace("pro", requests_per_minute=NO_RATE)
    soft = [Hard(kind, "", "month", NO_LIMIT) for kind in ("tenant_id", "model", "user_id")]
    rounds = 0

    with Crowd(server, opened.api_key_plain, _bodies()) as crowd:
        while rounds < 3 or len(crowd.sent) < 1_000:
            for hard in soft:
                _put(opened.workspace.id, hard, is_prepared=rounds % 2 == 0)
                if hard != soft[rounds % 3]:
                    drop_limit(opened.workspace.id, "budgets", f"{hard.kind}:{hard.value}")
            rounds += 1
    for hard in soft:
        _put(opened.workspace.id, hard, is_prepared=True)

    assert len(_ids(crowd.sent, 200)) == 2_000
    report = audit_workspace(opened.workspace.id, utc_now())
    assert report.is_exact, report.to_json()
    assert {row.scope_kind for row in Meter.objects.filter(workspace_id=opened.workspace.id)} == {
        "",
        *(hard.kind for hard in soft),
    }


def test_other_data_modes_that_are_counted_while_events_arrive_count_each_of_them_once(server: Server) -> None:
    opened = make_workspace("pro", requests_per_minute=NO_RATE)
    for kind, value in (("tenant_id", "acme"), ("user_id", ""), ("model", "")):
        _put(opened.workspace.id, Hard(kind, value, "month", NO_LIMIT))
    modes = itertools.cycle((["real", "test"], ["test"], ["real"]))
    bodies = [body | {"dataMode": "test" if number % 3 else "real"} for number, body in enumerate(_bodies())]
    rounds = 0

    with Crowd(server, opened.api_key_plain, bodies) as crowd:
        while rounds < 6 or len(crowd.sent) < 1_000:
            update_budget_settings(opened.workspace, acting_user=opened.owner, counted_data_modes=next(modes))
            rounds += 1

    assert len(_ids(crowd.sent, 200)) == 2_000
    report = audit_workspace(opened.workspace.id, utc_now())
    assert report.is_exact, report.to_json()


def _bodies() -> list[dict[str, Any]]:
    """Events of one moment: of one quarter hour, day and month whenever this runs."""
    dice, at = random.Random(23), to_wire(utc_now())
    return [
        payload(
            externalRequestId=f"s-{number}",
            createdAt=at,
            provider=HOST,
            model=dice.choices(list(MODELS), (3, 1))[0],
            tenantId=dice.choice(TENANTS),
            userId=dice.choice(PEOPLE),
            inputTokens=dice.randint(1, 400),
            outputTokens=dice.randint(1, 100),
        )
        for number in range(2_000)
    ]


def _put(workspace_id: Any, hard: Hard, *, is_prepared: bool = False) -> Limit:
    spec = LimitSpec(
        source_id=f"{hard.kind}:{hard.value}",
        name=f"{hard.kind} {hard.value}",
        measure="usd",
        period=hard.period,
        amount=hard.usd,
        thresholds=(Decimal("0.5"), Decimal(1)),
        enforce=True,
        scope_kind=hard.kind,
        scope_value=hard.value,
        is_each_value=hard.is_each_value,
    )
    with transaction.atomic():
        prepared = prepare_scope(workspace_id, hard.kind, hard.value, hard.is_each_value) if is_prepared else None
        return put_limit(workspace_id, "budgets", spec, prepared)


def _replay(events: list[Event]) -> dict[tuple[Hard, str], Decimal]:
    """Add the events up in the order in which they were committed: none may come after a limit was exceeded."""
    spent: dict[tuple[Hard, str], Decimal] = defaultdict(Decimal)
    for event in events:
        for hard in BUDGETS:
            key = hard.key(event)
            if key is not None:
                assert spent[hard, key] <= hard.usd, (hard, event.external_request_id)
                spent[hard, key] += event.cost_usd or Decimal(0)
    return spent


def _check_refusals(refused: list[Sent], limits: dict[Hard, Limit], spent: dict[tuple[Hard, str], Decimal]) -> None:
    """Nothing is spent on an exceeded budget any more, so that what it stood at then is what it stands at now."""
    by_source = {limit.source_id: hard for hard, limit in limits.items()}
    named = set()
    for one in refused:
        notice = one.answer["budget"]
        hard = by_source[notice["id"]]
        key = hard.key(one.body)
        assert key is not None
        assert one.answer["reason"] == "budget_exceeded"
        assert (notice["scope"], notice["scopeValue"]) == (wire_name(hard.kind), key or None)
        assert spent[hard, key] > hard.usd
        assert Decimal(str(notice["currentSpendUsd"])) == spent[hard, key]
        named.add(hard)
    # Every kind of budget has had a say.
    assert {hard.kind for hard in named} == {hard.kind for hard in BUDGETS}


def _check_meters(workspace_id: Any, spent: dict[tuple[Hard, str], Decimal]) -> None:
    for (hard, key), usd in spent.items():
        meter = Meter.objects.get(
            workspace_id=workspace_id, measure="usd", period=hard.period, scope_kind=hard.kind, scope_value=key
        )
        assert meter.value == usd


def _check_crossings(limits: dict[Hard, Limit], spent: dict[tuple[Hard, str], Decimal]) -> None:
    """Everybody over a limit is told of once, and nobody else."""
    over = {(hard, key if hard.is_each_value else "") for (hard, key), usd in spent.items() if usd > hard.usd}
    crossed = [
        (hard, crossing.scope_value)
        for hard, limit in limits.items()
        for crossing in LimitCrossing.objects.filter(limit=limit, threshold=1)
    ]
    assert sorted(crossed, key=str) == sorted(over, key=str)


def _ids(sent: list[Sent], status: int) -> set[str]:
    return {one.body["externalRequestId"] for one in sent if one.status == status}
