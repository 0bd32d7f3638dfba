import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.core import mail
from django.utils.log import CallbackFilter

from alerts import tasks as alert_tasks
from alerts.models import ReportKind
from alerts.report_runs import make_report_now
from ingest import tasks
from opsmeter_site.celery import app
from tests.alerts.outbound import queue_mail
from tests.factories import make_workspace as open_workspace
from tests.ledger import NOON, make_event, make_workspace
from tests.servers import wait_until

ROOT = Path(__file__).parent.parent.parent
DEADLINE_SECONDS = 120  # for failures alone


@pytest.fixture
def prefix() -> Iterator[str]:
    """Redis keys of one test, removed after it."""
    prefix = f"test-{uuid4()}"
    yield prefix
    client = redis.Redis.from_url(settings.REDIS_URL)
    for key in client.scan_iter(f"{prefix}*"):
        client.delete(key)
    client.close()


def test_beat_and_worker_run_from_the_command_line_and_stop_on_sigterm(prefix: str, tmp_path: Path) -> None:
    """Beat asks, the broker carries, a worker does: after at most a minute the heartbeat is there."""
    beating = tmp_path / "beating.py"
    beating.write_text(
        "from opsmeter_site.celery import app\n"
        "app.conf.beat_schedule = {'heartbeat': app.conf.beat_schedule['heartbeat'] | {'schedule': 0.2}}\n"
        "app.conf.beat_max_loop_interval = 0.2\n"
    )
    environment = os.environ | {
        "REDIS_KEY_PREFIX": prefix,
        "DJANGO_SETTINGS_MODULE": "opsmeter_site.settings",  # the ones for tests have a prefix of their own
        "OPSMETER_ENV": "test",
        "SECRET_KEY": "only-for-tests",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
    }
    celery = [sys.executable, "-m", "celery", "-A"]
    beat = [*celery, "beating", "beat", "--schedule", str(tmp_path / "beat")]
    worker = [*celery, "opsmeter_site", "worker", "--pool", "prefork", "--concurrency", "1"]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) for command in (worker, beat)
    ]
    client = redis.Redis.from_url(settings.REDIS_URL)
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not client.exists(f"{prefix}:heartbeat"):
            assert time.monotonic() < deadline, "no heartbeat"
            assert [process.poll() for process in processes] == [None, None]
            time.sleep(0.05)
        # As `./opsmeter up` does it: first whoever sends, then, once nothing waits, whoever works.
        for process in reversed(processes):
            process.terminate()
            assert process.wait(DEADLINE_SECONDS) == 0
            wait_until(lambda: not client.exists(f"{prefix}:celery:celery"), DEADLINE_SECONDS)
    finally:
        client.close()
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_messages_are_json_and_nothing_else() -> None:
    assert app.conf.task_serializer == "json"
    assert app.conf.accept_content == ["json"]


@pytest.mark.parametrize(("expired", "is_logged"), [(True, False), (False, True)])
def test_what_waited_too_long_for_a_worker_is_no_news(expired: bool, is_logged: bool) -> None:
    """After a restart these would be the first that somebody reads, a line for each second."""
    config = settings.LOGGING["filters"]["worth_a_line"]
    said = {"event": "task_revoked", "task": "alerts.notice", "expired": expired}
    record = logging.makeLogRecord({"msg": said})
    assert bool(CallbackFilter(config["callback"]).filter(record)) is is_logged


def test_our_keys_in_redis_carry_our_prefix() -> None:
    options = app.conf.broker_transport_options
    assert options["global_keyprefix"].startswith(settings.REDIS_KEY_PREFIX)


@pytest.mark.django_db(transaction=True)
class TestLedgerTasks:
    def test_they_may_run_twice(self) -> None:
        workspace = make_workspace()
        make_event(workspace, received_at=NOON)
        for _ in range(2):
            tasks.purge_expired_rows()
            tasks.audit_ledgers()
        workspace.refresh_from_db()
        assert workspace.ledger_audit.is_exact
        assert workspace.ledger_coverage.purged_at is not None

    @pytest.mark.parametrize("name", ["purge", "audit"])
    def test_a_sweep_that_takes_too_long_ends_quietly(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def take_too_long(_now: object) -> None:
            raise SoftTimeLimitExceeded

        monkeypatch.setattr(tasks, f"{name}_all", take_too_long)
        {"purge": tasks.purge_expired_rows, "audit": tasks.audit_ledgers}[name]()


@pytest.mark.django_db(transaction=True)
class TestAlertTasks:
    def test_they_may_run_twice(self) -> None:
        opened = open_workspace("pro")
        queue_mail(opened.workspace, opened.owner.email)
        for _ in range(2):
            alert_tasks.notice()
            alert_tasks.deliver()
            alert_tasks.resolve_what_is_over()
            alert_tasks.report()
            alert_tasks.evaluate_rules()
        assert len(mail.outbox) == 1

    def test_summaries_are_sent_where_they_are_made(self) -> None:
        """A morning's thousands must not stand before an alert."""
        opened = open_workspace("pro")
        report = make_report_now(opened.workspace, ReportKind.DAILY, opened.owner, queue_mail=True)
        alert_tasks.deliver()
        assert mail.outbox == []
        alert_tasks.report()
        assert [one.subject for one in mail.outbox] == [report.title]
