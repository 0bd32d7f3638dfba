"""The plans as choices: what each includes, what the provider asks for it in its own words, and what can be done."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from billing.models import Interval, Plan, PlanVariant
from billing.obstacles import Refusal, obstacle_to_cancel, obstacle_to_change, obstacle_to_checkout
from billing.plan_words import Held, feature_facts, is_by_contract, number_facts
from billing.plans import Overrides, effective_numbers, overrides_of
from billing.selectors import Offer, Standing
from billing.services import FIRST_PLAN

# Refusals that the page shows anyway, and those that concern one plan only; all others concern every plan.
_SAID_ALREADY = frozenset({"already_on_plan", "already_cancelled"})
_OF_THIS_PLAN = frozenset({"too_many_members"})
BY_CONTRACT_REASON = "By contract: ask the people who run this installation."


@dataclass(frozen=True, slots=True)
class Choice:
    """One plan. `action` is `checkout`, `change` or `cancel`, done under `label`; without one `reason` may say why.

    `label_rest`: which plan it is about, where that is to be heard and not seen.
    """

    plan: Plan
    is_current: bool
    price_text: str
    numbers: Sequence[tuple[str, str]]
    features: Sequence[tuple[str, bool]]
    action: str = ""
    label: str = ""
    label_rest: str = ""
    reason: str = ""
    hindrance: str = ""
    """Why nothing can be chosen at all now; said once for the whole table."""
    is_larger: bool = False


@dataclass(frozen=True, slots=True)
class PlanTable:
    """All plans; `note` says why none of them can be chosen now, if that is so."""

    choices: Sequence[Choice]
    note: str = ""


def intervals_of(offered: Sequence[Offer]) -> list[tuple[str, str]]:
    """The intervals that something is offered in, with their labels; fewer than two leave no choice."""
    known = {interval for offer in offered for interval in offer.variants}
    return [(each.value, each.label) for each in Interval if each in known]


def plan_table(stands: Standing, offered: Sequence[Offer], interval: str) -> PlanTable:
    """Every plan, the smallest first, as it can be chosen for renewal by `interval`."""
    variants = {offer.plan.pk: offer.variants for offer in offered}
    choices = [_choice(stands, plan, variants.get(plan.pk, {}), interval) for plan in Plan.objects.all()]
    hindrances = {choice.hindrance for choice in choices if choice.hindrance}
    return PlanTable(choices, hindrances.pop() if len(hindrances) == 1 else "")


def held(stands: Standing, plan: Plan) -> Held:
    """The workspace on `plan`, with its own numbers where it has some."""
    return Held(plan, effective_numbers(plan, overrides_of(stands.holding)))


def change_label(on_now: Plan | None, wanted: Plan, interval: str) -> tuple[str, str]:
    """What moving a subscription from `on_now` to `wanted` is called, and the plan's part of that."""
    if on_now is not None and on_now.pk == wanted.pk:
        return f"Renew {Interval(interval).label.lower()}", f": {wanted.name}"
    is_smaller = on_now is not None and wanted.rank < on_now.rank
    return "Downgrade" if is_smaller else "Upgrade", f" to {wanted.name}"


def _choice(stands: Standing, plan: Plan, variants: dict[str, PlanVariant], interval: str) -> Choice:
    is_current = plan.pk == stands.plan.pk
    shown = held(stands, plan) if is_current else Held(plan, effective_numbers(plan, Overrides()))
    variant = variants.get(interval)
    choice = Choice(
        plan=plan,
        is_current=is_current,
        price_text=_price_text(stands, plan, variants, variant),
        numbers=number_facts(shown, in_force=is_current),
        features=feature_facts(plan),
    )
    if not stands.is_billing_on:
        return choice
    if plan.tier == FIRST_PLAN:
        return _for_the_first(stands, choice)
    if not variants:
        return replace(choice, reason="" if is_current else BY_CONTRACT_REASON)
    if variant is None:
        return choice
    if stands.is_subscribed:
        return _for_subscribers(stands, choice, interval)
    return _for_new_ones(stands, choice)


def _price_text(stands: Standing, plan: Plan, variants: dict[str, PlanVariant], variant: PlanVariant | None) -> str:
    if not stands.is_billing_on:
        return ""
    if plan.tier == FIRST_PLAN:
        return "Free of charge"
    if variant is not None:
        return variant.price_text or "Lemon Squeezy shows the price"
    if variants:
        return f"{' or '.join(Interval(each).label for each in sorted(variants))} only".capitalize()
    return "By contract" if is_by_contract(plan) else "Not sold here"


def _for_the_first(stands: Standing, choice: Choice) -> Choice:
    """Nobody subscribes to the free plan: it is what is left when nothing else holds."""
    if not stands.is_subscribed or stands.granted.pk != choice.plan.pk or choice.is_current:
        return choice
    if (refusal := obstacle_to_cancel(stands)) is None:
        return replace(choice, action="cancel", label="Cancel", label_rest=" the subscription")
    return _refused(choice, refusal)


def _for_new_ones(stands: Standing, choice: Choice) -> Choice:
    if choice.plan.rank <= stands.granted.rank:
        return replace(choice, reason=f"Included: {stands.granted.name} was granted to this workspace.")
    refusal = obstacle_to_checkout(stands)
    choice = replace(choice, label="Subscribe", label_rest=f" to {choice.plan.name}", is_larger=True)
    return _offered(choice, "checkout", refusal)


def _for_subscribers(stands: Standing, choice: Choice, interval: str) -> Choice:
    subscription = stands.subscription
    on_now = subscription.plan if subscription else None
    label, rest = change_label(on_now, choice.plan, interval)
    is_larger = on_now is None or choice.plan.rank > on_now.rank
    choice = replace(choice, label=label, label_rest=rest, is_larger=is_larger)
    return _offered(choice, "change", obstacle_to_change(stands, choice.plan, interval))


def _offered(choice: Choice, action: str, refusal: Refusal | None) -> Choice:
    return replace(choice, action=action) if refusal is None else _refused(choice, refusal)


def _refused(choice: Choice, refusal: Refusal) -> Choice:
    if refusal.reason in _SAID_ALREADY:
        return choice
    if refusal.reason in _OF_THIS_PLAN:
        return replace(choice, reason=refusal.message)
    return replace(choice, hindrance=refusal.message)
