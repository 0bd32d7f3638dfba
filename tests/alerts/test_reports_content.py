"""What a summary holds: the figures of the console for the same days, whatever clocks do; and how it is kept."""

import json
import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from alerts.models import Alert, Handling, Report, ReportKind
from alerts.reports.content import build_content, is_empty
from alerts.reports.figures import ReportContent
from alerts.reports.mail import investigate_path
from budgets.services import update_budget_settings
from ingest.drivers import LABELS
from ingest.models import Refusal
from ingest.ranges import day_range
from opsmeter_site.lib import formats
from opsmeter_site.lib.clock import utc_now
from tests.factories import make_workspace
from tests.ledger import new_event, store_events
from tests.pages import page

pytestmark = pytest.mark.django_db

CENT = Decimal("0.01")
DAY = timedelta(days=1)
# The statements of a summary with everything in it; few, since thousands are made in the same minutes.
MOST_QUERIES = 24
# A zone and a day; the clocks change on those of Los Angeles, Lord Howe and Berlin.
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


def noon(day):
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


def new_report(workspace, kind, last_day):
    """A report of the day, or of the week that ends with it; not stored."""
    zone = "UTC" if kind == ReportKind.EXECUTIVE else str(workspace.timezone)
    first_day = last_day if kind == ReportKind.DAILY else last_day - 6 * DAY
    days = day_range(ZoneInfo(zone), first_day, last_day)
    return Report(
        workspace=workspace,
        kind=kind,
        zone=zone,
        first_day=first_day,
        last_day=last_day,
        starts_at=days.start,
        ends_at=days.end,
        due_at=utc_now(),
    )


def built(workspace, kind, last_day):
    """The content of such a report, after a way through the database's JSON."""
    report = new_report(workspace, kind, last_day)
    report.title, stored = build_content(report)
    report.content = json.loads(json.dumps(stored))
    return report, ReportContent.from_json(report.content)


def events_around(workspace, day, number=160):
    chance = random.Random(f"{workspace.timezone}{day}")
    return [
        new_event(
            workspace,
            occurred_at=noon(day) + timedelta(minutes=chance.randrange(-16 * 1440, 2 * 1440)),
            cost_usd=None if chance.random() < 0.1 else CENT * chance.randrange(1, 5_000),
            endpoint_tag=chance.choice(["chat", "search", "nightly"]),
            model=chance.choice(["small", "large"]),
            prompt_version=chance.choice(["v1", "v2"]),
            tenant_id=chance.choice(["acme", "globex"]),
            status=chance.choice(["success", "success", "error"]),
        )
        for _ in range(number)
    ]


@pytest.fixture(params=PLACES, ids=lambda place: f"{place[0]} {place[1]}")
def place(request):
    """A workspace there, its owner's browser, and events of eighteen days around the day."""
    zone, day = request.param
    opened = make_workspace("enterprise", timezone=zone)
    browser = Client()
    browser.force_login(opened.owner)
    store_events(events_around(opened.workspace, day))
    with time_machine.travel(noon(day) + 5 * DAY, tick=False):
        yield opened.workspace, day, browser


def tiles_of(overview):
    tiles = {}
    for tile in overview.all("li", "tile"):
        shown = tile.one("p", "tile-value")
        tiles[tile.one("p", "tile-label").text] = (shown.attributes.get("title") or shown.text, tile.text)
    return tiles


