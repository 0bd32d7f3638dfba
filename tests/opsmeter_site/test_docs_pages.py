"""The developer docs: open to everyone, true to the code, and with the reader's own key in them."""

import json
import re

import msgspec
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import Resolver404, resolve
from django.utils.html import strip_tags

from billing.models import Plan
from billing.services import ensure_plans
from ingest.gateway.answers import STATUS_LINES
from ingest.gateway.payload import MAX_METADATA_BYTES, MAX_REPORTED_COST_USD, Payload, check_event
from ingest.gateway.routes import ROUTES
from ingest.models import DataMode, Environment, Outcome, ServiceTier
from opsmeter_site.console.banners import NEXT_PLAN
from opsmeter_site.console.docs_pages import PAGES
from opsmeter_site.console.snippets import BLOCKS, PLACEHOLDER_KEY
from opsmeter_site.embedded import budget_table
from opsmeter_site.lib.clock import utc_now
from tests.conftest import payload
from tests.docs import Visitor, blocks, new_person
from tests.factories import UserFactory
from tests.servers import ROOT
from workspaces.services import create_api_key, remove_member, revoke_api_key

EVERY_PAGE = [pytest.param(slug, id=slug) for slug in PAGES]


@pytest.fixture
def stranger(committed) -> Visitor:
    return Visitor(Client())


# --- The frame --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", EVERY_PAGE)
def test_a_page_is_open_and_whole(stranger, slug):
    shown = stranger.node(PAGES[slug].url)
    assert shown.one("h1").text == PAGES[slug].title
    assert PAGES[slug].title in shown.one("title").text
    current = shown.one("nav", id="nav").all("a", aria_current="page")
    assert [link.text for link in current] == [PAGES[slug].title]
    headings = [heading.attributes["id"] for heading in shown.one("article").all("h2")]
    assert headings
    assert len(set(headings)) == len(headings)
    contents = [link.attributes["href"] for link in shown.one("nav", "docs-contents").all("a")]
    assert contents == [f"#{anchor}" for anchor in headings]
    for section in shown.all("div", "table-scroll"):
        assert section.attributes.get("aria-label") or section.attributes["aria-labelledby"] in headings


def test_the_pages_lead_to_each_other(stranger):
    there, walked = PAGES["quickstart"].url, []
    while there:
        walked.append(there)
        following = stranger.node(there).one("nav", "docs-pager").all("a", rel="next")
        there = following[0].attributes["href"] if following else None
    assert walked == [one.url for one in PAGES.values()]
    back = stranger.node(walked[-1]).one("nav", "docs-pager").one("a", rel="prev")
    assert back.attributes["href"] == walked[-2]


@pytest.mark.parametrize("slug", EVERY_PAGE)
def test_every_link_leads_somewhere(stranger, slug):
    for link in stranger.node(PAGES[slug].url).all("a"):
        address, _, anchor = link.attributes["href"].partition("#")
        assert not address or address.startswith("/"), f"{address} leads outside"
        if address:
            resolve(address)
        if anchor and address:
            assert f'id="{anchor}"' in stranger.html(address)


def test_other_addresses(stranger):
    assert stranger.get("/docs/nothing/").status_code == 404
    assert stranger.get("/docs/quickstart/").url == "/docs/"
    assert stranger.browser.post("/docs/").status_code == 405


def test_signing_in_is_offered_until_it_is_done(stranger):
    links = {link.text: link.attributes["href"] for link in stranger.node("/docs/").all("a", "topbar-link")}
    assert links == {"API reference": "/v1/docs", "Sign in": "/accounts/login/", "Sign up": "/accounts/signup/"}
    stranger.browser.force_login(UserFactory())
    links = {link.text: link.attributes["href"] for link in stranger.node("/docs/").all("a", "topbar-link")}
    assert links == {"API reference": "/v1/docs", "Your console": "/"}


@pytest.mark.parametrize("slug", EVERY_PAGE)
def test_a_page_asks_the_database_for_little(committed, slug):
    stranger, person = Visitor(Client()), new_person()
    for visitor, most in ((stranger, 1), (person, 5)):
        visitor.get(PAGES[slug].url)
        with CaptureQueriesContext(
            connection,
        ) as asked:
            visitor.get(PAGES[slug].url)
        assert len(asked) <= most, [query["sql"] for query in asked]


@pytest.mark.parametrize("slug", EVERY_PAGE)
def test_no_example_is_empty_or_shown_twice(stranger, slug):
    found = blocks(stranger.html(PAGES[slug].url))
    assert len(set(found)) == len(found)
    assert all(stranger.code(PAGES[slug].url, name).strip() for name in found)
    assert "{{" not in "".join(stranger.code(PAGES[slug].url, name) for name in found)


