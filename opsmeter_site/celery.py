"""The Celery application: `celery -A opsmeter_site worker`, and one `celery -A opsmeter_site beat`."""

import logging.config
import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging
from django.conf import settings
from django_structlog.celery.steps import DjangoStructLogInitStep

from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.heartbeat import note_heartbeat
from opsmeter_site.schedule import BEAT_SCHEDULE

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opsmeter_site.settings")

# Modules with tasks are named here, one by one: nothing is discovered.
app = Celery("opsmeter", include=["ingest.tasks", "billing.tasks", "alerts.tasks"])
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(beat_schedule=BEAT_SCHEDULE, task_serializer="json", accept_content=["json"])
# The id of the request that asked for a task goes along into the task's log lines.
app.steps["worker"].add(DjangoStructLogInitStep)


@setup_logging.connect  # type: ignore[untyped-decorator]
def use_our_logging(**_options: Any) -> None:
    """Workers and beat log like everything else; a receiver here keeps Celery from setting up its own."""
    logging.config.dictConfig(settings.LOGGING)


@app.task(name="opsmeter_site.heartbeat")  # type: ignore[untyped-decorator]
def heartbeat() -> None:
    """Note that beat, broker and a worker are alive."""
    note_heartbeat(utc_now())
