"""The audit trail in words: what was done as a sentence, and its values before and after."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from opsmeter_site.lib.formats import NOTHING
from workspaces.models import AuditEntry, User

SERVICE = "Opsmeter"

# What follows the person's name; {target} is what it was done to.
_SENTENCES: Mapping[str, str] = {
    "access_token.created": "created the access token {target}",
    "access_token.revoked": "revoked the access token {target}",
    "alert_rule.changed": "changed the alert rule {target}",
    "alert_rule.created": "added the alert rule {target}",
    "alert_rule.deleted": "deleted the alert rule {target}",
    "alert_settings.changed": "changed how alerts are told",
    "api_key.created": "created the API key {target}",
    "api_key.expiry_changed": "changed when the API key {target} expires",
    "api_key.revoked": "revoked the API key {target}",
    "api_key.rotated": "gave the API key {target} a new secret",
    "billing_event.retried": "had the message processed again: {target}",
    "billing_portal.opened": "opened Lemon Squeezy’s pages for payment method and invoices",
    "budget.adjusted": "adjusted what the budget {target} counts",
    "budget.changed": "changed the budget {target}",
    "budget.created": "added the budget {target}",
    "budget.deleted": "deleted the budget {target}",
    "budget.raise_ended": "ended the raise of the budget {target}",
    "budget.raised": "raised the budget {target} for some time",
    "budgets.changed": "changed the budgets",
    "channel.address_replaced": "gave the channel {target} another address",
    "channel.changed": "changed the channel {target}",
    "channel.created": "set up the channel {target}",
    "channel.deleted": "deleted the channel {target}",
    "channel.paused": "paused the channel {target}",
    "channel.resumed": "resumed the channel {target}",
    "channel.secret_rotated": "gave the channel {target} a new signing secret",
    "channel.switched_off": "switched off the channel {target}, which refuses messages for good",
    "checkout.started": "went to the checkout for {target}",
    "delivery.cancelled": "called back the message {target}",
    "delivery.retried": "sent the message again: {target}",
    "demo_data.loaded": "loaded {target}",
    "export.cancelled": "cancelled the export {target}",
    "export.deleted": "deleted the export {target}",
    "export.downloaded": "downloaded the export {target}",
    "export.requested": "asked for the export {target}",
    "invitation.accepted": "accepted the invitation",
    "invitation.revoked": "revoked the invitation of {target}",
    "invitation.sent": "invited {target}",
    "invitation.sent_again": "sent {target} the invitation again",
    "lease.released": "released the lease {target}",
    "ledger.rows_deleted": "deleted {target}",
    "member.added": "made {target} a member",
    "member.removed": "removed {target} from the workspace",
    "member.role_changed": "changed the role of {target}",
    "operator.looked_at_workspace": "looked at the workspace, as an operator of Opsmeter",
    "plan_variant.deleted": "deleted the mapping of variant {variant}",
    "plan_variant.mapped": "mapped variant {variant} to the plan {plan}",
    "price.added": "added the price {target}",
    "price.approved": "approved the price {target}",
    "price.rejected": "rejected the price {target}",
    "price.withdrawn": "withdrew the price {target}",
    "price_alias.set": "set the name {target}",
    "recipient.added": "asked {target} whether it wants mail",
    "recipient.asked_again": "asked {target} again whether it wants mail",
    "recipient.confirmed": "noted that {target} wants mail",
    "recipient.removed": "removed the recipient {target}",
    "recipient.subscribed_again": "noted that {target} wants this mail again",
    "recipient.tried_again": "lets mail to {target} be tried again",
    "recipient.unsubscribed": "noted that {target} wants no more of this mail",
    "report.requested": "made a {target} by hand",
    "report.retried": "had the summary made again: {target}",
    "repricing.cancelled": "cancelled {target}",
    "repricing.failed": "gave up {target}",
    "repricing.finished": "finished {target}",
    "repricing.previewed_again": "previewed {target} again",
    "repricing.requested": "asked for {target}",
    "repricing.started": "started {target}",
    "retention.announced": "told owners and admins that less will be kept",
    "retention.shortened": "keeps less from now on, as announced",
    "spend_spikes.changed": "changed the watch for spend spikes",
    "subscription.assigned": "assigned the subscription {target} to the workspace",
    "subscription.cancel_requested": "asked Lemon Squeezy to cancel the subscription {target}",
    "subscription.change_lapsed": "gave up a request that Lemon Squeezy never confirmed: {target}",
    "subscription.change_requested": "asked Lemon Squeezy for the plan {target}",
    "subscription.changed": "noted what Lemon Squeezy says of the subscription {target}",
    "subscription.resume_requested": "asked Lemon Squeezy to resume the subscription {target}",
    "subscription.started": "noted the new subscription {target}",
    "summary_schedule.changed": "changed when the {target} is sent",
    "summary_schedule.run_again": "ran again: {target}",
    "workspace.changed": "changed the workspace",
    "workspace.created": "created the workspace {target}",
    "workspace_plan.changed": "changed the plan to {plan}",
    "workspace_plan.granted": "set what the workspace has without a subscription",
    "workspace_plan.set": "began on the plan {plan}",
}


@dataclass(frozen=True, slots=True)
class Value:
    """One fact of an entry. `before` is None where the entry only states it."""

    label: str
    before: str | None
    after: str


def name_of(person: User | None) -> str:
    """How the trail calls who did something; nobody is the service itself."""
    if person is None:
        return SERVICE
    return person.name or person.email


def action_label(action: str) -> str:
    """A dotted action as people would choose it from a list: "Api key: expiry changed"."""
    subject, _, verb = action.replace("_", " ").partition(".")
    return f"{subject.capitalize()}: {verb}" if verb else subject.capitalize()


def deed(entry: AuditEntry) -> str:
    """What was done, to be read after the person's name."""
    template = _SENTENCES.get(entry.action)
    if template is None:
        return f"{action_label(entry.action).lower()} {entry.target}".strip()
    if entry.action == "member.removed" and entry.actor is not None and entry.target == entry.actor.email:
        return "left the workspace"
    return template.format(target=entry.target, plan=entry.data.get("plan", ""))


