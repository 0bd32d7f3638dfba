"""What a command line says, and what can be said against it before the Python environment exists.

Standard library only, and no import of its own package: the launcher loads this file by its path.
"""

import argparse
import errno
import fcntl
import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

UP_STEPS = 6

USAGE = """\
usage: ./opsmeter COMMAND …

  up      everything on this machine: servers, database, demo workspace, web, worker, beat (up --help for options)
  test    the test suite; arguments go to pytest
  check   style, types, import contract, migrations, deployment checks, OpenAPI document
  manage  manage.py with the environment and servers of `up`
  bench   benchmarks; arguments: a name, and what that benchmark takes

The data folder is ./var, or what OPSMETER_DATA names. DATABASE_URL and REDIS_URL replace the bundled servers.
"""
COMMANDS = ("up", "test", "check", "manage", "bench")


@dataclass(frozen=True)
class Problem:
    """Why nothing is started: the text to show and the exit code (0 for help)."""

    text: str
    code: int


@dataclass(frozen=True)
class UpOptions:
    """The options of `./opsmeter up`. Paths are absolute."""

    host: str
    port: int
    workers: int
    data: Path
    demo: bool
    billing_sandbox: bool
    ready_file: Path | None


def data_folder(environment: Mapping[str, str]) -> Path:
    """The data folder of all commands: OPSMETER_DATA, or `var` in the project."""
    return Path(environment.get("OPSMETER_DATA") or Path(__file__).resolve().parents[2] / "var").absolute()


def parse_up(arguments: list[str], environment: Mapping[str, str]) -> UpOptions:
    """Read the options of `up`; exits with argparse's own message where they are wrong."""
    parser = argparse.ArgumentParser(prog="./opsmeter up", description="Run Opsmeter on this machine.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=port_number, default=8000, help="port, 0 for a free one (%(default)s)")
    parser.add_argument("--workers", type=positive, default=2, help="web server processes (%(default)s)")
    parser.add_argument("--data", type=Path, help="data folder, kept between runs (OPSMETER_DATA, or ./var)")
    parser.add_argument("--no-demo", action="store_true", help="no demo workspace")
    parser.add_argument(
        "--billing-sandbox", action="store_true", help="billing, with a local double of Lemon Squeezy: no money moves"
    )
    parser.add_argument("--ready-file", type=Path, help="file to write JSON to once requests are served")
    found = parser.parse_args(arguments)
    if found.billing_sandbox and not is_loopback(found.host):
        parser.error(f"--billing-sandbox hands out paid plans, so it serves this machine only, not --host {found.host}")
    return UpOptions(
        host=found.host,
        port=found.port,
        workers=found.workers,
        data=(found.data or data_folder(environment)).absolute(),
        demo=not found.no_demo,
        billing_sandbox=found.billing_sandbox,
        ready_file=found.ready_file and found.ready_file.absolute(),
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address. A name other than `localhost` may mean any machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def port_number(text: str) -> int:
    """A port as argparse reads it."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError("a port is 0 to 65535")
    return value


def positive(text: str) -> int:
    """A count as argparse reads it."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def check(arguments: list[str], environment: Mapping[str, str]) -> Problem | None:
    """What stands against this command line, without changing anything. None: go on."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return Problem(USAGE.rstrip(), 0 if arguments else 2)
    if arguments[0] not in COMMANDS:
        return Problem(f"opsmeter: no such command: {arguments[0]}\n\n{USAGE.rstrip()}", 2)
    if arguments[0] != "up":
        return None
    options = parse_up(arguments[1:], environment)
    return taken_folder(options.data) or (None if may_hold_port(options.data) else taken_port(options))


def taken_folder(folder: Path) -> Problem | None:
    """Whether another process holds the data folder's lock."""
    lock = folder / "lock"
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Problem(f"opsmeter: cannot use the data folder {folder}: {error.strerror}", 1)
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return in_use(folder, file.read())
    return None


def in_use(folder: Path, holder: str) -> Problem:
    """The data folder is taken; `holder` is what its lock file says."""
    return Problem(f"opsmeter: the data folder {folder} is in use by process {holder.strip() or '?'}", 1)


def may_hold_port(folder: Path) -> bool:
    """Whether processes of a killed `up` may still be there; they are stopped first, and the port is looked at then."""
    return (folder / "run" / "processes.json").exists()


def taken_port(options: UpOptions) -> Problem | None:
    """Whether somebody listens on the wanted address."""
    if options.port == 0:
        return None
    try:
        free_port(options.host, options.port)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            reason = "the port is taken by another program; choose one with --port, or --port 0 for a free one"
        return Problem(f"opsmeter: cannot listen on {options.host} port {options.port}: {reason}", 1)
    return None


def free_port(host: str = "127.0.0.1", port: int = 0) -> int:
    """The port, or a free one for 0; raises OSError where it cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
        return int(listener.getsockname()[1])
