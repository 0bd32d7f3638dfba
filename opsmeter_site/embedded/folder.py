"""The data folder: what is kept between runs, and the lock that lets one command at a time own its servers."""

import fcntl
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from opsmeter_site.embedded.errors import LocalError
from opsmeter_site.embedded.preflight import data_folder, in_use

ABANDONED_SECONDS = 60


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_private_json(path: Path, value: Any) -> None:
    """`write_private` for a value as JSON."""
    write_private(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The file's value, or None where there is no such file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


class DataFolder:
    """Paths inside a data folder, its secrets and its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.postgres = path / "postgres"
        self.valkey = path / "valkey"
        self.static = path / "static"
        self.logs = path / "logs"
        self.run = path / "run"
        self.servers_file = self.run / "servers.json"
        self.processes_file = self.run / "processes.json"
        self._lock: int | None = None
        self._users: int | None = None

    def make(self) -> None:
        """Make the folders that every command needs."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in (self.run, self.logs):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise LocalError(f"cannot make the data folder {self.path}: {error.strerror}") from error

    def lock(self, purpose: str) -> None:
        """Become the one owner of the folder's servers, or raise LocalError naming the process that is."""
        if not self.try_lock(purpose):
            raise LocalError(in_use(self.path, (self.path / "lock").read_text()).text.removeprefix("opsmeter: "))

    def try_lock(self, purpose: str) -> bool:
        """Take the owner's lock if it is free. It ends with the process, however that ends."""
        self.make()
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise LocalError(f"cannot use the data folder {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} ({purpose})\n".encode())
        self._lock = descriptor
        self.servers_file.unlink(missing_ok=True)  # of an owner that was killed
        return True

    def unlock(self) -> None:
        """Give the owner's lock back, if this process has it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def join_users(self) -> None:
        """Say that this process uses servers that another one owns."""
        self._users = os.open(self.run / "users", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._users, fcntl.LOCK_SH)

    def has_users(self) -> bool:
        """Whether other processes use the servers that this one owns."""
        descriptor = os.open(self.run / "users", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def secret(self, name: str) -> str:
        """A secret of this folder, made once and kept in a file that only its owner may read."""
        path = self.path / "secrets.json"
        known: dict[str, str] = read_json(path) or {}
        if name not in known:
            known[name] = secrets.token_urlsafe(48)
            write_private_json(path, known)
        return known[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.unlock()
        if self._users is not None:
            os.close(self._users)
            self._users = None


@contextmanager
def scratch_folder(purpose: str, environment: Mapping[str, str]) -> Iterator[DataFolder]:
    """A fresh, locked data folder under the usual one; removed at the end, and at the next start if that was missed."""
    parent = data_folder(environment)
    parent.mkdir(parents=True, exist_ok=True)
    for left_over in parent.glob(f"{purpose}-*"):
        # A younger one may be about to be locked.
        if time.time() - left_over.stat().st_mtime > ABANDONED_SECONDS:
            remove_if_abandoned(left_over)
    folder = DataFolder(Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=parent)))
    with folder:
        folder.lock(f"./opsmeter {purpose}")
        try:
            yield folder
        finally:
            shutil.rmtree(folder.path, ignore_errors=True)


def remove_if_abandoned(path: Path) -> None:
    """Remove a scratch folder whose owner was killed; its servers ended with their owner."""
    with DataFolder(path) as folder:
        if folder.try_lock("removal"):
            shutil.rmtree(path, ignore_errors=True)
