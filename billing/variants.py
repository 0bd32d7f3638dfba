"""Which plan is meant by what the provider sells: set by operators, followed by every subscription at once.

Lock order: one mapping at a time, then the subscriptions that it concerns, then what `billing.entitlements` locks.
"""

import re
from typing import Any

from django.db import connection, transaction

from billing.models import Interval, Plan, PlanVariant, Subscription
from billing.providers.lemonsqueezy import LemonSqueezy
from billing.services import FIRST_PLAN
from billing.subscriptions import follow_variant
from opsmeter_site.lib.errors import FieldError, InvalidInput
from workspaces import services as workspace_services
from workspaces.inputs import clean_text
from workspaces.models import User

PROVIDER = LemonSqueezy.name
_LONGEST_PRICE = 60
# The provider's ids are whole numbers, and only one way of writing them is the same text everywhere.
_VARIANT_ID = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


@transaction.atomic
def map_variant(
    *,
    plan_tier: str,
    interval: str,
    variant_id: str,
    price_text: str = "",
    is_offered: bool = True,
    acting_user: User | None = None,
) -> PlanVariant:
    """Say that `variant_id` means this plan, paid by this interval. Repeating it changes nothing.

    Offering it withdraws the one offered so far for the same plan and interval; who is on that one stays on it.
    Subscriptions with the variant are brought to the plan. Raises `InvalidInput` for `plan`, `interval`, `variant_id`
    or `price_text`.
    """
    wanted = _wanted(plan_tier, interval, variant_id, price_text, is_offered)
    # Two operators who offer different variants for one plan must not meet.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('billing.variants'))")
    variant_id = variant_id.strip()
    variant = PlanVariant.objects.filter(provider=PROVIDER, variant_id=variant_id).first()
    if variant is None:
        variant, before = PlanVariant(provider=PROVIDER, variant_id=variant_id), None
    else:
        before = _described(variant)
    for name, value in wanted.items():
        setattr(variant, name, value)
    if _described(variant) != before:
        withdrawn = _withdraw_others(variant) if is_offered else []
        variant.save()
        workspace_services.record_audit(
            "plan_variant.mapped",
            acting_user=acting_user,
            target=variant,
            data={"variant": variant_id, **_described(variant), "before": before, "withdrawn": withdrawn},
        )
    follow_variant(variant, acting_user=acting_user)
    return variant


@transaction.atomic
def delete_variant(variant: PlanVariant, *, acting_user: User | None) -> None:
    """Forget a variant. Raises `InvalidInput` while a subscription is on it: nobody would know its plan."""
    if is_used(variant):
        raise InvalidInput("Somebody is subscribed to this variant. Withdraw it instead.")
    facts = {"variant": variant.variant_id, "plan": variant.plan_id, "interval": variant.interval}
    workspace_services.record_audit("plan_variant.deleted", acting_user=acting_user, target=variant, data=facts)
    variant.delete()


def is_used(variant: PlanVariant) -> bool:
    """Whether any subscription, also an ended one, is on it."""
    return Subscription.objects.filter(provider=variant.provider, variant_id=variant.variant_id).exists()


def _wanted(plan_tier: str, interval: str, variant_id: str, price_text: str, is_offered: bool) -> dict[str, Any]:
    errors = []
    plan = Plan.objects.filter(tier=plan_tier).first()
    if plan is None:
        known = ", ".join(Plan.objects.exclude(tier=FIRST_PLAN).values_list("tier", flat=True))
        errors.append(FieldError("plan", f"There is no such plan. One of: {known}."))
    elif plan.tier == FIRST_PLAN:
        errors.append(FieldError("plan", "This plan is what a workspace has without a subscription: it is not sold."))
    if interval not in Interval.values:
        errors.append(FieldError("interval", f"One of: {', '.join(Interval.values)}."))
    if not _VARIANT_ID.fullmatch(variant_id.strip()):
        errors.append(FieldError("variant_id", "Digits only: the number that the provider’s dashboard shows."))
    try:
        price_text = clean_text(price_text, "price_text", _LONGEST_PRICE, required=False)
    except InvalidInput as refusal:
        errors.extend(refusal.errors)
    if errors:
        raise InvalidInput("The variant was not mapped.", errors=errors)
    return {"plan": plan, "interval": interval, "price_text": price_text, "is_offered": is_offered}


def _described(variant: PlanVariant) -> dict[str, Any]:
    return {
        "plan": variant.plan.tier,
        "interval": variant.interval,
        "price": variant.price_text,
        "is_offered": variant.is_offered,
    }


def _withdraw_others(variant: PlanVariant) -> list[str]:
    others = PlanVariant.objects.filter(
        provider=PROVIDER, plan=variant.plan, interval=variant.interval, is_offered=True
    ).exclude(variant_id=variant.variant_id)
    ids = list(others.values_list("variant_id", flat=True))
    others.update(is_offered=False)
    return ids
