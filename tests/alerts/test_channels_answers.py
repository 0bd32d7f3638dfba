"""What an answer of each kind of receiver means."""

import socket

import pytest
from standardwebhooks import Webhook

from alerts.channels import MODULES
from alerts.models import Action, AttemptOutcome, ChannelKind
from opsmeter_site.lib import http
from tests.alerts.messages import alert_item, message
from tests.alerts.receivers import hangs, raw_server, receiver

SENT, RETRY, REFUSED = AttemptOutcome.SENT, AttemptOutcome.RETRY, AttemptOutcome.REFUSED
# Refused, and the channel stays on.
BAD_MESSAGE = "bad message"
# Refused, and tried again.
DOUBTED = "doubted"
# What a service means for good, and a program of the customer's perhaps not.
NOT_HERE = "not here"
SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
SUCCESS = '{"status": "success"}'
POSTING = ("slack", "teams", "pagerduty", "webhook")
GOOD = {"slack": (200, "ok"), "teams": (202, ""), "pagerduty": (202, SUCCESS), "webhook": (200, "")}


@pytest.fixture
def there(settings):
    settings.CHANNEL_HOSTS_ALLOWED = ["127.0.0.1"]
    with receiver() as running:
        yield running


def send(kind, url, told=None):
    config = {"url": url, "routing_key": "k" * 32, "secret": SECRET}
    return MODULES[ChannelKind(kind)].send(config, told or message(Action.ALERT, alert_item()))


def meaning(answer):
    if answer.is_doubted:
        assert answer.outcome == RETRY
        return DOUBTED
    return BAD_MESSAGE if answer.is_message_fault else answer.outcome


@pytest.mark.parametrize(
    ("kind", "status", "text", "expected"),
    [
        ("slack", 200, "ok", SENT),
        ("slack", 200, "ok\n", SENT),
        ("slack", 200, "", RETRY),
        ("slack", 200, "<html>Sign in</html>", RETRY),
        ("slack", 200, "no_service", REFUSED),
        ("slack", 400, "invalid_payload", BAD_MESSAGE),
        ("slack", 400, "invalid_blocks", BAD_MESSAGE),
        ("slack", 400, "user_not_found", REFUSED),
        ("slack", 403, "action_prohibited", REFUSED),
        ("slack", 403, "invalid_token", REFUSED),
        ("slack", 404, "no_service", REFUSED),
        ("slack", 404, "channel_not_found", REFUSED),
        ("slack", 410, "channel_is_archived", REFUSED),
        ("slack", 500, "rollup_error", RETRY),
        ("teams", 202, "", SENT),
        ("teams", 200, "1", SENT),
        ("teams", 200, "Webhook message delivery failed with error: HTTP error 429", RETRY),
        ("teams", 202, "Request was throttled", RETRY),
        ("teams", 400, '{"error": {"code": "TriggerInputSchemaMismatch"}}', BAD_MESSAGE),
        ("teams", 400, '{"error": {"code": "WorkflowTriggerIsNotEnabled"}}', REFUSED),
        ("teams", 401, '{"error": {"code": "DirectApiAuthorizationRequired"}}', REFUSED),
        ("teams", 404, '{"error": {"code": "WorkflowNotFound"}}', REFUSED),
        ("pagerduty", 202, '{"status": "success", "message": "Event processed", "dedup_key": "x"}', SENT),
        ("pagerduty", 202, '{"status": "throttled"}', RETRY),
        ("pagerduty", 202, "[]", RETRY),
        ("pagerduty", 200, "<html>", RETRY),
        ("pagerduty", 400, '{"status": "invalid event", "errors": ["\'payload\' is missing"]}', BAD_MESSAGE),
        ("pagerduty", 400, '{"errors": ["Length of \'routing_key\' is incorrect"]}', REFUSED),
        ("pagerduty", 403, "", REFUSED),
        ("webhook", 200, "whatever", SENT),
        ("webhook", 204, "", SENT),
        ("webhook", 400, "bad signature", DOUBTED),
        ("webhook", 401, "", DOUBTED),
        ("webhook", 404, "", DOUBTED),
        ("webhook", 410, "", REFUSED),
        ("webhook", 413, "", BAD_MESSAGE),
    ],
)
def test_answers(there, kind, status, text, expected):
    there.answer(status, text)
    answer = send(kind, there.url)
    assert (meaning(answer), answer.status_code) == (expected, status)
    assert answer.text.startswith(f"HTTP {status}: ")


