"""Every example of the developer docs is run against the product, or held against what the product answers."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from standardwebhooks import Webhook

from alerts.channels.webhook import with_new_secret
from billing.examples import PORTAL, REQUESTED_END, REQUESTED_PLAN, STANDING, STARTED_CHECKOUT
from budgets.examples import STATUS
from ingest.gateway.openapi_schemas import PLAN_LIMIT_EXAMPLE
from ingest.models import Event
from opsmeter_site.console.snippets import BLOCKS
from opsmeter_site.embedded import budget_table, docs_examples
from opsmeter_site.lib import redis
from opsmeter_site.lib.clock import utc_now
from tests.conftest import MODEL, PROVIDER
from tests.docs import Visitor
from tests.factories import token_for
from tests.otlp import PATH, chat, events, export
from tests.servers import ROOT, free_port, wait_until
from tests.test_verify_local import PATIENCE_SECONDS, answer_in, knows_the_price

# A busy test machine may not answer within the examples' short time-outs; a repeat of the same id is what clients send.
ATTEMPTS = 5
PROGRAMS = {
    "curl": ("bash", "-c"),
    "shell": ("bash", "-c"),
    "python": (sys.executable, "-W", "error", "-c"),
    "node": ("node", "-e"),
}
# How each block is held against the product, in this file; a block that is in none of these fails the first test.
SENDERS = {"first", "send", "batch", "retry"}
ANSWERS = {"accepted", "batch_answer", "budget_exceeded", "invalid", "plan_limit", "rate_limited", "status"}
COMMANDS = {"clean_up", "demo", "otlp", "prices", "status_bearer", "status_key", "verify"}
MESSAGES = {"client", "messages", "toast"}  # in test_docs_messages.py
# Commands of billing, and the answers that are the examples of the API's description.
BILLING = {"cancel", "change_plan_ask", "checkout", "portal", "resume", "standing"}
BILLING_ANSWERS = {
    "cancel_answer": REQUESTED_END,
    "change_plan": REQUESTED_PLAN,
    "checkout_answer": STARTED_CHECKOUT,
    "portal_answer": PORTAL,
    "standing_answer": STANDING,
}
ASKING = {"budget_new", "check", "check_answer", "lease", "lease_answer"}  # in test_docs_leases.py
OTHERS = {"payload", "prices_answer", "webhook"}


def test_every_block_is_accounted_for():
    others = MESSAGES | OTHERS | BILLING | BILLING_ANSWERS.keys() | ASKING
    assert BLOCKS.keys() == SENDERS | ANSWERS | COMMANDS | others


PAGES_OF = {
    "first": "/docs/",
    "send": "/docs/rate-limits/",
    "retry": "/docs/rate-limits/",
    "batch": "/docs/batches/",
    "lease": "/docs/leases/",
    "webhook": "/docs/alerts/",
}


def code_of(visitor: Visitor, name: str) -> str:
    block, language = name.split("-")
    return visitor.code(PAGES_OF[block], f"{block}-{language}")


def run(language: str, code: str, is_done: Callable[[str], bool] = lambda _printed: True) -> str:
    """What the program prints when what it prints is what `is_done` waits for."""
    program, *arguments = PROGRAMS[language]
    if shutil.which({"bash": "curl"}.get(program, program)) is None:
        pytest.skip(f"{program} is not installed")
    printed = ""
    for _ in range(ATTEMPTS):
        done = subprocess.run([program, *arguments, code], capture_output=True, text=True, timeout=120, cwd=ROOT)
        printed = done.stdout + done.stderr
        assert done.returncode == 0 or language == "curl", printed
        if is_done(printed):
            return printed
    raise AssertionError(printed)


def stored(visitor: Visitor) -> set[str]:
    """The ids of the events in the visitor's workspace."""
    rows = Event.objects.filter(workspace=visitor.workspace)
    return set(rows.values_list("external_request_id", flat=True))


# --- Programs that send -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["curl", "python", "node"])
def test_the_first_event_is_stored_and_answered(person_of, language):
    person = person_of()
    printed = run(language, code_of(person, f"first-{language}"), lambda printed: "accepted" in printed)
    assert len(stored(person)) >= 1
    assert re.search(r"accepted\"?: ?true", printed)


@pytest.mark.parametrize("language", ["curl", "python", "node"])
def test_the_first_event_says_why_it_was_refused(person_of, language):
    person = person_of(monthly_requests=0)
    printed = run(language, code_of(person, f"first-{language}"), lambda printed: "plan_limit_reached" in printed)
    assert "providerCallsContinue" in printed
    assert stored(person) == set()


