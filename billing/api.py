"""`/v1/billing/…`: what a workspace pays for, and asking for something else. Owners and admins only."""

from typing import Any, ClassVar, cast

from django.urls import reverse
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing import changes
from billing.examples import PORTAL, REQUESTED_END, REQUESTED_PLAN, REQUESTED_RESUMPTION, STANDING, STARTED_CHECKOUT
from billing.models import ChangeRequest
from billing.providers import provider
from billing.selectors import standing
from billing.serializers import (
    BillingStandingSerializer,
    CheckoutWishSerializer,
    NothingSerializer,
    PlanWishSerializer,
    PortalLinksSerializer,
    RequestedChangeSerializer,
    RequestedEndSerializer,
    StartedCheckoutSerializer,
    requested_values,
    standing_values,
)
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.openapi import RETRY_AFTER, ErrorSerializer, error_answers
from opsmeter_site.lib.strict import StrictSerializer
from opsmeter_site.lib.wire import WireView, json_body
from workspaces.authentication import BearerAuthentication, CanRead, CanWrite, TokenAccess
from workspaces.models import Role, User, Workspace

_NO_STORE = {"Cache-Control": "no-store"}
_NOT_DONE = "It does not fit how things stand, and nothing was changed; `message` says what to do instead. `reason`: "
_ALWAYS_409 = "`billing_off` (this installation has no billing) or `provider_refused` (the payment provider said no)."
_UNAVAILABLE = (
    "The database is away (`unavailable`), or the payment provider was not reached or is busy "
    "(`provider_unavailable`); nothing was changed. Retry after `Retry-After` seconds."
)

_TOO_OFTEN = (
    "`rate_limited`: this person has asked for too much within a minute, or has begun many checkouts and paid none. "
    "Retry after `Retry-After` seconds."
)


class CanReadBilling(CanRead):
    """Owners and admins, with either scope: payment is no matter for members."""

    message = "This needs an access token of an owner or admin."
    minimum_role = Role.ADMIN


def _answers(reasons: str, *, has_body: bool) -> dict[int, OpenApiResponse]:
    body_errors = (400, 413, 415) if has_body else ()
    refused = {"ok": False, "reason": "billing_off", "message": "This installation has no billing.", "errors": []}
    example = OpenApiExample("billing_off", value=refused, response_only=True, status_codes=["409"])
    return {
        **error_answers(401, 403, 404, 406, *body_errors),
        409: OpenApiResponse(ErrorSerializer, description=_NOT_DONE + reasons + _ALWAYS_409, examples=[example]),
        429: OpenApiResponse(ErrorSerializer, description=_TOO_OFTEN),
        503: OpenApiResponse(ErrorSerializer, description=_UNAVAILABLE),
    }


def _example(value: dict[str, Any], status: int) -> OpenApiExample:
    return OpenApiExample("answer", value=value, response_only=True, status_codes=[str(status)])


class SubscriptionView(WireView):
    """What the workspace is on, what it pays for, and what is on its way."""

    authentication_classes = (BearerAuthentication,)
    permission_classes = (CanReadBilling,)
    http_method_names: ClassVar[list[str]] = ["get", "head"]  # type: ignore[misc]

    @extend_schema(
        operation_id="getSubscription",
        tags=["Billing"],
        summary="Plan, subscription, and what is pending",
        description="Answers without billing, too: then `billing` is null, and operators set plans.",
        parameters=[RETRY_AFTER],
        responses={200: BillingStandingSerializer, **error_answers(401, 403, 404, 406, 503)},
        examples=[_example(STANDING, 200)],
    )
    def get(self, request: Request) -> Response:
        """How things stand at this moment."""
        found = standing(_workspace(request).pk, utc_now())
        name = provider().name if found.is_billing_on else None
        return Response(BillingStandingSerializer(standing_values(found, name)).data, headers=_NO_STORE)


class _ChangingView(WireView):
    """What all views share that ask the provider for something."""

    authentication_classes = (BearerAuthentication,)
    permission_classes = (CanWrite,)
    http_method_names: ClassVar[list[str]] = ["post"]  # type: ignore[misc]


class ChangePlanView(_ChangingView):
    """Another plan."""

    @extend_schema(
        operation_id="changePlan",
        tags=["Billing"],
        summary="Ask for another plan",
        description=(
            "The plan changes when the payment provider's signed webhook says so, usually within seconds; until then "
            "`getSubscription` shows the request as pending. The same wish again answers with the pending request. "
            "What it costs is the provider's alone. Unknown fields are refused."
        ),
        request=PlanWishSerializer,
        parameters=[RETRY_AFTER],
        responses={
            202: OpenApiResponse(RequestedChangeSerializer, description="Asked for; the provider's word is awaited."),
            **_answers(
                "`no_subscription`, `already_on_plan`, `change_pending`, `payment_past_due`, `subscription_cancelled`, "
                "`subscription_paused`, `too_many_members`, ",
                has_body=True,
            ),
        },
        examples=[
            OpenApiExample("to Pro", value={"planTier": "pro"}, request_only=True),
            _example(REQUESTED_PLAN, 202),
        ],
    )
    def post(self, request: Request) -> Response:
        """Ask for it."""
        wish = _checked(PlanWishSerializer(data=json_body(request)))
        change = changes.request_plan(
            _workspace(request),
            plan_tier=wish["plan_tier"],
            interval=wish.get("interval"),
            acting_user=_person(request),
        )
        return _requested(request, change, RequestedChangeSerializer)


