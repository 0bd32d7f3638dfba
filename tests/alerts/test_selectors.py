from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.db import connection

from alerts import selectors
from alerts.models import Alert, AlertState, Delivery, DeliveryState
from alerts.selectors import InboxFilters, Messages, inbox_counts, inbox_page, messages_about, open_alerts
from opsmeter_site.lib.cursors import Cursor
from opsmeter_site.lib.errors import NotFound
from tests.alerts.inbox import NOON, raise_many, raise_one
from tests.factories import make_workspace

pytestmark = pytest.mark.django_db


def test_a_place_in_the_list_stays_while_newer_alerts_arrive(workspace):
    raise_many(workspace, selectors.PAGE_ROWS + 2)
    older = inbox_page(workspace.pk, InboxFilters()).older
    raise_one(workspace, scope="limit:new", occurred_at=NOON + timedelta(days=1))
    assert [each.title for each in inbox_page(workspace.pk, InboxFilters(), older).alerts] == ["Alert 1", "Alert 0"]


def test_a_place_beyond_the_end_is_empty(workspace):
    raise_one(workspace)
    beyond = Cursor(NOON - timedelta(days=1), UUID(int=0))
    assert inbox_page(workspace.pk, InboxFilters(), beyond).alerts == []


def test_numbers_follow_the_filters_and_stop_at_a_bound(workspace, monkeypatch):
    alerts = raise_many(workspace, 5)
    raise_one(make_workspace("pro").workspace)
    Alert.objects.filter(pk=alerts[0].pk).update(state=AlertState.RESOLVED)
    assert inbox_counts(workspace.pk, InboxFilters()) == {"open": 4, "acknowledged": 0, "resolved": 1}
    recent = InboxFilters(since=NOON + timedelta(minutes=3))
    assert inbox_counts(workspace.pk, recent) == {"open": 2, "acknowledged": 0, "resolved": 0}
    assert inbox_counts(workspace.pk, InboxFilters(kind="recovery"))["open"] == 0
    assert open_alerts(workspace.pk) == 4
    monkeypatch.setattr(selectors, "MOST_COUNTED", 2)
    assert inbox_counts(workspace.pk, InboxFilters())["open"] == 2
    assert open_alerts(workspace.pk) == 2


def test_the_number_of_open_alerts_is_read_from_its_index(workspace):
    alert = raise_one(workspace)
    Alert.objects.bulk_create(
        [Alert(**{**values_of(alert), "id": uuid4(), "state": AlertState.RESOLVED}) for _ in range(500)]
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE alerts_alert")
    open_ones = Alert.objects.filter(workspace_id=workspace.pk, state=AlertState.OPEN)
    plan = open_ones[: selectors.MOST_COUNTED].explain()
    # Both leave out what is resolved, and begin with the workspace.
    assert "alert_unresolved" in plan or "alert_once_until_resolved" in plan


def values_of(alert):
    return {field.attname: getattr(alert, field.attname) for field in alert._meta.concrete_fields}


def test_messages_are_counted_by_what_became_of_them(workspace):
    alert, other = raise_many(workspace, 2)
    (delivery,) = alert.deliveries.all()
    for state, at in ((DeliveryState.FAILED, None), (DeliveryState.SENT, NOON), (DeliveryState.CANCELLED, None)):
        each = Delivery.objects.create(
            workspace=workspace, channel=delivery.channel, channel_kind="email", state=state, sent_at=at
        )
        each.alerts.add(alert)
    found = messages_about([alert.pk, other.pk])
    assert found[alert.pk] == Messages(under_way=1, sent=1, failed=1, total=4, last_sent_at=NOON)
    assert found[uuid4()] == Messages()


def test_an_alert_is_its_workspaces_own(workspace):
    alert = raise_one(workspace)
    assert selectors.alert_of(workspace.pk, alert.pk) == alert
    with pytest.raises(NotFound):
        selectors.alert_of(make_workspace("pro").workspace.pk, alert.pk)
