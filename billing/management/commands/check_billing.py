"""`manage.py check_billing`: ask the provider whether everything is in place to sell plans."""

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import Warning as CheckWarning
from django.core.management.base import BaseCommand, CommandError

from billing.checks import check_settings, unmapped_variants
from billing.models import PlanVariant
from billing.providers import is_billing_on, provider
from billing.providers.base import ProviderError, VariantFacts
from billing.variants import PROVIDER


class Command(BaseCommand):
    help = "Ask the provider about the key, the store and every mapped variant. Exits with 1 if anything is wrong."

    def handle(self, *_args: Any, **_options: Any) -> None:
        if not is_billing_on():
            self.stdout.write("There is no billing here: LEMONSQUEEZY_API_KEY is empty. Operators set plans.")
            return
        problems = [str(each.msg) for each in check_settings(None) if not isinstance(each, CheckWarning)]
        try:
            sold = {each.variant_id: each for each in provider().fetch_variants()}
        except ProviderError as error:
            problems.append(f"The key and the store could not be checked. {error.message}")
        else:
            self.stdout.write(
                f"The key is good. Store {settings.LEMONSQUEEZY_STORE_ID} sells {len(sold)} by subscription."
            )
            problems.extend(self._mapped(sold))
            self._unmapped(sold)
        problems.extend(
            f"Subscriptions are on variant {each}, which means no plan here." for each in unmapped_variants()
        )
        for problem in problems:
            self.stdout.write(f"PROBLEM  {problem}")
        if problems:
            raise CommandError(f"Problems found: {len(problems)}.")
        self.stdout.write("Everything is in place.")

    def _mapped(self, sold: dict[str, VariantFacts]) -> Iterator[str]:
        """Say how every mapped variant stands; yield what is wrong."""
        mapped = list(PlanVariant.objects.filter(provider=PROVIDER).select_related("plan"))
        if not any(each.is_offered for each in mapped):
            yield "No plan is on offer: map what the store sells with manage.py map_variant."
        for variant in mapped:
            facts = sold.get(variant.variant_id)
            told = f"Variant {variant.variant_id} ({variant.plan.name}, {variant.interval})"
            wrong = list(_differences(variant, facts))
            if wrong:
                yield from (f"{told} {each}" for each in wrong)
            elif facts is None:
                self.stdout.write(f"{told} is not sold any more, and not on offer here.")
            else:
                self.stdout.write(f"{told} is sold as “{facts.name}”.")

    def _unmapped(self, sold: dict[str, VariantFacts]) -> None:
        mapped = set(PlanVariant.objects.filter(provider=PROVIDER).values_list("variant_id", flat=True))
        for facts in sold.values():
            if facts.variant_id not in mapped:
                self.stdout.write(
                    f"Variant {facts.variant_id} (“{facts.name}”, {facts.interval}) is sold, but means no plan."
                )


def _differences(variant: PlanVariant, facts: VariantFacts | None) -> Iterator[str]:
    if facts is None:
        # The provider hides drafts, and what was withdrawn is often made one.
        if variant.is_offered:
            yield f"is on offer here, but store {settings.LEMONSQUEEZY_STORE_ID} does not sell it by subscription."
        return
    if facts.interval != variant.interval:
        yield f"renews by the {facts.interval} at the provider."
    if facts.is_test != settings.LEMONSQUEEZY_TEST_MODE:
        mode = "test" if facts.is_test else "live"
        setting = "on" if settings.LEMONSQUEEZY_TEST_MODE else "off"
        yield f"belongs to the {mode} mode, but LEMONSQUEEZY_TEST_MODE is {setting}."