@pytest.mark.parametrize("name", ["send-curl", "send-python", "send-node"])
def test_the_example_sends_and_handles_429_402_and_no_answer(person_of, name):
    language = name.partition("-")[2]
    person = person_of()
    assert run(language, code_of(person, name), lambda _printed: bool(stored(person))) == ""
    assert stored(person) == {f"docs-{language}-1"}

    paused = person_of(monthly_requests=0)
    run(language, code_of(paused, name), lambda printed: printed == "Telemetry paused due to plan/budget policy.\n")

    throttled = person_of(requests_per_minute=1)
    pattern = re.compile(r"Telemetry throttled, retry after [1-9]\d?s\n")
    run(language, code_of(throttled, name), lambda printed: pattern.fullmatch(printed) is not None)

    nobody = code_of(person, name).replace(person.address, f"http://127.0.0.1:{free_port()}")
    assert "Telemetry" not in run(language, nobody)


@pytest.mark.parametrize("language", ["curl", "python", "node"])
def test_a_batch_stores_what_is_good_and_names_what_is_not(person_of, language):
    person = person_of()
    printed = run(language, code_of(person, f"batch-{language}"), lambda _printed: bool(stored(person)))
    assert stored(person) == {f"docs-batch-{language}-1"}
    printed = printed or run(language, code_of(person, f"batch-{language}"))
    assert f"docs-batch-{language}-2" in printed
    assert "invalid_payload" in printed


@pytest.mark.parametrize("language", ["python", "node"])
def test_a_batch_handles_429_402_and_no_answer(person_of, language):
    paused = code_of(person_of(monthly_requests=0), f"batch-{language}")
    one_good = paused.replace(f'"docs-batch-{language}-2"', f'"docs-batch-{language}-2", "inputTokens": 1').replace(
        f"'docs-batch-{language}-2'", f"'docs-batch-{language}-2', inputTokens: 1"
    )
    assert one_good != paused
    run(language, one_good, lambda printed: printed == "Telemetry paused due to plan/budget policy.\n")

    throttled = code_of(person_of(requests_per_minute=1), f"batch-{language}")
    pattern = re.compile(r"Telemetry throttled, retry after [1-9]\d?s\n")
    run(language, throttled, lambda printed: pattern.fullmatch(printed) is not None)

    person = person_of()
    nobody = code_of(person, f"batch-{language}").replace(person.address, f"http://127.0.0.1:{free_port()}")
    assert run(language, nobody) == ""


@pytest.mark.parametrize("language", ["python", "node"])
def test_what_was_throttled_is_sent_again_and_counts_once(person_of, language):
    person = person_of(requests_per_minute=1)
    run("curl", code_of(person, "send-curl"), lambda _printed: bool(stored(person)))
    # The window that this opened ends in a moment, and not in a minute.
    assert redis.client().pexpire(f"{settings.REDIS_KEY_PREFIX}:rate:ingest:{person.workspace.pk}", 1_500)
    assert run(language, code_of(person, f"retry-{language}")) == ""
    assert stored(person) == {"docs-curl-1", f"docs-retry-{language}-1"}


@pytest.mark.parametrize("language", ["python", "node"])
def test_what_a_limit_refused_is_not_sent_again(person_of, language):
    person = person_of(monthly_requests=0)
    assert run(language, code_of(person, f"retry-{language}")) == ""
    assert stored(person) == set()


@pytest.mark.parametrize(("block", "timeout"), [("first", "FromSeconds(2)"), ("send", "FromMilliseconds(600)")])
def test_the_dotnet_examples_follow_the_rules(person_of, block, timeout):
    """There is no .NET here to run them."""
    person = person_of()
    source = code_of(person, f"{block}-dotnet")
    needed = [
        f'"{person.address}/v1/ingest/llm-request"',
        '"X-API-Key"',
        f"Timeout = TimeSpan.{timeout}",
        "// telemetry must not break your production flow",
        *re.findall(r"om_live_\w{41}", code_of(person, f"{block}-curl")),
    ]
    if block == "send":
        needed += [
            "HttpStatusCode.TooManyRequests",
            "res.Headers.RetryAfter?.Delta?.TotalSeconds ?? 1",
            '"Telemetry throttled, retry after {Seconds}s"',
            "(int)res.StatusCode == 402",
            '"Telemetry paused due to plan/budget policy."',
        ]
    assert len(needed) >= 5
    assert [text for text in needed if text not in source] == []
    assert [source.count(opening) - source.count(closing) for opening, closing in ("{}", "()")] == [0, 0]
    names = re.findall(r"^\s+(\w+) = ", source, re.MULTILINE)
    assert {"externalRequestId", "provider", "model", "inputTokens", "outputTokens", "status"} <= set(names)


