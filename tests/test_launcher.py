"""`./opsmeter` as its users meet it; the life of `./opsmeter up` is in browser/test_up.py, where it is started."""

import importlib.machinery
import importlib.util
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from opsmeter_site.embedded import preflight
from opsmeter_site.embedded.double import double_of
from opsmeter_site.embedded.errors import LocalError
from opsmeter_site.embedded.folder import DataFolder
from opsmeter_site.embedded.postgres import Postgres
from opsmeter_site.embedded.processes import Processes, Program, Signals, StopRequested, launched
from opsmeter_site.embedded.servers import start_servers
from opsmeter_site.embedded.up import keep_running
from tests.up import LAUNCHER, environment, processes_of, run, wait_for


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    yield folder
    assert processes_of(folder) == []


@pytest.fixture
def folder(data: Path) -> Iterator[DataFolder]:
    """A locked data folder; whatever a test starts in it is stopped."""
    with DataFolder(data) as locked:
        locked.lock("a test")
        yield locked


@pytest.fixture
def processes(folder: DataFolder) -> Iterator[Processes]:
    running = Processes(folder)
    yield running
    running.stop_all()


@pytest.fixture
def launcher() -> ModuleType:
    """The launcher as a module, to ask it about environments that it does not make here."""
    loader = importlib.machinery.SourceFileLoader("launcher_under_test", LAUNCHER)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class TestCommandLine:
    def test_help_needs_nothing_and_succeeds(self, data: Path) -> None:
        result = run(data, "--help")
        assert result.returncode == 0
        assert "usage: ./opsmeter" in result.stdout
        assert not data.exists()

    @pytest.mark.parametrize("arguments", [[], ["nonsense"], ["up", "--port", "70000"], ["up", "--nonsense"]])
    def test_wrong_usage_exits_with_2(self, data: Path, arguments: list[str]) -> None:
        result = run(data, *arguments)
        assert result.returncode == 2
        assert "usage" in result.stderr
        assert not data.exists()

    def test_a_taken_port_is_said_and_nothing_is_changed(self, data: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            result = run(data, "up", "--port", str(listener.getsockname()[1]))
        assert result.returncode == 1
        assert "the port is taken" in result.stderr
        assert not data.exists()

    def test_a_taken_data_folder_is_said_with_its_holder(self, folder: DataFolder) -> None:
        result = run(folder.path, "up", "--port", "0")
        assert result.returncode == 1
        assert f"in use by process {os.getpid()} (a test)" in result.stderr

    def test_options_win_over_the_environment(self, tmp_path: Path) -> None:
        options = preflight.parse_up(["--data", str(tmp_path / "a"), "--port", "0"], {"OPSMETER_DATA": "/elsewhere"})
        assert options.data == tmp_path / "a"
        assert preflight.parse_up([], {"OPSMETER_DATA": "/elsewhere"}).data == Path("/elsewhere")

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "opsmeter.example"])
    def test_the_billing_sandbox_is_for_this_machine_only(self, data: Path, host: str) -> None:
        result = run(data, "up", "--billing-sandbox", "--host", host)
        assert result.returncode == 2
        assert f"this machine only, not --host {host}" in result.stderr
        assert not data.exists()

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
    def test_the_billing_sandbox_is_there_when_asked_for(self, host: str) -> None:
        assert preflight.parse_up(["--billing-sandbox", "--host", host], {}).billing_sandbox
        assert not preflight.parse_up(["--host", host], {}).billing_sandbox


