"""Speaks to the product's WSGI application in this process, as a server would."""

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass
class Reply:
    """An answer; `json` decodes the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class InProcess:
    """Calls a WSGI application."""

    application: Callable[..., Iterable[bytes]]

    def request(self, method: str, path: str, body: Any = b"", headers: dict[str, str] | None = None) -> Reply:
        """One request. A body that is not bytes is sent as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        path, _, query = path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_NAME": "testserver",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(raw),
            "wsgi.errors": io.StringIO(),
            "CONTENT_LENGTH": str(len(raw)),
            "CONTENT_TYPE": "application/json",
        }
        for name, value in (headers or {}).items():
            key = name.upper().replace("-", "_")
            environ[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = value
        started: dict[str, Any] = {}

        def start_response(status: str, response_headers: list[tuple[str, str]], _exc_info: Any = None) -> None:
            started.update(status=int(status.split()[0]), headers=dict(response_headers))

        response = self.application(environ, start_response)
        try:
            content = b"".join(response)
        finally:
            getattr(response, "close", lambda: None)()
        return Reply(started["status"], started["headers"], content)
