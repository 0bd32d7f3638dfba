"""Changing channels: setting up, pausing, new secrets, deleting, switching off, and a test that is sent at once."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction

from alerts.channel_sets import email_channel
from alerts.channels import MODULES, webhook
from alerts.channels.base import Answer
from alerts.channels.texts import cut
from alerts.composing import compose
from alerts.models import (
    UNDER_WAY,
    Action,
    Attempt,
    AttemptOutcome,
    Channel,
    ChannelKind,
    ChannelState,
    Delivery,
    DeliveryState,
)
from alerts.outgoing import queue
from billing.selectors import plan_features
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError, InvalidInput, NotAllowed, NotFound
from opsmeter_site.lib.sealed import Unreadable, seal, unseal
from workspaces.inputs import clean_text, taken
from workspaces.models import Membership, Role, User, Workspace
from workspaces.services import locked_workspace, record_audit

MOST_CHANNELS = 20
MOST_TESTS_A_MINUTE = 5
_LONGEST_NAME = 100
_LONGEST_FAILURE = 500
_LONGEST_HINT = 200
# A test that is cut off counts as lost after this; whoever sends messages then sends it again.
_TEST_LEASE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelWishes:
    """What a person chooses for a channel besides where it goes."""

    name: str
    minimum_severity: str
    takes_alerts: bool
    takes_summaries: bool


# --- Setting up -----------------------------------------------------------------------------------------------------


@transaction.atomic
def create_channel(
    workspace: Workspace, kind: ChannelKind, wishes: ChannelWishes, typed: Mapping[str, str], *, acting_user: User
) -> tuple[Channel, str]:
    """A new channel and, for a webhook, its signing secret, which is shown once. Raises `OpsmeterError`."""
    _require_plan(workspace, kind)
    # The lock makes the count hold: of two requests at once the second one sees the first.
    locked_workspace(workspace)
    email_channel(workspace.pk)
    if Channel.objects.filter(workspace=workspace).count() >= MOST_CHANNELS:
        raise NotAllowed(f"A workspace has at most {MOST_CHANNELS} channels. Delete one that is not used any more.")
    config = MODULES[kind].clean(typed)
    if kind == ChannelKind.WEBHOOK:
        config = webhook.with_new_secret(config, utc_now())
    channel = Channel(workspace=workspace, kind=kind, created_by=acting_user, **_checked(kind, wishes))
    _set_config(channel, config)
    _save(channel)
    _record("channel.created", channel, acting_user, _for_audit(channel))
    return channel, config.get("secret", "")


@transaction.atomic
def update_channel(channel: Channel, wishes: ChannelWishes, *, acting_user: User) -> Channel:
    """Another name, severity, or choice of messages. Raises `InvalidInput`."""
    stored = _locked(channel)
    old = _for_audit(stored)
    for name, value in _checked(ChannelKind(stored.kind), wishes).items():
        setattr(stored, name, value)
    new = _for_audit(stored)
    if new != old:
        _save(stored)
        _record("channel.changed", stored, acting_user, {"old": old, "new": new})
    return stored


@transaction.atomic
def replace_address(channel: Channel, typed: Mapping[str, str], *, acting_user: User) -> Channel:
    """Another place to send to; a webhook keeps its signing secret. Raises `InvalidInput`."""
    stored = _locked(channel)
    old = stored.hint
    _set_config(stored, {**config_of(stored), **MODULES[ChannelKind(stored.kind)].clean(typed)})
    _save(stored)
    _record("channel.address_replaced", stored, acting_user, {"goes_to": [old, stored.hint]})
    return stored


@transaction.atomic
def rotate_secret(channel: Channel, *, acting_user: User) -> str:
    """A webhook's new signing secret, shown once; the one before signs along for a day."""
    stored = _locked(channel)
    if stored.kind != ChannelKind.WEBHOOK:
        raise NotAllowed("Only signed webhooks have a signing secret.")
    config = webhook.with_new_secret(config_of(stored), utc_now())
    _set_config(stored, config)
    _save(stored)
    _record("channel.secret_rotated", stored, acting_user)
    secret: str = config["secret"]
    return secret


def config_of(channel: Channel) -> dict[str, Any]:
    """What is stored encrypted. Raises `NotAllowed` if no key of this installation opens it."""
    try:
        config: dict[str, Any] = json.loads(unseal(channel.sealed)) if channel.sealed else {}
    except Unreadable:
        message = "What is stored of this channel cannot be read any more. Delete it, and set it up again."
        raise NotAllowed(message) from None
    return config


def _set_config(channel: Channel, config: Mapping[str, Any]) -> None:
    channel.sealed = seal(json.dumps(config))
    channel.hint = cut(MODULES[ChannelKind(channel.kind)].hint(config), _LONGEST_HINT)


def _checked(kind: ChannelKind, wishes: ChannelWishes) -> dict[str, Any]:
    takes_summaries = wishes.takes_summaries and MODULES[kind].TAKES_SUMMARIES
    if not (wishes.takes_alerts or takes_summaries):
        message = "Choose at least one kind of message, or pause the channel."
        raise InvalidInput(message, errors=[FieldError("takes_alerts", message)])
    return {
        "name": clean_text(wishes.name, "name", _LONGEST_NAME),
        "minimum_severity": wishes.minimum_severity,
        "takes_alerts": wishes.takes_alerts,
        "takes_summaries": takes_summaries,
    }


def _save(channel: Channel) -> None:
    with taken("name", "Another channel of this workspace has this name."):
        channel.save()


def _require_plan(workspace: Workspace, kind: str) -> None:
    plan = plan_features(workspace.pk)
    if kind != ChannelKind.EMAIL and not plan.has_integrations:
        raise NotAllowed("Channels other than e-mail come with the Pro plan.")


