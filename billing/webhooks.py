"""`POST /v1/webhooks/lemon-squeezy`: the provider's messages are verified, stored and answered, and nothing more."""

from collections.abc import Iterable
from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from billing.inbox import LARGEST_BODY, Refused, TooLarge, Unmeasured, receive
from billing.metrics import WEBHOOKS, count_refused
from billing.providers import is_billing_on
from opsmeter_site.lib.errors import NotFound
from opsmeter_site.lib.openapi import RETRY_AFTER, ErrorSerializer, error_answers
from opsmeter_site.lib.wire import WireNegotiation, WireView

_ANSWER = inline_serializer(
    "WebhookAnswer",
    {
        "ok": serializers.BooleanField(help_text="Always true."),
        "duplicate": serializers.BooleanField(help_text="Whether the same message came before; it counts once."),
    },
)
_MESSAGE = {
    "meta": {
        "test_mode": False,
        "event_name": "subscription_updated",
        "webhook_id": "9b1f3a5e-6f0a-4a53-9a35-3d8f0f0f3c11",
    },
    "data": {"type": "subscriptions", "id": "1067566", "attributes": {"status": "active"}},
}
_SIGNATURE = OpenApiParameter(
    "X-Signature",
    type=str,
    location=OpenApiParameter.HEADER,
    required=False,
    description="HMAC-SHA256 of the raw body under the webhook's secret, in hexadecimal. Without it the answer is 401.",
)


class _AnyAccept(WireNegotiation):
    """A message is never lost because its sender's `Accept` rules JSON out: only the status is read."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)


class LemonSqueezyWebhook(WireView):
    """The inbox's door. Whoever holds the secret may write to it; there is no other credential."""

    http_method_names = ("post",)
    authentication_classes = ()
    permission_classes = (AllowAny,)
    content_negotiation_class = _AnyAccept

    @extend_schema(
        operation_id="receiveLemonSqueezyWebhook",
        tags=["Billing"],
        summary="Receive a message of Lemon Squeezy",
        description=(
            "For the payment provider alone. The signature is checked on the raw body, the message is stored, and the "
            "answer is given at once; what it says takes effect within seconds. The same message may come any number "
            "of times. Installations without billing answer 404."
        ),
        request={"application/json": {"type": "object", "additionalProperties": True}},
        parameters=[_SIGNATURE, RETRY_AFTER],
        responses={
            200: _ANSWER,
            **error_answers(400, 404, 503),
            401: OpenApiResponse(ErrorSerializer, description="`invalid_signature`: missing, or not of these bytes."),
            411: OpenApiResponse(ErrorSerializer, description="`length_required`: there is no `Content-Length`."),
            413: OpenApiResponse(ErrorSerializer, description="The body is larger than 256 KiB."),
        },
        examples=[
            OpenApiExample("subscription changed", value=_MESSAGE, request_only=True),
            OpenApiExample("stored", value={"ok": True, "duplicate": False}, response_only=True, status_codes=["200"]),
        ],
    )
    def post(self, request: Request) -> Response:
        """Store a signed message."""
        if not is_billing_on():
            raise NotFound("This installation has no billing.")
        try:
            is_new = receive(_raw_body(request), request.headers.get("X-Signature", ""))
        except Refused as refusal:
            count_refused(refusal.outcome)
            raise
        WEBHOOKS.labels("accepted" if is_new else "repeated").inc()
        return Response({"ok": True, "duplicate": not is_new})


def _raw_body(request: Request) -> bytes:
    """The body as it came, read no further than the limit. Raises `TooLarge` or `Unmeasured`."""
    stream: Any = request.stream
    if stream is None:  # no length was given, or zero
        if "Transfer-Encoding" in request.headers:
            raise Unmeasured
        return b""
    # Refused by its length, a body is not read at all.
    announced = int(request.META.get("CONTENT_LENGTH") or 0)
    body: bytes = stream.read(LARGEST_BODY + 1) if announced <= LARGEST_BODY else b""
    if announced > LARGEST_BODY or len(body) > LARGEST_BODY:
        raise TooLarge
    return body
