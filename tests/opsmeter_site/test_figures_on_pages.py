"""Whatever a page shows for a range is the sum of the raw rows in it: five timezones, both days of changing clocks."""

import random
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.test import Client

from tests.factories import make_workspace
from tests.ledger import new_event, store_events
from tests.pages import page

pytestmark = pytest.mark.django_db

CENT = Decimal("0.01")
# A zone and the middle of three days; the clocks change on the first two of Los Angeles and Lord Howe.
PLACES = [
    ("America/Los_Angeles", date(2026, 3, 8)),
    ("America/Los_Angeles", date(2026, 11, 1)),
    ("Australia/Lord_Howe", date(2026, 4, 5)),
    ("Australia/Lord_Howe", date(2026, 10, 4)),
    ("Europe/Berlin", date(2026, 3, 29)),
    ("Europe/Berlin", date(2026, 10, 25)),
    ("Asia/Kathmandu", date(2026, 6, 15)),
    ("UTC", date(2026, 6, 15)),
]


def money(text):
    return Decimal(text.replace("$", "").replace(",", ""))


def amount(text):
    return Decimal(0) if text == "–" else money(text)


@pytest.fixture(params=PLACES, ids=lambda place: f"{place[0]} {place[1]}")
def place(request):
    """A workspace there, its owner's browser, and events in whole cents around the day."""
    name, day = request.param
    zone = ZoneInfo(name)
    opened = make_workspace("enterprise", timezone=name)
    browser = Client()
    browser.force_login(opened.owner)
    chance = random.Random(f"{name}{day}")
    middle = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    events = [
        new_event(
            opened.workspace,
            occurred_at=middle + timedelta(minutes=chance.randrange(-3 * 1440, 3 * 1440)),
            cost_usd=None if chance.random() < 0.1 else CENT * chance.randrange(1, 5_000),
            endpoint_tag=chance.choice(["chat", "search", "nightly"]),
            user_id=chance.choice(["ann", "bob"]),
            uncached_input_tokens=chance.randrange(1, 900),
            cache_read_tokens=0,
            cache_write_tokens=0,
            output_tokens=chance.randrange(1, 90),
            latency_ms=chance.randrange(10, 9_000),
            status=chance.choice(["success", "success", "error"]),
        )
        for _ in range(120)
    ]
    store_events(events)
    with time_machine.travel(middle + timedelta(days=20), tick=False):
        yield zone, day, opened.workspace, browser, events


def within(events, zone, first, last):
    return [event for event in events if first <= event.occurred_at.astimezone(zone).date() <= last]


def cost(events):
    return sum((event.cost_usd or Decimal(0) for event in events), Decimal(0))


def test_the_overview(place):
    zone, day, workspace, browser, events = place
    first, last = day - timedelta(days=1), day + timedelta(days=1)
    shown = page(browser.get(f"/w/{workspace.slug}/?range=custom&from={first}&to={last}"))
    inside = within(events, zone, first, last)
    before = within(events, zone, first - timedelta(days=3), first - timedelta(days=1))

    tiles = {tile.one("p", "tile-label").text: tile for tile in shown.all("li", "tile")}
    exact = {label: tile.one("p", "tile-value").attributes.get("title", "") for label, tile in tiles.items()}
    assert money(exact["Spend"]) == cost(inside)
    assert exact["Requests"] == f"{len(inside):,}"
    assert exact["Tokens"] == f"{sum(each.uncached_input_tokens + each.output_tokens for each in inside):,}"
    assert f"${cost(before):,.2f}" in tiles["Spend"].text
    errors = 100 * sum(each.status == "error" for each in inside) / len(inside)
    assert abs(float(tiles["Error rate"].one("p", "tile-value").text.rstrip("%")) - errors) < 0.051
    unpriced = sum(each.cost_usd is None for each in inside)
    assert f"{unpriced} without a price" in tiles["Unpriced requests"].text

    bars = shown.one("figure", id="spend").one("table").rows()
    assert len(bars) == 3
    for number, bar in enumerate(bars):
        that_day = first + timedelta(days=number)
        assert f"{that_day:%-d %B %Y}" in bar[0]
        assert amount(bar[-1]) == cost(within(events, zone, that_day, that_day))

    by_endpoint, by_user = defaultdict(Decimal), defaultdict(Decimal)
    for event in inside:
        by_endpoint[event.endpoint_tag] += event.cost_usd or 0
        by_user[event.user_id] += event.cost_usd or 0
    for dimension, expected in (("endpoint_tag", by_endpoint), ("user_id", by_user)):
        section = shown.one("section", aria_labelledby=f"top-{dimension}")
        rows = {row[0].split()[0]: money(row[1].split()[0]) for row in section.one("table").rows()}
        assert rows == dict(expected)


def test_one_day_by_the_hour(place):
    zone, day, workspace, browser, events = place
    shown = page(browser.get(f"/w/{workspace.slug}/?range=custom&from={day}&to={day}"))
    bars = shown.one("figure", id="spend").one("table").rows()
    start, end = (datetime(each.year, each.month, each.day, tzinfo=zone) for each in (day, day + timedelta(days=1)))
    hours = (end.astimezone(UTC) - start.astimezone(UTC)) / timedelta(hours=1)
    assert len(bars) in (hours, hours + 0.5)
    assert sum((amount(bar[-1]) for bar in bars), Decimal(0)) == cost(within(events, zone, day, day))


def test_what_changed(place):
    zone, day, workspace, browser, events = place
    shown = page(browser.get(f"/w/{workspace.slug}/investigate/?range=custom&from={day}&to={day}"))
    now = cost(within(events, zone, day, day))
    before = cost(within(events, zone, day - timedelta(days=1), day - timedelta(days=1)))
    assert f"from ${before:,.2f} to ${now:,.2f}" in shown.one("h2", id="change-heading").text
    table = shown.one("figure", id="change").one("table").rows()
    amounts = [money(row[1].replace("−", "-").replace("+", "")) for row in table]
    assert amounts[0] == before
    assert amounts[-1] == now
    movers = shown.one("section", aria_labelledby="movers-heading").one("table").rows()
    assert sum(amount(row[2]) for row in movers) == before
    assert sum(amount(row[3]) for row in movers) == now


def test_prompt_versions(place):
    zone, day, workspace, browser, events = place
    first, last = day - timedelta(days=1), day + timedelta(days=1)
    query = f"range=custom&from={first}&to={last}&endpoint=chat"
    shown = page(browser.get(f"/w/{workspace.slug}/versions/?{query}"))
    inside = [event for event in within(events, zone, first, last) if event.endpoint_tag == "chat"]
    (row,) = shown.one("section", aria_labelledby="all-versions").one("table").rows()
    assert row[1] == str(len(inside))
    assert row[2] == str(sum(event.status == "error" for event in inside))
