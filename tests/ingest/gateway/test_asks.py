"""Checks, leases and releases: what they answer, and what bad questions get."""

from decimal import Decimal

import pytest

from ingest.models import Event, Lease
from ingest.services import set_budget_policy
from tests.conftest import MODEL, PROVIDER
from tests.ingest.gateway.limits import EVENT_USD, limit

CHECK, LEASE, RELEASE = "/v1/budgets/check", "/v1/budgets/leases", "/v1/budgets/leases/release"
CHECK_KEYS = [
    "ok", "allowed", "reason", "message", "providerCallsContinue", "estimatedCostUsd", "remainingUsd", "resetsAt",
    "budget", "budgets", "observeMode", "warnings",
]  # fmt: skip


def question(**changes):
    fields = {
        "externalRequestId": "call-1",
        "provider": PROVIDER,
        "model": MODEL,
        "estimatedCostUsd": 1,
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not ...}


def check(meter, **changes):
    reply = meter.post(CHECK, question(**changes))
    assert reply.status == 200, reply.json
    return reply.json


def test_a_check_without_budgets_allows_everything(meter):
    answer = check(meter)

    assert list(answer) == CHECK_KEYS
    assert answer == {
        "ok": True,
        "allowed": True,
        "reason": None,
        "message": None,
        "providerCallsContinue": True,
        "estimatedCostUsd": 1,
        "remainingUsd": None,
        "resetsAt": None,
        "budget": None,
        "budgets": [],
        "observeMode": False,
        "warnings": [],
    }


def test_leases_and_releases_say_three_and_four_things_more(meter):
    more = ["externalRequestId", "lease", "duplicate"]
    leased, released = (meter.post(path, question()).json for path in (LEASE, RELEASE))

    assert list(leased) == [*CHECK_KEYS, *more]
    assert list(released) == [*CHECK_KEYS, *more, "released"]
    assert list(leased["lease"]) == ["state", "heldUsd", "expiresAt", "createdAt"]


def test_a_call_is_allowed_up_to_the_limit_and_not_a_hair_above(meter):
    limit(meter, 2)

    assert check(meter, estimatedCostUsd=2)["allowed"] is True
    assert check(meter, estimatedCostUsd=2.000000000001)["allowed"] is False


def test_a_denial_says_which_budget_how_much_is_left_and_until_when(meter):
    limit(meter, 9, name="Everything")
    limit(meter, 2, name="Acme", scope_kind="tenant_id", scope_value="acme")

    answer = check(meter, tenantId="acme", estimatedCostUsd=2.5)

    assert (answer["allowed"], answer["reason"], answer["providerCallsContinue"]) == (False, "budget_exceeded", True)
    assert answer["message"] == (
        'The budget "Acme" (daily, tenantId acme) has 2 of 2 USD left: 0 USD are spent. This call may cost 2.5 USD. '
        f"It resets at {answer['resetsAt']}."
    )
    assert answer["remainingUsd"] == 2
    assert answer["budget"]["name"] == "Acme"
    assert [one["name"] for one in answer["budgets"]] == ["Acme", "Everything"]


def test_the_tightest_budget_first_also_when_none_says_no(meter):
    limit(meter, 9, name="Everything")
    limit(meter, 5, name="Soft", enforce=False, scope_kind="tenant_id", scope_value="acme")

    answer = check(meter, tenantId="acme", estimatedCostUsd=7)

    assert (answer["allowed"], answer["budget"]["name"], answer["remainingUsd"]) == (True, "Soft", 5)


def test_tokens_are_priced_at_the_current_prices(meter):
    answer = check(
        meter,
        estimatedCostUsd=...,
        estimatedInputTokens=1_000_000,
        estimatedCachedInputTokens=400_000,
        estimatedOutputTokens=500_000,
    )

    assert answer["estimatedCostUsd"] == pytest.approx(0.6 * 0.15 + 0.4 * 0.075 + 0.5 * 0.6)


def test_a_cost_wins_over_tokens(meter):
    assert check(meter, estimatedInputTokens=10**6, estimatedOutputTokens=0)["estimatedCostUsd"] == 1


