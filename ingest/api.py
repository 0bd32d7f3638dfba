"""The endpoints of the ledger that are not the gateway's: public prices, and clean-up of demo and test rows."""

from typing import Any, ClassVar, cast

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from ingest.cleanup import delete_rows
from ingest.models import DataMode
from ingest.pricing import pricing_models
from ingest.serializers import DeletedSerializer, PricingModelsSerializer
from opsmeter_site.lib.errors import FieldError, InvalidInput, NotAllowed
from opsmeter_site.lib.openapi import RETRY_AFTER, error_answers
from opsmeter_site.lib.wire import WireView, conditional, encode
from workspaces.access import role_includes
from workspaces.authentication import BearerAuthentication, CanWrite, TokenAccess
from workspaces.models import Role, User

PRICES_MAX_AGE_SECONDS = 300
_SCOPES = ("mine", "workspace")
_MOST_TEXT = 200

_PRICES_EXAMPLE = {
    "models": [
        {
            "provider": "openai",
            "model": "gpt-4o-mini",
            "aliases": ["gpt-4o-mini-2024-07-18"],
            "inputUsdPer1M": 0.15,
            "outputUsdPer1M": 0.6,
            "cachedInputUsdPer1M": 0.075,
            "cacheWriteUsdPer1M": None,
            "effectiveFrom": None,
            "checkedOn": "2026-06-01",
        }
    ],
    "count": 1,
}


class PricingModelsView(WireView):
    """The public price list."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    http_method_names: ClassVar[list[str]] = ["get", "head"]  # type: ignore[misc]

    @extend_schema(
        operation_id="listPricingModels",
        tags=["Prices"],
        summary="List prices",
        description=(
            "The prices in force now for standard calls, in USD per million tokens. Needs no credential. "
            "Cacheable: send the `ETag` back in `If-None-Match`."
        ),
        parameters=[
            OpenApiParameter("provider", description="Only this provider, such as `openai`."),
            OpenApiParameter("model", description="Only this model, by its id or one of its aliases."),
            OpenApiParameter("If-None-Match", location=OpenApiParameter.HEADER, description="The tag you have."),
            OpenApiParameter("ETag", location=OpenApiParameter.HEADER, response=[200, 304], required=True),
            OpenApiParameter("Cache-Control", location=OpenApiParameter.HEADER, response=[200, 304], required=True),
            RETRY_AFTER,
        ],
        responses={
            200: PricingModelsSerializer,
            304: OpenApiResponse(description="What you have is current."),
            **error_answers(400, 406, 503),
        },
        examples=[OpenApiExample("one model", value=_PRICES_EXAMPLE, response_only=True, status_codes=["200"])],
    )
    def get(self, request: Request) -> HttpResponse:
        """All prices, or those of one provider or model."""
        provider, model = _text(request, "provider"), _text(request, "model")
        listing = pricing_models(provider=provider, model=model)
        body = encode({"models": listing.models, "count": len(listing.models)})
        return conditional(request, (body, listing.etag), max_age=PRICES_MAX_AGE_SECONDS)


class CanChangeOwn(CanWrite):
    """Every role, with a token that may write: people may always take back what their own keys sent."""

    message = 'This needs an access token with the scope "write".'
    minimum_role = Role.VIEWER


class _CleanUpView(WireView):
    """Deletes rows of one data mode; every counter follows."""

    authentication_classes = (BearerAuthentication,)
    permission_classes = (CanChangeOwn,)
    http_method_names: ClassVar[list[str]] = ["delete"]  # type: ignore[misc]
    data_mode: ClassVar[DataMode]

    def delete(self, request: Request) -> Response:
        """Delete what `scope` names."""
        return Response({"ok": True, "deleted": _clean_up(request, self.data_mode)})


def _described(operation_id: str, what: str) -> Any:
    return extend_schema_view(
        delete=extend_schema(
            operation_id=operation_id,
            tags=["Clean-up"],
            summary=f"Delete {what} rows",
            description=(
                f"Deletes stored {what} rows; roll-ups and meters follow. Rows of real traffic are never touched. "
                "`scope=workspace` is for owners and admins."
            ),
            parameters=[
                OpenApiParameter(
                    "scope",
                    enum=_SCOPES,
                    default="mine",
                    description="`mine`: rows sent with your own API keys. `workspace`: all of them.",
                ),
                RETRY_AFTER,
            ],
            request=None,
            responses={200: DeletedSerializer, **error_answers(400, 401, 403, 406, 503)},
            examples=[
                OpenApiExample("deleted", value={"ok": True, "deleted": 120}, response_only=True, status_codes=["200"])
            ],
        )
    )


@_described("deleteDemoData", "demo")
class DemoDataView(_CleanUpView):
    """Demo rows."""

    data_mode = DataMode.DEMO


@_described("deleteTestData", "test")
class TestDataView(_CleanUpView):
    """Test rows."""

    data_mode = DataMode.TEST


def _clean_up(request: Request, data_mode: DataMode) -> int:
    scope = request.query_params.get("scope", "mine")
    if scope not in _SCOPES:
        message = f"Must be one of: {', '.join(_SCOPES)}."
        raise InvalidInput(f"scope: {message}", errors=[FieldError("scope", message)])
    access = cast("TokenAccess", request.auth)
    if scope == "workspace" and not role_includes(access.role, Role.ADMIN):
        raise NotAllowed("Only owners and admins delete other people's rows; scope=mine deletes your own.")
    person = cast("User", request.user)
    return delete_rows(
        access.workspace.pk,
        data_mode,
        created_by_id=person.pk if scope == "mine" else None,
        acting_user=person,
    )


def _text(request: Request, name: str) -> str:
    """A query parameter; empty when missing."""
    value = request.query_params.get(name, "")
    if len(value) > _MOST_TEXT:
        message = f"At most {_MOST_TEXT} characters."
        raise InvalidInput(f"{name}: {message}", errors=[FieldError(name, message)])
    return value