def test_every_example_is_on_a_page(stranger):
    assert stranger.all_code().keys() == {f"{name}-{language}" for name, each in BLOCKS.items() for language in each}


# --- The reader's own key ---------------------------------------------------------------------------------------------


def keys_in(visitor: Visitor) -> set[str]:
    return set(re.findall(r"om_live_[\w…]+", "".join(visitor.all_code().values())))


def own_key(visitor: Visitor) -> str:
    """The key that was just made along with the visitor's workspace."""
    return visitor.node(f"/w/{visitor.workspace.slug}/start/").one("code", id="first-key").text


def test_signed_out_there_is_a_placeholder(stranger):
    assert keys_in(stranger) == {PLACEHOLDER_KEY}
    assert all("http://testserver/v1/" in code for name, code in stranger.all_code().items() if name.endswith("curl"))


def test_a_new_key_is_in_every_example_for_this_session(committed):
    person = new_person()
    key = own_key(person)
    assert keys_in(person) == {key}
    assert person.get("/docs/")["Cache-Control"] == "no-store"
    assert "half an hour" in person.node("/docs/").one("p", "docs-reader").text

    elsewhere = Visitor(Client())
    elsewhere.browser.force_login(person.workspace.members.get())
    assert keys_in(elsewhere) == {PLACEHOLDER_KEY}
    elsewhere.get(f"/w/{person.workspace.slug}/")
    assert keys_in(elsewhere) == {key[:17] + "…"}
    assert key[:17] == f"om_live_{person.workspace.api_keys.get().lookup}_"
    assert person.workspace.name in elsewhere.node("/docs/").one("p", "docs-reader").text


def test_the_key_is_that_of_the_workspace_whose_pages_were_opened_last(committed):
    person = new_person()
    first = own_key(person)
    person.browser.post("/workspaces/new/", {"name": "Another", "timezone": "UTC"})
    another = person.workspace.members.get().workspaces.exclude(pk=person.workspace.pk).get()
    person.get(f"/w/{another.slug}/")
    (key,) = keys_in(person)
    assert another.api_keys.get().lookup in key
    own_key(person)
    assert keys_in(person) == {first}


def test_the_newest_key_that_works_counts(committed):
    person = new_person()
    owner = person.workspace.members.get()
    person.browser.session.flush()
    person.browser.force_login(owner)
    person.get(f"/w/{person.workspace.slug}/")
    second, _ = create_api_key(person.workspace, name="Second", created_by=owner, acting_user=owner)
    assert keys_in(person) == {f"om_live_{second.lookup}_…"}
    revoke_api_key(second, acting_user=owner)
    first = person.workspace.api_keys.get(revoked_at=None)
    assert keys_in(person) == {f"om_live_{first.lookup}_…"}
    revoke_api_key(first, acting_user=owner)
    assert keys_in(person) == {PLACEHOLDER_KEY}
    note = person.node("/docs/").one("p", "docs-reader")
    assert note.one("a").attributes["href"] == f"/w/{person.workspace.slug}/settings/keys/"


def test_a_key_that_was_revoked_meanwhile_is_shown_no_more(committed):
    person = new_person()
    (key,) = person.workspace.api_keys.all()
    revoke_api_key(key, acting_user=person.workspace.members.get())
    assert keys_in(person) == {PLACEHOLDER_KEY}


def test_who_has_left_the_workspace_sees_nothing_of_it(committed):
    person = new_person()
    leaver = person.workspace.members.get()
    other = UserFactory()
    person.workspace.memberships.create(user=other, role="owner")
    remove_member(person.workspace, leaver, acting_user=other)
    assert keys_in(person) == {PLACEHOLDER_KEY}
    assert person.workspace.name not in person.node("/docs/").one("p", "docs-reader").text


# --- The payload ------------------------------------------------------------------------------------------------------

SCHEMA = msgspec.json.schema(Payload)["$defs"]["Payload"]
# What the struct says with functions and not with types.
CHOICES = {
    "status": Outcome.values,
    "dataMode": DataMode.values,
    "environment": Environment.values,
    "serviceTier": ServiceTier.values,
    "usageConvention": ["inclusive", "exclusive"],
}
SPECIAL = {
    "errorCode": "string, at most 200, or integer",
    "createdAt": "string, ISO 8601",
    "occurredAt": "string, ISO 8601",
    "metadata": f"object, at most {MAX_METADATA_BYTES:,} bytes",
    "costUsd": f"number, 0 to {MAX_REPORTED_COST_USD:,}",
}
EVENT = {"provider": "p", "model": "m", "inputTokens": 2, "outputTokens": 1, "status": "success"}