# --- Answers ----------------------------------------------------------------------------------------------------------


def shape(value: Any) -> Any:
    """A JSON value without its values: keys in order, and kinds. Money is a number or null, as documented."""
    if isinstance(value, dict):
        return [(name, "usd" if name.endswith("Usd") else shape(each)) for name, each in value.items()]
    if isinstance(value, list):
        return [shape(each) for each in value]
    return type(value).__name__


def shown(visitor: Visitor, block: str) -> Any:
    return json.loads(visitor.all_code()[f"{block}-json"])


def test_the_answer_to_an_event_is_as_shown(reader, client_of):
    answer = client_of("free").send(externalRequestId="first-curl-1").json
    documented = shown(reader, "accepted")
    assert shape(answer) == shape(documented)
    assert answer | {"costUsd": documented["costUsd"]} == documented


def test_the_cost_that_is_shown_is_that_of_the_first_event(reader):
    found = re.search(r"-d '(.*)'", reader.code("/docs/", "first-curl"), re.DOTALL)
    assert found is not None
    event = json.loads(found.group(1))
    priced = shown(reader, "prices_answer")["models"][0]
    assert (event["provider"], event["model"]) == (priced["provider"], priced["model"])
    usd = event["inputTokens"] * priced["inputUsdPer1M"] + event["outputTokens"] * priced["outputUsdPer1M"]
    assert shown(reader, "accepted")["costUsd"] == pytest.approx(usd / 1e6)


def test_the_plan_limit_answer_is_as_shown_to_the_letter(reader, client_of):
    refused = client_of(monthly_requests=0).send()
    assert refused.status == 402
    documented = shown(reader, "plan_limit")
    assert documented == PLAN_LIMIT_EXAMPLE
    assert list(documented) == list(PLAN_LIMIT_EXAMPLE) == list(refused.json)
    assert refused.json | {"planLimitRequests": 100_000} == documented


def test_the_hard_stop_answer_is_as_shown(reader, client_of):
    reply, _status = answer_in(client_of, "above the limit, hard stop")
    assert reply.status == 402
    documented = shown(reader, "budget_exceeded")
    assert shape(reply.json) == shape(documented)
    flags = ("telemetryPaused", "providerCallsContinue", "isPlanLimitReached", "budgetWarning", "budgetExceeded")
    for name in ("reason", *flags):
        assert reply.json[name] == documented[name]
    for name in ("name", "scope", "period"):
        assert reply.json["budget"][name] == documented["budget"][name]


def test_the_throttled_answer_is_as_shown(reader, client_of):
    slow = client_of(requests_per_minute=1)
    slow.send()
    assert slow.send().json == shown(reader, "rate_limited")


def test_the_answer_to_a_bad_event_is_as_shown(reader, meter):
    assert meter.send(inputTokens=..., status=...).json == shown(reader, "invalid")


def test_the_answer_to_a_batch_is_as_shown(reader, client_of):
    documented = shown(reader, "batch_answer")
    ids = [result["externalRequestId"] for result in documented["results"]]
    code = reader.code("/docs/batches/", "batch-curl")
    found = re.search(r"-d '(.*)'", code, re.DOTALL)
    assert found is not None
    events_of_the_example = json.loads(found.group(1))["events"]
    assert [event["externalRequestId"] for event in events_of_the_example] == ids
    priced = [event | {"provider": PROVIDER, "model": MODEL} for event in events_of_the_example]
    answer = client_of("free").send_batch(priced).json
    assert shape(answer) == shape(documented)
    answer["results"][0]["costUsd"] = documented["results"][0]["costUsd"]
    assert answer == documented


def test_the_payload_that_is_shown_is_accepted(reader, meter):
    answer = meter.send(**shown(reader, "payload"))
    assert answer.status == 200
    event = Event.objects.get(workspace=meter.workspace_id)
    assert (event.endpoint_tag, event.prompt_version, event.tenant_id) == ("docs.answer", "v8-short", "acme")
    assert (event.uncached_input_tokens, event.cache_read_tokens) == (600, 1_800)


def test_the_answers_of_billing_are_those_of_the_api_description(reader):
    assert {name: shown(reader, name) for name in BILLING_ANSWERS} == BILLING_ANSWERS


# --- Commands ---------------------------------------------------------------------------------------------------------


def answered(visitor: Visitor, path: str, block: str, **replaced: str) -> Any:
    """The JSON answers of a curl example."""
    code = visitor.code(path, f"{block}-curl")
    for old, new in replaced.items():
        code = code.replace(old, new)
    printed = run("curl", code, lambda printed: printed.endswith("}"))
    return [json.loads(line) for line in printed.replace("}{", "}\n{").splitlines()]