@pytest.mark.parametrize("kind", ReportKind.values)
def test_figures_are_those_of_the_console(place, kind):
    workspace, day, browser = place
    report, content = built(workspace, kind, day)
    if kind == ReportKind.EXECUTIVE:
        # Its days are those of UTC; the console has those of the workspace.
        workspace.timezone = "UTC"
        workspace.save()
    investigate = investigate_path(report, content)
    query = investigate.partition("?")[2]
    overview = page(browser.get(f"/w/{workspace.slug}/?{query}"))

    now, before = content.now, content.before
    tiles = tiles_of(overview)
    assert tiles["Spend"][0] == formats.usd_exact(now.cost_usd)
    assert f"from {formats.usd(before.cost_usd)}" in tiles["Spend"][1]
    assert tiles["Requests"][0] == formats.count(now.requests)
    assert tiles["Tokens"][0] == formats.count(now.tokens)
    assert tiles["Cost per request"][0] == formats.usd_fine(now.cost_per_request)
    assert tiles["Error rate"][0] == formats.share(now.error_rate)
    assert tiles["Unpriced requests"][0] == formats.share(now.unpriced_share)

    bars = [row[-1] for row in overview.one("figure", id="spend").one("table").rows()]
    assert bars == [formats.usd(bar.cost_usd) if bar.cost_usd else formats.NOTHING for bar in content.bars]
    for ranking in content.rankings:
        rows = overview.one("section", aria_labelledby=f"top-{ranking.dimension}").one("table").rows()
        shown = [(row[0].split()[0], row[1].split()[0]) for row in rows]
        assert shown == [(row.value, formats.usd(row.now.cost_usd)) for row in ranking.rows]

    budgets = overview.one("section", aria_labelledby="budgets-heading").text
    ahead = content.forecast
    assert f"{formats.usd(ahead.expected_usd)} expected, between {formats.usd(ahead.low_usd)}" in budgets
    if content.monthly_budget.is_running:
        assert formats.usd(content.monthly_budget.spend_usd) in budgets

    changes = page(browser.get(investigate))
    rows = changes.one("figure", id="change").one("table").rows()
    effects = {row[0]: row[1].lstrip("+") for row in rows[1:-1]}
    assert effects == {LABELS[each.driver]: formats.usd(each.amount_usd) for each in content.change.effects}
    heading = changes.one("h2", id="change-heading").text
    assert f"from {formats.usd(before.cost_usd)} to {formats.usd(now.cost_usd)}" in heading
    assert heading.endswith(f"mostly {LABELS[content.change.main].lower()}")
    movers = changes.one("section", aria_labelledby="movers-heading").one("table").rows()
    assert [(row[0].split()[0], row[1]) for row in movers[: len(content.change.movers)]] == [
        (each.endpoint_tag, formats.usd_change(each.difference)) for each in content.change.movers
    ]
    # The drivers leave nothing over.
    assert abs(sum(each.amount_usd for each in content.change.effects) - content.difference) < Decimal("1E-10")


# --- Pieces -----------------------------------------------------------------------------------------------------------

SATURDAY = date(2026, 11, 21)


@pytest.fixture
def acme():
    opened = make_workspace("team", timezone="Europe/Berlin", name="Acme")
    with time_machine.travel(noon(SATURDAY) + DAY, tick=False):
        yield opened.workspace


def add(workspace, day=SATURDAY, **fields):
    store_events([new_event(workspace, occurred_at=noon(day), **fields)])


def test_a_day_with_nothing_is_empty_and_says_so(acme):
    report, content = built(acme, ReportKind.DAILY, SATURDAY)
    assert content.is_empty
    assert is_empty(report.content)
    assert report.title == "Acme · Saturday 21 Nov: nothing happened"


def test_only_what_budgets_count_is_in_it(acme):
    add(acme, cost_usd=Decimal(1))
    add(acme, cost_usd=Decimal(2), data_mode="test")
    add(acme, cost_usd=Decimal(4), environment="dev")
    assert built(acme, ReportKind.DAILY, SATURDAY)[1].now.cost_usd == 5
    update_budget_settings(acme, acting_user=None, counted_data_modes=["real", "test"])
    assert built(acme, ReportKind.DAILY, SATURDAY)[1].now.cost_usd == 7


def test_one_by_hand_shows_demo_data_where_there_is_no_other_and_says_so(acme):
    add(acme, cost_usd=Decimal(2), data_mode="demo")
    report, content = built(acme, ReportKind.DAILY, SATURDAY)
    assert (report.title, content.data_modes) == ("Acme · Saturday 21 Nov: $2.00 · demo data", ("demo",))
    scheduled = new_report(acme, ReportKind.DAILY, SATURDAY)
    scheduled.schedule_id = 1
    assert build_content(scheduled)[0] == "Acme · Saturday 21 Nov: nothing happened"


def test_budgets_are_about_utc_days_and_the_month(acme):
    update_budget_settings(acme, acting_user=None, daily_limit_usd=Decimal(50), monthly_limit_usd=Decimal(100))
    add(acme, cost_usd=Decimal("41.25"))
    add(acme, SATURDAY - DAY, cost_usd=Decimal(60))
    report, content = built(acme, ReportKind.WEEKLY, SATURDAY)
    assert [(each.spend_usd, each.is_running) for each in content.daily_budget.days][-2:] == [
        (Decimal(60), False),
        (Decimal("41.25"), False),
    ]
    assert (content.daily_budget.exceeded, content.daily_budget.highest.day) == (1, SATURDAY - DAY)
    assert (content.monthly_budget.spend_usd, content.monthly_budget.limit_usd) == (Decimal("101.25"), 100)
    assert report.title == "Acme · 15–21 Nov: $101.25 · monthly budget 101.3%"
    daily, _ = built(acme, ReportKind.DAILY, SATURDAY)
    assert daily.title == "Acme · Saturday 21 Nov: $41.25, down 31% · daily budget 82.5%"


