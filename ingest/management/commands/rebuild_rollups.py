"""`manage.py rebuild_rollups`: repair a workspace's roll-ups and meters from its raw rows."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ingest.audit import repair_ledger
from ingest.management.workspace_argument import find_workspace


class Command(BaseCommand):
    help = (
        "Makes a workspace's roll-ups again from its raw rows, where those are complete, its meters from both, and "
        "what is held from its live leases. Ingest may go on meanwhile. Run audit_ledger before and after."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--workspace", metavar="SLUG|ID", required=True)
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *_args: Any, **options: Any) -> None:
        workspace = find_workspace(options["workspace"])
        question = f'Replace the roll-ups and meters of "{workspace.name}" by what its raw rows say? [y/N] '
        if not options["yes"] and input(question).strip().lower() not in {"y", "yes"}:
            raise CommandError("Nothing was changed.")
        repair_ledger(workspace.id)
        self.stdout.write(f'Rebuilt roll-ups and meters of "{workspace.name}".')
