"""Makes the workspace that a first look at the product needs: an owner who may also see the operators' console, and data."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from billing.services import open_workspace
from ingest.gateway.demo import load_history

WORKSPACE_NAME = "Demo"
OWNER_EMAIL = "demo@example.com"
PLAN_TIER = "team"
HISTORY_EVENTS = 1_500
HISTORY_DAYS = 30


class Command(BaseCommand):
    help = "Create a demo workspace with a month of believable data. For development: its owner is an operator too."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print the credentials as JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        opened = self._open()
        events = load_history(opened.workspace.id, opened.api_key.id, events=HISTORY_EVENTS, days=HISTORY_DAYS)
        credentials = {
            "email": opened.owner.email,
            "password": opened.owner_password,
            "workspaceId": str(opened.workspace.id),
            "workspaceSlug": opened.workspace.slug,
            "apiKey": opened.api_key_plain,
            "bearerToken": opened.access_token_plain,
        }
        if options["json"]:
            self.stdout.write(json.dumps(credentials))
            return
        for name, value in credentials.items():
            self.stdout.write(f"{name:14} {value}")
        self.stdout.write(f"{events} demo events stored.")

    @transaction.atomic
    def _open(self) -> Any:
        opened = open_workspace(name=WORKSPACE_NAME, plan_tier=PLAN_TIER, owner_email=OWNER_EMAIL)
        opened.owner.is_staff = opened.owner.is_superuser = True
        opened.owner.save(update_fields=["is_staff", "is_superuser"])
        return opened
