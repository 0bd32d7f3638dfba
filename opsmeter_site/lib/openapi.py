"""What every endpoint's description shares: the error answer, its examples, and fields that match what is sent."""

from decimal import Decimal
from http import HTTPStatus
from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema_field
from rest_framework import serializers

from opsmeter_site.lib.periods import to_wire
from opsmeter_site.lib.wire import plain_number

_REASONS = {
    400: (
        "invalid_payload",
        "Not JSON, not an object, or a field is at fault: `invalid_json`, `invalid_payload`, `bad_request`.",
    ),
    401: ("invalid_token", "The credential is missing, malformed, unknown, expired or revoked."),
    403: ("not_allowed", "The credential is good, but its role or scope does not include this."),
    404: ("not_found", "There is nothing here, or nothing that is yours."),
    406: ("not_acceptable", "The answer is `application/json`, and `Accept` rules that out."),
    413: ("payload_too_large", "The body is larger than 64 KiB."),
    415: ("unsupported_media_type", "The body must be `application/json`."),
    503: ("unavailable", "The database is away; nothing was changed. Retry after `Retry-After` seconds."),
}


class FieldErrorSerializer(serializers.Serializer[Any]):
    """What is wrong with one field."""

    field = serializers.CharField(help_text="The field as the client names it; empty for the body as a whole.")
    message = serializers.CharField()


class ErrorSerializer(serializers.Serializer[Any]):
    """Every answer that is not a success."""

    ok = serializers.BooleanField(help_text="Always false.")
    reason = serializers.CharField(help_text="For machines; stable.")
    message = serializers.CharField(help_text="For people.")
    errors = FieldErrorSerializer(many=True, help_text="Where fields are at fault; otherwise empty.")  # type: ignore[assignment]


@extend_schema_field({"type": "number", "example": 41.25})
class UsdField(serializers.Field[Any, Any, Any, Any]):
    """An amount of US dollars as a JSON number with its exact digits; read-only."""

    def to_representation(self, value: Decimal) -> Decimal:
        """Without trailing zeros."""
        return plain_number(value)


@extend_schema_field({"type": "string", "format": "date-time", "example": "2026-03-01T00:00:00Z"})
class UtcTimeField(serializers.Field[Any, Any, Any, Any]):
    """A moment in UTC, whole seconds, trailing Z; read-only."""

    def to_representation(self, value: Any) -> str:
        """As the contract writes times."""
        return to_wire(value)


RETRY_AFTER = OpenApiParameter(
    "Retry-After",
    type=int,
    location=OpenApiParameter.HEADER,
    required=True,
    response=[429, 503],
    description="Whole seconds to wait before the next attempt.",
)


def error_answers(*statuses: int) -> dict[int, OpenApiResponse]:
    """The descriptions of these error statuses, for `extend_schema(responses=…)`."""
    return {status: _error_answer(status) for status in statuses}


def _error_answer(status: int) -> OpenApiResponse:
    reason, description = _REASONS[status]
    errors = [{"field": "dailyLimitUsd", "message": "Must be a number."}] if status == 400 else []
    body = {"ok": False, "reason": reason, "message": HTTPStatus(status).phrase, "errors": errors}
    example = OpenApiExample(reason, value=body, response_only=True, status_codes=[str(status)])
    return OpenApiResponse(ErrorSerializer, description=description, examples=[example])
