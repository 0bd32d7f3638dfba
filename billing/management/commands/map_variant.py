"""`manage.py map_variant`: say which plan a variant at the provider means."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.models import Interval, PlanVariant, Subscription
from billing.variants import PROVIDER, map_variant
from opsmeter_site.lib.errors import InvalidInput

# What the service calls an input, and what it is called here.
_OPTIONS = {"plan": "--plan", "interval": "--interval", "variant_id": "variant", "price_text": "--price"}


class Command(BaseCommand):
    help = "Say which plan, paid by which interval, a variant at the provider means. May be repeated."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("variant", help="The provider's id of the variant: digits.")
        parser.add_argument("--plan", required=True, help="The plan's tier, such as pro.")
        parser.add_argument("--interval", default=Interval.MONTH, help="month (default) or year.")
        parser.add_argument("--price", help="The price as shown beside the plan; not given, it stays as it is.")
        parser.add_argument(
            "--withdrawn", action="store_true", help="Nobody can choose it now; who is on it stays on it."
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        variant_id = options["variant"].strip()
        before = PlanVariant.objects.filter(provider=PROVIDER, variant_id=variant_id).first()
        offered_before = _offered()
        price = options["price"]
        try:
            variant = map_variant(
                plan_tier=options["plan"],
                interval=options["interval"],
                variant_id=variant_id,
                price_text=price if price is not None else (before.price_text if before else ""),
                is_offered=not options["withdrawn"],
            )
        except InvalidInput as refusal:
            lines = [f"{_OPTIONS.get(error.field, error.field)}: {error.message}" for error in refusal.errors]
            raise CommandError("\n".join(lines)) from refusal
        offered = "on offer" if variant.is_offered else "not on offer"
        price_shown = f", shown as “{variant.price_text}”" if variant.price_text else ""
        self.stdout.write(
            f"Variant {variant_id} means {variant.plan.name}, paid by the {variant.interval}; {offered}{price_shown}."
        )
        for other in sorted(offered_before - _offered() - {variant_id}):
            self.stdout.write(f"Variant {other} is no longer on offer; who is on it stays on it.")
        people = Subscription.objects.filter(provider=PROVIDER, variant_id=variant_id).count()
        self.stdout.write(f"Subscriptions on it: {people}.")


def _offered() -> set[str]:
    return set(PlanVariant.objects.filter(provider=PROVIDER, is_offered=True).values_list("variant_id", flat=True))
