"""The local commands, inside the Python environment that the launcher has made."""

import signal
import sys

# Until a command notes signals itself, Ctrl-C ends it as SIGTERM does: nothing is running yet, and a traceback out of
# an import helps nobody.
signal.signal(signal.SIGINT, signal.SIG_DFL)

# ruff: noqa: E402
from opsmeter_site.embedded.check import check
from opsmeter_site.embedded.commands import bench, manage, test
from opsmeter_site.embedded.errors import LocalError
from opsmeter_site.embedded.processes import StopRequested
from opsmeter_site.embedded.up import up

COMMANDS = {"up": up, "test": test, "check": check, "manage": manage, "bench": bench}


def main(arguments: list[str]) -> int:
    """Run the command that the launcher has checked; its exit code."""
    name, *rest = arguments
    try:
        return COMMANDS[name](rest)
    except LocalError as error:
        sys.stderr.write(f"opsmeter: {error}\n")
        return 1
    except StopRequested as stop:
        return stop.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
