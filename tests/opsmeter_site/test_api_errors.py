import json

import psycopg
import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import InterfaceError, OperationalError, connections
from django.http import Http404, HttpResponse
from django.test import Client, RequestFactory
from django.urls import path
from django.views.decorators.csrf import csrf_protect
from rest_framework import exceptions
from rest_framework.permissions import AllowAny

from opsmeter_site import api_errors, urls
from opsmeter_site.lib.errors import FieldError, NotFound, OpsmeterError
from opsmeter_site.lib.wire import WireView
from tests.client import ApiClient, assert_refused


class TooSoonError(OpsmeterError):
    status = 429
    reason = "too_soon"


RAISED = {
    "not-found": NotFound("There is no such thing."),
    "fields": OpsmeterError("Bad.", errors=[FieldError("name", "Too short."), FieldError("", "Odd.")]),
    "too-soon": TooSoonError("Wait.", headers={"Retry-After": "7"}),
    "throttled": exceptions.Throttled(wait=2.5),
    "operational": OperationalError("connection refused"),
    "interface": InterfaceError("connection already closed"),
    "http404": Http404("secret detail"),
    "denied": PermissionDenied("secret detail"),
    "suspicious": SuspiciousOperation("secret detail"),
    "bug": ZeroDivisionError("secret detail"),
}


class RaisingView(WireView):
    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request, name):
        raise RAISED[name]


def plain_view(request, name):
    raise RAISED[name]


def form_view(request):
    return HttpResponse("never")


plain_view.login_required = False
form_view.login_required = False


class RaisingUrls:
    """The site's paths with some that fail in known ways."""

    urlpatterns = (
        path("v1/raise/<name>", RaisingView.as_view()),
        path("v1/raise-plainly/<name>", plain_view),
        path("raise-plainly/<name>", plain_view),
        path("v1/form", csrf_protect(form_view)),
        path("form", csrf_protect(form_view)),
        *urls.urlpatterns,
    )
    handler400, handler403 = urls.handler400, urls.handler403
    handler404, handler500 = urls.handler404, urls.handler500


@pytest.fixture
def raising_urls(settings):
    settings.ROOT_URLCONF = RaisingUrls
    settings.CSRF_FAILURE_VIEW = "opsmeter_site.api_errors.csrf_failure"


@pytest.mark.parametrize(
    ("name", "status", "reason", "fields"),
    [
        ("not-found", 404, "not_found", []),
        ("fields", 400, "invalid_payload", ["name", ""]),
        ("too-soon", 429, "too_soon", []),
        ("throttled", 429, "rate_limited", []),
        ("operational", 503, "unavailable", []),
        ("interface", 503, "unavailable", []),
        ("http404", 404, "not_found", []),
        ("denied", 403, "not_allowed", []),
        ("suspicious", 400, "bad_request", []),
        ("bug", 500, "internal_error", []),
    ],
)
@pytest.mark.usefixtures("raising_urls")
def test_every_error_of_an_endpoint_is_json(name, status, reason, fields):
    response = ApiClient().get(f"/v1/raise/{name}")
    assert_refused(response, status, reason, *fields)
    assert b"secret detail" not in response.content


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("operational", 503, "unavailable"),
        ("interface", 503, "unavailable"),
        ("http404", 404, "not_found"),
        ("denied", 403, "not_allowed"),
        ("suspicious", 400, "bad_request"),
        ("bug", 500, "internal_error"),
    ],
)
@pytest.mark.usefixtures("raising_urls")
def test_errors_of_plain_views_are_json_under_v1_and_pages_elsewhere(name, status, reason):
    client = ApiClient()
    assert_refused(client.get(f"/v1/raise-plainly/{name}"), status, reason)
    page = client.get(f"/raise-plainly/{name}")
    assert page.status_code == status
    assert page["Content-Type"].startswith("text/html")
    assert b"<h1>" in page.content
    assert b"css/base.css" in page.content
    assert b"style=" not in page.content
    assert b"<script" not in page.content
    assert "default-src 'self'" in page["Content-Security-Policy"]
    assert b"secret detail" not in page.content


@pytest.mark.usefixtures("raising_urls")
def test_retry_after_says_when():
    client = ApiClient()
    assert client.get("/v1/raise/operational")["Retry-After"] == "5"
    assert client.get("/v1/raise-plainly/operational")["Retry-After"] == "5"
    assert client.get("/raise-plainly/operational")["Retry-After"] == "5"
    assert client.get("/v1/raise/too-soon")["Retry-After"] == "7"
    assert client.get("/v1/raise/throttled")["Retry-After"] == "3"


