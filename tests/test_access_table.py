"""Who gets what, for every path of the product. A path without a row fails the test: access is decided on purpose."""

import re
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from budgets.scoped.drafts import BudgetDraft
from budgets.scoped.services import create_budget
from ingest.gateway.routes import ROUTES
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import to_wire
from tests.conftest import payload
from tests.factories import OperatorFactory, UserFactory, make_cast, token_for
from workspaces.models import AccessToken, Role
from workspaces.services import add_member, create_api_key, remove_member, revoke_access_token, revoke_api_key

# Callers, in the order of the columns below.
CALLERS = (
    "nobody",
    "removed",  # the token of a person who is no longer a member
    "revoked",  # a revoked token and a revoked API key
    "key",  # the workspace's API key
    "viewer",
    "member",
    "admin",
    "owner",
    "reading owner",  # a token of the owner that may only read
    "foreign owner",  # the owner of another workspace: the same answers, about their own workspace
)
OPEN = dict.fromkeys(CALLERS, 200)


def _bearer(**statuses: int) -> dict[str, int]:
    """Every person 200 unless said otherwise; what is not a live token 401."""
    people = {"viewer": 200, "member": 200, "admin": 200, "owner": 200, "reading owner": 200, "foreign owner": 200}
    return {"nobody": 401, "removed": 401, "revoked": 401, "key": 401, **people, **statuses}


_KEY_ONLY = {**dict.fromkeys(CALLERS, 401), "key": 200}
_MANAGERS = _bearer(viewer=403, member=403, **{"reading owner": 403})
_WRITERS = _bearer(**{"reading owner": 403})
# Whoever reads, programs with the key included; of another workspace's budget nobody is told that it is there.
_READERS = _bearer(key=200)
_READERS_OF_ONE = _READERS | {"foreign owner": 404}
_BUDGETEERS = _MANAGERS | {"key": 403}
_BUDGETEERS_OF_ONE = _BUDGETEERS | {"foreign owner": 404}
_CREATORS = {caller: 201 if status == 200 else status for caller, status in _BUDGETEERS.items()}
_BUYERS = {caller: 409 if status == 200 else status for caller, status in _MANAGERS.items()}

