"""Calling the provider: what is sent, and what every kind of answer is taken for."""

import json
import logging
import socket
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import redis
import structlog
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from billing.providers.base import (
    ProviderNotFound,
    ProviderRefused,
    ProviderUnavailable,
    ProviderUnsure,
    VariantFacts,
)
from billing.providers.lemonsqueezy import LemonSqueezy, budget, transport
from opsmeter_site.lib.clock import utc_now
from tests.alerts.receivers import certificate
from tests.billing.provider_facts import WISH

pytestmark = pytest.mark.usefixtures("_redis_used")

KEY = "eyJ0-a-very-secret-key"
JSON_API = "application/vnd.api+json"
ATTRIBUTES = {
    "store_id": 3,
    "customer_id": 6,
    "variant_id": 10,
    "status": "active",
    "renews_at": "2026-02-01T00:00:00.000000Z",
    "created_at": "2026-01-01T00:00:00.000000Z",
    "updated_at": "2026-01-02T00:00:00.000000Z",
    "urls": {
        "customer_portal": "https://acme.example/billing?signature=s3cret",
        "update_payment_method": "https://acme.example/card?signature=s3cret",
    },
    "test_mode": True,
}


def resource(kind, number, **attributes):
    return {"type": kind, "id": str(number), "attributes": attributes}


SUBSCRIPTION = {"data": resource("subscriptions", 5, **ATTRIBUTES)}


@pytest.fixture
def provider(httpserver: HTTPServer):
    return LemonSqueezy(base=httpserver.url_for("/v1"), api_key=KEY, webhook_secret="a-secret", store_id="3")


def sent(httpserver: HTTPServer) -> list[Request]:
    return [request for request, _ in httpserver.log]


def body_of(request: Request):
    return json.loads(request.get_data())


CALLS = {
    "checkout": lambda provider: provider.create_checkout(WISH),
    "change": lambda provider: provider.change_plan("5", "11", charge_now=True),
    "cancel": lambda provider: provider.cancel("5"),
    "resume": lambda provider: provider.resume("5"),
    "portal": lambda provider: provider.portal_links("5"),
    "subscription": lambda provider: provider.fetch_subscription("5"),
    "invoices": lambda provider: provider.fetch_invoices("5"),
    "find": lambda provider: provider.find_subscriptions("ada@example.com", "10"),
    "variants": lambda provider: provider.fetch_variants(),
}
CHANGING = ("checkout", "change", "cancel", "resume")


# --- What is sent -----------------------------------------------------------------------------------------------------


def test_a_checkout_is_for_one_variant_and_carries_our_ids_as_text(provider, httpserver, settings):
    settings.LEMONSQUEEZY_TEST_MODE = True
    answer = {"data": resource("checkouts", 1, url="https://acme.example/checkout/custom/1?signature=x")}
    httpserver.expect_request("/v1/checkouts", method="POST").respond_with_json(answer, status=201)
    before = utc_now()
    assert provider.create_checkout(WISH) == "https://acme.example/checkout/custom/1?signature=x"
    [request] = sent(httpserver)
    assert (request.headers["Accept"], request.headers["Content-Type"]) == (JSON_API, JSON_API)
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    data = body_of(request)["data"]
    assert data["type"] == "checkouts"
    assert data["relationships"] == {
        "store": {"data": {"type": "stores", "id": "3"}},
        "variant": {"data": {"type": "variants", "id": "10"}},
    }
    attributes = data["attributes"]
    assert attributes["product_options"] == {"redirect_url": WISH.return_url, "enabled_variants": [10]}
    assert attributes["checkout_data"] == {
        "email": "ada@example.com",
        "name": "Ada",
        "custom": {"workspace_id": WISH.workspace_id, "user_id": "12", "checkout_id": WISH.checkout_id},
    }
    assert attributes["test_mode"] is True
    expires = datetime.fromisoformat(attributes["expires_at"])
    assert abs(expires - before - timedelta(hours=1)) < timedelta(seconds=30)