@pytest.mark.usefixtures("raising_urls")
def test_a_form_without_its_token_is_refused_in_the_right_shape():
    client = Client(enforce_csrf_checks=True)
    assert_refused(client.post("/v1/form"), 403, "csrf_failed")
    page = client.post("/form")
    assert page.status_code == 403
    assert b"form has expired" in page.content


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
@pytest.mark.parametrize(
    "unknown",
    [
        "/v1",
        "/v1/",
        "/v1/nothing",
        "/v1//settings/budgets",
        "/v1/settings/budgets/",
        "/v1/settings/workspace-status/",
        "/v1/public/pricing-models/",
        "/v1/docs/",
        "/v1/openapi.json/",
        "/v1/ingest",
        "/v1/ingest/llm-request/",
        "/v1/settings/budgets.json",
        "/v1/%2e%2e/admin/",
        "/v1/settings%2Fbudgets%00",
        "/v1/%ff%fe",
        "/v1/line%0Abreak",
        "/v1/" + "x" * 5_000,
    ],
    ids=lambda path: path[:40],
)
def test_an_unknown_path_is_a_json_404_for_every_method(method, unknown):
    assert_refused(ApiClient().send(method, unknown), 404, "not_found")


def test_an_unknown_path_is_json_in_debug_mode_too(settings):
    settings.DEBUG = True
    assert_refused(ApiClient().get("/v1/nothing"), 404, "not_found")


def test_an_unknown_path_elsewhere_is_a_page():
    response = Client().get("/nothing")
    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")
    assert b"Nothing here" in response.content


@pytest.mark.parametrize("host", ["evil.example", "a b", "127.0.0.1:port", "[::1", "x" * 300, ""])
def test_an_unknown_host_is_refused(host):
    response = Client().get("/v1/public/pricing-models", headers={"Host": host})
    assert_refused(response, 400, "bad_request")


def test_too_many_parameters_are_refused():
    query = "&".join(f"a{number}=1" for number in range(1_001))
    response = ApiClient().get(f"/v1/public/pricing-models?{query}")
    assert_refused(response, 400, "bad_request")


def test_no_error_is_a_redirect(settings):
    settings.SECURE_SSL_REDIRECT = True
    assert_refused(ApiClient().send("POST", "/v1/settings/budgets/"), 404, "not_found")


@pytest.fixture
def database_away(monkeypatch):
    """Every attempt to reach the database fails the way psycopg fails."""

    def refuse(*args, **kwargs):
        raise OperationalError("connection refused") from psycopg.OperationalError("connection refused")

    monkeypatch.setattr(type(connections["default"]), "cursor", refuse)


@pytest.mark.usefixtures("database_away")
@pytest.mark.parametrize(
    ("method", "where"),
    [
        ("GET", "/v1/settings/budgets"),
        ("PUT", "/v1/settings/budgets"),
        ("GET", "/v1/settings/workspace-status"),
        ("GET", "/v1/diagnostics/workspace-status"),
        ("DELETE", "/v1/ingest/demo-data"),
    ],
)
def test_a_database_that_is_away_is_503(method, where):
    credentials = ApiClient(token="om_pat_abcdefgh_" + "x" * 32, api_key="om_live_abcdefgh_" + "x" * 32)
    response = credentials.send(method, where)
    assert_refused(response, 503, "unavailable")
    assert response["Retry-After"] == "5"


def test_nested_details_become_paths():
    details = {"a": {"b": {1: ["wrong"]}}, "c": ["first", "second"], "non_field_errors": ["odd"]}
    flat = [(error.field, error.message) for error in api_errors.flatten_details(details)]
    assert flat == [("a.b[1]", "wrong"), ("c", "first"), ("c", "second"), ("", "odd")]


def test_a_page_that_cannot_be_rendered_does_not_hide_the_status(monkeypatch):
    def broken(*args, **kwargs):
        raise ValueError("no manifest")

    monkeypatch.setattr(api_errors, "render_to_string", broken)
    response = api_errors.page_not_found(RequestFactory().get("/nothing"))
    assert response.status_code == 404
    assert json.loads(response.content)["ok"] is False
