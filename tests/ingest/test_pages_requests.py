import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from ingest import pricing
from ingest.explorer import FIRST_STEP_ROWS, PAGE_ROWS
from ingest.models import CatalogVersion, Event, ModelPrice, ServiceTier
from ingest.models.prices import SINCE_EVER
from ingest.retention import purge_workspace
from opsmeter_site.lib.clock import utc_now
from tests.factories import Cast, make_cast, make_workspace
from tests.ledger import NOON, make_event, make_events, new_event

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
QUERIES_LIST = 16
QUERIES_ROW = 10


@pytest.fixture
def people() -> Cast:
    return make_cast("pro", timezone="Europe/Berlin")


@pytest.fixture
def viewer(people: Cast, client: Client) -> Client:
    client.force_login(people.viewer)
    return client


def url(people: Cast, name: str = "requests", *args: object) -> str:
    return reverse(name, args=[people.workspace.slug, *args])


def page(client: Client, address: str, **parameters: str) -> str:
    response = client.get(address, parameters)
    assert response.status_code == 200
    return response.content.decode()


def shown(html: str) -> list[int]:
    """The ids of the requests that a page lists, in its order."""
    return [int(found) for found in re.findall(r"/requests/(\d+)/", html)]


def link(html: str, label: str) -> str:
    """The query string behind the link whose text ends with `label`."""
    found = re.search(
        rf'<a[^>]*?\shref="(\?[^"]*)"[^>]*>(?:<svg(?:(?!</svg>).)*</svg>)?\s*{label}\s*</a>', html, re.DOTALL
    )
    return found[1].replace("&amp;", "&") if found else ""


# --- Who -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["owner", "admin", "member", "viewer"])
def test_every_member_may_look(people: Cast, client: Client, role: str) -> None:
    event = make_event(people.workspace)
    client.force_login(getattr(people, role))
    for name, arguments in (("requests", ()), ("request", (event.pk,)), ("requests-values", ())):
        assert client.get(url(people, name, *arguments), {"filter": "model"}).status_code == 200


def test_outsiders_find_nothing_and_strangers_sign_in(people: Cast, client: Client) -> None:
    event = make_event(people.workspace)
    addresses = [
        url(people),
        url(people, "requests-more"),
        url(people, "requests-values") + "?filter=model",
        url(people, "request", event.pk),
    ]
    for address in addresses:
        assert client.get(address).status_code == 302
    client.force_login(people.outsider)
    for address in addresses:
        assert client.get(address).status_code == 404


def test_a_request_of_another_workspace_is_not_there(people: Cast, viewer: Client) -> None:
    foreign = make_event(make_workspace().workspace)
    assert viewer.get(url(people, "request", foreign.pk)).status_code == 404
    assert viewer.get(url(people, "request", 2**70)).status_code == 404


# --- The list -------------------------------------------------------------------------------------------------------


def test_the_newest_come_first_with_times_of_the_workspace(people: Cast, viewer: Client) -> None:
    events = make_events(people.workspace, 3, apart=HOUR)
    html = page(viewer, url(people))
    assert shown(html) == [event.pk for event in reversed(events)]
    assert "14:00:00" in html  # noon in UTC is 14:00 in Berlin in June
    assert 'title="2026-06-15 12:00:00 UTC"' in html
    assert 'datetime="2026-06-15T12:00:00Z"' in html


def test_every_column_is_there_if_asked_for(people: Cast, viewer: Client) -> None:
    facts = {
        "external_request_id": "ext-of-mine",
        "provider": "some-provider",
        "model": "some-model",
        "endpoint_tag": "some.endpoint",
        "prompt_version": "v77",
        "user_id": "some-user",
        "tenant_id": "some-tenant",
        "feature_tag": "some-feature",
        "environment": "staging",
        "data_mode": "test",
        "service_tier": "flex",
        "status": "error",
        "error_code": "teapot",
        "total_tokens": 98_765,
        "latency_ms": 4_321,
        "cost_usd": Decimal("0.012345678901"),
        "reported_cost_usd": Decimal("0.77"),
    }
    make_event(people.workspace, **facts, api_key_id=people.opened.api_key.pk)
    html = page(viewer, url(people), columns="all")
    figures = ("98,765", "4.32 s", "$0.012345678901", "$0.77", people.opened.api_key.name)
    for value in (*(value for value in facts.values() if isinstance(value, str)), *figures):
        assert value in html, value