def type_of(name: str) -> str:
    """The field's type in words, as its struct has it."""
    if name in CHOICES:
        *first, last = CHOICES[name]
        return f"{', '.join(first)} or {last}"
    if name in SPECIAL:
        return SPECIAL[name]
    field = SCHEMA["properties"][name]
    (plain,) = [one for one in field.get("anyOf", [field]) if one.get("type") != "null"]
    if plain["type"] == "string":
        return f"string, at most {plain['maxLength']}"
    return f"integer, {plain['minimum']} to {plain['maximum']:,}"


def documented_fields(visitor: Visitor) -> dict[str, tuple[str, str]]:
    """Each documented field's type, and what stands for it when it is missing."""
    rows = [row for table in visitor.node("/docs/payload/").all("table", "fields") for row in table.all("tr")[1:]]
    return {row.one("code").text: (row.one("small").text, row.all("td")[-1].text) for row in rows}


def test_every_field_is_documented_with_its_type(stranger):
    documented = documented_fields(stranger)
    assert documented.keys() == SCHEMA["properties"].keys()
    assert {name: kind for name, (kind, _) in documented.items()} == {name: type_of(name) for name in documented}
    required = {name for name, (_, default) in documented.items() if default == "400"}
    assert required == set(SCHEMA["required"]) == set(EVENT)


def test_defaults_are_as_documented(stranger):
    said = {name: default for name, (_, default) in documented_fields(stranger).items() if name not in EVENT}
    now = utc_now()
    event = check_event(json.dumps(EVENT).encode(), now)
    assert event.occurred_at == now
    assert said.pop("createdAt") == said.pop("occurredAt") == "now"
    assert "generated" in said.pop("externalRequestId")
    assert event.external_request_id
    assert any("externalRequestId" in warning for warning in event.warnings)
    assert said.pop("totalTokens") == "input and output together"
    assert event.total_tokens == 3
    # The two conventions are the same where nothing was cached.
    assert said.pop("usageConvention") == "inclusive"
    names = {"cachedInputTokens": "cache_read_tokens", "costUsd": "reported_cost_usd"}
    stored = {name: getattr(event, names.get(name) or re.sub("([A-Z])", r"_\1", name).lower()) for name in said}
    assert said == {name: "none" if value is None else str(value) for name, value in stored.items()}
    cached = check_event(json.dumps(EVENT | {"cachedInputTokens": 2}).encode(), now)
    assert cached.uncached_input_tokens == 0


def test_what_is_documented_of_all_fields_is_so(meter):
    assert meter.send(status=" SUCCESS ", environment="Dev", userId=None, nobodyKnows=1).status == 200
    assert meter.send(cachedInputTokens=101).status == 400
    assert meter.send(reasoningTokens=51).status == 400
    twice = json.dumps(payload())[:-1] + ', "provider": "other"}'
    assert meter.post("/v1/ingest/llm-request", twice.encode()).status == 400
    assert meter.post("/v1/ingest/llm-request", b" " * (64 * 1024 + 1)).status == 413


# --- Tables -----------------------------------------------------------------------------------------------------------


def test_numbers_come_from_the_plans(db):
    ensure_plans()
    stranger = Visitor(Client())
    Plan.objects.filter(tier="pro").update(
        name="Professional", requests_per_minute=777, monthly_requests=54_321, raw_retention_days=91
    )
    rate = dict(stranger.node("/docs/rate-limits/").one("table", id="plan-table").rows())
    assert rate["Free"] == "120 req/min"
    assert rate["Professional"] == "777 req/min"
    assert rate["Team"] == "3000 req/min"
    assert rate["Enterprise"].startswith("Custom (config/workspace policy)")
    monthly = dict(stranger.node("/docs/limits/").one("table", id="plan-table").rows())
    assert (monthly["Professional"], monthly["Enterprise"]) == ("54,321", "By contract")
    kept = {row[0]: row[1:] for row in stranger.node("/docs/retention/").one("table", id="plan-table").rows()}
    assert kept["Free"] == ["14", "90"]
    assert kept["Professional"] == ["91", "365"]
    included = {row[0]: row[1:] for row in stranger.node("/docs/alerts/").one("table", id="plan-table").rows()}
    for plan in Plan.objects.all():
        has = [plan.has_summaries, plan.has_immediate_alerts, plan.has_integrations, plan.has_executive_report]
        assert included[plan.name] == ["yes" if each else "–" for each in has]
    assert "'Professional': 'Team'" in stranger.code("/docs/messages/", "messages-javascript")


