"""A thousand messages while the server and whoever processes them are killed: stored once, processed once."""

import http.client
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest
from django.conf import settings

from billing.models import BillingEvent, EventState, Invoice, Outcome, Subscription
from tests.billing.messages import PATH, SETTINGS, message, order_message, payment_message, sign
from tests.billing.provider_facts import begin_checkout, facts, invoice_facts, sell_plans
from tests.factories import make_workspace
from tests.servers import ROOT, database_url, serve, wait_until
from workspaces.models import AuditEntry

KILLS = 5
PURCHASES = 100
PAYMENTS = 7  # of each purchase; with the order and two messages of the subscription that makes ten
MESSAGES = PURCHASES * (PAYMENTS + 3)
NAMES = ("subscription_created", "subscription_updated")
SENDERS = 6
PROCESSORS = 2
PATIENCE_SECONDS = 180  # for failures alone
ENVIRONMENT = {name: str(value) for name, value in SETTINGS.items()}

# What a worker does when beat asks, without waiting for it. The provider is away, so messages are all there is.
WORK = """
import time
import django
django.setup()
from billing.inbox import process_due
while True:
    process_due(1.0)
    time.sleep(0.02)
"""


class Provider:
    """Sends every message until it is answered with 200."""

    def __init__(self, server, bodies):
        self.unanswered = 0
        self._server = server
        self._left = queue.SimpleQueue()
        for body in bodies:
            self._left.put(body)
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        for thread in self._threads:
            thread.join()

    def _send(self):
        connection = self._server.connect()
        while not self._left.empty():
            body = self._left.get()
            while not self._is_taken(connection, body):
                self.unanswered += 1
                connection.close()
                threading.Event().wait(0.05)
        connection.close()

    def _is_taken(self, connection, body):
        try:
            connection.request("POST", PATH, body, {"X-Signature": sign(body), "Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return False
        return answer.status == 200


class Processors:
    """Processes that bring messages into effect."""

    def __init__(self):
        self._environment = os.environ | {
            "DATABASE_URL": database_url(),
            "DJANGO_SETTINGS_MODULE": "opsmeter_site.settings_test",
            "REDIS_URL": settings.REDIS_URL,
            "LOG_LEVEL": "CRITICAL",
            **ENVIRONMENT,
        }
        self._running = []

    def __enter__(self):
        for _ in range(PROCESSORS):
            self.start()
        return self

    def __exit__(self, *_):
        while self._running:
            self.kill_one()

    def start(self):
        self._running.append(subprocess.Popen([sys.executable, "-c", WORK], cwd=ROOT, env=self._environment))

    def kill_one(self):
        """The one that has run longest."""
        process = self._running.pop(0)
        assert process.poll() is None, "it ended by itself"
        process.kill()
        process.wait()


def purchases(workspaces):
    """The messages of so many purchases, of which each is for one of the workspaces."""
    bodies = []
    for number in range(PURCHASES):
        bought = facts(f"9{number:05}")
        checkout = begin_checkout(workspaces[number % len(workspaces)])
        bodies.append(order_message(f"8{number:05}"))
        bodies += [
            message(bought, name, checkout=checkout) for name in ("subscription_created", "subscription_updated")
        ]
        bodies += [
            payment_message(invoice_facts(bought.subscription_id, invoice_id=f"7{number:05}{payment}"))
            for payment in range(PAYMENTS)
        ]
    return bodies


def mine(**wanted):
    return BillingEvent.objects.filter(resource_id__regex=r"^[789]\d{5,6}$", **wanted)


@pytest.mark.usefixtures("committed")
def test_whatever_is_killed_each_message_is_stored_and_processed_once():
    workspaces = [make_workspace("free").workspace for _ in range(10)]
    sell_plans()
    bodies = purchases(workspaces)
    assert len(bodies) == MESSAGES == 1_000
    with Processors() as processors, serve(workers=1, **ENVIRONMENT) as server, Provider(server, bodies) as sender:
        left = 0
        for kill in range(KILLS):
            wait_until(lambda stored=150 * kill + 100: mine().count() >= stored, PATIENCE_SECONDS)
            server.stop(signal.SIGKILL)
            wait_until(
                lambda done=50 * kill + 20: mine().exclude(state=EventState.WAITING).count() >= done, PATIENCE_SECONDS
            )
            left += mine(state=EventState.WAITING).exists()
            processors.kill_one()
            processors.start()
            server.start()
        wait_until(lambda: mine().count() == MESSAGES, PATIENCE_SECONDS)
        wait_until(lambda: not mine(state=EventState.WAITING).exists(), PATIENCE_SECONDS)

    assert left, "the kills must have left something to process"
    assert sender.unanswered > KILLS, "the kills must have hit requests under way"
    assert mine().values("dedupe_key").distinct().count() == mine().count() == MESSAGES
    assert set(mine().values_list("state", "attempts_made")) == {(EventState.DONE.value, 0)}
    # Whatever is processed a second time finds its own effect, and says "unchanged".
    outcomes = Counter(mine().values_list("resource_type", "outcome"))
    assert outcomes == {
        ("orders", Outcome.IGNORED.value): PURCHASES,
        ("subscriptions", Outcome.APPLIED.value): PURCHASES,
        ("subscriptions", Outcome.UNCHANGED.value): PURCHASES,
        ("subscription-invoices", Outcome.APPLIED.value): PURCHASES * PAYMENTS,
    }
    bought = Subscription.objects.filter(workspace__in=workspaces)
    assert bought.count() == PURCHASES
    assert Invoice.objects.filter(subscription__in=bought).count() == PURCHASES * PAYMENTS
    trail = AuditEntry.objects.filter(workspace__in=workspaces)
    assert trail.filter(action="subscription.started").count() == PURCHASES
    assert trail.filter(action="workspace_plan.changed").count() == len(workspaces)
