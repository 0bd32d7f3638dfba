"""A client of the API as a script would be one: a credential, JSON in, JSON out."""

import json
from typing import Any

from django.http import HttpResponse
from django.test import Client


class ApiClient:
    """Calls the Django side of the API. Errors inside the server become answers, as they do for real clients."""

    def __init__(self, *, token: str = "", api_key: str = "") -> None:
        self.headers = {}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
        if api_key:
            self.headers["X-API-Key"] = api_key
        self._client = Client(raise_request_exception=False)

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Any = b"",
        *,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> HttpResponse:
        """One request; a body that is not bytes is sent as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._client.generic(
            method, path, raw, content_type=content_type, headers={**self.headers, **(headers or {})}
        )

    def get(self, path: str, **headers: str) -> HttpResponse:
        return self.send("GET", path, headers=headers)

    def put(self, path: str, body: Any) -> HttpResponse:
        return self.send("PUT", path, body)

    def patch(self, path: str, body: Any) -> HttpResponse:
        return self.send("PATCH", path, body)


def assert_refused(response: HttpResponse, status: int, reason: str, *fields: str) -> dict[str, Any]:
    """The response is an error in the API's one shape, about exactly these fields; answers its body."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/json"
    body = json.loads(response.content)
    assert set(body) == {"ok", "reason", "message", "errors"}
    assert body["ok"] is False
    assert body["reason"] == reason
    assert body["message"]
    assert [error["field"] for error in body["errors"]] == list(fields)
    assert all(error["message"] for error in body["errors"])
    return body