# (method, path) → status by caller.
TABLE: dict[tuple[str, str], dict[str, int]] = {
    ("GET", "/"): dict.fromkeys(CALLERS, 302),
    ("GET", "/healthz"): OPEN,
    ("GET", "/readyz"): OPEN,
    # Outside production, as settings.py says; tests/opsmeter_site/test_metrics_view.py has the rest.
    ("GET", "/internal/metrics"): OPEN,
    ("GET", "/v1/openapi.json"): OPEN,
    ("GET", "/v1/docs"): OPEN,
    ("GET", "/v1/public/pricing-models"): OPEN,
    ("GET", "/v1/settings/budgets"): _bearer(),
    ("PUT", "/v1/settings/budgets"): _MANAGERS,
    ("PATCH", "/v1/settings/budgets"): _MANAGERS,
    ("GET", "/v1/budgets"): _READERS,
    ("POST", "/v1/budgets"): _CREATORS,
    ("POST", "/v1/budgets/simulate"): _READERS,
    ("GET", "/v1/budgets/leases"): _READERS,
    ("GET", "/v1/budgets/<uuid:budget_id>"): _READERS_OF_ONE,
    ("PATCH", "/v1/budgets/<uuid:budget_id>"): _BUDGETEERS_OF_ONE,
    ("DELETE", "/v1/budgets/<uuid:budget_id>"): _BUDGETEERS_OF_ONE,
    ("POST", "/v1/budgets/<uuid:budget_id>/raise"): _BUDGETEERS_OF_ONE,
    ("DELETE", "/v1/budgets/<uuid:budget_id>/raise"): _BUDGETEERS_OF_ONE,
    ("GET", "/v1/budgets/<uuid:budget_id>/adjustments"): _READERS_OF_ONE,
    ("POST", "/v1/budgets/<uuid:budget_id>/adjustments"): _CREATORS | {"foreign owner": 404},
    ("GET", "/v1/budgets/<uuid:budget_id>/history"): _READERS_OF_ONE,
    ("GET", "/v1/settings/workspace-status"): _bearer(),
    ("GET", "/v1/diagnostics/workspace-status"): _KEY_ONLY,
    # The tests' installation has no billing, so whoever may ask gets 409; tests/billing/ has the rest.
    ("GET", "/v1/billing/subscription"): _bearer(viewer=403, member=403),
    ("POST", "/v1/billing/subscription/change-plan"): _BUYERS,
    ("POST", "/v1/billing/subscription/cancel"): _BUYERS,
    ("POST", "/v1/billing/subscription/resume"): _BUYERS,
    ("POST", "/v1/billing/checkout"): _BUYERS,
    ("GET", "/v1/billing/portal"): _BUYERS,
    # Signed, not authenticated; without billing there is no such address.
    ("POST", "/v1/webhooks/lemon-squeezy"): dict.fromkeys(CALLERS, 404),
    ("DELETE", "/v1/ingest/demo-data"): _WRITERS,
    ("DELETE", "/v1/ingest/demo-data?scope=workspace"): _MANAGERS,
    ("DELETE", "/v1/ingest/test-data"): _WRITERS,
    ("DELETE", "/v1/ingest/test-data?scope=workspace"): _MANAGERS,
    ("POST", "/v1/ingest/llm-request"): _KEY_ONLY,
    ("POST", "/v1/ingest/llm-requests"): _KEY_ONLY,
    ("POST", "/v1/ingest/demo"): _KEY_ONLY,
    ("POST", "/v1/otlp/v1/traces"): _KEY_ONLY,
    ("POST", "/v1/budgets/check"): _KEY_ONLY,
    ("POST", "/v1/budgets/leases"): _KEY_ONLY,
    ("POST", "/v1/budgets/leases/release"): _KEY_ONLY,
    ("GET", "/v1/nothing"): dict.fromkeys(CALLERS, 404),
}
_BUDGET = {"scope": "tenantId", "scopeValue": "acme", "limitUsd": 50}
BODIES = {
    ("PUT", "/v1/settings/budgets"): lambda: {"dailyLimitUsd": 50},
    ("PATCH", "/v1/settings/budgets"): lambda: {"dailyLimitUsd": 50},
    ("POST", "/v1/budgets"): lambda: _BUDGET,
    ("POST", "/v1/budgets/simulate"): lambda: _BUDGET,
    ("PATCH", "/v1/budgets/<uuid:budget_id>"): lambda: {"limitUsd": 60},
    ("POST", "/v1/budgets/<uuid:budget_id>/raise"): lambda: {
        "limitUsd": 75,
        "until": to_wire(utc_now() + timedelta(days=1)),
        "reason": "Launch",
    },
    ("POST", "/v1/budgets/<uuid:budget_id>/adjustments"): lambda: {"amountUsd": 1, "reason": "Bill"},
    ("POST", "/v1/billing/subscription/change-plan"): lambda: {"planTier": "pro"},
    ("POST", "/v1/billing/checkout"): lambda: {"planTier": "pro"},
    ("POST", "/v1/ingest/llm-request"): payload,
    ("POST", "/v1/ingest/llm-requests"): lambda: {"events": [payload()]},
    ("POST", "/v1/ingest/demo"): payload,
    ("POST", "/v1/otlp/v1/traces"): lambda: {"resourceSpans": []},
    ("POST", "/v1/budgets/check"): dict,
    ("POST", "/v1/budgets/leases"): lambda: {**payload(), "estimatedCostUsd": 0.01},
    ("POST", "/v1/budgets/leases/release"): payload,
}
ALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
# Tables of their own: pages of workspaces (test_access_pages), of people (test_access_site), of operators (below).
ELSEWHERE = ("/w/", "/accounts/", "/workspaces/", "/docs/", "/outbox/", "/invitations/", "/mail/", "/admin/")
# The one pattern that stands for many paths, and the path that stands for it.
CATCH_ALL = r"^v1(?:/[\s\S]*)?\Z"


def _paths(patterns: list[URLPattern | URLResolver], prefix: str = "/") -> Iterator[tuple[str, URLPattern]]:
    for pattern in patterns:
        route = str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _paths(pattern.url_patterns, prefix + route)
        elif not (prefix + route).startswith(ELSEWHERE):
            yield ("/v1/nothing" if route == CATCH_ALL else prefix + route), pattern


def _methods(pattern: URLPattern) -> set[str]:
    """What a class of the REST framework serves; plain views serve GET."""
    view = getattr(pattern.callback, "cls", None)
    served = [name for name in view.http_method_names if hasattr(view, name)] if view else ["get"]
    return {name.upper() for name in served} - {"HEAD"}


def _served() -> set[tuple[str, str]]:
    django = {(method, path) for path, pattern in _paths(get_resolver().url_patterns) for method in _methods(pattern)}
    return django | {("POST", path) for path in ROUTES}


def test_every_path_and_method_has_a_row():
    rows = {(method, path.partition("?")[0]) for method, path in TABLE}
    assert rows == _served()


def test_every_row_names_every_caller():
    assert all(tuple(row) == CALLERS or set(row) == set(CALLERS) for row in TABLE.values())