@pytest.mark.parametrize("nothing", ["", " "])
def test_a_checkout_leaves_out_what_is_empty(provider, httpserver, nothing):
    answer = {"data": resource("checkouts", 1, url="https://acme.example/checkout/custom/1")}
    httpserver.expect_request("/v1/checkouts", method="POST").respond_with_json(answer, status=201)
    provider.create_checkout(replace(WISH, name=nothing))
    [request] = sent(httpserver)
    assert body_of(request)["data"]["attributes"]["checkout_data"].keys() == {"email", "custom"}


@pytest.mark.parametrize(("charge_now", "more"), [(True, {"invoice_immediately": True}), (False, {})])
def test_a_change_of_plan_names_the_variant_as_a_number(provider, httpserver, charge_now, more):
    httpserver.expect_request("/v1/subscriptions/5", method="PATCH").respond_with_json(SUBSCRIPTION)
    provider.change_plan("5", "11", charge_now=charge_now)
    [request] = sent(httpserver)
    assert body_of(request) == {"data": {"type": "subscriptions", "id": "5", "attributes": {"variant_id": 11, **more}}}


def test_cancelling_deletes_and_resuming_takes_it_back(provider, httpserver):
    httpserver.expect_request("/v1/subscriptions/5").respond_with_json(SUBSCRIPTION)
    provider.cancel("5")
    provider.resume("5")
    cancelled, resumed = sent(httpserver)
    assert (cancelled.method, resumed.method) == ("DELETE", "PATCH")
    assert body_of(resumed)["data"]["attributes"] == {"cancelled": False}


def test_the_links_of_the_portal_come_fresh_and_are_not_shown(provider, httpserver):
    httpserver.expect_request("/v1/subscriptions/5", method="GET").respond_with_json(SUBSCRIPTION)
    links = provider.portal_links("5")
    assert links.portal_url == "https://acme.example/billing?signature=s3cret"
    assert links.payment_method_url == "https://acme.example/card?signature=s3cret"
    assert "s3cret" not in repr(links)


def test_without_a_link_of_its_own_the_payment_method_is_in_the_portal(provider, httpserver):
    urls = {"customer_portal": "https://acme.example/billing"}
    answers(httpserver, json.dumps({"data": resource("subscriptions", 5, urls=urls)}))
    links = provider.portal_links("5")
    assert links.portal_url == links.payment_method_url == "https://acme.example/billing"


@pytest.mark.parametrize("urls", [None, [], {}, {"customer_portal": None}])
def test_without_a_portal_there_are_no_links(provider, httpserver, urls):
    answers(httpserver, json.dumps({"data": resource("subscriptions", 5, urls=urls)}))
    refusal(provider, "portal", ProviderUnavailable)


def test_a_subscription_is_read(provider, httpserver):
    httpserver.expect_request("/v1/subscriptions/5", method="GET").respond_with_json(SUBSCRIPTION)
    facts = provider.fetch_subscription("5")
    assert (facts.subscription_id, facts.store_id, facts.variant_id) == ("5", "3", "10")
    assert (facts.status, facts.is_test) == ("active", True)
    assert facts.renews_at == datetime(2026, 2, 1, tzinfo=UTC)


def test_payments_come_newest_first_without_those_of_others(provider, httpserver):
    times = {"updated_at": "2026-03-01T00:00:00.000000Z", "status": "paid"}
    listed = [
        resource("subscription-invoices", 1, subscription_id=5, created_at="2026-01-01T00:00:00.000000Z", **times),
        resource("subscription-invoices", 2, subscription_id=6, created_at="2026-01-02T00:00:00.000000Z", **times),
        resource("subscription-invoices", 3, subscription_id=5, created_at="2026-01-03T00:00:00.000000Z", **times),
        resource("subscription-invoices", 4, subscription_id=5, created_at="never", **times),
        "nonsense",
    ]
    httpserver.expect_request("/v1/subscription-invoices").respond_with_json({"data": listed})
    assert [each.invoice_id for each in provider.fetch_invoices("5")] == ["3", "1"]
    [request] = sent(httpserver)
    # The provider answers a filter on the status with nothing.
    assert dict(request.args) == {"filter[subscription_id]": "5", "page[number]": "1", "page[size]": "100"}


