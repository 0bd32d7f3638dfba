"""Starting, watching and ending processes, so that none is ever left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import IO, Any, Self

import psutil

from opsmeter_site.embedded import launch
from opsmeter_site.embedded.console import say
from opsmeter_site.embedded.folder import DataFolder, read_json, write_private_json

ROOT = Path(__file__).resolve().parents[2]
SAME = "same"  # launch.py's word for "run as whoever starts it"
POLL_SECONDS = 0.03
REPEAT_SECONDS = 0.5


class StopRequested(Exception):
    """SIGINT, SIGTERM or SIGHUP came while something was under way."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Signals:
    """While entered, SIGINT, SIGTERM and SIGHUP are only noted; every wait in this package looks at the note.

    An exception out of a handler could come between starting a process and remembering it.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._foreground: tuple[subprocess.Popen[Any], int] | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        if self._foreground is None:
            return
        process, stop_signal = self._foreground
        if number != signal.SIGINT:
            process.send_signal(stop_signal)
        elif not sys.stdin.isatty():  # at a terminal Ctrl-C reaches it by itself; twice would cut its clean-up short
            process.send_signal(signal.SIGINT)

    def check(self) -> None:
        """Raise StopRequested if a signal has come."""
        if self.received is not None:
            raise StopRequested(self.received)

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for the condition; False when the time is up, StopRequested when a signal comes."""
        end = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > end:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def run_foreground(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        cwd: Path | None = None,
        stop_signal: int = signal.SIGTERM,
    ) -> int:
        """Run a command at the terminal and return its exit code, as a shell would give it.

        It shares our process group, so that it may read from the terminal. Signals are passed on to it (SIGTERM and
        SIGHUP as `stop_signal`) and do not end the wait.
        """
        self.check()
        command = launched(command, death_signal=stop_signal)
        process = subprocess.Popen(command, env=environment, cwd=cwd)  # noqa: S603 - our own commands
        self._foreground = process, stop_signal
        try:
            code = process.wait()
        finally:
            self._foreground = None
        return 128 - code if code < 0 else code


def launched(
    command: Sequence[str], identity: str = SAME, death_signal: int = signal.SIGTERM, niceness: int = 0
) -> list[str]:
    """The command line that runs `command` through launch.py: tied to this process, as another user where asked."""
    helper = [sys.executable, "-I", "-S", launch.__file__]
    return [*helper, str(os.getpid()), str(int(death_signal)), str(niceness), identity, *command]


@dataclass(frozen=True)
class Program:
    """A long-running process: how to start it, and how to end it."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path | None = None  # None: to the terminal, every line under the program's name
    identity: str = SAME
    stop_signal: int = signal.SIGTERM
    patience: float = 20.0  # seconds between the stop signal and SIGKILL
    niceness: int = 0
    repeat_stop: bool = False  # send the stop signal again and again, to its whole process group
    stop_group: str = ""  # programs of one group that follow each other are told to stop together


class Running:
    """A started program. Make these in the main thread only: a process ends with the thread that started it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        command = launched(program.command, program.identity, program.stop_signal, program.niceness)
        if program.log is None:
            self._process = self._spawn(command, subprocess.PIPE)
            threading.Thread(target=self._relay, args=(self._process.stdout,), daemon=True).start()
        else:
            with program.log.open("ab") as log:
                self._process = self._spawn(command, log)
        self.pid = self._process.pid
        self._is_told = False

    def _spawn(self, command: list[str], output: "IO[bytes] | int") -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C goes to us alone, and we end the programs in order.
        return subprocess.Popen(  # noqa: S603 - our own commands
            command,
            env=self.program.environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _relay(self, output: IO[bytes]) -> None:
        for line in output:
            say(f"{self.program.name:<7} | {line.decode(errors='replace').rstrip()}")

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def tell_to_stop(self) -> None:
        """Send the stop signal, once: some programs take a second one for impatience."""
        if not self._is_told and self.exit_code() is None:
            self._process.send_signal(self.program.stop_signal)
        self._is_told = True

    def stop(self) -> None:
        """End it and everything it started, and wait for that."""
        self.tell_to_stop()
        if not self._ends_in_time():
            say(f"{self.program.name} did not stop in {self.program.patience:.0f} s; killing it")
        self._signal_group(signal.SIGKILL)  # also workers whose main process is gone
        self._process.wait()

    def _ends_in_time(self) -> bool:
        end = time.monotonic() + self.program.patience
        while time.monotonic() < end:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(REPEAT_SECONDS)
                return True
            if self.program.repeat_stop:
                self._signal_group(self.program.stop_signal)
        return False

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS says "not permitted" for a group of zombies
            os.killpg(self.pid, number)


class Processes:
    """The long-running processes of a data folder, recorded in it so that the next owner can end what was left."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._running: list[Running] = []

    def start(self, program: Program) -> Running:
        """Start a program and record it."""
        running = Running(program)
        self._running.append(running)
        self._record()
        return running

    def ended(self) -> list[Running]:
        """Those that ended without having been stopped."""
        return [running for running in self._running if running.exit_code() is not None]

    def stop(self, running: Running) -> None:
        """Stop one program; also forgets one that has ended by itself."""
        running.stop()
        self._running.remove(running)
        with suppress(OSError):  # somebody removed the folder; the others are to be stopped all the same
            self._record()

    def stop_all(self) -> None:
        """Stop what runs, in the order of the programs' start reversed; those of one group together."""
        last_first = reversed(self._running.copy())
        for _, group in groupby(last_first, lambda running: running.program.stop_group or running.program.name):
            together = list(group)
            for running in together:
                running.tell_to_stop()
            for running in together:
                self.stop(running)

    def stop_left_over(self) -> list[str]:
        """End what a killed owner of this folder left running, and name it."""
        records: list[dict[str, Any]] = read_json(self._folder.processes_file) or []
        names = [record["name"] for record in reversed(records) if stop_recorded(record)]
        self._record()
        return names

    def _record(self) -> None:
        if not self._running:
            self._folder.processes_file.unlink(missing_ok=True)
            return
        records = [
            {
                "name": running.program.name,
                "pid": running.pid,
                "command": running.program.command,
                "signal": int(running.program.stop_signal),
                "patience": running.program.patience,
                "repeat": running.program.repeat_stop,
            }
            for running in self._running
        ]
        write_private_json(self._folder.processes_file, records)


def stop_recorded(record: Mapping[str, Any]) -> bool:
    """End a recorded process if it is still the one that was recorded; a process number may have been given anew."""
    try:
        process = psutil.Process(record["pid"])
        if process.cmdline() != record["command"]:  # a zombie's is empty
            return False
        process.send_signal(record["signal"])
        started = repeated = time.monotonic()
        while process.status() != psutil.STATUS_ZOMBIE:  # its new parent may be one that never asks for its exit code
            now = time.monotonic()
            if now - started > record["patience"]:
                os.killpg(process.pid, signal.SIGKILL)
            elif record["repeat"] and now - repeated > REPEAT_SECONDS:
                os.killpg(process.pid, record["signal"])
                repeated = now
            time.sleep(POLL_SECONDS)
    except (psutil.NoSuchProcess, ProcessLookupError):
        pass
    except psutil.AccessDenied:
        return False
    return True
