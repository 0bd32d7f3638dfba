"""`manage.py create_workspace`: a workspace that is ready to take telemetry."""

import json
import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.services import OpenedWorkspace, open_workspace
from opsmeter_site.lib.errors import InvalidInput

# What the services call an input, and what it is called here.
_OPTIONS = {
    "name": "--name",
    "plan": "--plan",
    "email": "--owner-email",
    "password": "--password",
    "timezone": "--timezone",
    "monthly_requests": "--monthly-requests",
    "requests_per_minute": "--requests-per-minute",
}


class Command(BaseCommand):
    help = "Open a workspace with its owner, plan, first API key and first access token. The secrets are printed once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--name", required=True, help="The workspace's name.")
        parser.add_argument("--plan", required=True, help="The plan's tier, such as free or pro.")
        parser.add_argument("--owner-email", required=True, help="An existing person is reused, a new one is stored.")
        parser.add_argument("--password", help="For a new owner; generated if not given.")
        parser.add_argument("--timezone", default="UTC", help='An IANA name such as "Europe/Berlin" (default: UTC).')
        parser.add_argument("--monthly-requests", type=int, help="Replaces the plan's number for this workspace.")
        parser.add_argument("--requests-per-minute", type=int, help="Replaces the plan's number for this workspace.")
        parser.add_argument("--json", action="store_true", help="Print JSON with the keys of the ready file.")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            opened = open_workspace(
                name=options["name"],
                plan_tier=options["plan"],
                owner_email=options["owner_email"],
                owner_password=options["password"],
                timezone=options["timezone"],
                monthly_requests=options["monthly_requests"],
                requests_per_minute=options["requests_per_minute"],
            )
        except InvalidInput as refusal:
            raise CommandError(_explain(refusal)) from refusal
        ready = _ready(opened)
        self.stdout.write(json.dumps(ready) if options["json"] else _describe(ready))


def _explain(refusal: InvalidInput) -> str:
    return "\n".join(f"{_OPTIONS.get(error.field, error.field)}: {error.message}" for error in refusal.errors)


def _ready(opened: OpenedWorkspace) -> dict[str, str | None]:
    return {
        "url": os.environ.get("OPSMETER_URL") or None,
        "email": opened.owner.email,
        "password": opened.owner_password,
        "workspaceId": str(opened.workspace.pk),
        "workspaceSlug": opened.workspace.slug,
        "apiKey": opened.api_key_plain,
        "bearerToken": opened.access_token_plain,
    }


def _describe(ready: dict[str, str | None]) -> str:
    lines = [
        f"Workspace    {ready['workspaceSlug']} ({ready['workspaceId']})",
        f"Sign in      {ready['email']}",
        f"Password     {ready['password'] or 'unchanged: this person was here before'}",
        f"API key      {ready['apiKey']}",
        f"Bearer token {ready['bearerToken']}",
        "The password, the key and the token are shown only now.",
    ]
    if ready["url"]:
        lines.insert(0, f"Address      {ready['url']}")
    return "\n".join(lines)
