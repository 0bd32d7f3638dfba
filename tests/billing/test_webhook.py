"""The inbox's door: what is signed is stored once, and of what is not nothing stays but a count."""

import json
import logging
import random
import string

import pytest
import redis
import time_machine
from django.db import OperationalError
from prometheus_client import REGISTRY

from billing import metrics
from billing.inbox import LARGEST_BODY
from billing.metrics import refused_counts
from billing.models import BillingEvent, EventState
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.sealed import unseal
from tests.billing.messages import PATH, SECRET, SETTINGS, message, order_message, payment_message, sign
from tests.billing.provider_facts import DAY, facts, invoice_facts
from tests.client import ApiClient, assert_refused

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_redis_used", "billing")]


@pytest.fixture
def billing(settings):
    """It is on, and what is counted by the day is of one day."""
    for name, value in SETTINGS.items():
        setattr(settings, name, value)
    with time_machine.travel(utc_now(), tick=False):
        yield


def post(body, signature=None, **headers):
    headers = {"X-Signature": sign(body) if signature is None else signature, **headers}
    return ApiClient().send("POST", PATH, body, headers={name: value for name, value in headers.items() if value})


def counted(outcome):
    return REGISTRY.get_sample_value("opsmeter_billing_webhooks_total", {"outcome": outcome}) or 0


# --- What is stored ---------------------------------------------------------------------------------------------------


def test_a_signed_message_is_stored_and_waits():
    body = message(facts("77"), "subscription_created", webhook_id="0190-abc")
    before = counted("accepted")
    response = post(body)
    assert (response.status_code, json.loads(response.content)) == (200, {"ok": True, "duplicate": False})
    event = BillingEvent.objects.get()
    assert (event.name, event.resource_type, event.resource_id) == ("subscription_created", "subscriptions", "77")
    assert (event.provider, event.provider_subscription_id, event.state) == ("lemonsqueezy", "77", EventState.WAITING)
    assert (event.repeats, event.attempts_made, event.outcome, event.error) == (0, 0, "", "")
    assert unseal(event.sealed_body).encode() == body
    assert "buyer@example.com" not in event.sealed_body
    assert counted("accepted") == before + 1
    assert refused_counts(utc_now().date()) == {}


def test_a_repeated_message_is_counted_and_not_stored_again():
    body = message(facts("77"))
    before = counted("repeated")
    assert [json.loads(post(body).content)["duplicate"] for _ in range(3)] == [False, True, True]
    assert BillingEvent.objects.get().repeats == 2
    assert counted("repeated") == before + 2


def test_without_an_id_of_its_own_a_message_is_known_by_its_bytes():
    first, other = message(facts("77"), webhook_id=None), message(facts("77", status="paused"), webhook_id=None)
    assert [json.loads(post(body).content)["duplicate"] for body in (first, first, other)] == [False, True, False]
    assert BillingEvent.objects.count() == 2


def test_a_message_about_a_payment_names_its_subscription():
    post(payment_message(invoice_facts("77", invoice_id="500")))
    event = BillingEvent.objects.get()
    assert (event.resource_id, event.provider_subscription_id) == ("500", "77")


def test_what_we_do_not_know_is_stored_too():
    body = json.dumps({"meta": {"event_name": "moon_landed"}, "data": {"type": "moons", "id": "1"}}).encode()
    assert post(body).status_code == 200
    assert BillingEvent.objects.get().name == "moon_landed"


def test_neither_accept_nor_content_type_lose_a_message():
    body = order_message("1")
    answer = ApiClient().send(
        "POST", PATH, body, content_type="text/plain", headers={"X-Signature": sign(body), "Accept": "text/html"}
    )
    assert answer.status_code == 200


def test_the_largest_body_is_read_and_one_byte_more_is_not():
    body = json.dumps({"meta": {"event_name": "order_created"}, "data": {"type": "orders", "id": "1"}}).encode()
    assert post(body.ljust(LARGEST_BODY)).status_code == 200
    assert_refused(post(body.ljust(LARGEST_BODY + 1)), 413, "payload_too_large")
    assert BillingEvent.objects.count() == 1


def test_a_body_without_a_length_is_refused_by_that_name_and_not_as_forged():
    answer = ApiClient().send("POST", PATH, b"", headers={"X-Signature": "0" * 64, "Transfer-Encoding": "chunked"})
    assert_refused(answer, 411, "length_required")
    assert refused_counts(utc_now().date()) == {"malformed": 1}


def test_redis_is_not_needed(settings, monkeypatch):
    def away():
        raise redis.ConnectionError("away")

    monkeypatch.setattr(metrics, "client", away)
    monkeypatch.setattr(metrics._Redis, "paused_until", 0.0)
    body = message(facts("77"))
    assert post(body).status_code == 200
    assert_refused(post(body, "0" * 64), 401, "invalid_signature")
    assert refused_counts(utc_now().date()) == {}


def test_without_the_database_the_provider_is_asked_to_try_again(monkeypatch):
    def away(*_):
        raise OperationalError("away")

    monkeypatch.setattr("billing.webhooks.receive", away)
    response = post(message(facts("77")))
    assert_refused(response, 503, "unavailable")
    assert int(response["Retry-After"]) > 0