def test_a_buyers_subscriptions_are_those_of_our_store(provider, httpserver):
    listed = [
        resource("subscriptions", 5, **ATTRIBUTES),
        resource("subscriptions", 6, **{**ATTRIBUTES, "store_id": 4}),
        resource("subscriptions", 7, **{**ATTRIBUTES, "status": None}),
    ]
    httpserver.expect_request("/v1/subscriptions").respond_with_json({"data": listed})
    assert [each.subscription_id for each in provider.find_subscriptions("ada+x@example.com", "10")] == ["5"]
    [request] = sent(httpserver)
    filters = {"store_id": "3", "user_email": "ada+x@example.com", "variant_id": "10"}
    assert {name: request.args[f"filter[{name}]"] for name in filters} == filters


def test_what_the_store_sells_is_put_together_from_all_pages(provider, httpserver):
    def price(number, variant, unit, quantity=1, made="2026-01-01T00:00:00.000000Z"):
        its = {"renewal_interval_unit": unit, "renewal_interval_quantity": quantity, "created_at": made}
        return resource("prices", number, variant_id=variant, **its)

    def variant(number, product, status="published", **more):
        return resource("variants", number, product_id=product, name=f"V{number}", status=status, **more)

    lists = {
        "products": [
            resource("products", 1, store_id=3, name="Pro"),
            resource("products", 2, store_id=3, name="Team"),
            resource("products", 9, store_id=4, name="Another store's"),
        ],
        "variants": [
            variant(10, 1, "pending"),  # beside others: not sold
            variant(11, 1, test_mode=True),
            variant(12, 1),
            variant(13, 1, "draft"),
            variant(20, 2, "pending"),  # the only one: sold
            variant(90, 9),
            variant(14, 1),
        ],
        "prices": [
            price(1, 10, "month"),
            price(2, 11, "month", made="2026-02-01T00:00:00.000000Z"),
            price(3, 11, "year", made="2026-01-01T00:00:00.000000Z"),
            price(4, 12, "month", 3),
            price(5, 13, "month"),
            price(6, 20, "year"),
            price(7, 90, "month"),
            price(8, 14, None, None),  # sold once
        ],
    }

    def page(request: Request) -> Response:
        listed, number = lists[request.path.rsplit("/", 1)[1]], int(request.args["page[number]"])
        paging = {"currentPage": number, "lastPage": (len(listed) + 1) // 2}
        content = {"meta": {"page": paging}, "data": listed[2 * number - 2 : 2 * number]}
        return Response(json.dumps(content), content_type=JSON_API)

    for kind in lists:
        httpserver.expect_request(f"/v1/{kind}").respond_with_handler(page)
    assert list(provider.fetch_variants()) == [
        VariantFacts(variant_id="11", store_id="3", name="Pro · V11", interval="month", is_test=True),
        VariantFacts(variant_id="12", store_id="3", name="Pro · V12", interval="3 months", is_test=False),
        VariantFacts(variant_id="20", store_id="3", name="Team · V20", interval="year", is_test=False),
    ]


# --- What is taken for what -------------------------------------------------------------------------------------------


def refusal(provider, call, expected):
    """The error of `call`, which must be exactly of the class `expected`, and hold no secret."""
    with pytest.raises(expected) as caught:
        CALLS[call](provider)
    error = caught.value
    assert type(error) is expected
    assert KEY not in repr(error)
    assert "127.0.0.1" not in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    if issubclass(expected, ProviderUnavailable):
        assert error.status == 503
        assert int(error.headers["Retry-After"]) >= 1
    return error


def answers(httpserver, *args, **kwargs):
    for path in ("checkouts", "subscriptions/5", "subscription-invoices", "subscriptions", "products"):
        httpserver.expect_request(f"/v1/{path}").respond_with_data(*args, **kwargs)


@pytest.mark.parametrize(
    ("status", "content", "headers"),
    [
        (500, '{"errors": [{"detail": "Oops"}]}', {}),
        (502, "<html>Bad gateway</html>", {"Content-Type": "text/html"}),
        (200, "<html>Be right back</html>", {"Content-Type": "text/html"}),
        (200, "", {}),
        (200, "[]", {}),
        (200, "[" * 100_000, {}),
        (204, "", {}),
        (302, "", {"Location": "http://127.0.0.1:9/elsewhere"}),
        (404, "<html>Not found</html>", {"Content-Type": "text/html"}),
        (200, "{}", {"Content-Encoding": "gzip"}),
    ],
)
@pytest.mark.parametrize("call", CALLS)
def test_no_proper_answer_leaves_a_change_unsure_and_a_question_open(
    provider, httpserver, call, status, content, headers
):
    answers(httpserver, content, status=status, headers=headers)
    refusal(provider, call, ProviderUnsure if call in CHANGING else ProviderUnavailable)
    assert len(sent(httpserver)) == 1


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_that_does_not_come_leaves_a_change_unsure(provider, httpserver, call, monkeypatch):
    given_up = threading.Event()

    def answer(_request: Request) -> Response:
        given_up.wait(30)
        return Response(json.dumps(SUBSCRIPTION), content_type=JSON_API)

    monkeypatch.setattr(transport, "READ_SECONDS", 0.03)
    for path in ("checkouts", "subscriptions/5", "subscription-invoices", "subscriptions", "products"):
        httpserver.expect_request(f"/v1/{path}").respond_with_handler(answer)
    try:
        refusal(provider, call, ProviderUnsure if call in CHANGING else ProviderUnavailable)
    finally:
        given_up.set()


def test_an_answer_without_end_is_given_up(provider, httpserver, monkeypatch):
    monkeypatch.setattr(transport, "MOST_READ", 1_000)
    answers(httpserver, json.dumps({"data": "x" * 2_000}))
    refusal(provider, "cancel", ProviderUnsure)


@pytest.mark.parametrize("call", CALLS)
def test_a_provider_that_is_not_there_has_changed_nothing(call):
    gone = LemonSqueezy(base="http://127.0.0.1:1/v1", api_key=KEY, webhook_secret="", store_id="3")
    assert "Nothing was changed" in str(refusal(gone, call, ProviderUnavailable))


@pytest.mark.parametrize("base", ["http://[::1/v1", "nowhere", ""])
def test_an_address_that_is_none_has_changed_nothing(base):
    refusal(LemonSqueezy(base=base, api_key=KEY, webhook_secret="", store_id="3"), "change", ProviderUnavailable)


@pytest.mark.parametrize("key", ["kéy", "k\ney"])
def test_a_key_that_no_header_can_hold_has_changed_nothing(httpserver, key):
    provider = LemonSqueezy(base=httpserver.url_for("/v1"), api_key=key, webhook_secret="", store_id="3")
    refusal(provider, "change", ProviderUnavailable)
    assert sent(httpserver) == []


def test_a_change_is_not_sent_again_when_its_connection_is_cut(provider, httpserver):
    """As when one is used again that the other side is just closing."""
    seen = []

    def cut(request: Request) -> Response:
        seen.append(request.method)
        request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return Response()

    httpserver.expect_request("/v1/subscriptions/5").respond_with_handler(cut)
    refusal(provider, "change", ProviderUnsure)
    assert seen == ["PATCH"]


def test_who_cannot_prove_its_name_does_not_get_the_key(tmp_path):
    with HTTPServer(host="127.0.0.1", ssl_context=certificate(tmp_path, "127.0.0.1").context) as stranger:
        stranger.expect_request("/v1/subscriptions/5").respond_with_json(SUBSCRIPTION)
        provider = LemonSqueezy(base=stranger.url_for("/v1"), api_key=KEY, webhook_secret="", store_id="3")
        refusal(provider, "change", ProviderUnavailable)
        assert sent(stranger) == []


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("call", ["change", "subscription"])
def test_a_refused_key_is_a_matter_for_operators_and_is_not_logged(provider, httpserver, call, status):
    answers(httpserver, '{"errors": [{"detail": "Unauthenticated."}]}', status=status)
    with structlog.testing.capture_logs() as logs:
        error = refusal(provider, call, ProviderUnavailable)
    assert "key" in str(error)
    assert [(line["event"], line["log_level"]) for line in logs] == [("billing_key_refused", "error")]
    assert KEY not in str(logs)


@pytest.mark.parametrize("call", ["change", "cancel", "resume", "portal", "subscription"])
def test_what_the_provider_does_not_know(provider, httpserver, call):
    answers(httpserver, '{"errors": [{"detail": "The related resource does not exist."}]}', status=404)
    refusal(provider, call, ProviderNotFound)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"errors": [{"detail": "The variant is not for sale.", "title": "No"}]}, "The variant is not for sale."),
        ({"errors": [{"title": "Unprocessable"}, {"detail": "Second."}]}, "Unprocessable Second."),
        ({"error": "Not now."}, "Not now."),
        ({"message": "Line one\n\x1b[31mline two"}, "Line one [31mline two"),
        ({"errors": [{"detail": "x" * 1_000}]}, "x" * 300),
        ({"errors": "odd"}, "The payment provider refused this without saying why."),
        ({"errors": [None, 3, {"detail": None}]}, "The payment provider refused this without saying why."),
    ],
)
def test_a_no_comes_with_the_providers_reason(provider, httpserver, content, reason):
    answers(httpserver, json.dumps(content), status=422)
    error = refusal(provider, "change", ProviderRefused)
    assert (error.status, error.reason, str(error)) == (409, "provider_refused", reason)