class TestPythonEnvironment:
    def test_an_interrupted_installation_is_not_taken_for_a_finished_one(
        self, launcher: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(launcher, "VENV", tmp_path)
        assert not launcher.is_installed("runtime")
        launcher.marker("runtime").write_text(launcher.fingerprint("runtime"))
        assert launcher.is_installed("runtime")
        assert not launcher.is_installed("dev")

    def test_changed_requirements_are_noticed(
        self, launcher: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(launcher, "VENV", tmp_path)
        launcher.marker("dev").write_text(launcher.fingerprint("dev"))
        assert launcher.is_installed("runtime")
        monkeypatch.setattr(launcher, "ROOT", tmp_path)
        for name in ("requirements.txt", "requirements.lock", "requirements-dev.txt"):
            (tmp_path / name).write_text("something==2\n")
        assert not launcher.is_installed("runtime")

    @pytest.mark.parametrize(
        ("command", "level"), [("up", "runtime"), ("up --billing-sandbox", "dev"), ("test -x", "dev")]
    )
    def test_the_billing_sandbox_brings_the_packages_that_production_does_without(
        self, launcher: ModuleType, command: str, level: str
    ) -> None:
        assert launcher.needed_level(command.split(), vars(preflight)) == level


class TestServers:
    def test_they_start_privately_and_durably_and_keep_their_data(
        self, folder: DataFolder, processes: Processes
    ) -> None:
        first = start_servers(folder, processes, Signals(), {})
        with psycopg.connect(first["DATABASE_URL"], autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (n int)")
            settings = dict(connection.execute("SELECT name, setting FROM pg_settings").fetchall())
        with redis.Redis.from_url(first["REDIS_URL"]) as client:
            client.set("kept", "1")
        assert (settings["fsync"], settings["TimeZone"], settings["server_encoding"]) == ("on", "UTC", "UTF8")
        assert (settings["listen_addresses"], settings["unix_socket_directories"]) == ("127.0.0.1", "")
        assert stat.S_IMODE((folder.path / "secrets.json").stat().st_mode) == 0o600
        processes.stop_all()

        second = start_servers(folder, processes, Signals(), {})
        with psycopg.connect(second["DATABASE_URL"]) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
        with redis.Redis.from_url(second["REDIS_URL"]) as client:
            assert client.get("kept") == b"1"

    def test_nobody_gets_in_without_the_password(self, folder: DataFolder, processes: Processes) -> None:
        urls = start_servers(folder, processes, Signals(), {})
        database, broker = urlsplit(urls["DATABASE_URL"]), urlsplit(urls["REDIS_URL"])
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"postgres://opsmeter:wrong@127.0.0.1:{database.port}/opsmeter")
        with (
            redis.Redis(host="127.0.0.1", port=broker.port or 0, retry=Retry(NoBackoff(), 0)) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()

    def test_what_the_caller_names_is_not_started(self, folder: DataFolder, processes: Processes) -> None:
        named = {"DATABASE_URL": "postgres://elsewhere/db", "REDIS_URL": "redis://elsewhere"}
        assert start_servers(folder, processes, Signals(), named) == named
        assert not folder.postgres.exists()

    def test_a_left_over_server_is_stopped_and_its_data_used(self, folder: DataFolder, processes: Processes) -> None:
        start_servers(folder, processes, Signals(), {"REDIS_URL": "redis://elsewhere"})
        next_owner = Processes(folder)
        assert next_owner.stop_left_over() == ["postgres"]
        urls = start_servers(folder, next_owner, Signals(), {"REDIS_URL": "redis://elsewhere"})
        psycopg.connect(urls["DATABASE_URL"]).close()
        next_owner.stop_all()

    def test_a_reused_process_number_is_left_alone(self, folder: DataFolder) -> None:
        record = {"name": "web", "pid": os.getpid(), "command": ["something", "else"], "signal": 9, "patience": 1}
        folder.processes_file.write_text(json.dumps([record]))
        assert Processes(folder).stop_left_over() == []

    def test_a_pid_file_that_names_a_stranger_does_not_stop_the_start(
        self, folder: DataFolder, processes: Processes
    ) -> None:
        elsewhere = {"REDIS_URL": "redis://elsewhere"}
        start_servers(folder, processes, Signals(), elsewhere)
        processes.stop_all()
        stranger = folder.postgres / "postmaster.pid"
        stranger.write_text(f"{os.getpid()}\n")
        urls = start_servers(folder, processes, Signals(), elsewhere)
        psycopg.connect(urls["DATABASE_URL"]).close()

    def test_a_start_that_fails_says_why(self, folder: DataFolder, processes: Processes) -> None:
        elsewhere = {"REDIS_URL": "redis://elsewhere"}
        Postgres(folder, durable=False).prepare()
        (folder.postgres / "global" / "pg_control").unlink()
        with pytest.raises(LocalError, match=r"postgres does not start: .*pg_control"):
            start_servers(folder, processes, Signals(), elsewhere)


class TestBillingSandbox:
    def test_it_is_the_same_after_a_restart(self, folder: DataFolder) -> None:
        first, second = double_of(folder), double_of(folder)
        assert first == second
        assert first.settings["LEMONSQUEEZY_API_BASE"] == f"http://127.0.0.1:{first.port}/v1"

    def test_a_port_that_somebody_has_taken_is_given_up(self, folder: DataFolder) -> None:
        first = double_of(folder)
        with socket.create_server(("127.0.0.1", first.port)):
            second = double_of(folder)
        assert second.port != first.port
        assert double_of(folder) == second

    def test_its_secrets_are_of_this_folder_and_not_on_a_command_line(self, folder: DataFolder, tmp_path: Path) -> None:
        double = double_of(folder)
        secrets = {double.settings[name] for name in ("LEMONSQUEEZY_API_KEY", "LEMONSQUEEZY_WEBHOOK_SECRET")}
        with DataFolder(tmp_path / "other") as other:
            other.make()
            assert secrets.isdisjoint(double_of(other).settings.values())
        program = double.program("http://127.0.0.1:8000/v1/webhooks/lemon-squeezy", double.settings)
        assert secrets.isdisjoint(program.command)
        assert secrets <= set(program.environment.values())


class TestProcesses:
    def test_a_program_ends_with_the_process_that_started_it(self, folder: DataFolder) -> None:
        starter = f"import subprocess; subprocess.run({launched(['/bin/sleep', '60'])!r})"
        starter = starter.replace(f"'{os.getpid()}'", "str(__import__('os').getpid())")
        parent = subprocess.Popen([sys.executable, "-c", starter], env=environment(folder.path))
        wait_for(lambda: "/bin/sleep 60" in processes_of(folder.path))
        parent.kill()
        parent.wait()
        wait_for(lambda: not processes_of(folder.path), 10)

    def test_a_signal_ends_a_wait(self) -> None:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(StopRequested) as stop:
                signals.wait_until(lambda: False, 10)
        assert stop.value.exit_code == 143

    def test_a_stubborn_program_is_killed_with_all_it_started(self, folder: DataFolder, processes: Processes) -> None:
        script = "trap '' TERM; sleep 60 & echo $! > \"$OPSMETER_DATA/child\"; while :; do sleep 1; done"
        command = ("/bin/bash", "-c", script)
        program = Program("stubborn", command, environment(folder.path), log=folder.logs / "log", patience=0.1)
        processes.start(program)
        wait_for((folder.path / "child").exists)
        processes.stop_all()
        wait_for(lambda: not processes_of(folder.path), 10)

    def test_those_of_a_group_are_told_to_stop_together(
        self, folder: DataFolder, processes: Processes, capsys: pytest.CaptureFixture[str]
    ) -> None:
        told = '"$OPSMETER_DATA/told"'
        first = f"trap 'touch {told}; exit' TERM; touch \"$OPSMETER_DATA/first\"; while :; do sleep 0.02; done"
        # Is stopped first, and ends when the other one has been told.
        second = f"trap 'until [ -e {told} ]; do sleep 0.02; done; exit' TERM; touch \"$OPSMETER_DATA/second\"; "
        second += "while :; do sleep 0.02; done"
        for name, script in (("first", first), ("second", second)):
            command = ("/bin/bash", "-c", script)
            log = folder.logs / name
            processes.start(Program(name, command, environment(folder.path), log=log, stop_group="both"))
            wait_for((folder.path / name).exists)
        processes.stop_all()
        assert (folder.path / "told").exists()
        assert capsys.readouterr().out == ""

    def test_what_ends_by_itself_is_started_again(self, folder: DataFolder, processes: Processes) -> None:
        script = 'echo once >> "$OPSMETER_DATA/starts"; exit 3'
        program = Program("short", ("/bin/bash", "-c", script), environment(folder.path), log=folder.logs / "log")
        starts = folder.path / "starts"

        class StopAfterTwo(Signals):
            def check(self) -> None:
                if starts.exists() and len(starts.read_text().split()) >= 2:
                    raise StopRequested(signal.SIGTERM)

        processes.start(program)
        keep_running(processes, StopAfterTwo())
        assert starts.read_text().split() == ["once", "once"]


def test_manage_reads_from_the_caller_and_passes_the_exit_code_on(data: Path) -> None:
    code = "from django.db import connection as c; c.ensure_connection(); print(c.vendor); raise SystemExit(7)"
    result = run(data, "manage", "shell", "-v0", said=code)
    assert result.stdout.strip() == "postgresql", result.stderr
    assert result.returncode == 7
