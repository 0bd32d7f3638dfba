import json

import pytest
from django.contrib.staticfiles import finders
from django.test import Client

from tests.client import assert_refused


def test_the_document_is_open_and_cacheable():
    response = Client().get("/v1/openapi.json")
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    document = json.loads(response.content)
    assert document["openapi"].startswith("3.")
    assert "/v1/ingest/llm-request" in document["paths"]
    assert "/v1/settings/workspace-status" in document["paths"]
    for tag in (response["ETag"], "W/" + response["ETag"], '"other", ' + response["ETag"], "*"):
        again = Client().get("/v1/openapi.json", headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
    assert Client().get("/v1/openapi.json", headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_page_needs_nobody_else():
    page = Client().get("/v1/docs")
    html = page.content.decode()
    assert page.status_code == 200
    assert "//" not in html.replace("<!DOCTYPE html>", "").replace("</", "")
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js", "favicon-32x32.png"):
        assert name in html
        assert finders.find(f"drf_spectacular_sidecar/swagger-ui-dist/{name}")


def test_the_page_is_under_the_strict_policy_but_for_styles():
    policy = Client().get("/v1/docs")["Content-Security-Policy"]
    directives = {part.split()[0]: part.split()[1:] for part in policy.split(";")}
    assert directives["style-src"] == ["'self'", "'unsafe-inline'"]
    assert directives["default-src"] == ["'self'"]
    assert "script-src" not in directives
    for path in ("/v1/openapi.json", "/nothing", "/admin/login/"):
        assert "unsafe" not in Client().get(path)["Content-Security-Policy"]


def test_the_script_is_a_file_of_its_own():
    script = Client().get("/v1/docs?script=")
    assert script["Content-Type"] == "application/javascript"
    assert b"/v1/openapi.json" in script.content
    html = Client().get("/v1/docs?x=%22%3E%3Cscript%3Ealert(1)%3C/script%3E").content
    assert b"alert" not in html


@pytest.mark.parametrize("path", ["/v1/docs", "/v1/openapi.json"])
def test_they_only_read(path):
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        response = Client().generic(method, path)
        assert_refused(response, 405, "method_not_allowed")
        assert response["Allow"] == "GET, HEAD"


def test_credentials_do_not_matter_there():
    for path in ("/v1/docs", "/v1/openapi.json"):
        response = Client().get(path, headers={"Authorization": "Bearer nonsense", "X-API-Key": "nonsense"})
        assert response.status_code == 200