def test_an_unpriced_request_says_so(people: Cast, viewer: Client) -> None:
    make_event(people.workspace, cost_usd=None)
    assert "unpriced" in page(viewer, url(people))


def test_what_callers_sent_is_text_and_never_markup(people: Cast, viewer: Client) -> None:
    event = make_event(
        people.workspace, model="<script>alert(1)</script>", external_request_id='"><b>', metadata={"<i>": "<u>"}
    )
    for html in (
        page(viewer, url(people), columns="all", model="<script>alert(1)</script>"),
        page(viewer, url(people, "request", event.pk)),
        page(viewer, url(people, "requests-values"), filter="model"),
    ):
        assert "<script>alert" not in html
        assert '"><b>' not in html
        assert "<u>" not in html


def test_links_lead_through_all_pages_and_back(people: Cast, viewer: Client) -> None:
    make_events(people.workspace, 2 * PAGE_ROWS + 7, apart=timedelta(seconds=1))
    expected = list(Event.objects.order_by("-occurred_at").values_list("pk", flat=True))
    first = page(viewer, url(people))
    second = page(viewer, url(people) + link(first, "Older"))
    third = page(viewer, url(people) + link(second, "Older"))
    assert shown(first) + shown(second) + shown(third) == expected
    assert link(third, "Older") == ""
    assert link(first, "Newer") == ""
    assert shown(page(viewer, url(people) + link(third, "Newer"))) == shown(second)
    assert shown(page(viewer, url(people) + link(second, "Newer"))) == shown(first)


def test_more_rows_are_added_to_the_list(people: Cast, viewer: Client) -> None:
    make_events(people.workspace, PAGE_ROWS + 3, apart=timedelta(seconds=1))
    first = page(viewer, url(people))
    html = page(viewer, url(people, "requests-more") + link(first, "Older"))
    assert html.lstrip().startswith("<tr>")
    assert len(shown(html)) == 3
    assert 'hx-swap-oob="true"' in html
    assert "That is all" in html


def test_a_bad_cursor_is_the_first_page_with_a_word_about_it(people: Cast, viewer: Client) -> None:
    event = make_event(people.workspace)
    html = page(viewer, url(people), cursor="nonsense")
    assert shown(html) == [event.pk]
    assert "could not be found" in html
    assert viewer.get(url(people, "requests-more"), {"cursor": "nonsense"}).status_code == 404


# --- Filters --------------------------------------------------------------------------------------------------------