def values(entry: AuditEntry, zone: ZoneInfo) -> list[Value]:
    """The entry's data as facts, those that changed with both values; moments are told in `zone`."""
    data = entry.data
    old, new = data.get("old"), data.get("new")
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            Value(_label(name), _text(old.get(name), zone), _text(new.get(name), zone))
            for name in old | new
            if old.get(name) != new.get(name)
        ]
    is_change = entry.action.endswith("changed")
    return [_value(name, each, zone, is_change=is_change) for name, each in _flat(data)]


def _flat(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Facts of nested objects one by one, without those that say nothing."""
    for name, each in data.items():
        if isinstance(each, dict):
            yield from ((f"{name} {inner}", value) for inner, value in each.items() if value is not None)
        elif each is not None:
            yield name, each


def _value(name: str, value: Any, zone: ZoneInfo, *, is_change: bool) -> Value:
    if is_change and isinstance(value, list) and len(value) == 2:
        return Value(_label(name), _text(value[0], zone), _text(value[1], zone))
    return Value(_label(name), None, _text(value, zone))


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _text(value: Any, zone: ZoneInfo) -> str:
    match value:
        case None | "":
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(_text(each, zone) for each in value)
        case str():
            return _moment(value, zone) or value
        case dict():
            return json.dumps(value, ensure_ascii=False)
    return str(value)


def _moment(text: str, zone: ZoneInfo) -> str:
    """A stored moment as local time; empty for any other text."""
    if "T" not in text:
        return ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return ""
    return "" if moment.tzinfo is None else f"{moment.astimezone(zone):%-d %b %Y, %H:%M}"
