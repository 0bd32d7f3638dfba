"""`./opsmeter check`: everything that is said about the code without running the tests."""

import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from opsmeter_site.embedded.commands import scratch_environment
from opsmeter_site.embedded.console import say
from opsmeter_site.embedded.processes import ROOT, Signals, launched


@dataclass(frozen=True)
class Check:
    """One tool: passes when it exits with 0."""

    title: str
    command: tuple[str, ...]


def checks(scratch: Path) -> list[Check]:
    """What is run, quick ones first; `scratch` takes what they write."""
    manage = (sys.executable, "-W", "error::RuntimeWarning", str(ROOT / "manage.py"))
    python = (sys.executable, "-m")
    lint_imports = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return [
        Check("ruff check", (*python, "ruff", "check", ".", "opsmeter")),
        Check("ruff format", (*python, "ruff", "format", "--check", ".", "opsmeter")),
        Check("types", (*python, "mypy", ".")),
        Check("import contract", (sys.executable, "-c", lint_imports)),
        Check("migrations", (*manage, "makemigrations", "--check", "--dry-run")),
        Check("deployment", (*manage, "check", "--deploy", "--fail-level", "WARNING")),
        Check("OpenAPI", (*manage, "spectacular", "--validate", "--fail-on-warn", "--file", str(scratch / "openapi"))),
        Check("templates", (*python, "djlint", "templates", "--lint", "--check")),
    ]


def production_like(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a real deployment, as far as the checks look at it."""
    return dict(environment) | {
        "OPSMETER_ENV": "production",
        "DEBUG": "false",
        "SECRET_KEY": secrets.token_urlsafe(64),
        "ALLOWED_HOSTS": "opsmeter.example",
        "METRICS_TOKEN": secrets.token_urlsafe(32),
    }


def run(item: Check, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run one check with its output captured."""
    return subprocess.run(  # noqa: S603 - the commands above
        launched(item.command),
        cwd=ROOT,
        env=production_like(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def check(_arguments: list[str]) -> int:
    """Run every check, one line each, with the output of those that fail; 1 if any did."""
    failed: list[str] = []
    with Signals() as signals, scratch_environment("check", signals, durable=False) as environment:
        scratch = Path(environment["OPSMETER_DATA"])
        for item in checks(scratch):
            signals.check()
            started = time.monotonic()
            result = run(item, environment)
            verdict = "FAILED" if result.returncode else "ok"
            say(f"{item.title:<16} {verdict:<6} {time.monotonic() - started:5.1f} s")
            if result.returncode:
                failed.append(item.title)
                say(result.stdout.strip() + "\n")
    say(f"Failed: {', '.join(failed)}" if failed else "All checks passed.")
    return 1 if failed else 0
