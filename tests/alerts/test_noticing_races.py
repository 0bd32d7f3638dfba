"""Several who look for crossings at once, one that is killed, and people who press at the same moment."""

import time
from decimal import Decimal

import pytest
from django.db import transaction

from alerts.audiences import lock_inboxes
from alerts.models import Alert, AlertState, Delivery
from alerts.noticing import notice_crossings, raise_alerts
from alerts.recovery import recover
from alerts.services import acknowledge, resolve
from ingest.models import LimitCrossing
from opsmeter_site.lib.clock import utc_now
from tests.alerts.telling import alerts_of, finding, messages_of, set_budget, spend, told
from tests.factories import make_workspace
from tests.killed import run_and_kill
from tests.races import at_once

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("_redis_used")]

_NOTICE_AND_STAY = """
import time
from django.db import transaction
from alerts.noticing import notice_crossings
from opsmeter_site.lib.clock import utc_now

with transaction.atomic():
    notice_crossings(utc_now())
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _nothing_left_over():
    """Tests with commits of their own leave crossings behind."""
    LimitCrossing.objects.update(claimed_at=utc_now())
    Alert.objects.all().delete()
    Delivery.objects.all().delete()


def crossed(number=1):
    workspaces = [make_workspace("pro") for _ in range(number)]
    for each in workspaces:
        set_budget(each, daily_limit_usd=Decimal(50))
        spend(each, "45")
    return workspaces


def notice():
    return notice_crossings(utc_now())


def test_four_at_once_claim_each_crossing_once():
    workspaces = crossed(20)
    assert sum(at_once(*[notice] * 4)) == 20
    assert all(len(alerts_of(each)) == len(messages_of(each)) == 1 for each in workspaces)


def test_who_looks_while_another_is_at_work_does_not_wait_and_takes_the_rest():
    busy, free = crossed(2)
    with transaction.atomic():
        lock_inboxes([busy.workspace.pk])
        [noticed] = at_once(notice)
    assert (noticed, len(alerts_of(free)), len(alerts_of(busy))) == (1, 1, 0)
    assert notice() == 1


def test_the_same_finding_at_once_is_one_alert_and_one_message():
    opened = make_workspace("pro")

    def find():
        return len(raise_alerts([finding(opened)], utc_now()))

    assert sorted(at_once(*[find] * 4)) == [0, 0, 0, 1]
    assert [alert.occurrences for alert in alerts_of(opened)] == [4]
    assert len(messages_of(opened)) == 1


def test_what_happens_at_once_in_many_workspaces_waits_for_nobody_for_ever():
    workspaces = [make_workspace("pro") for _ in range(6)]

    def find(order):
        return lambda: len(raise_alerts([finding(each) for each in order], utc_now()))

    assert sum(at_once(find(workspaces), find(workspaces[::-1]), find(workspaces))) == 6


def test_one_that_is_killed_leaves_everything_to_the_next():
    [opened] = crossed()

    def is_free():
        with transaction.atomic():
            return LimitCrossing.objects.filter(claimed_at=None).select_for_update(skip_locked=True).exists()

    run_and_kill(_NOTICE_AND_STAY, lambda: not is_free())
    deadline = time.monotonic() + 20
    while not is_free():
        assert time.monotonic() < deadline, "the killed one still holds the crossing"
        time.sleep(0.02)
    assert not Alert.objects.exists()
    assert not Delivery.objects.exists()
    assert notice() == 1
    assert [told(message) for message in messages_of(opened)] == [["budget_warning"]]


def test_two_who_recover_at_once_tell_it_once():
    [opened] = crossed()
    spend(opened, "51")
    notice()
    set_budget(opened, daily_limit_usd=Decimal(100))
    assert sum(at_once(*[lambda: recover(utc_now())] * 3)) == 2
    assert len(alerts_of(opened, kind="recovery")) == 1


def test_acknowledging_and_resolving_at_once_ends_resolved():
    opened = make_workspace("pro")
    [alert] = raise_alerts([finding(opened)], utc_now())
    at_once(*[lambda: acknowledge(alert, opened.owner), lambda: resolve(alert, opened.owner)] * 3)
    assert [each.state for each in alerts_of(opened)] == [AlertState.RESOLVED]
