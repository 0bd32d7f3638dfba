from argparse import ArgumentParser
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ingest.catalog import ImportResult, import_catalogue
from ingest.catalog_plan import Pair
from ingest.price_source import read_bundled

_NAMES_SHOWN = 10


class Command(BaseCommand):
    help = "Brings the price catalogue to what the installed genai-prices package says. Needs no network."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only say what would change.")

    def handle(self, *, dry_run: bool, **options: Any) -> None:
        started = perf_counter()
        try:
            result = import_catalogue(read_bundled(), dry_run=dry_run)
        except ValueError as error:
            raise CommandError(f"Nothing was changed. {error}") from error
        for line in _summary(result):
            self.stdout.write(line)
        done = "Dry run, nothing was changed" if dry_run else "Done"
        self.stdout.write(f"{done} ({perf_counter() - started:.1f} s).")


def _summary(result: ImportResult) -> list[str]:
    plan = result.plan
    held = [(alias.provider, f"{alias.alias} → {alias.model}") for alias in plan.held_aliases]
    return [
        f"{result.source}: {result.prices_read:,} prices read, "
        f"{result.without_token_prices:,} models left out because their tokens have no price.",
        f"New models: {_names(plan.new_models, list_them=False)}",
        f"Changed models: {_names(plan.changed_models)}",
        f"Waiting for an operator's approval: {_names(plan.waiting_models)}",
        f"No longer listed, prices kept: {_names(plan.unlisted_models)}",
        f"Prices: {len(plan.prices):,} added, {plan.unchanged:,} unchanged.",
        f"Aliases: {len(plan.new_aliases):,} added, {len(plan.moved_aliases):,} moved.",
        f"Aliases that would move to another price, left to an operator: {_names(held)}",
    ]


def _names(pairs: Sequence[Pair], *, list_them: bool = True) -> str:
    if not pairs or not list_them:
        return f"{len(pairs):,}"
    names = ", ".join(f"{provider}/{model}" for provider, model in pairs[:_NAMES_SHOWN])
    more = f", and {len(pairs) - _NAMES_SHOWN:,} more" if len(pairs) > _NAMES_SHOWN else ""
    return f"{len(pairs):,} ({names}{more})"