def refused_for(*attributes):
    said = "The {0} field must be a date after {0}."
    return json.dumps({"errors": [{"detail": said, "source": {"pointer": f"/data/{each}"}} for each in attributes]})


def test_what_began_with_a_trial_is_resumed_elsewhere(provider, httpserver):
    answers(httpserver, refused_for("attributes/trial_ends_at"), status=422)
    assert "billing portal" in str(refusal(provider, "resume", ProviderRefused))
    assert len(sent(httpserver)) == 1
    assert "billing portal" not in str(refusal(provider, "change", transport.AttributeRefused))


@pytest.mark.parametrize(
    "attributes", [[], ["attributes/cancelled"], ["id"], ["attributes/trial_ends_at", "attributes/cancelled"]]
)
def test_any_other_no_to_a_resumption_is_told_as_it_is(provider, httpserver, attributes):
    answers(httpserver, refused_for(*attributes), status=422)
    with pytest.raises(ProviderRefused) as caught:
        provider.resume("5")
    assert "billing portal" not in str(caught.value)


@pytest.mark.parametrize("found", ["..", "../users/me", "5/x", "5?x=1", "", "5\n", "é", "x" * 65])
def test_an_id_never_leads_to_another_place(provider, httpserver, found):
    for ask in (provider.fetch_subscription, provider.portal_links, provider.cancel, provider.resume):
        with pytest.raises(ProviderNotFound):
            ask(found)
    assert sent(httpserver) == []