def with_token(visitor: Visitor) -> dict[str, str]:
    return {"om_pat_…": token_for(visitor.workspace.members.get(), visitor.workspace)}


def test_without_billing_its_commands_say_so(person_of):
    person = person_of()
    token = with_token(person)
    for command in sorted(BILLING - {"standing"}):
        (answer,) = answered(person, "/docs/billing/", command, **token)
        assert (answer["ok"], answer["reason"]) == (False, "billing_off"), command
    (standing,) = answered(person, "/docs/billing/", "standing", **token)
    assert standing.keys() == STANDING.keys()
    assert (standing["billing"], standing["currentPlanTier"], standing["subscription"]) == (None, "free", None)


def test_both_status_examples_answer_what_is_shown(person_of):
    person = person_of()
    by_key = answered(person, "/docs/status/", "status_key")
    by_token = answered(person, "/docs/status/", "status_bearer", **with_token(person))
    assert by_key == by_token
    documented = shown(person, "status")
    assert documented == STATUS
    for window in ("daily", "monthly"):
        # Without a limit there is no number, and a share of nothing is a whole one.
        by_key[0]["budget"][window] |= {"limitUsd": 50, "utilizationRatio": 0.825}
    assert shape(by_key) == shape([documented])


def test_prices_are_answered_as_shown(person_of, server):
    wait_until(lambda: knows_the_price(server), PATIENCE_SECONDS)
    person = person_of()
    replaced = {"provider=openai&model=gpt-4o-mini": f"provider={PROVIDER}&model={MODEL}"}
    (answer,) = answered(person, "/docs/prices/", "prices", **replaced)
    documented = shown(person, "prices_answer")
    assert answer["count"] == len(answer["models"]) == documented["count"]
    assert list(answer["models"][0]) == list(documented["models"][0])
    assert (answer["models"][0]["provider"], answer["models"][0]["model"]) == (PROVIDER, MODEL)


def test_demo_data_is_loaded_and_cleaned_up(person_of):
    person = person_of()
    (loaded,) = answered(person, "/docs/data-modes/", "demo")
    assert loaded["accepted"] > 10
    assert set(Event.objects.filter(workspace=person.workspace).values_list("data_mode", flat=True)) == {"demo"}
    demo, test = answered(person, "/docs/data-modes/", "clean_up", **with_token(person))
    assert (demo["ok"], demo["deleted"]) == (True, len(stored(person)) + loaded["accepted"])
    assert (test["ok"], test["deleted"]) == (True, 0)


def test_the_settings_of_an_exporter_are_those_of_the_endpoint(person_of, app):
    person = person_of()
    code = person.code("/docs/opentelemetry/", "otlp-shell")
    printed = run("shell", f"{code}\nenv | grep ^OTEL_EXPORTER_OTLP_TRACES_")
    said = dict(line.removeprefix("OTEL_EXPORTER_OTLP_TRACES_").split("=", 1) for line in printed.splitlines())
    assert said["ENDPOINT"] == f"{person.address}{PATH}"
    assert said["PROTOCOL"] == "http/protobuf"
    header, _, key = said["HEADERS"].partition("=")
    assert app.request("POST", PATH, export(chat()), {header: key}).status == 200
    assert len(stored(person)) == 1


# What is sent in each attribute, and what of it is in the row. Every span also has 10 tokens from the cache.
ATTRIBUTES = {
    **dict.fromkeys(("gen_ai.provider.name", "gen_ai.system"), ("said-so", "provider", "said-so")),
    **dict.fromkeys(("gen_ai.response.model", "gen_ai.request.model"), ("said-so", "model", "said-so")),
    "gen_ai.usage.input_tokens": (77, "uncached_input_tokens", 67),
    "gen_ai.usage.prompt_tokens": (77, "uncached_input_tokens", 67),
    "gen_ai.usage.output_tokens": (77, "output_tokens", 77),
    "gen_ai.usage.completion_tokens": (77, "output_tokens", 77),
    "gen_ai.usage.cache_read.input_tokens": (7, "cache_read_tokens", 7),
    "gen_ai.usage.cache_creation.input_tokens": (7, "cache_write_tokens", 7),
    "gen_ai.usage.reasoning.output_tokens": (7, "reasoning_tokens", 7),
    "error.type": ("timeout", "error_code", "timeout"),
    "openai.response.service_tier": ("flex", "service_tier", "flex"),
    "openai.request.service_tier": ("flex", "service_tier", "flex"),
    "gen_ai.request.service_tier": ("flex", "service_tier", "flex"),
    **dict.fromkeys(("opsmeter.endpoint_tag", "service.name"), ("said-so", "endpoint_tag", "said-so")),
    "opsmeter.prompt_version": ("said-so", "prompt_version", "said-so"),
    **dict.fromkeys(("opsmeter.user_id", "enduser.id", "user.id"), ("said-so", "user_id", "said-so")),
    "opsmeter.tenant_id": ("said-so", "tenant_id", "said-so"),
    "opsmeter.feature_tag": ("said-so", "feature_tag", "said-so"),
    "deployment.environment.name": ("staging-eu", "environment", "staging"),
    "deployment.environment": ("staging-eu", "environment", "staging"),
    "opsmeter.data_mode": ("test", "data_mode", "test"),
    "opsmeter.usage_convention": ("exclusive", "uncached_input_tokens", 100),
}


