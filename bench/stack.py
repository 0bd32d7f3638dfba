"""The product's own processes as `./opsmeter up` starts them, as many as wanted, to be killed and started again."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from django.core.management import call_command

from bench.load import LoadError
from opsmeter_site.embedded.folder import DataFolder
from opsmeter_site.embedded.preflight import UpOptions, free_port
from opsmeter_site.embedded.processes import Processes, Program, Running
from opsmeter_site.embedded.up import empty_metrics_folder, is_served, programs
from opsmeter_site.embedded.valkey import Valkey

HOST = "127.0.0.1"
_START_SECONDS = 60.0


class Stack:
    """Running processes by name; the second copy of "alerts" is "alerts-2"."""

    def __init__(self, folder: DataFolder, *, own_redis: bool) -> None:
        self.processes = Processes(folder)
        self.running: dict[str, Running] = {}
        self.port = free_port(HOST)
        self.url = f"http://{HOST}:{self.port}"
        options = UpOptions(HOST, self.port, 2, folder.path, demo=False, billing_sandbox=False, ready_file=None)
        environment = dict(os.environ) | {"PROMETHEUS_MULTIPROC_DIR": str(empty_metrics_folder(folder))}
        if own_redis:
            environment["REDIS_URL"] = self._start_redis(folder)
        self._programs = {each.name: each for each in programs(options, self.port, folder, environment)}

    def _start_redis(self, folder: DataFolder) -> str:
        """A Redis of this stack alone, which may be killed like the rest."""
        valkey, port = Valkey(folder, durable=True), free_port(HOST)
        valkey.prepare()
        self.add(valkey.program(port, os.environ))
        wait_until(lambda: valkey.is_ready(port), _START_SECONDS, "Redis did not start.")
        return valkey.url(port)

    def start(self, **copies: int) -> None:
        """Start so many copies of each program: `start(web=1, alerts=2)`."""
        for name, number in copies.items():
            self.add(self._programs[name])
            for copy in range(2, number + 1):
                self.add(_copy(self._programs[name], copy))

    def add(self, program: Program) -> None:
        """Start one more program, or one that has been killed."""
        self.running[program.name] = self.processes.start(program)

    def kill(self, name: str) -> None:
        """Kill a process with everything that it has started, and start it again."""
        running = self.running[name]
        os.killpg(running.pid, signal.SIGKILL)
        self.processes.stop(running)
        self.add(running.program)

    def revive(self) -> None:
        """Start again what has ended by itself, as `./opsmeter up` does."""
        for ended in self.processes.ended():
            self.processes.stop(ended)
            self.add(ended.program)


@contextmanager
def stack(*, own_redis: bool = False) -> Iterator[Stack]:
    """A stack with nothing but perhaps Redis running; whatever is started in it ends with the block."""
    call_command("collectstatic", verbosity=0, interactive=False)
    with tempfile.TemporaryDirectory() as path, DataFolder(Path(path)) as folder:
        folder.lock("./opsmeter bench")
        running = Stack(folder, own_redis=own_redis)
        try:
            yield running
        finally:
            running.processes.stop_all()


def wait_served(running: Stack) -> None:
    """Wait until the web server answers that everything is there."""
    wait_until(lambda: is_served(HOST, running.port, "/readyz"), _START_SECONDS, "The server did not start.")


def wait_until(condition: Callable[[], bool], seconds: float, otherwise: str) -> float:
    """Wait for the condition; how many seconds it took. Raises `LoadError`."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise LoadError(otherwise)
        time.sleep(0.2)
    return time.monotonic() - started


def _copy(program: Program, number: int) -> Program:
    """The same program beside itself: beat's own file must be another one."""
    command = list(program.command)
    if "--schedule" in command:
        place = command.index("--schedule") + 1
        command[place] += f"-{number}"
    if "--hostname" in command:
        command[command.index("--hostname") + 1] = f"{program.name}-{number}@%h"
    return replace(program, name=f"{program.name}-{number}", command=tuple(command))