def test_an_installation_without_billing_has_no_such_address(settings):
    settings.LEMONSQUEEZY_API_KEY = ""
    assert_refused(post(message(facts("77"))), 404, "not_found")
    assert not BillingEvent.objects.exists()


def test_without_a_secret_nothing_is_believed(settings):
    settings.LEMONSQUEEZY_WEBHOOK_SECRET = ""
    body = message(facts("77"))
    for signature in (sign(body, ""), "", sign(body)):
        assert_refused(post(body, signature), 401, "invalid_signature")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_only_post(method):
    assert ApiClient().send(method, PATH).status_code == 405


# --- What is refused --------------------------------------------------------------------------------------------------

RANDOM = random.Random(5)
VALID = [message(facts("77")), payment_message(invoice_facts("77")), order_message("9")]


def valid():
    return RANDOM.choice(VALID)


def with_an_altered_byte(body):
    place = RANDOM.randrange(len(body))
    return body[:place] + bytes([body[place] ^ (1 << RANDOM.randrange(8))]) + body[place + 1 :]


def wrong_secret():
    body = valid()
    return body, sign(body, "".join(RANDOM.choices(string.ascii_letters, k=20))), 401


def truncated():
    body = valid()
    return body[: RANDOM.randrange(len(body))], sign(body), 401


def replayed_with_an_altered_byte():
    body = valid()
    return with_an_altered_byte(body), sign(body), 401


def signature_with_an_altered_digit():
    body = valid()
    place, digits = RANDOM.randrange(64), sign(body)
    digit = RANDOM.choice("0123456789abcdef".replace(digits[place], ""))
    return body, digits[:place] + digit + digits[place + 1 :], 401


def oversized():
    body = valid().ljust(LARGEST_BODY + RANDOM.randrange(1, 1_000))
    return body, sign(body), 413


def not_json():
    body = RANDOM.choice([RANDOM.randbytes(40), b"{", b"{}}", b"a=b&c=d", b'{"meta": {}, "meta": {}}', b"\xff\xfe{"])
    return body, sign(body), 400


def other_json():
    body = RANDOM.choice(
        [b"null", b"[]", b"17", b'"x"', b"{}", b'{"meta": {}, "data": {}}', b'{"meta": [], "data": 1}']
    )
    return body, sign(body), 400


def nested():
    body = b'{"meta":' * 2_000 + b"1" + b"}" * 2_000
    return body, sign(body), 400


def other_encoding():
    body = valid().decode().encode(RANDOM.choice(["utf-16", "utf-32"]))
    return body, sign(body), 400


def empty():
    return b"", RANDOM.choice([sign(b""), sign(b"", "x")]), None


def missing_header():
    return valid(), "", 401


def header_of_another_length():
    body = valid()
    digits = sign(body)
    return body, RANDOM.choice([digits[:-1], digits + "0", digits * 2, digits[:8], "0", f"sha256={digits}"]), 401


def no_hexadecimal():
    return valid(), "".join(RANDOM.choices("ghijklmnopqrstuvwxyz-_ ;,", k=64)).strip() or "-", 401


def upper_case():
    body = valid()
    digits = sign(body).upper()
    return body, digits, 401 if digits != digits.lower() else 200


def unicode():
    return valid(), RANDOM.choice(["ä" * 64, "\N{FULLWIDTH DIGIT ONE}" * 64, "é" * 32, "\x80" * 64]), 401


BAD = [
    wrong_secret,
    truncated,
    replayed_with_an_altered_byte,
    signature_with_an_altered_digit,
    oversized,
    not_json,
    other_json,
    nested,
    other_encoding,
    empty,
    missing_header,
    header_of_another_length,
    no_hexadecimal,
    upper_case,
    unicode,
]


def test_of_five_hundred_bad_messages_nothing_stays_but_a_count(caplog):
    caplog.set_level(logging.INFO)
    before = {outcome: counted(outcome) for outcome in ("accepted", "repeated", "forged", "malformed", "too_large")}
    for number in range(500):
        body, signature, status = BAD[number % len(BAD)]()
        response = post(body, signature)
        assert response.status_code == (status or response.status_code), (BAD[number % len(BAD)].__name__, signature)
        assert response.status_code in (400, 401, 413)
        assert set(json.loads(response.content)) == {"ok", "reason", "message", "errors"}
    assert not BillingEvent.objects.exists()
    counts = refused_counts(utc_now().date())
    assert set(counts) == {"forged", "malformed", "too_large"}
    assert sum(counts.values()) == 500
    assert counts == {outcome: counted(outcome) - before[outcome] for outcome in counts}
    assert counted("accepted") == before["accepted"]
    said = caplog.text
    assert SECRET not in said
    assert "buyer@example.com" not in said
    assert sign(VALID[0]) not in said


def test_counts_of_refusals_are_of_one_day_and_go_away():
    post(message(facts("77")), "0" * 64)
    today = utc_now().date()
    assert refused_counts(today) == {"forged": 1}
    assert refused_counts(today - DAY) == refused_counts(today + DAY) == {}
    assert 0 < metrics.client().ttl(metrics._key(today)) <= 8 * 24 * 3_600