class CancelView(_ChangingView):
    """An end."""

    @extend_schema(
        operation_id="cancelSubscription",
        tags=["Billing"],
        summary="Ask for the subscription's end",
        description=(
            "It ends with the paid period, and its plan stays usable until then. `requestedPlanTier` is what follows. "
            "Send no body, or an empty object."
        ),
        request=None,
        parameters=[RETRY_AFTER],
        responses={
            202: OpenApiResponse(RequestedEndSerializer, description="Asked for; the provider's word is awaited."),
            **_answers("`no_subscription`, `already_cancelled`, `change_pending`, ", has_body=True),
        },
        examples=[_example(REQUESTED_END, 202)],
    )
    def post(self, request: Request) -> Response:
        """Ask for it."""
        _refuse_fields(request)
        change = changes.request_cancel(_workspace(request), acting_user=_person(request))
        return _requested(request, change, RequestedEndSerializer)


class ResumeView(_ChangingView):
    """A cancellation taken back."""

    @extend_schema(
        operation_id="resumeSubscription",
        tags=["Billing"],
        summary="Ask for a cancelled subscription to go on",
        description="Possible until its end. Send no body, or an empty object.",
        request=None,
        parameters=[RETRY_AFTER],
        responses={
            202: OpenApiResponse(RequestedEndSerializer, description="Asked for; the provider's word is awaited."),
            **_answers("`no_subscription`, `not_cancelled`, `change_pending`, ", has_body=True),
        },
        examples=[_example(REQUESTED_RESUMPTION, 202)],
    )
    def post(self, request: Request) -> Response:
        """Ask for it."""
        _refuse_fields(request)
        change = changes.request_resume(_workspace(request), acting_user=_person(request))
        return _requested(request, change, RequestedEndSerializer)


class CheckoutView(_ChangingView):
    """A first subscription."""

    @extend_schema(
        operation_id="startCheckout",
        tags=["Billing"],
        summary="Start a first subscription",
        description=(
            "Send the buyer to `checkoutUrl`; afterwards they come back to the workspace's billing page. The plan "
            "changes when the payment provider's signed webhook says so. Unknown fields are refused."
        ),
        request=CheckoutWishSerializer,
        parameters=[RETRY_AFTER],
        responses={
            201: OpenApiResponse(StartedCheckoutSerializer, description="The provider's page is ready."),
            **_answers("`already_subscribed`, `change_pending`, ", has_body=True),
        },
        examples=[
            OpenApiExample("Pro, monthly", value={"planTier": "pro", "interval": "month"}, request_only=True),
            _example(STARTED_CHECKOUT, 201),
        ],
    )
    def post(self, request: Request) -> Response:
        """Start it."""
        wish = _checked(CheckoutWishSerializer(data=json_body(request)))
        workspace = _workspace(request)
        billing_page = reverse("settings-billing", kwargs={"slug": workspace.slug})
        started = changes.start_checkout(
            workspace,
            plan_tier=wish["plan_tier"],
            interval=wish["interval"],
            acting_user=_person(request),
            return_url=request.build_absolute_uri(billing_page),
        )
        return Response(StartedCheckoutSerializer(started).data, status=201, headers=_NO_STORE)


class PortalView(WireView):
    """The provider's pages for payment method and invoices."""

    authentication_classes = (BearerAuthentication,)
    # The links can change what is paid, so a token that only reads does not get them.
    permission_classes = (CanWrite,)
    http_method_names: ClassVar[list[str]] = ["get"]  # type: ignore[misc]

    @extend_schema(
        operation_id="getPortalLinks",
        tags=["Billing"],
        summary="Links to payment method and invoices",
        description=(
            "Fresh links to the payment provider's pages, signed for a few hours. Whoever has them can pay and change: "
            'do not store them. Needs the scope "write".'
        ),
        parameters=[RETRY_AFTER],
        responses={200: PortalLinksSerializer, **_answers("`no_subscription`, ", has_body=False)},
        examples=[_example(PORTAL, 200)],
    )
    def get(self, request: Request) -> Response:
        """The links."""
        links = changes.portal_links(_workspace(request), acting_user=_person(request))
        return Response(PortalLinksSerializer(links).data, headers=_NO_STORE)


def _workspace(request: Request) -> Workspace:
    return cast("TokenAccess", request.auth).workspace


def _person(request: Request) -> User:
    return cast("User", request.user)


def _checked(serializer: StrictSerializer) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    return cast("dict[str, Any]", serializer.validated_data)


def _refuse_fields(request: Request) -> None:
    if request.stream is not None:
        _checked(NothingSerializer(data=json_body(request)))


def _requested(request: Request, change: ChangeRequest, shape: type[serializers.Serializer[Any]]) -> Response:
    values = requested_values(change, standing(_workspace(request).pk, utc_now()))
    return Response(shape(values).data, status=202, headers=_NO_STORE)