PARAMETERS = {
    "provider": ("anthropic", {"provider": "anthropic"}),
    "model": ("gpt-4o", {"model": "gpt-4o"}),
    "endpoint": ("chat", {"endpoint_tag": "chat"}),
    "version": ("v2", {"prompt_version": "v2"}),
    "user": ("ann", {"user_id": "ann"}),
    "tenant": ("acme", {"tenant_id": "acme"}),
    "feature": ("search", {"feature_tag": "search"}),
    "env": ("dev", {"environment": "dev"}),
    "mode": ("test", {"data_mode": "test"}),
    "status": ("error", {"status": "error"}),
    "error": ("429", {"error_code": "429"}),
    "tier": ("batch", {"service_tier": "batch"}),
    "priced": ("no", {"cost_usd": None}),
    "id": ("the-one", {"external_request_id": "the-one"}),
    "min_cost": ("0.5", {"cost_usd": Decimal("0.5")}),
    "min_latency": ("1000", {"latency_ms": 1_000}),
    "min_tokens": ("2000", {"total_tokens": 2_000}),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_each_filter_shows_what_it_names_and_can_be_removed(people: Cast, viewer: Client, name: str) -> None:
    value, facts = PARAMETERS[name]
    other = make_event(people.workspace)
    the_one = make_event(people.workspace, **facts)
    html = page(viewer, url(people), **{name: value, "tenant": facts.get("tenant_id", "unknown")})
    assert shown(html) == [the_one.pk]
    chip = re.search(r'<a class="chip" href="(\?[^"]*)">[^<]*<strong>', html.replace("\n", ""))
    assert chip is not None
    assert set(shown(page(viewer, url(people)))) == {the_one.pk, other.pk}


def test_what_is_shown_can_be_exported(people: Cast, viewer: Client) -> None:
    make_event(people.workspace, model="a")
    for parameters in ({}, {"model": "a"}):
        html = page(viewer, url(people), **parameters)
        address = re.search(rf'href="({reverse("exports", args=[people.workspace.slug])}\?[^"]*)"', html)
        assert address is not None
        assert "1 row\n" in page(viewer, address[1].replace("&amp;", "&"))


def test_removing_one_filter_keeps_the_others(people: Cast, viewer: Client) -> None:
    make_event(people.workspace, model="a", user_id="x")
    html = page(viewer, url(people), model="a", user="x", range="30d", columns="all").replace("&amp;", "&")
    assert 'href="?range=30d&user=x"' in html
    assert 'href="?range=30d&model=a"' in html


def test_a_key_of_the_workspace_can_be_chosen_and_no_other(people: Cast, viewer: Client) -> None:
    key = people.opened.api_key
    event = make_event(people.workspace, api_key_id=key.pk)
    make_event(people.workspace)
    assert shown(page(viewer, url(people), key=str(key.pk))) == [event.pk]
    foreign = make_workspace().api_key
    assert "Select a valid choice" in page(viewer, url(people), key=str(foreign.pk))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"min_cost": "cheap"}, "Enter a number."),
        ({"min_tokens": "-1"}, "greater than or equal to 0"),
        ({"min_tokens": "9" * 30}, "less than or equal to"),
        ({"env": "moon"}, "Select a valid choice"),
        ({"model": "x" * 201}, "at most 200 characters"),
        ({"model": "a\x00b"}, "Null characters are not allowed"),
        ({"range": "custom"}, "needs a beginning, an end, or both"),
        ({"range": "custom", "from": "2026-06-15", "to": "2026-06-14"}, "not after the beginning"),
        ({"range": "custom", "from": "yesterday"}, "A day such as 2026-11-01"),
        ({"range": "custom", "from": "0001-01-01"}, "Between 2000-01-01"),
        ({"range": "custom", "from": "2026-06-15T10:00+02:00"}, "without an offset"),
    ],
)
def test_a_filter_that_makes_no_sense_is_told_beside_it_and_shows_nothing(
    people: Cast, viewer: Client, parameters: dict[str, str], message: str
) -> None:
    make_event(people.workspace)
    html = page(viewer, url(people), **parameters)
    assert message in html
    assert shown(html) == []
    for name, value in parameters.items():
        if name == "min_cost":
            assert f'value="{value}"' in html


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("Asia/Kolkata", date(2026, 6, 15)),
        ("Asia/Kathmandu", date(2026, 6, 15)),
        ("America/Los_Angeles", date(2026, 3, 8)),
        ("America/Los_Angeles", date(2026, 11, 1)),
        ("Australia/Lord_Howe", date(2026, 4, 5)),
        ("Australia/Lord_Howe", date(2026, 10, 4)),
        ("Europe/Berlin", date(2026, 3, 29)),
        ("Europe/Berlin", date(2026, 10, 25)),
    ],
)
def test_a_day_is_a_day_of_the_workspaces_zone(client: Client, zone: str, day: date) -> None:
    people = make_cast("pro", timezone=zone)
    client.force_login(people.owner)
    around = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=1)
    make_events(people.workspace, 4 * 24 * 3, occurred_at=around, apart=timedelta(minutes=15))
    expected = [
        event.pk
        for event in Event.objects.order_by("-occurred_at")
        if event.occurred_at.astimezone(ZoneInfo(zone)).date() == day
    ]
    found: list[int] = []
    query = f"?range=custom&from={day}&to={day}"
    while query:
        html = page(client, url(people) + query)
        found += shown(html)
        query = link(html, "Older")
    assert found == expected
    assert len(found) in (4 * 23, 4 * 24, 4 * 25, 4 * 24 + 2, 4 * 24 - 2)


def test_a_range_may_be_cut_at_a_time_of_day(people: Cast, viewer: Client) -> None:
    events = make_events(people.workspace, 5, apart=HOUR)  # 14:00 to 18:00 in Berlin
    wanted = {"range": "custom", "from": "2026-06-15T15:00", "to": "2026-06-15T17:00"}
    assert shown(page(viewer, url(people), **wanted)) == [events[2].pk, events[1].pk]
    wanted = {"range": "custom", "from": "2026-06-15T17:00"}
    assert shown(page(viewer, url(people), **wanted)) == [events[4].pk, events[3].pk]


@pytest.mark.parametrize(("name", "hours"), [("today", 0), ("24h", 23), ("7d", 24 * 5), ("30d", 24 * 28)])
def test_ranges_that_end_now(people: Cast, viewer: Client, name: str, hours: int) -> None:
    now = utc_now()
    inside = make_event(people.workspace, occurred_at=now - hours * HOUR)
    make_event(people.workspace, occurred_at=now - (hours + 72) * HOUR)
    assert shown(page(viewer, url(people), range=name)) == [inside.pk]