def test_a_check_without_an_estimate_asks_whether_anything_may_be_spent(meter):
    limit(meter, EVENT_USD / 2, scope_kind="tenant_id", scope_value="t")
    nothing = {"model": ..., "provider": ..., "estimatedCostUsd": ..., "externalRequestId": ...}
    before = check(meter, tenantId="t", **nothing)
    meter.send(tenantId="t")
    after = check(meter, tenantId="t", **nothing)

    assert (before["allowed"], before["estimatedCostUsd"], before["warnings"]) == (True, None, [])
    assert (after["allowed"], after["reason"]) == (False, "budget_exceeded")
    assert check(meter, **nothing)["allowed"] is True


def test_labels_match_as_those_of_events_do(meter):
    limit(meter, 1, name="Unknown", scope_kind="endpoint_tag", scope_value="unknown")
    limit(meter, 1, name="Host", scope_kind="provider", scope_value=PROVIDER)
    limit(meter, 1, name="Staging", scope_kind="environment", scope_value="staging")

    answer = check(meter, provider=f"  {PROVIDER.upper()} ", environment=" Staging")

    assert {one["name"] for one in answer["budgets"]} == {"Unknown", "Host", "Staging"}


def test_an_unknown_price_counts_as_nothing_an_estimate_or_a_refusal(meter):
    limit(meter, 1, scope_kind="tenant_id", scope_value="ignores")
    limit(
        meter, 1, scope_kind="tenant_id", scope_value="estimates", unpriced="estimate", estimate_usd_per_1m=Decimal(1)
    )
    limit(meter, 1, name="Known", scope_kind="tenant_id", scope_value="blocks", unpriced="block")

    def ask(tenant, tokens=1_000_001):
        return check(
            meter,
            tenantId=tenant,
            model="secret-1",
            estimatedCostUsd=...,
            estimatedInputTokens=tokens,
            estimatedOutputTokens=0,
        )

    assert (ask("ignores")["allowed"], ask("ignores")["estimatedCostUsd"]) == (True, None)
    assert ask("ignores")["warnings"][0].startswith(f"No price is known for {PROVIDER}/secret-1.")
    assert (ask("estimates")["allowed"], ask("estimates", 1_000_000)["allowed"]) == (False, True)
    assert "1,000,001 tokens count at the price the budget assumes." in ask("estimates")["message"]
    blocked = ask("blocks", 1)
    assert (blocked["allowed"], blocked["reason"]) == (False, "unpriced")
    assert blocked["message"] == (
        'The budget "Known" (daily, tenantId blocks) refuses calls without a known price, and none is known for '
        f"{PROVIDER}/secret-1."
    )


def test_a_named_cost_of_a_model_without_a_price_does_not_pass_a_budget_that_blocks(meter):
    limit(meter, 5, unpriced="block")

    assert check(meter, model="secret-1")["reason"] == "unpriced"


def test_in_observe_mode_everything_is_allowed_and_shown(meter):
    limit(meter, 1)
    set_budget_policy(meter.workspace_id, observe_mode=True, counted_data_modes=["real"])

    answer = check(meter, estimatedCostUsd=2)

    assert (answer["allowed"], answer["observeMode"], answer["remainingUsd"]) == (True, True, 1)


def test_calls_that_budgets_do_not_count_are_allowed_with_a_word(meter):
    limit(meter, 1)

    answer = check(meter, dataMode="test", estimatedCostUsd=2)

    assert (answer["allowed"], answer["budgets"]) == (True, [])
    assert answer["warnings"] == ["Budgets of this workspace do not count calls with dataMode test."]


