"""What people do with a message by hand: send it again, or call it back."""

from django.db import transaction

from alerts.models import UNDER_WAY, Delivery, DeliveryState
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import NotAllowed, NotFound
from workspaces.models import User
from workspaces.services import record_audit


@transaction.atomic
def retry(delivery: Delivery, *, acting_user: User) -> Delivery:
    """Send a failed or cancelled message once more, under its old id. Raises `NotAllowed` for any other."""
    stored = _locked(delivery)
    if stored.state == DeliveryState.SENT:
        raise NotAllowed("This message was sent already.")
    if stored.state in UNDER_WAY:
        raise NotAllowed("This message is on its way. It is tried again by itself.")
    if stored.channel is None:
        raise NotAllowed("The channel of this message was deleted.")
    stored.state, stored.next_attempt_at, stored.last_error = DeliveryState.WAITING, utc_now(), ""
    stored.save(update_fields=["state", "next_attempt_at", "last_error"])
    _record("delivery.retried", stored, acting_user)
    return stored


@transaction.atomic
def cancel(delivery: Delivery, *, acting_user: User) -> Delivery:
    """Call back a message that waits. Raises `NotAllowed` once it is being sent, or has ended."""
    stored = _locked(delivery)
    if stored.state == DeliveryState.SENDING:
        raise NotAllowed("This message is being sent right now.")
    if stored.state != DeliveryState.WAITING:
        raise NotAllowed(f"This message is {stored.get_state_display().lower()} already.")
    stored.state, stored.last_error = DeliveryState.CANCELLED, "Cancelled by hand."
    stored.save(update_fields=["state", "last_error"])
    _record("delivery.cancelled", stored, acting_user)
    return stored


def _locked(delivery: Delivery) -> Delivery:
    rows = Delivery.objects.select_related("workspace", "channel").select_for_update(of=("self",))
    stored = rows.filter(pk=delivery.pk).first()
    if stored is None:
        raise NotFound("There is no such message any more.")
    return stored


def _record(action: str, delivery: Delivery, acting_user: User) -> None:
    record_audit(
        action,
        acting_user=acting_user,
        workspace=delivery.workspace,
        target=f"{delivery.get_action_display()} to {delivery.recipient or delivery.channel or 'a deleted channel'}",
        data={"delivery": str(delivery.pk)},
    )
