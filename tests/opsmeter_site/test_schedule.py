from datetime import timedelta
from pathlib import Path

import pytest
from celery.schedules import crontab
from django.conf import settings

from opsmeter_site.celery import app
from opsmeter_site.embedded.folder import DataFolder
from opsmeter_site.embedded.preflight import parse_up
from opsmeter_site.embedded.up import programs
from opsmeter_site.schedule import BEAT_SCHEDULE


def test_beat_reads_this_table() -> None:
    assert app.conf.beat_schedule == BEAT_SCHEDULE
    assert app.conf.timezone == "UTC"


@pytest.mark.parametrize("name", BEAT_SCHEDULE)
def test_every_entry_names_a_task_that_workers_know(name: str) -> None:
    app.loader.import_default_modules()
    assert BEAT_SCHEDULE[name]["task"] in app.tasks


@pytest.mark.parametrize("name", BEAT_SCHEDULE)
def test_every_queue_has_a_worker(name: str, tmp_path: Path) -> None:
    """`./opsmeter up` starts one for each; a task on a queue that nobody reads would never run."""
    options = parse_up(["--data", str(tmp_path)], {})
    started = programs(options, 1, DataFolder(tmp_path), {})
    queues = [each.command[each.command.index("--queues") + 1] for each in started if "--queues" in each.command]
    assert BEAT_SCHEDULE[name]["options"].get("queue", "celery") in ["celery", *queues]


@pytest.mark.parametrize("name", BEAT_SCHEDULE)
def test_a_message_is_dropped_rather_than_piled_up(name: str) -> None:
    """While no worker is there, beat goes on asking."""
    assert BEAT_SCHEDULE[name]["options"]["expires"] <= timedelta(days=1).total_seconds()


def test_how_often_everything_happens() -> None:
    times = {name: entry["schedule"] for name, entry in BEAT_SCHEDULE.items()}
    assert times == {
        "heartbeat": crontab(),
        "purge-expired-rows": crontab(minute=17),
        "summarise": crontab(),
        "work-on-exports": 5.0,
        "work-on-repricings": 5.0,
        "delete-requested-rows": 5.0,
        "delete-old-exports": crontab(minute=37),
        "end-raises": crontab(),
        "process-billing": 1.0,
        "keep-billing-time": crontab(),
        "reconcile-billing": crontab(),
        "import-prices": crontab(hour=4, minute=10),
        "notice": 1.0,
        "deliver": 1.0,
        "recover": 5.0,
        "report": 5.0,
        "evaluate-rules": crontab(),
        "audit-ledgers": crontab(hour=2, minute=40),
    }


def test_no_task_may_run_longer_than_its_message_stays_hidden() -> None:
    """Redis hands an unacknowledged message to a second worker after the visibility timeout."""
    app.loader.import_default_modules()
    longest = max(task.time_limit or settings.CELERY_TASK_TIME_LIMIT for task in app.tasks.values())
    assert longest < settings.CELERY_BROKER_TRANSPORT_OPTIONS["visibility_timeout"]
