import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import time_machine

from budgets.services import update_budget_settings
from ingest.models import Meter
from opsmeter_site.lib.periods import Period, window_of
from tests.client import ApiClient, assert_refused
from tests.factories import make_cast, make_workspace, token_for

pytestmark = pytest.mark.django_db

BEARER_PATH = "/v1/settings/workspace-status"
KEY_PATH = "/v1/diagnostics/workspace-status"
NOW = datetime(2026, 3, 7, 15, 30, tzinfo=UTC)

# The answer in the public documentation, to the letter.
DOCUMENTED = """{
"workspaceId": "f0f2d17d-7bf7-4efa-a11e-4f13e8a0216b",
"isPlanLimitReached": false,
"telemetryPaused": false,
"providerCallsContinue": true,
"isBudgetWarning": true,
"isBudgetExceeded": false,
"severity": "warning",
"plan": {
"planTier": "starter",
"planName": "Starter",
"currentRequestCount": 98231,
"planRequestLimit": 100000,
"remainingRequestCount": 1769,
"isPlanLimitReached": false,
"telemetryPaused": false,
"periodStart": "2026-03-01T00:00:00Z",
"periodEnd": "2026-03-31T23:59:59Z"
},
"budget": {
"warningThresholdRatio": 0.8,
"daily": {
"limitUsd": 50,
"currentSpendUsd": 41.25,
"utilizationRatio": 0.825,
"isWarning": true,
"isExceeded": false,
"period": "daily",
"periodStart": "2026-03-07T00:00:00Z",
"periodEnd": "2026-03-07T23:59:59Z"
},
"monthly": {
"limitUsd": 500,
"currentSpendUsd": 412.55,
"utilizationRatio": 0.8251,
"isWarning": true,
"isExceeded": false,
"period": "monthly",
"periodStart": "2026-03-01T00:00:00Z",
"periodEnd": "2026-03-31T23:59:59Z"
}
}
}"""


@pytest.fixture
def documented_workspace():
    """The workspace of the documentation's example, but for its id."""
    opened = make_workspace("starter")
    update_budget_settings(
        opened.workspace,
        acting_user=opened.owner,
        daily_limit_usd=Decimal(50),
        monthly_limit_usd=Decimal(500),
    )
    meters = [("usd", "day", "41.25"), ("usd", "month", "412.55"), ("requests", "month", "98231")]
    for measure, period, value in meters:
        start = window_of(Period(period), NOW).start
        Meter.objects.create(
            workspace=opened.workspace, measure=measure, period=period, period_start=start, value=Decimal(value)
        )
    return opened


def clients(opened):
    return {
        BEARER_PATH: ApiClient(token=opened.access_token_plain),
        KEY_PATH: ApiClient(api_key=opened.api_key_plain),
    }


@pytest.mark.parametrize("path", [BEARER_PATH, KEY_PATH])
def test_it_answers_as_documented_key_for_key_in_order(documented_workspace, path):
    with time_machine.travel(NOW, tick=False):
        response = clients(documented_workspace)[path].get(path)
    assert response.status_code == 200
    text = response.content.decode()
    expected = "".join(DOCUMENTED.split()).replace(
        "f0f2d17d-7bf7-4efa-a11e-4f13e8a0216b", str(documented_workspace.workspace.pk)
    )
    # As text: 50 and not 50.0, true and not 1, and the keys in the documented order.
    assert text == expected
    assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", [BEARER_PATH, KEY_PATH])
def test_a_fresh_workspace_has_every_key_and_no_limits(path):
    opened = make_workspace("enterprise")
    body = json.loads(clients(opened)[path].get(path).content)
    assert body["severity"] == "normal"
    assert body["plan"]["planRequestLimit"] is None
    assert body["plan"]["remainingRequestCount"] is None
    for window in (body["budget"]["daily"], body["budget"]["monthly"]):
        assert window["limitUsd"] is None
        assert window["currentSpendUsd"] == 0
        assert window["utilizationRatio"] == 0
        assert window["isWarning"] is False
        assert window["isExceeded"] is False
    assert set(body) == set(json.loads(DOCUMENTED))
    assert set(body["plan"]) == set(json.loads(DOCUMENTED)["plan"])


@pytest.mark.parametrize("role", ["owner", "admin", "member", "viewer"])
def test_every_role_may_look(role):
    people = make_cast()
    for scopes in (("read",), ("write",)):
        client = ApiClient(token=token_for(getattr(people, role), people.workspace, *scopes))
        assert client.get(BEARER_PATH).status_code == 200


def test_each_path_asks_for_its_own_credential():
    opened = make_workspace()
    bearer, key = clients(opened).values()
    assert_refused(bearer.get(KEY_PATH), 401, "missing_api_key")
    assert_refused(key.get(BEARER_PATH), 401, "missing_token")
    assert_refused(ApiClient(api_key="om_live_x").get(KEY_PATH), 401, "invalid_api_key")
    assert_refused(ApiClient(api_key="kéy\u20ac").get(KEY_PATH), 401, "invalid_api_key")


def test_it_shows_the_workspace_of_the_credential_only():
    first, second = make_workspace(), make_workspace()
    for opened in (first, second):
        for path, client in clients(opened).items():
            body = json.loads(client.get(path + "?workspaceId=" + str(first.workspace.pk)).content)
            assert body["workspaceId"] == str(opened.workspace.pk)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", [BEARER_PATH, KEY_PATH])
def test_it_only_reads(path, method):
    response = clients(make_workspace())[path].send(method, path)
    assert_refused(response, 405, "method_not_allowed")
    assert response["Allow"] == "GET, HEAD"


def test_it_costs_few_queries(django_assert_max_num_queries):
    opened = make_workspace()
    client = clients(opened)[BEARER_PATH]
    client.get(BEARER_PATH)
    # Token, membership, status; the note of the token's last use is a minute away.
    with django_assert_max_num_queries(3):
        client.get(BEARER_PATH)
