from datetime import datetime, timedelta
from decimal import Decimal

import pytest
import time_machine

from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import to_wire
from tests.budgets.scoped_api import NOON, body_of, create, place
from tests.client import ApiClient, assert_refused
from tests.factories import make_workspace

pytestmark = pytest.mark.django_db


@pytest.fixture
def opened():
    return make_workspace("pro")


@pytest.fixture
def owner(opened):
    return ApiClient(token=opened.access_token_plain)


# --- Raises, adjustments, history -------------------------------------------------------------------------------------


def test_a_raise_is_shown_while_it_holds(owner):
    with time_machine.travel(NOON, tick=False) as clock:
        budget = create(owner)
        wish = {"limitUsd": 75, "until": "2026-03-10T14:00:00+01:00", "reason": "Launch"}
        raised = body_of(owner.send("POST", place(budget, "raise"), wish))
        assert raised["raise"] == {"limitUsd": 75, "until": "2026-03-10T13:00:00Z", "reason": "Launch"}
        assert (raised["limitUsd"], raised["current"]["limitUsd"]) == (50, 75)
        clock.move_to(NOON + timedelta(hours=1))
        after = body_of(owner.get(place(budget)))
        assert (after["raise"], after["current"]["limitUsd"]) == (None, 50)


def test_ending_a_raise_can_be_repeated(owner):
    budget = create(owner)
    until = to_wire(utc_now() + timedelta(days=1))
    owner.send("POST", place(budget, "raise"), {"limitUsd": 75, "until": until, "reason": "Launch"})
    for _ in range(2):
        assert body_of(owner.send("DELETE", place(budget, "raise")))["raise"] is None


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("limitUsd", {"limitUsd": 50}),
        ("until", {"until": "2026-03-10T12:00:00Z"}),
        ("until", {"until": "2026-06-11T00:00:00Z"}),
        ("until", {"until": "2026-03-11T00:00:00"}),
        ("until", {"until": "tomorrow"}),
        ("until", {"until": "9999-12-31T23:59:59-23:59"}),
        ("until", {"until": "0001-01-01T00:00:00+23:59"}),
        ("until", {"until": 1773144000}),
        ("reason", {"reason": ""}),
        ("reason", {"reason": 5}),
        ("why", {"why": "Launch"}),
    ],
)
def test_a_bad_raise_is_refused_by_field(owner, field, changes):
    with time_machine.travel(NOON, tick=False):
        budget = create(owner)
        wish = {"limitUsd": 75, "until": "2026-03-11T00:00:00Z", "reason": "Launch", **changes}
        assert_refused(owner.send("POST", place(budget, "raise"), wish), 400, "invalid_payload", field)


def test_adjustments_are_listed_and_counted(owner, opened):
    budget = create(owner)
    with time_machine.travel(NOON, tick=False):
        first = body_of(owner.send("POST", place(budget, "adjustments"), {"amountUsd": 60, "reason": "Bill"}), 201)
        second = body_of(owner.send("POST", place(budget, "adjustments"), {"amountUsd": -7.5, "reason": "Refund"}), 201)
        assert second == {
            "amountUsd": Decimal("-7.5"),
            "reason": "Refund",
            "scopeValue": None,
            "periodStart": "2026-03-10T00:00:00Z",
            "createdAt": "2026-03-10T12:00:00Z",
            "by": opened.owner.name or opened.owner.email,
        }
        listed = body_of(owner.get(place(budget, "adjustments")))
        assert listed == {"adjustments": [second, first], "count": 2}
        current = body_of(owner.get(place(budget)))["current"]
        assert (current["currentSpendUsd"], current["adjustedUsd"]) == (Decimal("52.5"), Decimal("52.5"))
        assert (current["remainingUsd"], current["isExceeded"]) == (0, True)


@pytest.mark.parametrize(
    "until", ["2026-03-11T00:00:00+23:59:59.999999", "2026-03-11T00:00:00-23:59", "2026-03-11T00:00:00+05:45"]
)
def test_a_raise_ends_at_its_moment_whatever_the_offset(owner, until):
    with time_machine.travel(NOON, tick=False):
        wish = {"limitUsd": 75, "until": until, "reason": "Launch"}
        budget = create(owner)
        raised = body_of(owner.send("POST", place(budget, "raise"), wish), 400 if "+23" in until else 200)
    if "+23" in until:  # which is the day before, at noon
        assert raised["errors"][0]["field"] == "until"
    else:
        assert raised["raise"]["until"] == to_wire(datetime.fromisoformat(until))


@pytest.mark.parametrize(
    ("field", "wish"),
    [
        ("amountUsd", {"amountUsd": 0, "reason": "Bill"}),
        ("amountUsd", {"amountUsd": 10_000_001, "reason": "Bill"}),
        ("reason", {"amountUsd": 1}),
        ("scopeValue", {"amountUsd": 1, "reason": "Bill", "scopeValue": "acme"}),
        ("usd", {"amountUsd": 1, "reason": "Bill", "usd": 1}),
    ],
)
def test_a_bad_adjustment_is_refused_by_field(owner, field, wish):
    budget = create(owner)
    assert_refused(owner.send("POST", place(budget, "adjustments"), wish), 400, "invalid_payload", field)


def test_the_history_tells_what_changed_in_the_words_of_the_api(owner, opened):
    budget = create(owner)
    owner.patch(place(budget), {"limitUsd": 60.5, "thresholds": [{"usd": 5}]})
    newest, oldest = body_of(owner.get(place(budget, "history")))["entries"]
    assert (oldest["action"], oldest["old"], oldest["new"]["scope"], oldest["new"]["period"]) == (
        "budget.created",
        {},
        "tenantId",
        "daily",
    )
    assert newest["by"] == (opened.owner.name or opened.owner.email)
    assert (newest["old"]["limitUsd"], newest["new"]["limitUsd"]) == (50, Decimal("60.5"))
    assert (newest["old"]["thresholds"], newest["new"]["thresholds"]) == (
        [{"percent": 50}, {"percent": 80}, {"percent": 100}],
        [{"percent": 100}, {"usd": 5}],
    )


def test_the_history_writes_moments_and_values_as_the_rest_of_the_api_does(owner):
    budget = create(owner)
    until = to_wire(utc_now() + timedelta(days=1))
    owner.send("POST", place(budget, "raise"), {"limitUsd": 75, "until": until, "reason": "Launch"})
    made = body_of(owner.send("POST", place(budget, "adjustments"), {"amountUsd": 1, "reason": "Bill"}), 201)
    adjusted, raised, _ = body_of(owner.get(place(budget, "history")))["entries"]
    assert raised["new"]["raisedUntil"] == until
    assert {name: adjusted["new"][name] for name in ("amountUsd", "scopeValue", "periodStart")} == {
        name: made[name] for name in ("amountUsd", "scopeValue", "periodStart")
    }
