"""`/v1/settings/budgets` and the two workspace-status endpoints."""

from typing import Any, ClassVar, cast

from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from budgets.examples import BUDGETS, STATUS
from budgets.selectors import BudgetValues, budget_values, workspace_status
from budgets.serializers import BudgetSettingsSerializer, WorkspaceStatusSerializer
from budgets.services import update_budget_settings
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError, InvalidInput
from opsmeter_site.lib.openapi import RETRY_AFTER, error_answers
from opsmeter_site.lib.wire import WireView, json_body
from workspaces.authentication import (
    ApiKeyAuthentication,
    BearerAuthentication,
    CanRead,
    CanWrite,
    KeyAccess,
    TokenAccess,
)
from workspaces.models import User, Workspace

_WIRE_NAMES = {field.source: name for name, field in BudgetSettingsSerializer().fields.items()}


class BudgetSettingsView(WireView):
    """A workspace's budgets: every member reads them, owners and admins change them."""

    authentication_classes = (BearerAuthentication,)
    http_method_names: ClassVar[list[str]] = ["get", "head", "put", "patch"]  # type: ignore[misc]

    def get_permissions(self) -> list[BasePermission]:
        """Reading asks for less than changing; unknown methods ask for what reading does, then get their 405."""
        return [CanWrite()] if self.request.method in {"PUT", "PATCH"} else [CanRead()]

    @extend_schema(
        operation_id="getBudgets",
        tags=["Budgets"],
        summary="Read the workspace's budgets",
        parameters=[RETRY_AFTER],
        responses={200: BudgetSettingsSerializer, **error_answers(401, 403, 404, 406, 503)},
        examples=[OpenApiExample("budgets", value=BUDGETS, response_only=True, status_codes=["200"])],
    )
    def get(self, request: Request) -> Response:
        """The budgets as they are set, or the defaults."""
        return _answer(budget_values(_workspace(request).pk))

    @extend_schema(
        operation_id="replaceBudgets",
        tags=["Budgets"],
        summary="Replace the workspace's budgets",
        description="What is missing takes its default: leaving out a limit removes it. Unknown fields are refused.",
        request=BudgetSettingsSerializer,
        parameters=[RETRY_AFTER],
        responses={200: BudgetSettingsSerializer, **error_answers(400, 401, 403, 404, 406, 413, 415, 503)},
        examples=[OpenApiExample("budgets", value=BUDGETS)],
    )
    def put(self, request: Request) -> Response:
        """Replace all values."""
        return self._change(request, partial=False)

    @extend_schema(
        operation_id="changeBudgets",
        tags=["Budgets"],
        summary="Change some of the workspace's budgets",
        description="Only what is named changes; null removes a limit. Unknown fields are refused.",
        request=BudgetSettingsSerializer,
        parameters=[RETRY_AFTER],
        responses={200: BudgetSettingsSerializer, **error_answers(400, 401, 403, 404, 406, 413, 415, 503)},
        examples=[
            OpenApiExample("raise the daily limit", value={"dailyLimitUsd": 75}, request_only=True),
            OpenApiExample("budgets", value=BUDGETS, response_only=True, status_codes=["200"]),
        ],
    )
    def patch(self, request: Request) -> Response:
        """Change the values that are named."""
        return self._change(request, partial=True)

    @staticmethod
    def _change(request: Request, *, partial: bool) -> Response:
        serializer = BudgetSettingsSerializer(data=json_body(request), partial=partial)
        serializer.is_valid(raise_exception=True)
        try:
            values = update_budget_settings(
                _workspace(request), acting_user=cast("User", request.user), **serializer.validated_data
            )
        except InvalidInput as error:
            raise _in_wire_names(error) from error
        return _answer(values)


class WorkspaceStatusView(WireView):
    """Where the workspace stands, for people and their scripts."""

    authentication_classes: tuple[Any, ...] = (BearerAuthentication,)
    permission_classes = (CanRead,)
    http_method_names: ClassVar[list[str]] = ["get", "head"]  # type: ignore[misc]

    @extend_schema(
        operation_id="getWorkspaceStatus",
        tags=["Workspace status"],
        summary="Plan limit and budgets, now",
        parameters=[RETRY_AFTER],
        responses={200: WorkspaceStatusSerializer, **error_answers(401, 403, 404, 406, 503)},
        examples=[OpenApiExample("warning", value=STATUS, response_only=True, status_codes=["200"])],
    )
    def get(self, request: Request) -> Response:
        """The status at this moment."""
        status = workspace_status(_workspace(request).pk, utc_now())
        return Response(WorkspaceStatusSerializer(status).data, headers={"Cache-Control": "no-store"})


@extend_schema_view(
    get=extend_schema(operation_id="getWorkspaceStatusByKey", summary="Plan limit and budgets, now, for programs")
)
class WorkspaceDiagnosticsView(WorkspaceStatusView):
    """The same for programs that hold only the API key."""

    authentication_classes = (ApiKeyAuthentication,)


def _workspace(request: Request) -> Workspace:
    return cast("TokenAccess | KeyAccess", request.auth).workspace


def _answer(values: BudgetValues) -> Response:
    return Response(BudgetSettingsSerializer(values).data)


def _in_wire_names(error: InvalidInput) -> InvalidInput:
    """The same refusal with the fields as the client wrote them."""
    errors = [FieldError(_WIRE_NAMES.get(item.field, item.field), item.message) for item in error.errors]
    return InvalidInput(f"{errors[0].field}: {errors[0].message}", errors=errors)
