"""What surrounds django-allauth's views."""

from collections.abc import Callable
from http import HTTPStatus

import structlog
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.response import TemplateResponse

logger = structlog.get_logger(__name__)

GetResponse = Callable[[HttpRequest], HttpResponse]


class AccountPages:
    """Gives allauth's pages our manners.

    A refused form is 422. The way to a sign-in provider begins on a page of ours, because browsers refuse to follow a
    form to another host under our content security policy. A provider that is away is not an error of ours.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """The view's answer, or the page that leads to the provider."""
        response = self.get_response(request)
        leaves = response.status_code == HTTPStatus.FOUND and not response["Location"].startswith("/")
        if leaves and request.method == "POST" and _is_below(request, "accounts/oidc/"):
            return render(request, "socialaccount/login_redirect.html", {"redirect_to": response["Location"]})
        return response

    def process_template_response(self, request: HttpRequest, response: TemplateResponse) -> TemplateResponse:
        """A form that comes back was refused."""
        form = (response.context_data or {}).get("form")
        if request.method == "POST" and _is_below(request, "accounts/") and getattr(form, "errors", None):
            response.status_code = HTTPStatus.UNPROCESSABLE_ENTITY
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Say that the provider is away; every other error stays one."""
        # Every error of the library that allauth talks to the provider with is an OSError.
        if not (isinstance(exception, OSError) and _is_below(request, "accounts/oidc/")):
            return None
        logger.warning("sign_in_provider_away", error=type(exception).__name__)
        return render(request, "socialaccount/authentication_error.html", status=HTTPStatus.BAD_GATEWAY)


def _is_below(request: HttpRequest, route: str) -> bool:
    return request.resolver_match is not None and request.resolver_match.route.startswith(route)