def test_the_next_step_of_each_plan_is_that_of_the_console(stranger):
    shown = {row[0]: row[1:] for row in stranger.node("/docs/messages/").one("table", id="steps").rows()}
    assert len(shown) == Plan.objects.count()
    for plan in Plan.objects.all():
        step = NEXT_PLAN.get(plan.tier)
        assert ["pgrad" in text for text in shown[plan.name]] == [bool(step)] * 3
        assert not step or all(f" to {step}" in text for text in shown[plan.name])


def test_the_states_are_those_that_verify_local_checks(stranger):
    table = stranger.node("/docs/messages/").one("table", id="states")
    shown = {
        row.one("th").text: (row.all("td")[0].text, [each.text for each in row.all("q")]) for row in table.all("tr")[1:]
    }
    rows = budget_table.read_table(budget_table.DOCUMENT.read_text())
    assert shown == {state: (str(row.fields["HTTP"]), list(row.shows)) for state, row in rows.items()}


def test_every_flag_is_documented(stranger, meter):
    shown = [row[0] for row in stranger.node("/docs/answers/").one("table", id="flag-table").rows()]
    in_every_answer = meter.send().json.keys() & meter.send(model="").json.keys()
    assert set(shown) == in_every_answer - {"ok", "accepted", "reason"}


def test_every_status_of_ingest_is_documented(stranger):
    shown = stranger.node("/docs/answers/").one("table", id="status-table").rows()
    assert {int(row[0]) for row in shown} == STATUS_LINES.keys() - {403}  # no key is refused for what it may do


def test_reasons_are_as_documented(stranger, client_of, app):
    rows = stranger.node("/docs/answers/").one("table", id="status-table").rows()
    documented = {(int(row[0]), reason) for row in rows for reason in re.findall(r"\w+", row[1])}
    sent = client_of()
    full = client_of(monthly_requests=0)
    slow = client_of(requests_per_minute=1)
    slow.send()
    seen = [
        sent.send(),
        sent.post("/v1/ingest/llm-request", b"{"),
        sent.send(model=""),
        app.request("POST", "/v1/ingest/llm-request", payload()),
        app.request("POST", "/v1/ingest/llm-request", payload(), {"X-API-Key": "om_live_nobody"}),
        full.send(),
        app.request("GET", "/v1/ingest/llm-request"),
        sent.post("/v1/ingest/llm-request", b" " * 70_000),
        sent.post("/v1/ingest/llm-request", b"{}", **{"Content-Type": "text/plain"}),
        slow.send(),
    ]
    found = {(reply.status, reply.json["reason"] or "null") for reply in seen}
    assert len(found) == len(seen)
    assert found < documented
    # The rest needs a budget (the next test of examples), a broken server, and one whose database is away.
    assert documented - found == {(402, "budget_exceeded"), (500, "internal_error"), (503, "unavailable")}


def test_the_headers_are_those_of_an_answer(stranger, client_of):
    shown = [row[0] for row in stranger.node("/docs/rate-limits/").one("table", id="header-table").rows()]
    slow = client_of(requests_per_minute=1)
    accepted, throttled = slow.send(), slow.send()
    assert (accepted.status, throttled.status) == (200, 429)
    assert set(shown) <= throttled.headers.keys()
    assert set(shown) - accepted.headers.keys() == {"Retry-After"}


def test_the_words_of_the_public_documentation_are_there(stranger):
    limits = strip_tags(stranger.html("/docs/limits/"))
    for words in (
        "Telemetry paused due to plan limit. LLM calls keep running.",
        "Remaining request count reaches 0",
        "Telemetry paused (402, reason plan_limit_reached)",
        "Exceeded signal, hard-stop depends on workspace policy",
    ):
        assert words in limits
    assert "returns pending_webhook" in strip_tags(stranger.html("/docs/billing/"))


# --- What is served ---------------------------------------------------------------------------------------------------


def is_served(path: str) -> bool:
    try:
        return path in ROUTES or resolve(path).url_name != "no-such-api-path"
    except Resolver404:
        return False


@pytest.mark.parametrize("slug", EVERY_PAGE)
def test_every_path_is_served(stranger, slug):
    named = set(re.findall(r"/v1/[\w/.-]*\w", stranger.html(PAGES[slug].url)))
    assert [path for path in named if not is_served(path)] == []


def test_the_addresses_in_the_readme_are_served():
    named = set(re.findall(r"`(/(?!v1)[\w/]*/)`", (ROOT / "README.md").read_text()))
    assert {"/accounts/signup/", "/admin/", "/docs/", "/outbox/"} <= named
    for path in named - {"/internal/"}:
        resolve(path)
