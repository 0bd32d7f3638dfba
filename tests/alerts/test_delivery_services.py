"""What people do with a message by hand."""

from datetime import timedelta

import pytest

from alerts import delivery_services
from alerts.models import Delivery, DeliveryState
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import NotAllowed, NotFound
from tests.alerts.outbound import make_webhook, queue_alert
from workspaces.models import AuditEntry

pytestmark = pytest.mark.django_db


@pytest.fixture
def delivery(opened):
    return queue_alert(make_webhook(opened.workspace, "https://hooks.example.com/x"))


def put(delivery, **fields):
    Delivery.objects.filter(pk=delivery.pk).update(**fields)
    return delivery


@pytest.mark.parametrize("state", [DeliveryState.FAILED, DeliveryState.CANCELLED])
def test_what_was_given_up_is_tried_again(delivery, opened, state):
    put(delivery, state=state, next_attempt_at=utc_now() + timedelta(days=1), last_error="HTTP 404")
    delivery_services.retry(delivery, acting_user=opened.owner)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.last_error) == (DeliveryState.WAITING, "")
    assert delivery.next_attempt_at <= utc_now()
    entry = AuditEntry.objects.get(action="delivery.retried")
    assert (entry.actor, entry.workspace, entry.target) == (
        opened.owner, opened.workspace, "Alert to Hook (Signed webhook)",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (DeliveryState.SENT, "sent already"),
        (DeliveryState.WAITING, "on its way"),
        (DeliveryState.SENDING, "on its way"),
    ],
)
def test_no_message_goes_out_twice_by_hand(delivery, opened, state, reason):
    put(delivery, state=state)
    with pytest.raises(NotAllowed, match=reason):
        delivery_services.retry(delivery, acting_user=opened.owner)
    assert not AuditEntry.objects.filter(action="delivery.retried").exists()


def test_without_its_channel_there_is_no_way(delivery, opened):
    put(delivery, state=DeliveryState.FAILED)
    delivery.channel.delete()
    with pytest.raises(NotAllowed, match="deleted"):
        delivery_services.retry(delivery, acting_user=opened.owner)


def test_a_waiting_message_can_be_called_back(delivery, opened):
    delivery_services.cancel(delivery, acting_user=opened.owner)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.last_error) == (DeliveryState.CANCELLED, "Cancelled by hand.")
    assert AuditEntry.objects.filter(action="delivery.cancelled", actor=opened.owner).exists()


@pytest.mark.parametrize("state", [DeliveryState.SENDING, DeliveryState.SENT, DeliveryState.CANCELLED])
def test_any_other_cannot(delivery, opened, state):
    put(delivery, state=state)
    with pytest.raises(NotAllowed):
        delivery_services.cancel(delivery, acting_user=opened.owner)


def test_a_message_that_is_gone_is_not_found(delivery, opened):
    Delivery.objects.all().delete()
    for change in (delivery_services.retry, delivery_services.cancel):
        with pytest.raises(NotFound):
            change(delivery, acting_user=opened.owner)