# --- On and off -----------------------------------------------------------------------------------------------------


@transaction.atomic
def pause(channel: Channel, *, acting_user: User) -> None:
    """Send nothing there for now; what was queued is not sent. Raises `NotAllowed` unless it is active."""
    stored = _locked(channel)
    if stored.state != ChannelState.ACTIVE:
        raise NotAllowed("Only an active channel can be paused.")
    stored.state = ChannelState.PAUSED
    stored.save(update_fields=["state"])
    _record("channel.paused", stored, acting_user)


@transaction.atomic
def resume(channel: Channel, *, acting_user: User) -> None:
    """Send there again, also after it was switched off. Raises `NotAllowed` if the plan has no such channels."""
    stored = _locked(channel)
    _require_plan(stored.workspace, stored.kind)
    if stored.state == ChannelState.ACTIVE:
        return
    stored.state, stored.failure, stored.failed_at = ChannelState.ACTIVE, "", None
    stored.save(update_fields=["state", "failure", "failed_at"])
    _record("channel.resumed", stored, acting_user)


@transaction.atomic
def delete_channel(channel: Channel, *, acting_user: User) -> None:
    """Remove it for good. What is under way is cancelled; a call that has begun may still arrive, and then counts."""
    if channel.kind == ChannelKind.EMAIL:
        raise NotAllowed("E-mail is always there. It can be paused.")
    # Messages before their channel: in this order whoever sends them locks them, too.
    _cancel_messages(channel)
    stored = _locked(channel)
    # Those that were queued meanwhile; from here on nobody can commit one.
    _cancel_messages(stored)
    _record("channel.deleted", stored, acting_user, _for_audit(stored))
    stored.delete()


@transaction.atomic
def switch_off(channel: Channel, failure: str) -> None:
    """Stop using a channel that refuses messages for good, and tell the owners by mail. E-mail itself stays on."""
    stored = _locked(channel)
    if stored.state == ChannelState.OFF or stored.kind == ChannelKind.EMAIL:
        return
    stored.state, stored.failure, stored.failed_at = ChannelState.OFF, failure[:_LONGEST_FAILURE], utc_now()
    stored.save(update_fields=["state", "failure", "failed_at"])
    _record("channel.switched_off", stored, None, {"failure": stored.failure})
    mail = email_channel(stored.workspace_id)
    owners = Membership.objects.filter(workspace=stored.workspace_id, role=Role.OWNER, user__is_active=True)
    for address in owners.order_by("user__email").values_list("user__email", flat=True):
        queue(mail, Action.CHANNEL_OFF, recipient=address, about=stored)


def _cancel_messages(channel: Channel) -> None:
    under_way = Delivery.objects.filter(channel=channel, state__in=UNDER_WAY)
    under_way.update(state=DeliveryState.CANCELLED, last_error="The channel was deleted.")


# --- Testing --------------------------------------------------------------------------------------------------------


def send_test(channel: Channel, user: User) -> Answer:
    """Send a message now and say what was answered; for e-mail to `user`. It is in the log like any other.

    Raises `NotAllowed` if the plan has no such channels, or after too many tests.
    """
    config = config_of(channel)
    attempt = _begin_test(channel, user)
    answer = MODULES[ChannelKind(channel.kind)].send(config, compose(attempt.delivery))
    _end_test(channel, attempt, answer)
    return answer


@transaction.atomic
def _begin_test(channel: Channel, user: User) -> Attempt:
    _require_plan(channel.workspace, channel.kind)
    now = utc_now()
    tests = Delivery.objects.filter(workspace=channel.workspace_id, action=Action.TEST)
    if tests.filter(created_at__gt=now - timedelta(minutes=1)).count() >= MOST_TESTS_A_MINUTE:
        raise NotAllowed(f"{MOST_TESTS_A_MINUTE} tests a minute are enough. Wait a moment.")
    recipient = user.email if channel.kind == ChannelKind.EMAIL else ""
    delivery = queue(channel, Action.TEST, recipient=recipient, requested_by=user, send_at=now + _TEST_LEASE)
    delivery.state, delivery.attempts_made = DeliveryState.SENDING, 1
    delivery.save(update_fields=["state", "attempts_made"])
    return Attempt.objects.create(delivery=delivery, number=1, started_at=now)


@transaction.atomic
def _end_test(channel: Channel, attempt: Attempt, answer: Answer) -> None:
    attempt.end(answer.outcome, answer.status_code, answer.text)
    mine = Delivery.objects.filter(pk=attempt.delivery_id, attempts_made=1)
    if answer.outcome != AttemptOutcome.SENT:
        mine.update(state=DeliveryState.FAILED, last_error=answer.text)
        return
    now = utc_now()
    mine.update(state=DeliveryState.SENT, sent_at=now)
    Channel.objects.filter(pk=channel.pk).update(last_sent_at=now)


# --- What all share -------------------------------------------------------------------------------------------------


def _locked(channel: Channel) -> Channel:
    rows = Channel.objects.select_related("workspace").select_for_update(of=("self",))
    stored = rows.filter(pk=channel.pk).first()
    if stored is None:
        raise NotFound("There is no such channel any more.")
    return stored


def _for_audit(channel: Channel) -> dict[str, Any]:
    """What the audit trail says of a channel: nothing secret."""
    return {
        "name": channel.name,
        "kind": channel.get_kind_display(),
        "goes_to": channel.hint,
        "minimum_severity": channel.minimum_severity,
        "takes_alerts": channel.takes_alerts,
        "takes_summaries": channel.takes_summaries,
    }


def _record(action: str, channel: Channel, acting_user: User | None, data: Mapping[str, Any] | None = None) -> None:
    record_audit(action, acting_user=acting_user, workspace=channel.workspace, target=channel, data=data)
