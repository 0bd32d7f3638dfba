"""`./opsmeter manage`, `test` and `bench`: a command at the terminal, with servers for as long as it runs."""

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from opsmeter_site.embedded.folder import DataFolder, scratch_folder
from opsmeter_site.embedded.preflight import data_folder
from opsmeter_site.embedded.processes import ROOT, Processes, Signals
from opsmeter_site.embedded.servers import application_environment, borrowed_servers, start_servers

TEST_PROCESSES = 2


def manage(arguments: list[str]) -> int:
    """manage.py with the environment and servers of `up`; its exit code."""
    folder = DataFolder(data_folder(os.environ))
    purpose = " ".join(["./opsmeter manage", *arguments[:1]])
    with Signals() as signals, borrowed_servers(folder, signals, os.environ, purpose) as urls:
        environment = application_environment(folder, urls, os.environ)
        return signals.run_foreground([sys.executable, str(ROOT / "manage.py"), *arguments], environment)


def test(arguments: list[str]) -> int:
    """The test suite with throw-away servers; its exit code."""
    with Signals() as signals, scratch_environment("test", signals, durable=False) as environment:
        environment |= {
            "DJANGO_SETTINGS_MODULE": "opsmeter_site.settings_test",
            "OPSMETER_ENV": "test",
            "SECRET_KEY": secrets.token_urlsafe(48),
        }
        # Modules are compiled once, and not by each of the many processes that tests start.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-m", "pytest", *default_workers(arguments), *arguments]
        # SIGINT, because pytest does not clean up after SIGTERM.
        return signals.run_foreground(command, environment, cwd=ROOT, stop_signal=signal.SIGINT)


def default_workers(arguments: list[str]) -> list[str]:
    """Two test processes, unless the caller says how many."""
    says = any(argument.startswith(("-n", "--numprocesses", "no:xdist", "-pno:xdist")) for argument in arguments)
    return [] if says else ["-n", str(TEST_PROCESSES)]


def bench(arguments: list[str]) -> int:
    """The benchmarks, with fresh servers that write to disk like real ones; their exit code."""
    with Signals() as signals, scratch_environment("bench", signals, durable=True) as environment:
        return signals.run_foreground([sys.executable, "-m", "bench", *arguments], environment, cwd=ROOT)


@contextmanager
def scratch_environment(purpose: str, signals: Signals, *, durable: bool) -> Iterator[dict[str, str]]:
    """The application's environment with servers and a data folder that are gone afterwards."""
    with scratch_folder(purpose, os.environ) as folder:
        processes = Processes(folder)
        try:
            urls = start_servers(folder, processes, signals, os.environ, durable=durable)
            yield application_environment(folder, urls, os.environ)
        finally:
            processes.stop_all()
