"""Whatever is killed, every crossing and every summary reaches an idempotent receiver exactly once.

`./opsmeter bench chaos` does the same for minutes, with Celery's own processes and Redis restarted.
"""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from datetime import time, timedelta
from decimal import Decimal

import pytest
from django.conf import settings

from alerts.models import UNDER_WAY, Alert, AlertSettings, Attempt, AttemptOutcome, Delivery, DeliveryState, Report
from alerts.schedules import ensure_schedules, place
from budgets.services import update_budget_settings
from ingest.models import LimitCrossing
from opsmeter_site.lib.clock import utc_now
from tests.alerts.outbound import make_webhook
from tests.alerts.receivers import receiver
from tests.servers import ROOT, database_url, wait_until

SENDERS = 3
ROUNDS = 3
WORKSPACES_A_ROUND = 6
PATIENCE_SECONDS = 120  # for failures alone
DAYS = 2  # of daily summaries that each workspace is owed

# What workers do when beat asks, without waiting for it; and leases that end while a test waits.
WORK = """
import time
import django
django.setup()
from datetime import timedelta
from alerts import deliveries, report_runs
deliveries.LEASE = report_runs.LEASE = timedelta(seconds=3)
from alerts.noticing import notice_crossings
from alerts.schedules import start_due_reports
from opsmeter_site.lib.clock import utc_now
while True:
    notice_crossings(utc_now())
    start_due_reports(utc_now())
    report_runs.make_due_reports(1.0)
    deliveries.deliver_due(1.0)
    time.sleep(0.02)
"""


class Senders:
    """Processes that send, killed and started again."""

    def __init__(self, hosts):
        self._environment = os.environ | {
            "DATABASE_URL": database_url(),
            "DJANGO_SETTINGS_MODULE": "opsmeter_site.settings_test",
            "REDIS_URL": settings.REDIS_URL,
            "CHANNEL_HOSTS_ALLOWED": hosts,
        }
        self._processes = []

    def start(self, number):
        command = [sys.executable, "-c", WORK]
        self._processes += [subprocess.Popen(command, cwd=ROOT, env=self._environment) for _ in range(number)]

    def kill(self, number):
        for process in random.sample(self._processes, number):
            assert process.poll() is None, "a sender ended by itself"
            process.kill()
            process.wait()
            self._processes.remove(process)

    def end(self):
        self.kill(len(self._processes))


@contextmanager
def sending(hosts):
    senders = Senders(hosts)
    try:
        senders.start(SENDERS)
        yield senders
    finally:
        senders.end()


@pytest.fixture
def slow_hook():
    """A receiver that takes its time, so that kills hit messages that are being sent."""
    with receiver() as running:
        running.pause_seconds = 0.1
        yield running


def spend_too_much(client_of, hook):
    """A workspace whose budget is crossed by one event, twice: a warning and an excess; and which is owed summaries."""
    client = client_of("pro", timezone="Europe/Berlin")
    workspace, owner = client.opened.workspace, client.opened.owner
    AlertSettings.objects.create(workspace=workspace, cooldown_seconds=0)
    make_webhook(workspace, hook.url, takes_summaries=True)
    update_budget_settings(workspace, acting_user=owner, daily_limit_usd=Decimal("0.00005"))
    ensure_schedules(workspace, utc_now())
    daily = workspace.report_schedules.get(kind="daily")
    daily.send_at = time(0)
    today = utc_now().astimezone(workspace.timezone).date()
    place(daily, today - timedelta(days=DAYS)).save()
    assert client.send().status == 200
    assert client.send().status == 200
    return workspace


def told(hook):
    """The distinct messages, and how many of them tell each alert."""
    messages = {each.headers["webhook-id"]: json.loads(each.body) for each in hook.received}
    alerts = Counter(alert["id"] for message in messages.values() for alert in message["data"]["alerts"])
    return messages, alerts


def test_every_crossing_and_summary_arrives_once_although_senders_are_killed(client_of, slow_hook):
    workspaces = []

    def mine(model):
        return model.objects.filter(workspace__in=workspaces)

    with sending("127.0.0.1") as senders:
        for _ in range(ROUNDS):
            workspaces += [spend_too_much(client_of, slow_hook) for _ in range(WORKSPACES_A_ROUND)]
            wait_until(lambda: mine(Delivery).filter(state=DeliveryState.SENDING).exists(), PATIENCE_SECONDS)
            senders.kill(SENDERS - 1)
            senders.start(SENDERS - 1)
        crossings = LimitCrossing.objects.filter(limit__workspace__in=workspaces)
        wait_until(lambda: not crossings.filter(claimed_at=None).exists(), PATIENCE_SECONDS)
        wait_until(lambda: mine(Report).filter(state="ready").count() == DAYS * len(workspaces), PATIENCE_SECONDS)
        wait_until(lambda: not mine(Delivery).filter(state__in=UNDER_WAY).exists(), PATIENCE_SECONDS)

    messages, alerts = told(slow_hook)
    assert set(mine(Delivery).values_list("state", flat=True)) == {DeliveryState.SENT.value}
    assert Attempt.objects.filter(delivery__workspace__in=workspaces, outcome=AttemptOutcome.UNKNOWN).exists()
    assert mine(Alert).count() == crossings.count() == 2 * len(workspaces)
    assert alerts == Counter({str(pk): 1 for pk in mine(Alert).values_list("pk", flat=True)})
    summaries = Counter(message["data"]["url"] for message in messages.values() if not message["data"]["alerts"])
    assert len(summaries) == DAYS * len(workspaces)
    assert set(summaries.values()) == {1}
    assert set(messages) == {str(pk) for pk in mine(Delivery).filter(recipient="").values_list("pk", flat=True)}