def test_links_of_report_pages_are_understood(people: Cast, viewer: Client) -> None:
    event = make_event(people.workspace, environment="dev")
    assert shown(page(viewer, url(people), env="all", mode="all")) == [event.pk]


def test_values_are_suggested(people: Cast, viewer: Client) -> None:
    make_event(people.workspace, model="gpt-4o")
    html = page(viewer, url(people, "requests-values"), filter="model")
    assert '<option value="gpt-4o">' in html
    assert viewer.get(url(people, "requests-values"), {"filter": "password"}).status_code == 404


# --- Nothing, and what is no longer there ---------------------------------------------------------------------------


def test_a_workspace_without_requests_leads_to_the_start(people: Cast, viewer: Client) -> None:
    html = page(viewer, url(people))
    assert "No requests yet" in html
    assert reverse("start", args=[people.workspace.slug]) in html


def test_filters_that_match_nothing_can_be_cleared(people: Cast, viewer: Client) -> None:
    make_event(people.workspace)
    html = page(viewer, url(people), model="none-such")
    assert "Nothing matches" in html
    assert f'href="{url(people)}"' in html


def test_where_single_requests_end_is_told_when_a_range_reaches_there(people: Cast, viewer: Client) -> None:
    now = utc_now()
    make_event(people.workspace, occurred_at=now - timedelta(days=95))
    make_event(people.workspace, occurred_at=now)
    purge_workspace(people.workspace.pk, now)
    told = "kept for 90 days on the Pro plan"
    assert told not in page(viewer, url(people), range="7d").replace("\n", " ").split('id="list-end"')[0]
    first_day = (now - timedelta(days=100)).date()
    html = page(viewer, url(people), **{"range": "custom", "from": first_day.isoformat()})
    assert told in html.split("<table")[0]
    assert "UTC) on" in html
    assert told in page(viewer, url(people)).split('id="list-end"')[1]


# --- A search that takes longer -------------------------------------------------------------------------------------


