"""The provider's REST API, `/v1`."""

import hmac
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, g, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadRequest

from billing.sandbox import bodies
from billing.sandbox.deliveries import EVENTS
from billing.sandbox.errors import NotFound, Refused, ShopError
from billing.sandbox.hosts import is_loopback_url
from billing.sandbox.limits import RateLimit
from billing.sandbox.shop import Shop

MEDIA_TYPE = "application/vnd.api+json"
_SHORTEST_SECRET, _LONGEST_SECRET = 6, 40


def make_api(shop: Shop) -> Blueprint:
    """The API of one shop."""
    api = Blueprint("api", __name__, url_prefix="/v1")
    calls = _Calls(shop)
    api.before_request(calls.let_in)
    api.after_request(calls.let_out)
    api.register_error_handler(ShopError, lambda error: _errors(error.status, error.title, str(error), error.attribute))
    api.register_error_handler(BadRequest, lambda _: _errors(400, "Bad Request", "The request is not valid JSON."))
    _add_reading(api, shop)
    _add_checkouts(api, shop)
    _add_subscriptions(api, shop)
    _add_invoices(api, shop)
    _add_webhooks(api, shop)
    return api


class _Calls:
    """What every call has to pass: the key, the limit, and the faults that are switched on."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._limit = RateLimit()

    def let_in(self) -> ResponseReturnValue | None:
        g.remaining, g.trouble = None, ""
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._shop.api_key}".encode()):
            return _errors(401, "Unauthorized", "Unauthenticated.")
        g.remaining = self._limit.take(self._shop.calls_per_minute)
        g.trouble = self._shop.next_trouble()
        if g.remaining is None or g.trouble == "429":
            g.remaining = 0
            return jsonify(message="Too Many Attempts."), 429
        if g.trouble == "500":
            return jsonify(message="Server Error"), 500
        if g.trouble == "timeout":
            self._shop.stopping.wait(self._shop.faults.timeout_seconds)
            return jsonify(message="Gateway Timeout"), 504
        if request.data and request.mimetype != MEDIA_TYPE:
            return _errors(415, "Unsupported Media Type", f"The content type must be {MEDIA_TYPE}.")
        return None

    def let_out(self, response: Response) -> Response:
        if g.trouble == "late":
            self._shop.stopping.wait(self._shop.faults.timeout_seconds)
        if g.remaining is not None:
            response.headers["X-Ratelimit-Limit"] = str(self._shop.calls_per_minute)
            response.headers["X-Ratelimit-Remaining"] = str(g.remaining)
        if response.mimetype == "application/json":
            response.content_type = MEDIA_TYPE
        return response


def _add_reading(api: Blueprint, shop: Shop) -> None:
    @api.get("/users/me")
    def read_me() -> ResponseReturnValue:
        return jsonify(shop.document("users", 1))

    @api.get("/<kind>")
    def read_page(kind: str) -> ResponseReturnValue:
        filters = {name[7:-1]: value for name, value in request.args.items() if name.startswith("filter[")}

        def address(number: int) -> str:
            return f"{shop.base_url}{request.path}?{urlencode(request.args.to_dict() | {'page[number]': number})}"

        return jsonify(
            shop.listing(
                kind, filters, number=_page("number", 1), size=_page("size", 10), include=_include(), address=address
            )
        )

    @api.get("/<kind>/<record_id>")
    def read_one(kind: str, record_id: str) -> ResponseReturnValue:
        return jsonify(shop.document(kind, record_id, _include()))

    @api.route("/<path:path>", methods=["GET", "POST", "PATCH", "DELETE"])
    def refuse_path(path: str) -> ResponseReturnValue:
        raise NotFound("The requested resource was not found.")


def _add_checkouts(api: Blueprint, shop: Shop) -> None:
    @api.post("/checkouts")
    def create_checkout() -> ResponseReturnValue:
        data = bodies.resource(request.get_json(force=True), "checkouts")
        attributes = bodies.part(data, "attributes")
        if bodies.related_id(data, "store") != str(shop.store_id):
            raise Refused("The store relationship is invalid.")
        variant_id = bodies.related_id(data, "variant")
        if not variant_id.isdecimal():
            raise Refused("The variant relationship is invalid.")
        checkout_data = bodies.part(attributes, "checkout_data")
        for part, where in (
            (checkout_data, "checkout_data"),
            (bodies.part(checkout_data, "custom"), "checkout_data/custom"),
        ):
            bodies.refuse_empty(part, where)
        expires_at = bodies.moment(attributes, "expires_at")
        checkout = shop.create_checkout(
            int(variant_id),
            product_options=bodies.part(attributes, "product_options"),
            checkout_options=bodies.part(attributes, "checkout_options"),
            checkout_data=checkout_data,
            # Who asks knows nothing of a clock that was moved.
            expires_at=expires_at and expires_at + shop.clock.offset,
            preview=bodies.flag(attributes, "preview"),
        )
        return jsonify(shop.document("checkouts", checkout.id)), HTTPStatus.CREATED


def _add_subscriptions(api: Blueprint, shop: Shop) -> None:
    def _resume(subscription_id: int) -> None:
        trial_ends_at = shop.subscription(subscription_id).trial_ends_at
        if trial_ends_at and trial_ends_at <= shop.clock.now():
            # So it was reported twice, with this text: what the subscription has is checked like what is sent.
            raise Refused("The trial ends at field must be a date after {date}.", "trial_ends_at")
        shop.resume(subscription_id)

    @api.patch("/subscriptions/<record_id>")
    def change_subscription(record_id: str) -> ResponseReturnValue:
        subscription_id = _known(shop, "subscriptions", record_id)
        data = bodies.resource(request.get_json(force=True), "subscriptions", record_id)
        attributes = bodies.part(data, "attributes")
        for name in ("trial_ends_at", "billing_anchor"):
            if name in attributes:
                raise Refused(f"The local double does not offer {name}.")
        _check_flags(attributes)
        if "variant_id" in attributes:
            shop.change_variant(
                subscription_id,
                bodies.whole(attributes, "variant_id"),
                invoice_immediately=bodies.flag(attributes, "invoice_immediately"),
                disable_prorations=bodies.flag(attributes, "disable_prorations"),
            )
        if "pause" in attributes:
            _pause(shop, subscription_id, bodies.part(attributes, "pause"))
        if "cancelled" in attributes:
            (shop.cancel if attributes["cancelled"] else _resume)(subscription_id)
        return jsonify(shop.document("subscriptions", subscription_id))

    @api.delete("/subscriptions/<record_id>")
    def cancel_subscription(record_id: str) -> ResponseReturnValue:
        subscription_id = _known(shop, "subscriptions", record_id)
        shop.cancel(subscription_id)
        return jsonify(shop.document("subscriptions", subscription_id))


def _add_invoices(api: Blueprint, shop: Shop) -> None:
    @api.post("/subscription-invoices/<record_id>/refund")
    def refund_invoice(record_id: str) -> ResponseReturnValue:
        invoice_id = _known(shop, "subscription-invoices", record_id)
        cents = None
        if request.data:
            data = bodies.resource(request.get_json(force=True), "subscription-invoices", record_id)
            attributes = bodies.part(data, "attributes")
            cents = bodies.whole(attributes, "amount") if "amount" in attributes else None
        shop.refund(invoice_id, cents)
        return jsonify(shop.document("subscription-invoices", invoice_id))

    @api.post("/subscription-invoices/<record_id>/generate-invoice")
    def generate_invoice(record_id: str) -> ResponseReturnValue:
        urls = shop.document("subscription-invoices", record_id)["data"]["attributes"]["urls"]
        if urls["invoice_url"] is None:
            raise Refused("A pending invoice cannot be generated.")
        return jsonify(meta={"urls": {"download_invoice": urls["invoice_url"]}})


def _add_webhooks(api: Blueprint, shop: Shop) -> None:
    @api.post("/webhooks")
    def add_webhook() -> ResponseReturnValue:
        data = bodies.resource(request.get_json(force=True), "webhooks")
        if bodies.related_id(data, "store") != str(shop.store_id):
            raise Refused("The store relationship is invalid.")
        attributes = {"url": None, "secret": "", "events": None} | bodies.part(data, "attributes")
        webhook_id = shop.save_webhook(None, **_webhook(attributes))
        return jsonify(shop.document("webhooks", webhook_id)), HTTPStatus.CREATED

    @api.patch("/webhooks/<record_id>")
    def change_webhook(record_id: str) -> ResponseReturnValue:
        webhook_id = _known(shop, "webhooks", record_id)
        data = bodies.resource(request.get_json(force=True), "webhooks", record_id)
        now = shop.document("webhooks", webhook_id)["data"]["attributes"]
        attributes = {"url": now["url"], "secret": None, "events": now["events"]} | bodies.part(data, "attributes")
        shop.save_webhook(webhook_id, **_webhook(attributes))
        return jsonify(shop.document("webhooks", webhook_id))

    @api.delete("/webhooks/<record_id>")
    def remove_webhook(record_id: str) -> ResponseReturnValue:
        shop.remove_webhook(_known(shop, "webhooks", record_id))
        return "", HTTPStatus.NO_CONTENT


def _webhook(attributes: dict[str, Any]) -> dict[str, Any]:
    url, secret, events = attributes["url"], attributes["secret"], attributes["events"]
    if not isinstance(url, str) or not is_loopback_url(url):
        raise Refused("The url must be an http address of this machine: this is a local double.")
    if secret is not None and not (isinstance(secret, str) and _SHORTEST_SECRET <= len(secret) <= _LONGEST_SECRET):
        raise Refused("The secret must be between 6 and 40 characters.")
    if not isinstance(events, list) or not events or not set(events) <= set(EVENTS):
        raise Refused("The selected events are invalid.")
    return {"url": url, "secret": secret, "events": events}


def _check_flags(attributes: dict[str, Any]) -> None:
    for name in ("cancelled", "invoice_immediately", "disable_prorations"):
        bodies.flag(attributes, name)


def _pause(shop: Shop, subscription_id: int, pause: dict[str, Any]) -> None:
    if pause:
        shop.pause(subscription_id, str(pause.get("mode")), bodies.moment(pause, "resumes_at"))
    else:
        shop.unpause(subscription_id)


def _known(shop: Shop, kind: str, record_id: str) -> int:
    """The id as a number, of a thing that is there. Raises NotFound."""
    return int(shop.document(kind, record_id)["data"]["id"])


def _page(name: str, default: int) -> int:
    value = request.args.get(f"page[{name}]", str(default))
    if not value.isdecimal() or not int(value):
        raise Refused(f"The page {name} must be a number from 1 on.")
    return int(value)


def _include() -> list[str]:
    return [name for name in request.args.get("include", "").split(",") if name]


def _errors(status: int, title: str, detail: str, attribute: str = "") -> tuple[Response, int]:
    error: dict[str, Any] = {"detail": detail, "status": str(status), "title": title}
    if attribute:
        error["source"] = {"pointer": f"/data/attributes/{attribute}"}
    return jsonify(jsonapi={"version": "1.0"}, errors=[error]), status