def test_a_question_stores_nothing(meter):
    limit(meter, 1)
    check(meter)

    assert not Event.objects.filter(workspace_id=meter.workspace_id).exists()
    assert not Lease.objects.filter(workspace_id=meter.workspace_id).exists()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"estimatedCostUsd": -0.1}, "estimatedCostUsd"),
        ({"estimatedCostUsd": 10_000_001}, "estimatedCostUsd"),
        ({"estimatedCostUsd": "NaN"}, "estimatedCostUsd"),
        ({"estimatedCostUsd": []}, "estimatedCostUsd"),
        ({"estimatedCostUsd": ...}, "estimatedCostUsd"),
        ({"estimatedCostUsd": ..., "estimatedInputTokens": 5}, "estimatedOutputTokens"),
        ({"estimatedCostUsd": ..., "estimatedOutputTokens": 5}, "estimatedInputTokens"),
        ({"estimatedInputTokens": -1}, "estimatedInputTokens"),
        ({"estimatedInputTokens": 10**10}, "estimatedInputTokens"),
        ({"estimatedOutputTokens": True}, "estimatedOutputTokens"),
        (
            {
                "estimatedCostUsd": ...,
                "estimatedInputTokens": 1,
                "estimatedOutputTokens": 1,
                "estimatedCachedInputTokens": 2,
            },
            "estimatedCachedInputTokens",
        ),
        ({"externalRequestId": ...}, "externalRequestId"),
        ({"externalRequestId": " "}, "externalRequestId"),
        ({"externalRequestId": "i" * 201}, "externalRequestId"),
        ({"externalRequestId": "a\x00b"}, "externalRequestId"),
        ({"provider": ...}, "provider"),
        ({"provider": "p" * 101}, "provider"),
        ({"model": " "}, "model"),
        ({"tenantId": 5}, "tenantId"),
        ({"userId": "u" * 201}, "userId"),
        ({"environment": "moon"}, "environment"),
        ({"dataMode": "fake"}, "dataMode"),
        ({"serviceTier": "gold"}, "serviceTier"),
        ({"leaseSeconds": 0}, "leaseSeconds"),
        ({"leaseSeconds": 3_601}, "leaseSeconds"),
        ({"leaseSeconds": 1.5}, "leaseSeconds"),
    ],
)
def test_bad_fields_are_400_and_named(meter, changes, field):
    reply = meter.post(LEASE, question(**changes))

    assert (reply.status, reply.json["reason"]) == (400, "invalid_payload")
    assert [error["field"] for error in reply.json["errors"]] == [field]
    assert not Lease.objects.filter(workspace_id=meter.workspace_id).exists()


@pytest.mark.parametrize("path", [CHECK, LEASE, RELEASE])
def test_other_errors_have_the_shape_of_the_gateway(meter, path):
    answers = {
        (401, "missing_api_key"): meter.app.request("POST", path, question()),
        (401, "invalid_api_key"): meter.app.request("POST", path, question(), {"X-API-Key": "nonsense"}),
        (400, "invalid_json"): meter.post(path, b"{"),
        (400, "invalid_payload"): meter.post(path, []),
        (413, "payload_too_large"): meter.post(path, b" " * 70_000),
        (415, "unsupported_media_type"): meter.post(path, question(), **{"Content-Type": "text/plain"}),
        (405, "method_not_allowed"): meter.app.request("PUT", path, question()),
    }
    for (status, reason), reply in answers.items():
        assert (reply.status, reply.json["reason"], reply.json["ok"]) == (status, reason, False)


def test_unknown_fields_are_ignored(meter):
    assert check(meter, prompt="secret", metadata={"a": 1}, x={"y": [1]})["allowed"] is True


def test_questions_have_a_rate_of_their_own(client_of):
    meter = client_of(requests_per_minute=2)
    assert [meter.post(CHECK, {}).status for _ in range(3)] == [200, 200, 429]
    refused = meter.post(LEASE, question())

    assert (refused.status, refused.json["reason"]) == (429, "rate_limited")
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert int(refused.headers["Retry-After"]) >= 1
    first = meter.send()
    assert (first.status, first.headers["X-RateLimit-Remaining"]) == (200, "1")


def test_asking_for_leases_by_get_is_not_the_gateways(meter):
    for method in ("GET", "HEAD"):
        reply = meter.app.request(method, LEASE, headers={"X-API-Key": meter.opened.api_key_plain})
        assert "X-RateLimit-Limit" not in reply.headers
        assert reply.status != 405
    assert meter.app.request("DELETE", LEASE).headers["Allow"] == "GET, HEAD, POST"