@pytest.fixture(scope="module")
def people(django_db_setup, django_db_blocker):
    """Everybody with a role in the workspace that all callers but the foreign owner are about."""
    with django_db_blocker.unblock():
        return make_cast("pro")


@pytest.fixture
def address(app, people):
    """A row's path as a caller asks for it: about a budget that nobody has touched yet."""

    def make(path: str) -> str:
        if "<uuid:budget_id>" not in path:
            return path
        draft = BudgetDraft("tenant_id", Decimal(50), scope_value="acme")
        budget = create_budget(people.workspace, draft, acting_user=people.owner)
        return path.replace("<uuid:budget_id>", str(budget.pk))

    return make


@pytest.fixture(scope="module")
def credentials(people, django_db_blocker):
    """The headers of every caller."""
    with django_db_blocker.unblock():
        foreign = make_cast("pro")
        workspace = people.workspace
        tokens = {name: token_for(getattr(people, name), workspace) for name in ("viewer", "member", "admin", "owner")}
        tokens["reading owner"] = token_for(people.owner, workspace, "read")
        tokens["foreign owner"] = foreign.opened.access_token_plain
        tokens["removed"] = _token_of_a_removed_member(people, foreign)
        headers = {name: {"Authorization": f"Bearer {plain}"} for name, plain in tokens.items()}
        headers["nobody"] = {}
        headers["key"] = {"X-API-Key": people.opened.api_key_plain}
        headers["revoked"] = _revoked(people)
        return headers


def _token_of_a_removed_member(people, foreign):
    leaver = foreign.outsider
    add_member(people.workspace, leaver, Role.ADMIN, acting_user=people.owner)
    plain = token_for(leaver, people.workspace)
    remove_member(people.workspace, leaver, acting_user=people.owner)
    return plain


def _revoked(people):
    plain = token_for(people.admin, people.workspace)
    revoke_access_token(AccessToken.objects.filter(user=people.admin).latest("pk"), acting_user=people.owner)
    key, key_plain = create_api_key(people.workspace, name="Revoked", created_by=people.owner, acting_user=people.owner)
    revoke_api_key(key, acting_user=people.owner)
    return {"Authorization": f"Bearer {plain}", "X-API-Key": key_plain}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: " ".join(row))
def test_who_gets_what(app, address, credentials, row):
    method, path = row
    body = BODIES.get(row, lambda: b"")
    found = {caller: app.request(method, address(path), body(), credentials[caller]).status for caller in CALLERS}
    assert found == TABLE[row]


@pytest.mark.parametrize("path", sorted({path.partition("?")[0] for _, path in TABLE if path.startswith("/v1/")}))
@pytest.mark.parametrize("caller", ["nobody", "owner", "key"])
def test_every_other_method_is_a_4xx_json_object(app, address, credentials, path, caller):
    served = {method for method, at in TABLE if at.partition("?")[0] == path}
    path = address(path)
    for method in set(ALL_METHODS) - served - ({"HEAD"} if "GET" in served else set()):
        reply = app.request(method, path, b"", credentials[caller])
        assert reply.status in {401, 404, 405}, (method, reply.status)
        assert reply.headers["Content-Type"] == "application/json"
        assert "Location" not in reply.headers
        if method != "HEAD":
            assert reply.json["ok"] is False
        if reply.status == 405:
            assert set(reply.headers["Allow"].split(", ")) - {"HEAD"} == served


# --- The operators' console -----------------------------------------------------------------------------------------


def _console_addresses(patterns, prefix: str = "/admin/") -> Iterator[str]:
    """Every address of the console, with something in each place that wants something."""
    for pattern in patterns:
        route = str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _console_addresses(pattern.url_patterns, prefix + route)
        elif route.startswith("^"):
            yield prefix + "ingest/"
        else:
            yield prefix + re.sub(r"<[^>]+>", "1", route).replace(r"(?P1.*)$", "nothing")


@pytest.mark.django_db
def test_the_console_is_for_operators_only():
    console = next(each for each in get_resolver().url_patterns if str(each.pattern) == "admin/")
    addresses = set(_console_addresses(console.url_patterns)) - {reverse("admin:login")}
    assert len(addresses) > 60
    nobody, member = Client(), Client()
    member.force_login(UserFactory())
    for address in addresses:
        for caller in (nobody, member):
            response = caller.get(address)
            assert response.status_code == 302, address
            assert response["Location"].startswith((reverse("account_login"), reverse("admin:index")))


@pytest.mark.django_db
def test_the_console_opens_for_operators():
    operator = Client()
    operator.force_login(OperatorFactory())
    assert operator.get("/admin/").status_code == 200
    assert Client().get(reverse("admin:login"))["Location"].startswith(reverse("account_login"))
