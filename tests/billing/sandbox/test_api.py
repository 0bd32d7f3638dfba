"""The double's API has the provider's routes, shapes and refusals."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from billing.sandbox.errors import LinkRefused
from billing.sandbox.shop import Shop
from tests.billing.sandbox.running import API_KEY, running_shop, wait_for

MEDIA_TYPE = "application/vnd.api+json"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000000Z")

SUBSCRIPTION = """
store_id customer_id order_id order_item_id product_id variant_id product_name variant_name user_name user_email
status status_formatted card_brand card_last_four payment_processor pause cancelled trial_ends_at billing_anchor
first_subscription_item urls renews_at ends_at created_at updated_at test_mode
"""
INVOICE = """
store_id subscription_id customer_id user_name user_email billing_reason card_brand card_last_four currency
currency_rate status status_formatted refunded refunded_at tax_inclusive urls affiliate_id referral_amount
created_at updated_at test_mode
subtotal setup_fee discount_total tax total refunded_amount
subtotal_usd setup_fee_usd discount_total_usd tax_usd total_usd refunded_amount_usd
subtotal_formatted setup_fee_formatted discount_total_formatted tax_formatted total_formatted refunded_amount_formatted
"""


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Shop, httpx2.Client]]:
    with running_shop() as (shop, url):
        shop.calls_per_minute = 10_000
        headers = {"Authorization": f"Bearer {API_KEY}", "Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE}
        with httpx2.Client(base_url=f"{url}/v1", headers=headers, trust_env=False) as client:
            yield shop, client


@pytest.fixture
def shop(served: tuple[Shop, httpx2.Client]) -> Iterator[Shop]:
    yield served[0]
    served[0].set_faults(api_trouble="", api_trouble_calls=0)
    served[0].calls_per_minute = 10_000


@pytest.fixture
def client(served: tuple[Shop, httpx2.Client]) -> httpx2.Client:
    return served[1]


def checkout_body(variant_id: str = "201", store_id: str = "1", **attributes: Any) -> dict[str, Any]:
    return {
        "data": {
            "type": "checkouts",
            "attributes": attributes,
            "relationships": {
                "store": {"data": {"type": "stores", "id": store_id}},
                "variant": {"data": {"type": "variants", "id": variant_id}},
            },
        }
    }


def patch_body(subscription_id: int, **attributes: Any) -> dict[str, Any]:
    return {"data": {"type": "subscriptions", "id": str(subscription_id), "attributes": attributes}}


def buy(shop: Shop, variant_id: int = 201, email: str = "ann@example.com") -> int:
    return shop.pay(shop.create_checkout(variant_id, checkout_data={"email": email, "name": "Ann"}).id)


def errors_of(reply: httpx2.Response) -> list[dict[str, Any]]:
    errors = reply.json()["errors"]
    assert all({"detail", "status", "title"} <= set(error) for error in errors)
    assert {error["status"] for error in errors} == {str(reply.status_code)}
    return errors


def test_a_subscription_has_the_documented_shape(shop: Shop, client: httpx2.Client) -> None:
    subscription_id = buy(shop)
    reply = client.get(f"/subscriptions/{subscription_id}")
    assert (reply.status_code, reply.headers["Content-Type"]) == (200, MEDIA_TYPE)
    document = reply.json()
    assert document["jsonapi"] == {"version": "1.0"}
    assert document["links"]["self"] == document["data"]["links"]["self"]
    data = document["data"]
    assert (data["type"], data["id"]) == ("subscriptions", str(subscription_id))
    attributes = data["attributes"]
    assert set(attributes) == set(SUBSCRIPTION.split())
    assert all(type(attributes[name]) is int for name in attributes if name.endswith("_id"))
    assert attributes["first_subscription_item"]["subscription_id"] == subscription_id
    for name in ("renews_at", "created_at", "updated_at"):
        assert TIME.fullmatch(attributes[name])
    assert (attributes["ends_at"], attributes["pause"], attributes["test_mode"]) == (None, None, True)
    assert set(attributes["urls"]) == {
        "update_payment_method",
        "customer_portal",
        "customer_portal_update_subscription",
    }
    assert set(data["relationships"]) == {
        "store",
        "customer",
        "order",
        "order-item",
        "product",
        "variant",
        "subscription-items",
        "subscription-invoices",
    }
    assert all(set(relation["links"]) == {"related", "self"} for relation in data["relationships"].values())


def test_an_invoice_has_the_documented_shape(shop: Shop, client: httpx2.Client) -> None:
    subscription_id = buy(shop)
    found = client.get("/subscription-invoices", params={"filter[subscription_id]": str(subscription_id)}).json()[
        "data"
    ]
    assert len(found) == 1
    attributes = found[0]["attributes"]
    assert set(attributes) == set(INVOICE.split())
    assert attributes["subscription_id"] == subscription_id
    assert (attributes["total"], attributes["total_formatted"]) == (4900, "$49.00")
    assert isinstance(attributes["currency_rate"], str)


def test_that_invoices_cannot_be_found_by_status(shop: Shop, client: httpx2.Client) -> None:
    buy(shop)
    assert client.get("/subscription-invoices", params={"filter[status]": "paid"}).json()["data"] == []


@pytest.mark.parametrize("key", ["", "Bearer", "Bearer wrong", API_KEY, f"Basic {API_KEY}"])
def test_a_missing_or_bad_key_is_401(client: httpx2.Client, key: str) -> None:
    reply = client.get("/users/me", headers={"Authorization": key})
    assert reply.status_code == 401
    errors_of(reply)


def test_the_key_can_be_checked(client: httpx2.Client) -> None:
    reply = client.get("/users/me")
    assert reply.json()["data"]["type"] == "users"
    assert int(reply.headers["X-Ratelimit-Remaining"]) < int(reply.headers["X-Ratelimit-Limit"])


@pytest.mark.parametrize("path", ["/subscriptions/1", "/customers/x", "/things", "/things/1", "/subscriptions/1/2/3"])
def test_what_is_not_there_is_404(client: httpx2.Client, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code == 404
    errors_of(reply)


def test_the_catalogue_tells_price_and_interval_on_the_price(client: httpx2.Client) -> None:
    variants = client.get("/variants", params={"filter[product_id]": "12", "include": "product"}).json()
    assert {data["id"] for data in variants["data"]} == {"201", "202"}
    assert [(data["type"], data["id"]) for data in variants["included"]] == [("products", "12")]
    price = client.get("/prices", params={"filter[variant_id]": "202"}).json()["data"][0]["attributes"]
    assert (price["unit_price"], price["renewal_interval_unit"], price["renewal_interval_quantity"]) == (
        49000,
        "year",
        1,
    )
    assert client.get("/products/12").json()["data"]["attributes"]["name"] == "Pro"


def test_a_checkout_is_made_and_its_values_come_back_as_text(shop: Shop, client: httpx2.Client) -> None:
    reply = client.post(
        "/checkouts",
        json=checkout_body(
            checkout_data={"email": "ann@example.com", "custom": {"workspace_id": 12}},
            product_options={"redirect_url": "http://127.0.0.1:1/back", "enabled_variants": [201]},
        ),
    )
    assert reply.status_code == 201
    data = reply.json()["data"]
    assert data["attributes"]["url"].startswith(f"{shop.base_url}/checkout/custom/{data['id']}?signature=")
    assert data["attributes"]["checkout_data"]["custom"] == {"workspace_id": "12"}
    assert shop.checkout(data["id"]).redirect_url == "http://127.0.0.1:1/back"
    assert client.get(f"/checkouts/{data['id']}").json()["data"]["id"] == data["id"]
    assert "preview" in client.post("/checkouts", json=checkout_body(preview=True)).json()["data"]["attributes"]


def test_the_end_of_a_checkout_is_meant_by_the_clock_of_who_asked(shop: Shop, client: httpx2.Client) -> None:
    shop.advance(timedelta(days=40))
    in_an_hour = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = client.post("/checkouts", json=checkout_body(expires_at=in_an_hour)).json()["data"]
    assert shop.pay(made["id"], email="ann@example.com")


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"data": {"type": "subscriptions"}},
        {"data": {"type": "checkouts"}},
        checkout_body(variant_id="7"),
        checkout_body(variant_id="x"),
        checkout_body(store_id="2"),
        checkout_body(expires_at="tomorrow"),
        checkout_body(checkout_data={"custom": [1]}),
    ],
)
def test_a_checkout_that_makes_no_sense_is_422(client: httpx2.Client, body: Any) -> None:
    reply = client.post("/checkouts", json=body)
    assert reply.status_code == 422
    errors_of(reply)


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"name": ""}, "name"),
        ({"name": " "}, "name"),
        ({"email": ""}, "email"),
        ({"custom": {"workspace_id": ""}}, "custom/workspace_id"),
    ],
)
def test_an_empty_text_in_a_checkout_is_refused_where_it_is(
    client: httpx2.Client, data: dict[str, Any], where: str
) -> None:
    reply = client.post("/checkouts", json=checkout_body(checkout_data=data))
    assert reply.status_code == 422
    [error] = errors_of(reply)
    assert error["source"] == {"pointer": f"/data/attributes/checkout_data/{where}"}


def test_a_trial_that_is_over_stands_in_the_way_of_resuming_by_the_api(client: httpx2.Client) -> None:
    with running_shop() as (shop, url):
        shop.set_settings(trial_days=7)
        subscription_id = buy(shop)
        address, body = f"{url}/v1/subscriptions/{subscription_id}", patch_body(subscription_id, cancelled=False)
        shop.cancel(subscription_id)
        assert client.patch(address, json=body).status_code == 200
        shop.advance(timedelta(days=8))
        shop.cancel(subscription_id)
        reply = client.patch(address, json=body)
        assert (reply.status_code, shop.subscription(subscription_id).status) == (422, "cancelled")
        [error] = errors_of(reply)
        assert error["source"] == {"pointer": "/data/attributes/trial_ends_at"}


def test_no_json_is_400_and_another_media_type_is_415(client: httpx2.Client) -> None:
    assert client.post("/checkouts", content=b"{").status_code == 400
    assert client.post("/checkouts", content=b"{}", headers={"Content-Type": "application/json"}).status_code == 415


def test_plan_cancel_resume_and_pause_by_patch(shop: Shop, client: httpx2.Client) -> None:
    subscription_id = buy(shop)
    path = f"/subscriptions/{subscription_id}"

    def patched(**attributes: Any) -> dict[str, Any]:
        reply = client.patch(path, json=patch_body(subscription_id, **attributes))
        assert reply.status_code == 200
        return reply.json()["data"]["attributes"]

    assert patched(variant_id=301, invoice_immediately=True)["variant_id"] == 301
    assert patched(cancelled=True)["status"] == "cancelled"
    assert patched(cancelled=False)["status"] == "active"
    assert patched(pause={"mode": "void"})["pause"] == {"mode": "void", "resumes_at": None}
    assert patched(pause=None)["status"] == "active"
    reply = client.delete(path)
    assert (reply.status_code, reply.json()["data"]["attributes"]["status"]) == (200, "cancelled")


@pytest.mark.parametrize(
    "attributes",
    [
        {"variant_id": 7},
        {"variant_id": "301"},
        {"cancelled": "yes"},
        {"pause": {"mode": "holiday"}},
        {"pause": True},
        {"billing_anchor": 3},
    ],
)
def test_a_change_that_makes_no_sense_is_422(shop: Shop, client: httpx2.Client, attributes: dict[str, Any]) -> None:
    subscription_id = buy(shop)
    reply = client.patch(f"/subscriptions/{subscription_id}", json=patch_body(subscription_id, **attributes))
    assert reply.status_code == 422
    errors_of(reply)


def test_a_change_must_name_the_thing_that_it_is_sent_to(shop: Shop, client: httpx2.Client) -> None:
    subscription_id = buy(shop)
    reply = client.patch(f"/subscriptions/{subscription_id}", json=patch_body(7, cancelled=True))
    assert reply.status_code == 422


def test_an_expired_subscription_is_422(client: httpx2.Client) -> None:
    with running_shop() as (shop, url):
        subscription_id = buy(shop)
        shop.cancel(subscription_id)
        shop.advance(timedelta(days=40))
        for attributes in ({"cancelled": False}, {"variant_id": 301}):
            body = patch_body(subscription_id, **attributes)
            reply = client.patch(f"{url}/v1/subscriptions/{subscription_id}", json=body)
            assert reply.status_code == 422
        assert client.delete(f"{url}/v1/subscriptions/{subscription_id}").status_code == 422


def test_lists_are_filtered_newest_first_and_in_pages(shop: Shop, client: httpx2.Client) -> None:
    bought = [buy(shop, email="bob@example.com") for _ in range(12)]
    shop.cancel(bought[0])
    filters = {"filter[user_email]": "bob@example.com"}
    first = client.get("/subscriptions", params=filters).json()
    assert [int(data["id"]) for data in first["data"]] == bought[:1:-1]
    assert first["meta"]["page"] == {
        "currentPage": 1,
        "from": 1,
        "lastPage": 2,
        "perPage": 10,
        "to": 10,
        "total": 12,
    }
    assert set(first["links"]) == {"first", "last", "next"}
    second = client.get(first["links"]["next"]).json()
    assert [int(data["id"]) for data in second["data"]] == bought[1::-1]
    assert set(second["links"]) == {"first", "last", "prev"}
    cancelled = client.get("/subscriptions", params=filters | {"filter[status]": "cancelled"}).json()["data"]
    assert [int(data["id"]) for data in cancelled] == bought[:1]
    assert client.get("/subscriptions", params={"filter[colour]": "red"}).status_code == 422
    assert client.get("/subscriptions", params={"page[number]": "0"}).status_code == 422


def test_a_customers_portal_comes_with_the_first_purchase(shop: Shop, client: httpx2.Client) -> None:
    customer_id = shop.subscription(buy(shop)).customer_id
    portal = client.get(f"/customers/{customer_id}").json()["data"]["attributes"]["urls"]["customer_portal"]
    assert portal.startswith(f"{shop.base_url}/billing?expires=")


def test_an_invoice_is_refunded(shop: Shop, client: httpx2.Client) -> None:
    buy(shop)
    invoice_id = shop.invoices()[0].id
    reply = client.post(f"/subscription-invoices/{invoice_id}/refund")
    assert (reply.status_code, reply.json()["data"]["attributes"]["status"]) == (200, "refunded")
    assert client.post(f"/subscription-invoices/{invoice_id}/refund").status_code == 422
    made = client.post(f"/subscription-invoices/{invoice_id}/generate-invoice").json()
    assert "/invoice/" in made["meta"]["urls"]["download_invoice"]


def test_webhooks_are_kept_without_telling_their_secret(shop: Shop, client: httpx2.Client) -> None:
    def body(**attributes: Any) -> dict[str, Any]:
        store = {"store": {"data": {"type": "stores", "id": "1"}}}
        return {"data": {"type": "webhooks", "attributes": attributes, "relationships": store}}

    wanted = {"url": "http://127.0.0.1:1/other", "events": ["subscription_expired"], "secret": "a-secret"}
    reply = client.post("/webhooks", json=body(**wanted))
    assert reply.status_code == 201
    data = reply.json()["data"]
    assert set(data["attributes"]) == {
        "store_id",
        "url",
        "events",
        "last_sent_at",
        "created_at",
        "updated_at",
        "test_mode",
    }
    change = body(events=["subscription_created"])
    change["data"]["id"] = data["id"]
    changed = client.patch(f"/webhooks/{data['id']}", json=change).json()["data"]["attributes"]
    assert (changed["url"], changed["events"]) == (wanted["url"], ["subscription_created"])
    shop.deliveries.take()
    buy(shop)
    assert [name for name, _, _ in shop.deliveries.take()].count("subscription_created") == 2
    assert client.delete(f"/webhooks/{data['id']}").status_code == 204
    assert client.get(f"/webhooks/{data['id']}").status_code == 404
    for bad in ({"url": "https://example.com/"}, {"secret": "short"}, {"secret": "x" * 41}, {"events": ["birthday"]}):
        assert client.post("/webhooks", json=body(**(wanted | bad))).status_code == 422


def test_after_300_calls_in_a_minute_it_is_429(client: httpx2.Client) -> None:
    with running_shop() as (shop, url):
        shop.calls_per_minute = 3
        replies = [client.get(f"{url}/v1/users/me") for _ in range(4)]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
        assert [reply.headers["X-Ratelimit-Remaining"] for reply in replies] == ["2", "1", "0", "0"]
    with running_shop() as (shop, _):
        assert shop.calls_per_minute == 300


@pytest.mark.parametrize(("trouble", "status"), [("500", 500), ("429", 429)])
def test_the_api_is_in_trouble_for_so_many_calls(shop: Shop, client: httpx2.Client, trouble: str, status: int) -> None:
    shop.set_faults(api_trouble=trouble, api_trouble_calls=2)
    assert [client.get("/users/me").status_code for _ in range(3)] == [status, status, 200]
    shop.set_faults(api_trouble=trouble)
    assert [client.get("/users/me").status_code for _ in range(3)] == [status] * 3


@pytest.mark.parametrize(("trouble", "status"), [("timeout", "active"), ("late", "cancelled")])
def test_no_answer_in_time_whether_it_was_done_or_not(
    shop: Shop, client: httpx2.Client, trouble: str, status: str
) -> None:
    subscription_id = buy(shop)
    shop.set_faults(api_trouble=trouble, api_trouble_calls=1)
    with pytest.raises(httpx2.TimeoutException):
        client.delete(f"/subscriptions/{subscription_id}", timeout=0.1)
    wait_for(lambda: shop.faults.api_trouble == "")
    wait_for(lambda: shop.subscription(subscription_id).status == status)


def test_links_are_signed_and_expire_by_the_sandboxs_clock() -> None:
    with running_shop() as (shop, url):
        shop.set_settings(link_hours=24)
        link = httpx2.URL(shop.portal_urls(shop.subscription(buy(shop)))["update_payment_method"])
        args = dict(link.params)
        assert str(link).startswith(url)
        shop.links.check(link.path, args)
        for path, changed in ((link.path, args | {"expires": "9999999999"}), ("/subscription/1/payment-details", args)):
            with pytest.raises(LinkRefused, match="signature"):
                shop.links.check(path, changed)
        shop.advance(timedelta(hours=23))
        shop.links.check(link.path, args)
        shop.advance(timedelta(hours=1))
        with pytest.raises(LinkRefused, match="expired"):
            shop.links.check(link.path, args)
