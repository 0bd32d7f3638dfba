"""`manage.py summarise`: build now whatever summaries are due."""

from argparse import ArgumentParser
from time import perf_counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ingest.management.workspace_argument import find_workspace
from ingest.summaries import summarise_all, summarise_workspace
from opsmeter_site.lib.clock import utc_now


class Command(BaseCommand):
    help = (
        "Sums raw rows for the console's pages, as the worker does every minute, until nothing is due. "
        "After an upgrade it makes the past quick to show."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--workspace", metavar="SLUG|ID", help="only this workspace")

    def handle(self, *_args: Any, **options: Any) -> None:
        started = perf_counter()
        if options["workspace"]:
            summarise_workspace(find_workspace(options["workspace"]).id, utc_now())
        elif failed := summarise_all(utc_now()):
            raise CommandError(f"{failed} workspaces could not be summed; the log says why.")
        self.stdout.write(f"Done ({perf_counter() - started:.1f} s).")
