"""Every error answer. Under `/v1` it is a JSON object, whatever went wrong; elsewhere a small page.

`{"ok": false, "reason": "<for machines>", "message": "<for people>", "errors": [{"field", "message"}]}`
"""

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.http.request import UnreadablePostError
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.urls import reverse
from rest_framework import exceptions

from opsmeter_site.lib.errors import FieldError, OpsmeterError
from workspaces.pages import RoleTooLow

logger = structlog.get_logger(__name__)

RETRY_SECONDS_WHILE_UNAVAILABLE = 5
_MAX_ERRORS = 50
_DATABASE_AWAY = (OperationalError, InterfaceError)

_REASONS: dict[type[Exception], str] = {
    exceptions.ParseError: "invalid_json",
    exceptions.ValidationError: "invalid_payload",
    exceptions.NotAuthenticated: "not_authenticated",
    exceptions.AuthenticationFailed: "invalid_credentials",
    exceptions.PermissionDenied: "not_allowed",
    exceptions.NotFound: "not_found",
    exceptions.MethodNotAllowed: "method_not_allowed",
    exceptions.NotAcceptable: "not_acceptable",
    exceptions.UnsupportedMediaType: "unsupported_media_type",
    exceptions.Throttled: "rate_limited",
}
_PAGES = {
    400: ("Bad request", "Something about this request was not understood."),
    403: ("Not allowed", "You are signed in, but this is not open to you."),
    404: ("Nothing here", "There is no page at this address."),
    500: ("Something broke", "This is our fault, and it has been logged. Please try again."),
    503: ("Back in a moment", "The database cannot be reached right now. Please try again in a few seconds."),
}


def error_response(
    status: int,
    reason: str,
    message: str,
    *,
    errors: Iterable[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> JsonResponse:
    """An error answer in the API's one shape."""
    body = {
        "ok": False,
        "reason": reason,
        "message": message,
        "errors": [{"field": error.field, "message": error.message} for error in list(errors)[:_MAX_ERRORS]],
    }
    return JsonResponse(body, status=status, headers=headers)


def unavailable_response() -> JsonResponse:
    """503: the database is away; nothing was changed."""
    return error_response(
        503,
        "unavailable",
        "The service cannot reach its database right now. Nothing was changed; try again shortly.",
        headers={"Retry-After": str(RETRY_SECONDS_WHILE_UNAVAILABLE)},
    )


def handle_exception(error: Exception, _context: Mapping[str, Any]) -> HttpResponseBase | None:
    """The REST framework's exception handler. None leaves the error to Django, which logs it and answers 500.

    Answers are rendered here and not by the view's renderer, so that pages such as `/v1/docs` fail in JSON too.
    """
    if isinstance(error, OpsmeterError):
        message = error.message or "The request was refused."
        return error_response(error.status, error.reason, message, errors=error.errors, headers=error.headers)
    if isinstance(error, exceptions.APIException):
        return _from_framework(error)
    if isinstance(error, _DATABASE_AWAY):
        logger.warning("database_unavailable", error=str(error))
        return unavailable_response()
    return _from_django(error)


def _from_framework(error: exceptions.APIException) -> JsonResponse:
    headers = {}
    if auth_header := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = auth_header
    if (wait := getattr(error, "wait", None)) is not None:
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    if isinstance(error, exceptions.ValidationError):
        errors = list(flatten_details(error.detail))
        return error_response(400, "invalid_payload", _summary(errors), errors=errors, headers=headers)
    return error_response(error.status_code, _reason_of(error), str(error.detail), headers=headers)


def _reason_of(error: exceptions.APIException) -> str:
    """A code that the raiser chose wins over the one of the error's class."""
    code = error.get_codes()
    if isinstance(code, str) and code != error.default_code:
        return code
    return next((reason for kind, reason in _REASONS.items() if isinstance(error, kind)), "error")


def _from_django(error: Exception) -> JsonResponse | None:
    if isinstance(error, Http404):
        return error_response(404, "not_found", "There is nothing here.")
    if isinstance(error, PermissionDenied):
        return error_response(403, "not_allowed", "This is not open to you.")
    if isinstance(error, RequestDataTooBig):
        return error_response(413, "payload_too_large", "The body is larger than this endpoint reads.")
    if isinstance(error, SuspiciousOperation | UnreadablePostError):
        return error_response(400, "bad_request", "The request was not understood.")
    return None


def flatten_details(details: Any, field: str = "") -> Iterator[FieldError]:
    """A serializer's nested errors as a flat list, with paths such as `countedDataModes[0]`."""
    if isinstance(details, Mapping):
        for name, inner in details.items():
            path = f"[{name}]" if isinstance(name, int) else f".{name}"
            yield from flatten_details(inner, field if name == "non_field_errors" else (field + path).lstrip("."))
    elif isinstance(details, Sequence) and not isinstance(details, str):
        for inner in details:
            yield from flatten_details(inner, field)
    else:
        yield FieldError(field, str(details))


def _summary(errors: Sequence[FieldError]) -> str:
    if not errors:
        return "The input is not valid."
    first = errors[0]
    return f"{first.field}: {first.message}" if first.field else first.message


# --- Django's own handlers, named in urls.py ------------------------------------------------------------------------


def is_api_path(path: str) -> bool:
    """Whether `path` belongs to the API, where every answer is JSON."""
    return path == "/v1" or path.startswith("/v1/")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """400: an unknown host, a malformed request, too many fields."""
    return _answer(request, 400, "bad_request", "The request was not understood: check host, headers and parameters.")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """403 outside the REST framework; the door of a workspace says which role it takes."""
    words = str(exception) if isinstance(exception, RoleTooLow) else ""
    return _answer(request, 403, "not_allowed", "This is not open to you.", page_text=words)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """403: a form without its token."""
    logger.warning("csrf_failed", why=reason)
    if request.path_info in {reverse("account_login"), reverse("account_signup")} and request.user.is_authenticated:
        # Signed in meanwhile, in another tab: there is nothing left to do.
        return redirect("home")
    message = "The form has expired. Reload the page and send it again."
    return _answer(request, 403, "csrf_failed", message, page_text=message)


def page_not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """404: an unknown path."""
    message = "There is nothing at this path; paths under /v1 have no trailing slash."
    return _answer(request, 404, "not_found", message)


def server_error(request: HttpRequest) -> HttpResponse:
    """500; or 503 when what failed is the connection to the database."""
    if isinstance(sys.exc_info()[1], _DATABASE_AWAY):
        return _unavailable(request)
    return _answer(request, 500, "internal_error", "Something broke on our side. It has been logged.")


def _unavailable(request: HttpRequest) -> HttpResponse:
    if is_api_path(request.path_info):
        return unavailable_response()
    return _page(503, headers={"Retry-After": str(RETRY_SECONDS_WHILE_UNAVAILABLE)})


def _answer(request: HttpRequest, status: int, reason: str, message: str, page_text: str = "") -> HttpResponse:
    if is_api_path(request.path_info):
        return error_response(status, reason, message)
    return _page(status, page_text)


def _page(status: int, text: str = "", headers: Mapping[str, str] | None = None) -> HttpResponse:
    """A page that needs neither session nor database: no request reaches its template."""
    title, usual_text = _PAGES[status]
    try:
        page = render_to_string("error.html", {"status": status, "title": title, "text": text or usual_text})
    except Exception:  # whatever it is, for instance static files that were never collected
        logger.exception("error_page_not_rendered")
        return error_response(status, "error", title, headers=headers)
    return HttpResponse(page, status=status, headers=headers)
