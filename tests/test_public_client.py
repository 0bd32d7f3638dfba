"""The public Python client works unmodified against this server."""

import opsmeter_sdk
import pytest

from ingest.models import Event
from tests.factories import make_workspace
from tests.servers import wait_until

MODEL = "gpt-4o-mini"


@pytest.fixture
def opened(committed, server):
    opened = make_workspace("pro")
    opsmeter_sdk.reset_for_tests()
    opsmeter_sdk.init(
        api_key=opened.api_key_plain, telemetry_base_url=f"http://127.0.0.1:{server.port}", flush_interval_ms=10
    )
    yield opened
    opsmeter_sdk.reset_for_tests()


def completion():
    usage = {"prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150}
    return {"id": "chatcmpl-1", "model": MODEL, "usage": usage}


def events_of(opened):
    return Event.objects.filter(workspace_id=opened.workspace.id)


def capture(**options):
    return opsmeter_sdk.capture_openai_chat_completion_with_result(
        completion, request={"model": MODEL}, await_telemetry_response=True, **options
    )


def test_one_call_is_one_row(opened):
    results = [capture() for _ in range(3)]

    for result in results:
        assert result["provider_response"]["model"] == MODEL
        assert (result["telemetry"]["ok"], result["telemetry"]["status"]) == (True, 200)
        assert result["telemetry"]["body"]["externalRequestId"] == result["external_request_id"]
        assert result["telemetry"]["body"]["warnings"] == [] or "No price" in result["telemetry"]["body"]["warnings"][0]
    assert events_of(opened).count() == 3


def test_a_retry_of_the_client_adds_nothing(opened):
    first = capture(external_request_id="ext_retry")
    again = capture(external_request_id="ext_retry")

    assert (first["telemetry"]["status"], again["telemetry"]["status"]) == (200, 200)
    assert again["telemetry"]["body"]["duplicate"] is True
    assert events_of(opened).count() == 1


def test_its_context_and_its_errors_arrive(opened):
    class ProviderError(Exception):
        code = 429

    def fail():
        raise ProviderError

    with (
        opsmeter_sdk.context(user_id="u-7", tenant_id="acme", feature="search", prompt_version="v3", data_mode="test"),
        pytest.raises(ProviderError),
    ):
        opsmeter_sdk.capture_openai_chat_completion_with_result(
            fail, request={"model": MODEL}, await_telemetry_response=True
        )

    event = events_of(opened).get()
    assert (event.status, event.error_code) == ("error", "429")
    assert (event.user_id, event.tenant_id, event.feature_tag) == ("u-7", "acme", "search")
    assert (event.endpoint_tag, event.prompt_version, event.data_mode) == ("search", "v3", "test")


def test_its_background_queue_delivers_each_call_once(opened):
    for number in range(20):
        opsmeter_sdk.capture_openai_chat_completion(
            completion, request={"model": MODEL}, external_request_id=f"bg-{number}"
        )

    wait_until(lambda: events_of(opened).count() == 20, 20)