def test_the_answer_must_be_of_what_was_asked_for(provider, httpserver):
    answers(httpserver, json.dumps({"data": resource("subscriptions", 6, **ATTRIBUTES)}))
    refusal(provider, "subscription", ProviderUnavailable)


@pytest.mark.parametrize("data", [None, [], {"type": "subscriptions", "id": "5", "attributes": {"status": "active"}}])
def test_a_subscription_without_what_every_one_has_is_no_answer(provider, httpserver, data):
    answers(httpserver, json.dumps({"data": data}))
    refusal(provider, "subscription", ProviderUnavailable)


@pytest.mark.parametrize("call", ["invoices", "find", "variants"])
def test_a_list_must_be_one(provider, httpserver, call):
    answers(httpserver, json.dumps({"data": {}}))
    refusal(provider, call, ProviderUnavailable)


@pytest.mark.parametrize(
    "url",
    [
        None,
        5,
        "",
        "javascript:alert(1)",
        "//acme.example",
        "ftp://acme.example",
        "https://",
        "https://[acme",
        "https://acme.example/\nSet-Cookie: a",
        "https://acme.example/a b",
    ],
)
def test_people_are_sent_to_web_addresses_only(provider, httpserver, url):
    urls = {**ATTRIBUTES["urls"], "customer_portal": url}
    answers(httpserver, json.dumps({"data": resource("subscriptions", 5, url=url, urls=urls)}))
    refusal(provider, "checkout", ProviderUnsure)
    refusal(provider, "portal", ProviderUnavailable)


