"""Brings the database to where the web server can start: schema, prices, demo workspace, static files.

`python -m opsmeter_site.embedded.prepare [DEMO_FILE]`, in one process, because every start of Django costs a second.
"""

import hashlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command

from opsmeter_site.embedded.console import step
from opsmeter_site.embedded.folder import write_private_json
from opsmeter_site.embedded.preflight import UP_STEPS
from opsmeter_site.embedded.processes import ROOT


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
    output_of("collectstatic", "--no-input", "--clear")
    marker.write_text(digest.hexdigest())


def set_up_demo(demo_file: Path) -> None:
    """Make the demo workspace once. Its secrets can be printed once only, so they are kept for the next start."""
    if demo_file.exists():
        return
    credentials: dict[str, Any] = json.loads(output_of("setup_demo", "--json"))
    write_private_json(demo_file, credentials)


def main(arguments: list[str]) -> None:
    """Run the steps 3 to 5 of `up`."""
    with step(f"3/{UP_STEPS} Database schema"):
        django.setup()
        output_of("migrate", "--no-input")
    with step(f"4/{UP_STEPS} Prices and static files"):
        output_of("import_prices")
        collect_static_files(Path(os.environ["OPSMETER_DATA"]) / "run" / "static.sha256")
    if arguments:
        with step(f"5/{UP_STEPS} Demo workspace"):
            set_up_demo(Path(arguments[0]))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
