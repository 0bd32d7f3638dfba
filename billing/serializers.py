"""The JSON of billing, key for key."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.models import ChangeKind, ChangeRequest, Interval, Status
from billing.selectors import CHECKOUT, Pending, Standing, requested_plan
from opsmeter_site.lib.openapi import UtcTimeField
from opsmeter_site.lib.strict import StrictChoiceField, StrictSerializer

PENDING = "pending_webhook"
_LAPSED_MESSAGE = "The payment provider never confirmed it, and nothing has changed."
_ACTIONS = [CHECKOUT, *ChangeKind.values]


# --- What is asked for ------------------------------------------------------------------------------------------------


@extend_schema_field({"type": "string", "minLength": 1, "maxLength": 20, "example": "pro"})
class TierField(serializers.Field[Any, Any, Any, Any]):
    """A plan's token: text and nothing that prints like it. Whether there is such a plan is for the service."""

    def to_internal_value(self, data: Any) -> str:
        """The text."""
        if not isinstance(data, str):
            raise serializers.ValidationError('Must be the token of a plan, such as "pro".')
        return data

    def to_representation(self, value: str) -> str:
        """The text."""
        return value


class NothingSerializer(StrictSerializer):
    """An object without fields."""


class PlanWishSerializer(StrictSerializer):
    """Another plan."""

    planTier = TierField(source="plan_tier", help_text="The plan's token, such as `pro`.")  # noqa: N815
    interval = StrictChoiceField(
        choices=Interval.values, required=False, help_text="Without it the present one is kept."
    )


class CheckoutWishSerializer(StrictSerializer):
    """A first subscription."""

    planTier = TierField(source="plan_tier", help_text="The plan's token, such as `pro`.")  # noqa: N815
    interval = StrictChoiceField(choices=Interval.values, default=Interval.MONTH.value)


# --- What is answered -------------------------------------------------------------------------------------------------


class RequestedChangeSerializer(serializers.Serializer[Any]):
    """A change that was asked for and that the provider has yet to confirm."""

    status = serializers.CharField(help_text=f"Always `{PENDING}`.")
    currentPlanTier = serializers.CharField(help_text="What applies until then.")  # noqa: N815
    requestedPlanTier = serializers.CharField(help_text="What follows.")  # noqa: N815
    requestedAt = UtcTimeField()  # noqa: N815


class RequestedEndSerializer(RequestedChangeSerializer):
    """The same, of a cancellation or its withdrawal."""

    endsAt = UtcTimeField(  # noqa: N815
        allow_null=True, help_text="Until when the plan stays usable, as far as the provider has said."
    )


class StartedCheckoutSerializer(serializers.Serializer[Any]):
    """Where to send the buyer."""

    checkoutUrl = serializers.URLField(source="url", help_text="The provider's page; for this buyer only.")  # noqa: N815
    checkoutId = serializers.UUIDField(source="checkout.pk", help_text="Ours; comes back with the buyer.")  # noqa: N815
    planTier = serializers.CharField(source="checkout.plan_id")  # noqa: N815
    interval = serializers.ChoiceField(source="checkout.interval", choices=Interval.values)
    expiresAt = UtcTimeField(source="expires_at", help_text="The address stops working then.")  # noqa: N815


class PortalLinksSerializer(serializers.Serializer[Any]):
    """The provider's pages, signed for a few hours. Whoever has them can pay and change: do not store them."""

    portalUrl = serializers.URLField(source="portal_url", help_text="Invoices and subscription.")  # noqa: N815
    paymentMethodUrl = serializers.URLField(source="payment_method_url")  # noqa: N815


class PaymentMethodSerializer(serializers.Serializer[Any]):
    """What is charged."""

    brand = serializers.CharField(source="card_brand", help_text="The provider's word, such as `visa`.")
    lastFour = serializers.CharField(source="card_last_four")  # noqa: N815


class SubscriptionSerializer(serializers.Serializer[Any]):
    """A subscription as the provider described it last."""

    status = serializers.ChoiceField(choices=Status.values)
    planTier = serializers.CharField(  # noqa: N815
        source="plan_id", allow_null=True, help_text="null: the provider names something that is no plan here."
    )
    interval = serializers.ChoiceField(choices=Interval.values, allow_null=True)
    renewsAt = UtcTimeField(  # noqa: N815
        allow_null=True, help_text="Past due: the next attempt at the payment. null: it does not renew."
    )
    endsAt = UtcTimeField(source="ends_at", allow_null=True, help_text="Cancelled or expired: the end.")  # noqa: N815
    trialEndsAt = UtcTimeField(source="trial_ends_at", allow_null=True)  # noqa: N815
    cancelled = serializers.BooleanField()
    paymentMethod = PaymentMethodSerializer(allow_null=True)  # noqa: N815
    usable = serializers.BooleanField(help_text="Whether its plan applies now.")