def test_the_address_of_nobodys_call_is_logged(provider, httpserver, caplog):
    caplog.set_level(logging.DEBUG)
    httpserver.expect_request("/v1/subscriptions").respond_with_json({"data": []})
    provider.find_subscriptions("ada@example.com", "10")
    assert not [line for line in caplog.records if line.name.startswith("httpx2")]
    assert KEY not in caplog.text
    assert "ada@example.com" not in "".join(
        line.getMessage() for line in caplog.records if not line.name.startswith("werkzeug")
    )


# --- How often --------------------------------------------------------------------------------------------------------


@pytest.fixture
def still(monkeypatch):
    """A minute that does not pass: 20 seconds of it are left."""
    monkeypatch.setattr(budget, "time", lambda: 1_800_000_040.0)


def spend(number):
    for _ in range(number):
        budget.take(urgent=True)


@pytest.mark.usefixtures("still")
def test_checks_that_nobody_waits_for_stop_before_what_people_ask_for(provider, httpserver):
    httpserver.expect_request("/v1/subscriptions/5").respond_with_json(SUBSCRIPTION)
    spend(239)
    provider.fetch_subscription("5", urgent=False)
    for _ in range(3):
        with pytest.raises(ProviderUnavailable) as caught:
            provider.fetch_subscription("5", urgent=False)
        assert caught.value.headers == {"Retry-After": "20"}
    # Those that were turned away have taken nothing.
    spend(59)
    provider.cancel("5")
    assert refusal(provider, "cancel", ProviderUnavailable).headers == {"Retry-After": "20"}
    assert len(sent(httpserver)) == 2


@pytest.mark.parametrize(
    ("header", "waits"), [("7", "7"), ("0", "1"), ("", "20"), ("-5", "20"), ("99999999", "20"), ("5000", "3600")]
)
@pytest.mark.usefixtures("still")
def test_too_many_calls_by_the_providers_count_stop_all_of_them(provider, httpserver, header, waits):
    answers(httpserver, "{}", status=429, headers={"Retry-After": header} if header else {})
    assert refusal(provider, "change", ProviderUnavailable).headers == {"Retry-After": waits}
    refusal(provider, "subscription", ProviderUnavailable)
    assert len(sent(httpserver)) == 1


@pytest.mark.usefixtures("still")
def test_the_last_call_by_the_providers_count_is_the_last(provider, httpserver):
    httpserver.expect_request("/v1/subscriptions/5").respond_with_json(
        SUBSCRIPTION, headers={"X-Ratelimit-Remaining": "0"}
    )
    assert provider.fetch_subscription("5").status == "active"
    refusal(provider, "subscription", ProviderUnavailable)
    assert len(sent(httpserver)) == 1


def test_the_next_minute_starts_anew(provider, httpserver, monkeypatch):
    httpserver.expect_request("/v1/subscriptions/5").respond_with_json(SUBSCRIPTION)
    monkeypatch.setattr(budget, "time", lambda: 1_800_000_059.9)
    budget.exhaust()
    assert refusal(provider, "subscription", ProviderUnavailable).headers == {"Retry-After": "1"}
    monkeypatch.setattr(budget, "time", lambda: 1_800_000_060.0)
    assert provider.fetch_subscription("5").status == "active"


def test_without_redis_calls_are_made_all_the_same(provider, httpserver, monkeypatch):
    nowhere = redis.Redis(host="127.0.0.1", port=1, retry=None)
    monkeypatch.setattr(budget, "_script", lambda: nowhere.register_script("return 1"))
    monkeypatch.setattr(budget, "client", lambda: nowhere)
    httpserver.expect_request("/v1/subscriptions/5").respond_with_json(SUBSCRIPTION)
    assert provider.fetch_subscription("5", urgent=False).status == "active"
    budget.exhaust()
