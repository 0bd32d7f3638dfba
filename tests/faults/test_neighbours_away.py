"""Redis or PostgreSQL going away under load: what was promised still holds, and nobody has to restart anything."""

import itertools
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import psycopg

from ingest.audit import audit_workspace
from ingest.models import Event
from opsmeter_site.embedded.folder import DataFolder
from opsmeter_site.embedded.postgres import Postgres
from opsmeter_site.embedded.processes import Processes
from opsmeter_site.embedded.valkey import Valkey
from opsmeter_site.lib.clock import utc_now
from tests.conftest import payload
from tests.factories import make_workspace
from tests.servers import ROOT, Crowd, free_port, serve, wait_until

NO_RATE = 10_000_000
# For failures alone.
PATIENCE_SECONDS = 120


class Spare:
    """A PostgreSQL or Valkey of the test's own, always on the same port."""

    def __init__(self, kind, folder):
        self._processes = Processes(folder)
        self._server = kind(folder, durable=False)
        self._port = free_port()
        self._running = None
        self._server.prepare()
        self.url = self._server.url(self._port)

    def start(self):
        self._running = self._processes.start(self._server.program(self._port, os.environ))
        wait_until(lambda: self._server.is_ready(self._port), PATIENCE_SECONDS)

    def stop(self):
        self._processes.stop(self._running)

    def kill(self):
        os.kill(self._running.pid, signal.SIGKILL)
        self._processes.stop(self._running)

    def end(self):
        self._processes.stop_all()


@contextmanager
def spare(kind, path):
    with DataFolder(path) as folder:
        folder.lock("a test")
        server = Spare(kind, folder)
        try:
            server.start()
            yield server
        finally:
            server.end()


def endless():
    return (payload(externalRequestId=f"n-{number}") for number in itertools.count())


def statuses(crowd):
    return [one.status for one in crowd.sent]


def test_no_event_is_refused_or_lost_when_redis_is_killed(committed, tmp_path):
    opened = make_workspace("pro", monthly_requests=10**9, requests_per_minute=NO_RATE)
    with (
        spare(Valkey, tmp_path) as redis,
        serve(workers=2, REDIS_URL=redis.url) as server,
        Crowd(server, opened.api_key_plain, endless(), clients=16) as crowd,
    ):
        try:
            wait_until(lambda: len(crowd.sent) > 200, PATIENCE_SECONDS)
            redis.kill()
            seen = len(crowd.sent)
            wait_until(lambda: len(crowd.sent) > seen + 400, PATIENCE_SECONDS)
            redis.start()
            seen = len(crowd.sent)
            wait_until(lambda: len(crowd.sent) > seen + 200, PATIENCE_SECONDS)
        finally:
            crowd.stop()

    assert set(statuses(crowd)) == {200}
    assert Event.objects.filter(workspace_id=opened.workspace.id).count() == len(crowd.sent)
    assert all(int(one.headers["x-ratelimit-limit"]) == NO_RATE for one in crowd.sent)
    assert audit_workspace(opened.workspace.id, utc_now()).is_exact


def manage(url, *arguments):
    environment = os.environ | {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "opsmeter_site.settings_test"}
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_postgresql_stopped_is_503_and_started_again_is_200(tmp_path):
    with spare(Postgres, tmp_path) as postgres:
        manage(postgres.url, "migrate", "--verbosity", "0")
        opened = json.loads(
            manage(
                postgres.url, "create_workspace", "--name", "P", "--plan", "pro", "--owner-email", "p@example.com",
                "--monthly-requests", "1000000000", "--requests-per-minute", str(NO_RATE), "--json",
            )
        )  # fmt: skip
        with (
            serve(workers=2, DATABASE_URL=postgres.url) as server,
            Crowd(server, opened["apiKey"], endless(), clients=16) as crowd,
        ):
            try:
                wait_until(lambda: statuses(crowd).count(200) > 200, PATIENCE_SECONDS)
                postgres.stop()
                wait_until(lambda: statuses(crowd).count(503) > 100, PATIENCE_SECONDS)
                postgres.start()
                seen = statuses(crowd).count(200)
                wait_until(lambda: statuses(crowd).count(200) > seen + 200, PATIENCE_SECONDS)
            finally:
                crowd.stop()

        assert set(statuses(crowd)) == {200, 503}
        refused = [one for one in crowd.sent if one.status == 503]
        assert all(int(one.headers["retry-after"]) >= 1 for one in refused)
        assert all(one.answer["reason"] == "unavailable" for one in refused)
        with psycopg.connect(postgres.url) as database:
            rows = database.execute("SELECT external_request_id FROM ingest_event").fetchall()
        stored = [row[0] for row in rows]
        assert len(stored) == len(set(stored))
        assert {one.body["externalRequestId"] for one in crowd.sent if one.status == 200} <= set(stored)
        manage(postgres.url, "audit_ledger")