class PendingChangeSerializer(serializers.Serializer[Any]):
    """What was asked for and is not confirmed yet."""

    status = serializers.CharField(help_text=f"Always `{PENDING}`.")
    action = serializers.ChoiceField(choices=_ACTIONS)
    requestedPlanTier = serializers.CharField(  # noqa: N815
        help_text="Of a cancellation what follows it, of a resumption what goes on."
    )
    requestedAt = UtcTimeField()  # noqa: N815
    overdue = serializers.BooleanField(help_text="Three minutes have passed: the provider is being asked.")
    unsure = serializers.BooleanField(help_text="The provider gave no proper answer: it may or may not act.")


class FailedChangeSerializer(serializers.Serializer[Any]):
    """The last request, within a day, if nothing came of it."""

    action = serializers.ChoiceField(choices=ChangeKind.values)
    requestedPlanTier = serializers.CharField()  # noqa: N815
    requestedAt = UtcTimeField()  # noqa: N815
    state = serializers.ChoiceField(
        choices=["refused", "lapsed"], help_text="`refused` by the provider, or never confirmed (`lapsed`)."
    )
    message = serializers.CharField(help_text="For people.")


class RetentionNoticeSerializer(serializers.Serializer[Any]):
    """Less will be kept from a moment on; until then nothing is deleted for it."""

    keptUntil = UtcTimeField()  # noqa: N815
    rawRetentionDays = serializers.IntegerField(min_value=1, help_text="Of single requests, from then on.")  # noqa: N815
    rollupRetentionDays = serializers.IntegerField(min_value=1, help_text="Of sums, from then on.")  # noqa: N815


class BillingStandingSerializer(serializers.Serializer[Any]):
    """What a workspace is on, what it pays for, and what is on its way."""

    billing = serializers.CharField(allow_null=True, help_text="The payment provider; null: operators set plans.")
    currentPlanTier = serializers.CharField()  # noqa: N815
    currentPlanName = serializers.CharField()  # noqa: N815
    grantedPlanTier = serializers.CharField(help_text="What applies without a subscription.")  # noqa: N815
    subscription = SubscriptionSerializer(allow_null=True)
    pending = PendingChangeSerializer(allow_null=True)
    lastFailure = FailedChangeSerializer(allow_null=True)  # noqa: N815
    retention = RetentionNoticeSerializer(allow_null=True)


def standing_values(standing: Standing, provider_name: str | None) -> dict[str, Any]:
    """What `BillingStandingSerializer` writes."""
    return {
        "billing": provider_name,
        "currentPlanTier": standing.plan.tier,
        "currentPlanName": standing.plan.name,
        "grantedPlanTier": standing.granted.tier,
        "subscription": _subscription_values(standing),
        "pending": _pending_values(standing.pending),
        "lastFailure": _failure_values(standing),
        "retention": None
        if standing.kept_until is None
        else {
            "keptUntil": standing.kept_until,
            "rawRetentionDays": standing.announced_raw_days,
            "rollupRetentionDays": standing.announced_rollup_days,
        },
    }


def requested_values(request: ChangeRequest, standing: Standing) -> dict[str, Any]:
    """What `RequestedChangeSerializer` and `RequestedEndSerializer` write."""
    return {
        "status": PENDING,
        "currentPlanTier": standing.plan.tier,
        "requestedPlanTier": requested_plan(request, standing.holding).tier,
        "requestedAt": request.requested_at,
        "endsAt": request.subscription.ends_at,
    }


def _subscription_values(standing: Standing) -> dict[str, Any] | None:
    subscription = standing.subscription
    if subscription is None:
        return None
    renews = subscription.status not in (Status.CANCELLED, Status.EXPIRED)
    return {
        "status": subscription.status,
        "plan_id": subscription.plan_id,
        "interval": subscription.interval or None,
        "renewsAt": subscription.renews_at if renews else None,
        "ends_at": subscription.ends_at,
        "trial_ends_at": subscription.trial_ends_at,
        "cancelled": subscription.status == Status.CANCELLED,
        "paymentMethod": subscription if subscription.card_last_four else None,
        "usable": subscription.gives_access(standing.as_of),
    }


def _pending_values(pending: Pending | None) -> dict[str, Any] | None:
    if pending is None:
        return None
    return {
        "status": PENDING,
        "action": pending.action,
        "requestedPlanTier": pending.plan.tier,
        "requestedAt": pending.requested_at,
        "overdue": pending.is_overdue,
        "unsure": pending.is_unsure,
    }


def _failure_values(standing: Standing) -> dict[str, Any] | None:
    request = standing.last_failure
    if request is None:
        return None
    return {
        "action": request.kind,
        "requestedPlanTier": requested_plan(request, standing.holding).tier,
        "requestedAt": request.requested_at,
        "state": request.state,
        "message": request.note or _LAPSED_MESSAGE,
    }