def test_what_was_never_used_before_is_new(acme):
    add(acme, SATURDAY - 10 * DAY, endpoint_tag="search", model="small")
    add(acme, SATURDAY - 1 * DAY, endpoint_tag="chat", model="small")
    add(acme, endpoint_tag="search", model="small")
    add(acme, endpoint_tag="agent", model="large", cost_usd=Decimal(3))
    _, content = built(acme, ReportKind.DAILY, SATURDAY)
    # Search was not used the day before, but ten days ago.
    assert [(each.dimension, each.value) for each in content.arrivals] == [
        ("endpoint_tag", "agent"),
        ("model", "large"),
    ]


def test_in_the_first_days_of_a_workspace_everything_would_be_new(acme):
    add(acme, endpoint_tag="agent")
    assert built(acme, ReportKind.DAILY, SATURDAY)[1].arrivals == ()


def test_unpriced_and_refused_requests_are_told_apart_from_the_figures(acme):
    add(acme, cost_usd=Decimal(1))
    add(acme, cost_usd=None, model="brand-new")
    for quarter, reason in ((0, "budget_exceeded"), (1, "budget_exceeded"), (5, "plan_limit_reached")):
        Refusal.objects.create(
            workspace=acme,
            bucket_start=noon(SATURDAY) + quarter * timedelta(minutes=15),
            reason=reason,
            requests=10,
            uncached_input_tokens=1,
            cache_read_tokens=0,
            cache_write_tokens=0,
            output_tokens=0,
            reasoning_tokens=0,
            cost_usd=Decimal("0.50"),
        )
    _, content = built(acme, ReportKind.DAILY, SATURDAY)
    assert (content.now.unpriced_requests, content.unpriced_models) == (1, ("openai/brand-new",))
    assert (content.refused.requests, content.refused.cost_usd) == (30, Decimal("1.5"))
    assert [spell.requests for spell in content.refused.spells] == [20, 10]
    assert content.refused_share == Decimal(30) / 32


def test_alerts_that_are_told_nowhere_else_come_first(acme):
    told = [(Handling.SENT, "critical"), (Handling.SUMMARY, "info"), (Handling.COOLDOWN, "warning")]
    for number, (handling, severity) in enumerate(told):
        Alert.objects.create(
            workspace=acme,
            kind="budget_warning",
            severity=severity,
            scope="limit:1",
            metric="usd.day",
            dedup_key=f"{number}",
            title=f"{handling} {severity}",
            text="",
            window_start=noon(SATURDAY),
            window_end=noon(SATURDAY) + DAY,
            opened_at=noon(SATURDAY),
            occurrences=number + 1,
            handling=handling,
        )
    _, content = built(acme, ReportKind.EXECUTIVE, SATURDAY)
    assert [each.title for each in content.alerts.lines] == ["summary info", "sent critical", "cooldown warning"]
    found = content.alerts
    assert (found.total, found.critical, found.held, found.repeats) == (3, 1, 1, 3)
    assert [each.title for each in content.open_critical] == ["sent critical"]
    assert not content.is_empty


def test_a_summary_takes_few_statements():
    opened = make_workspace("enterprise", timezone="Europe/Berlin")
    update_budget_settings(opened.workspace, acting_user=None, daily_limit_usd=Decimal(50))
    with time_machine.travel(noon(SATURDAY) + DAY, tick=False):
        store_events(events_around(opened.workspace, SATURDAY))
        for kind in ReportKind.values:
            report = new_report(opened.workspace, kind, SATURDAY)
            with CaptureQueriesContext(connection) as queries:
                build_content(report)
            assert len(queries) <= MOST_QUERIES, [query["sql"][:120] for query in queries]


# --- Kept ones --------------------------------------------------------------------------------------------------------


def test_what_is_kept_comes_back_as_it_was(acme):
    store_events(events_around(acme, SATURDAY))
    report, content = built(acme, ReportKind.WEEKLY, SATURDAY)
    assert content.to_json() == report.content
    assert not any(isinstance(value, float) for value in _values(report.content))


def _values(stored):
    if isinstance(stored, dict | list):
        for each in stored.values() if isinstance(stored, dict) else stored:
            yield from _values(each)
    else:
        yield stored


def test_an_older_content_with_fewer_fields_and_a_newer_one_with_more_can_be_read():
    kept = {
        "version": 1,
        "kind": "daily",
        "zone": "UTC",
        "first_day": "2026-11-21",
        "last_day": "2026-11-21",
        "before_first_day": "2026-11-20",
        "before_last_day": "2026-11-20",
        "as_of": "2026-11-22T09:00:00+00:00",
        "now": {"requests": 1, "cost_usd": "0.1", "of_a_later_version": 1},
        "of_a_later_version": ["?"],
    }
    content = ReportContent.from_json(kept)
    assert (content.now.cost_usd, content.now.tokens, content.rankings) == (Decimal("0.1"), 0, ())
