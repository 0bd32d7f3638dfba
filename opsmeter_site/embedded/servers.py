"""Both servers of a data folder together: start, share, stop, and the environment that points at them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from opsmeter_site.embedded.errors import LocalError
from opsmeter_site.embedded.folder import DataFolder, read_json, write_private_json
from opsmeter_site.embedded.postgres import Postgres
from opsmeter_site.embedded.preflight import free_port
from opsmeter_site.embedded.processes import Processes, Running, Signals
from opsmeter_site.embedded.valkey import Valkey

READY_SECONDS = 120.0  # after a crash PostgreSQL first replays its log
START_ATTEMPTS = 3  # a free port may be taken before the server gets to it


@dataclass
class Started:
    """A server that was started, perhaps not ready yet."""

    server: Postgres | Valkey
    port: int
    running: Running

    def has_ended(self) -> bool:
        """Whether it gave up."""
        return self.running.exit_code() is not None

    def is_settled(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.has_ended() or self.server.is_ready(self.port)


def start_servers(
    folder: DataFolder, processes: Processes, signals: Signals, environment: Mapping[str, str], *, durable: bool = True
) -> dict[str, str]:
    """Start what the environment does not name already, wait until it is ready, and return DATABASE_URL and REDIS_URL.

    The caller holds the folder's lock, and ends what was started with `processes.stop_all()`, also after an exception.
    """
    wanted: dict[str, type[Postgres] | type[Valkey]] = {"DATABASE_URL": Postgres, "REDIS_URL": Valkey}
    urls = {name: environment[name] for name in wanted if environment.get(name)}
    started: dict[str, Started] = {}
    for name, kind in wanted.items():
        if name in urls:
            continue
        signals.check()
        server = kind(folder, durable=durable)
        server.log.unlink(missing_ok=True)
        server.prepare()
        started[name] = start(server, processes, environment)
    for name, attempt in started.items():
        urls[name] = wait_ready(attempt, processes, signals, environment)
    return urls


def start(server: Postgres | Valkey, processes: Processes, environment: Mapping[str, str]) -> Started:
    """Start a server on a free port."""
    port = free_port()
    return Started(server, port, processes.start(server.program(port, environment)))


def wait_ready(attempt: Started, processes: Processes, signals: Signals, environment: Mapping[str, str]) -> str:
    """Wait until the server answers and return its URL; on another port if somebody was quicker to take this one."""
    for attempts_left in reversed(range(START_ATTEMPTS)):
        settled = signals.wait_until(attempt.is_settled, READY_SECONDS)
        if settled and not attempt.has_ended():
            return attempt.server.url(attempt.port)
        processes.stop(attempt.running)
        reason = attempt.server.failure()
        if not attempts_left or "in use" not in reason.lower():
            break
        attempt = start(attempt.server, processes, environment)
    raise LocalError(f"{attempt.running.program.name} does not start: {reason} (log: {attempt.server.log})")


@contextmanager
def borrowed_servers(
    folder: DataFolder, signals: Signals, environment: Mapping[str, str], purpose: str
) -> Iterator[dict[str, str]]:
    """The servers of the folder: those of a running `up`, or our own for as long as this lasts."""
    with folder:
        if folder.try_lock(purpose):
            processes = Processes(folder)
            processes.stop_left_over()
            try:
                urls = start_servers(folder, processes, signals, environment)
                write_private_json(folder.servers_file, urls)
                yield urls
                # Another command may have joined meanwhile.
                signals.wait_until(lambda: not folder.has_users(), float("inf"))
            finally:
                folder.servers_file.unlink(missing_ok=True)
                processes.stop_all()
        else:
            folder.join_users()
            if not signals.wait_until(folder.servers_file.exists, READY_SECONDS):
                raise LocalError(f"the servers of {folder.path} do not get ready")
            shared: dict[str, str] = read_json(folder.servers_file)
            yield {name: environment.get(name) or url for name, url in shared.items()}


def application_environment(
    folder: DataFolder, urls: Mapping[str, str], environment: Mapping[str, str]
) -> dict[str, str]:
    """What Django and its companions are started with: the caller's environment, our own values where it is silent."""
    local = {
        "SECRET_KEY": folder.secret("secretKey"),
        "DEBUG": "false",
        "ALLOWED_HOSTS": "127.0.0.1,localhost,[::1]",
        "OPSMETER_ENV": "local",
        "LOG_LEVEL": "WARNING",  # a terminal is read by a person
        "PYTHONUNBUFFERED": "1",
    }
    own = {"OPSMETER_DATA": str(folder.path), "DJANGO_SETTINGS_MODULE": "opsmeter_site.settings"}
    return local | dict(environment) | dict(urls) | own