@pytest.mark.parametrize("kind", POSTING)
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (301, NOT_HERE),
        (302, NOT_HERE),
        (307, NOT_HERE),
        (403, NOT_HERE),
        (404, NOT_HERE),
        (408, RETRY),
        (410, REFUSED),
        (425, RETRY),
        (429, RETRY),
        (500, RETRY),
        (502, RETRY),
        (503, RETRY),
        (504, RETRY),
    ],
)
def test_statuses_that_mean_the_same_everywhere(there, kind, status, expected):
    there.answer(status, "", Location="http://127.0.0.1:1/", Retry_After="17")
    answer = send(kind, there.url)
    if expected is NOT_HERE:
        expected = DOUBTED if kind == "webhook" else REFUSED
    assert (meaning(answer), answer.retry_after_seconds) == (expected, 17)
    assert ("redirects are not followed" in answer.text) == (300 <= status < 400)


@pytest.mark.parametrize("kind", POSTING)
def test_addresses_that_may_not_be_called_are_refused(kind, settings):
    settings.CHANNEL_HOSTS_ALLOWED = []
    answer = send(kind, "https://127.0.0.1/secret")
    assert (answer.outcome, answer.status_code) == (REFUSED, None)
    assert "private or reserved" in answer.text


@pytest.mark.parametrize("kind", POSTING)
def test_a_network_that_fails_is_tried_again(there, kind, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    gone = send(kind, f"http://127.0.0.1:{port}/secret")
    assert (gone.outcome, gone.text) == (RETRY, "The connection was refused.")
    monkeypatch.setattr(http, "TOTAL_SECONDS", 0.2)
    with raw_server(hangs) as port:
        slow = send(kind, f"http://127.0.0.1:{port}/secret")
    assert slow.outcome == RETRY
    assert "secret" not in gone.text + slow.text


@pytest.mark.parametrize("kind", POSTING)
@pytest.mark.parametrize(
    "secret", ["/hooks/Zm9v%20YmFy", "/hooks/Zm9v YmFy", "sig=tok%2Fen-tok%2Fen", "tok/en-tok/en", "k" * 32, SECRET]
)
def test_who_says_what_was_sent_gives_no_secret_away(there, kind, secret):
    address = there.url.replace("/hook", "/hooks/Zm9v%20YmFy?sig=tok%2Fen-tok%2Fen&v=1")
    there.answer(500, f"Cannot POST {secret} with {address} to webhooks")
    answer = send(kind, address)
    assert answer.text.endswith(" with (hidden) to webhooks")
    assert not any(each in answer.text for each in ("Zm9v", "tok", "kkk", SECRET))


def test_a_long_answer_is_cut(there):
    there.answer(500, "x" * 3_000)
    assert len(send("webhook", there.url).text) == 500


def test_a_test_of_pagerduty_leaves_nothing_open(there):
    there.answer(202, SUCCESS)
    assert send("pagerduty", there.url, message(Action.TEST)).outcome == SENT
    first, last = [each.body.decode() for each in there.received]
    assert '"event_action":"trigger"' in first
    assert '"event_action":"resolve"' in last
    there.received.clear()
    there.answer(400, "")
    send("pagerduty", there.url, message(Action.TEST))
    assert len(there.received) == 1


def test_signatures(there):
    there.answer(200)
    told = message(Action.ALERT, alert_item(title="Söhne 💸 & <b>"))
    send("webhook", there.url, told)
    send("webhook", there.url, told)
    first, again = there.received
    assert first.headers["webhook-id"] == again.headers["webhook-id"] == told.id
    assert first.body == again.body
    assert Webhook(SECRET).verify(first.body, first.headers)["data"]["title"] == "Söhne 💸 & <b>"