def test_the_attributes_of_spans_are_as_documented(reader, meter):
    rows = [row.one("td").all("code") for row in reader.node("/docs/opentelemetry/").one("table").all("tr")[1:]]
    documented = [[code.text for code in row if "." in code.text] for row in rows]
    assert {attribute for row in documented for attribute in row} == ATTRIBUTES.keys()
    number = 0
    for row in documented:
        for attribute in row:
            number += 1
            value, column, expected = ATTRIBUTES[attribute]
            # The attributes that would win are not there.
            changes = {"gen_ai.usage.cache_read.input_tokens": 10, **dict.fromkeys(row), attribute: value}
            body = meter.post(PATH, export(chat(number, **changes)))
            assert body.json == {}, (attribute, body.json)
            (event,) = [one for one in events(meter) if one.external_request_id.endswith(f"{number:016x}")]
            assert getattr(event, column) == expected, attribute


def test_verify_local_is_there():
    assert (ROOT / "verify-local.sh").is_file()
    assert os.access(ROOT / "verify-local.sh", os.X_OK)  # tests/test_verify_local.py runs it


def test_verify_local_finds_what_the_docs_say_wrongly(reader, client_of):
    reply, status = answer_in(client_of, "above the limit, soft stop")

    def said(old: str, new: str) -> list[str]:
        return list(docs_examples.problems(lambda path: reader.html(path).replace(old, new), [reply.json], status))

    assert said("", "") == []
    assert said("costUsd&quot;", "cost&quot;") == [
        "/docs/answers/: cost is documented, and not in the answer",
        "/docs/answers/: costUsd is in the answer, and not documented",
    ]
    assert said("severity", "level")[1] == "/docs/status/: severity is in the answer, and not documented"
    assert said("isWarning", "warns")[:2] == [
        "/docs/status/: budget.daily.warns is documented, and not in the answer",
        "/docs/status/: budget.daily.isWarning is in the answer, and not documented",
    ]
    assert said("&#x27;Budget reached&#x27;", "&#x27;Budget used up&#x27;") == [
        'client-javascript does not show "Budget reached"',
        'messages-javascript does not show "Budget reached"',
    ]
    with pytest.raises(budget_table.VerifyError, match="/docs/answers/ has no example accepted-json"):
        said("code-accepted-json", "code-accepted")


# --- Webhooks ---------------------------------------------------------------------------------------------------------

CALLS = {
    "python": "print(is_from_opsmeter({secret!r}, {headers!r}, {body!r}.encode()))",
    "node": "console.log(isFromOpsmeter({secret!r}, {headers!r}, {body!r}))",
}


@pytest.mark.parametrize("language", ["python", "node"])
def test_a_webhooks_signature_is_checked(person_of, language):
    code = code_of(person_of(), f"webhook-{language}")
    secret = with_new_secret({}, utc_now())["secret"]
    body, moment = json.dumps({"type": "channel.test", "data": {"title": "Größe {}"}}), utc_now()
    headers = {
        "webhook-id": "message-1",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": f"v1,other {Webhook(secret).sign('message-1', moment, body)}",
    }

    def answer(**changes: Any) -> str:
        values = {"secret": secret, "headers": headers, "body": body} | changes
        return run(language, f"{code}\n{CALLS[language].format(**values)}").strip().lower()

    assert answer() == "true"
    assert answer(body=body.replace("}", " }", 1)) == "false"
    old = moment - timedelta(minutes=10)
    signed_then = headers | {
        "webhook-timestamp": str(int(old.timestamp())),
        "webhook-signature": Webhook(secret).sign("message-1", old, body),
    }
    assert answer(headers=signed_then) == "false"