def test_a_long_search_goes_on_by_itself_and_without_a_script_by_a_link(people: Cast, viewer: Client) -> None:
    """However long it takes: following the links shows every match once."""
    rows = 3 * FIRST_STEP_ROWS
    rare = {10: "rare", rows // 2: "rare", rows - 1: "rare"}
    Event.objects.bulk_create(
        new_event(people.workspace, occurred_at=NOON - n * timedelta(seconds=1), user_id=rare.get(n, "often"))
        for n in range(rows)
    )
    found: list[int] = []
    query = "?user=rare"
    while query:
        html = page(viewer, url(people) + query)
        found += shown(html)
        query = link(html, "Search further back") or link(html, "Older")
    expected = Event.objects.filter(user_id="rare").order_by("-occurred_at").values_list("pk", flat=True)
    assert found == list(expected)


# --- One request ----------------------------------------------------------------------------------------------------


@pytest.fixture
def price() -> ModelPrice:
    price = ModelPrice.objects.create(
        provider="priced-host",
        model="model-a",
        effective_from=datetime(2026, 1, 1, tzinfo=UTC),
        service_tier=ServiceTier.STANDARD,
        context_above=128_000,
        input_usd_per_1m=Decimal(3),
        cached_input_usd_per_1m=Decimal("0.3"),
        output_usd_per_1m=Decimal("15.000000000000000007"),
        request_usd_per_1k=Decimal(10),
        source="some-source 1.2",
        source_url="https://prices.example.com/list",
        checked_on=date(2026, 5, 4),
    )
    version, _ = CatalogVersion.objects.get_or_create(id=CatalogVersion.THE_ROW)
    version.version += 1
    version.save()
    pricing.forget_book()
    return price


@pytest.fixture(autouse=True)
def _no_book_of_another_test() -> None:
    pricing.forget_book()


def _priced_event(people: Cast, price: ModelPrice, **facts: object) -> Event:
    """A request with tokens of every kind and the cost that the price row gives it."""
    tokens = {
        "uncached_input_tokens": 1_001,
        "cache_read_tokens": 20_003,
        "cache_write_tokens": 37,
        "output_tokens": 777,
    }
    cost = Decimal("0.003003") + Decimal("0.0060009") + Decimal("0.000111") + Decimal("0.011655") + Decimal("0.01")
    return make_event(
        people.workspace,
        provider="priced-host",
        model="model-a",
        service_tier="flex",
        price_id=price.pk,
        cost_usd=cost,
        **{**tokens, **facts},
    )


def test_the_sum_behind_a_cost_is_the_stored_cost(people: Cast, viewer: Client, price: ModelPrice) -> None:
    event = _priced_event(people, price, reported_cost_usd=Decimal("0.03"))
    html = page(viewer, url(people, "request", event.pk))
    for amount in ("$0.003003", "$0.0060009", "$0.000111", "$0.01"):
        assert amount in html
    assert "$0.011655000000000000005439" in html  # 777 tokens at 15.000000000000000007 USD per 1M, unrounded
    assert "$0.0307699" in html
    assert "to the last digit" in html
    assert "at the input price: it has none of its own" in html
    assert "more than 128,000 input tokens" in html
    assert "sent as flex" in html
    assert "some-source 1.2" in html
    assert "https://prices.example.com/list" in html
    assert "4 May 2026" in html
    assert "$0.0007699" in html  # ours less theirs


def test_a_price_that_has_changed_since_does_not_touch_what_was_charged(
    people: Cast, viewer: Client, price: ModelPrice
) -> None:
    event = _priced_event(people, price)
    html = page(viewer, url(people, "request", event.pk))
    # The only row is for longer calls, so by the catalogue the same call would have no price at all.
    assert "By the catalogue of today" in html
    assert "$0.0307699" in html


def test_a_sum_that_is_not_the_stored_cost_is_not_hidden(people: Cast, viewer: Client, price: ModelPrice) -> None:
    event = _priced_event(people, price)
    Event.objects.filter(pk=event.pk).update(cost_usd=Decimal("9.99"))
    html = page(viewer, url(people, "request", event.pk))
    assert "which is not the stored cost" in html
    assert "to the last digit" not in html


def test_a_price_row_that_is_gone_is_told(people: Cast, viewer: Client) -> None:
    event = make_event(people.workspace, price_id=2**40)
    assert "no longer in the catalogue" in page(viewer, url(people, "request", event.pk))


def test_an_unpriced_request_says_why_and_what_to_do(people: Cast, viewer: Client) -> None:
    event = make_event(people.workspace, provider="in-house", model="llama-lab", cost_usd=None)
    html = page(viewer, url(people, "request", event.pk))
    assert "no price was known for" in html
    assert reverse("prices-unpriced", args=[people.workspace.slug]) in html


def test_an_unpriced_request_whose_model_has_a_price_now_says_so(
    people: Cast, viewer: Client, price: ModelPrice
) -> None:
    ModelPrice.objects.filter(pk=price.pk).update(context_above=0, effective_from=SINCE_EVER)
    pricing.forget_book()
    event = _priced_event(people, price)
    Event.objects.filter(pk=event.pk).update(cost_usd=None, price_id=None)
    html = page(viewer, url(people, "request", event.pk))
    assert "Since then a price has been added" in html
    assert "$0.0307699" in html


def test_the_way_back_leads_to_the_same_list(people: Cast, viewer: Client) -> None:
    make_events(people.workspace, PAGE_ROWS + 1, apart=timedelta(seconds=1), model="a")
    second = link(page(viewer, url(people), model="a", columns="all"), "Older")
    html = page(viewer, url(people) + second)
    row = re.search(r'href="([^"]*/requests/\d+/\?[^"]*)"', html)
    assert row is not None
    html = page(viewer, row[1].replace("&amp;", "&"))
    back = re.search(rf'href="({re.escape(url(people))}\?[^"]*)"', html)
    assert back is not None
    html = page(viewer, back[1].replace("&amp;", "&"))
    assert len(shown(html)) == 1
    assert "Every column" in html


# --- What it costs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, PAGE_ROWS + 1])
def test_the_list_takes_the_same_queries_however_long_it_is(
    people: Cast, viewer: Client, rows: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    make_events(people.workspace, rows, apart=timedelta(seconds=1))
    page(viewer, url(people))
    with django_assert_num_queries(QUERIES_LIST):
        page(viewer, url(people), model="gpt-4o-mini", range="custom", **{"from": "2026-06-01"})


def test_one_request_takes_few_queries(
    people: Cast, viewer: Client, price: ModelPrice, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    event = _priced_event(people, price)
    page(viewer, url(people, "request", event.pk))
    with django_assert_num_queries(QUERIES_ROW):
        page(viewer, url(people, "request", event.pk))
