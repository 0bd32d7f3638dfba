"""Brings the database to where the web server can start: schema, prices, demo workspace, static files.

`python -m opsmeter_site.embedded.prepare [--billing-sandbox] [DEMO_FILE]`, in one process, because every start of
Django costs a second.
"""

import argparse
import hashlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import django
from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command

from opsmeter_site.embedded.console import step
from opsmeter_site.embedded.folder import write_private_json
from opsmeter_site.embedded.preflight import UP_STEPS
from opsmeter_site.embedded.processes import ROOT

# What the local double of Lemon Squeezy sells: plan, interval, its variant, and the price as our plan table says it.
SANDBOX_VARIANTS = (
    ("starter", "month", "101", "$19 a month plus tax"),
    ("starter", "year", "102", "$190 a year plus tax"),
    ("pro", "month", "201", "$49 a month plus tax"),
    ("pro", "year", "202", "$490 a year plus tax"),
    ("team", "month", "301", "$199 a month plus tax"),
    ("team", "year", "302", "$1,990 a year plus tax"),
)
BILLING_WORKSPACE = "Billing demo"


def output_of(command: str, *arguments: str) -> str:
    """Run a management command and return what it would print."""
    output = io.StringIO()
    call_command(command, *arguments, stdout=output)
    return output.getvalue()


def collect_static_files(marker: Path) -> None:
    """Run collectstatic if any file has changed since the last time; compressing all of them takes seconds."""
    digest = hashlib.sha256((ROOT / "requirements.lock").read_bytes())
    for finder in get_finders():
        for name, storage in finder.list([]):
            status = Path(storage.path(name)).stat()
            digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    if Path(settings.STATIC_ROOT).is_dir() and marker.exists() and marker.read_text() == digest.hexdigest():
        return
    # What nobody asks for would be hashed and compressed all the same.
    output_of("collectstatic", "--no-input", "--clear", "--ignore", "redoc")
    marker.write_text(digest.hexdigest())


def set_up_demo(demo_file: Path) -> None:
    """Make the demo workspace once. Its secrets can be printed once only, so they are kept for the next start."""
    if demo_file.exists():
        return
    credentials: dict[str, Any] = json.loads(output_of("setup_demo", "--json"))
    write_private_json(demo_file, credentials)


def map_sandbox_variants() -> None:
    """Tell the product which plan each variant of the double is."""
    for plan, interval, variant, price in SANDBOX_VARIANTS:
        output_of("map_variant", variant, "--plan", plan, "--interval", interval, "--price", price)


def set_up_billing_demo(demo_file: Path) -> None:
    """A workspace on Free to try billing with: the demo's own plan is an operator's gift, which no purchase changes."""
    demo: dict[str, Any] = json.loads(demo_file.read_text())
    existing = apps.get_model("workspaces", "Workspace").objects.filter(
        name=BILLING_WORKSPACE, memberships__user__email=demo["email"]
    )
    slug = existing.values_list("slug", flat=True).first()
    if slug is None:
        wanted = ("--name", BILLING_WORKSPACE, "--plan", "free", "--owner-email", demo["email"], "--json")
        slug = json.loads(output_of("create_workspace", *wanted))["workspaceSlug"]
    if demo.get("billingWorkspaceSlug") != slug:
        write_private_json(demo_file, demo | {"billingWorkspaceSlug": slug})


def main(arguments: list[str]) -> None:
    """Run the steps 3 to 5 of `up`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--billing-sandbox", action="store_true")
    parser.add_argument("demo_file", nargs="?", type=Path)
    options = parser.parse_args(arguments)
    with step(f"3/{UP_STEPS} Database schema"):
        django.setup()
        output_of("migrate", "--no-input")
    with step(f"4/{UP_STEPS} Prices and static files"):
        output_of("import_prices")
        if options.billing_sandbox:
            map_sandbox_variants()
        collect_static_files(Path(os.environ["OPSMETER_DATA"]) / "run" / "static.sha256")
    if options.demo_file:
        with step(f"5/{UP_STEPS} Demo workspace"):
            set_up_demo(options.demo_file)
            if options.billing_sandbox:
                set_up_billing_demo(options.demo_file)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
