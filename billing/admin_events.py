"""The provider's messages in the operators' console: what came, what became of it, and "process again"."""
# ruff: noqa: D102 (as in every admin.py)

import json
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from billing.inbox import process_again
from billing.models import BillingEvent, Outcome
from ingest.admin_facts import CappedPaginator, FactsAdmin
from opsmeter_site.lib.errors import OpsmeterError
from opsmeter_site.lib.sealed import Unreadable, unseal
from workspaces.admin_base import explain, operator_of

HIDDEN = "(hidden)"
# In short what docs/operating.md says.
_TO_DO = {
    Outcome.UNMATCHED: 'Find out whose it is, then use "Assign to a workspace" under subscriptions.',
    Outcome.WRONG_MODE: "Nothing, or correct LEMONSQUEEZY_TEST_MODE and process it again.",
    Outcome.WRONG_STORE: "Nothing, or correct LEMONSQUEEZY_STORE_ID and process it again.",
    Outcome.UNKNOWN_VARIANT: "Map its variant under plan variants. The workspace keeps its old plan until then.",
    Outcome.UNKNOWN_STATUS: "The provider has a new status, which Opsmeter needs to learn. Nothing was changed.",
    Outcome.NOT_FOUND: "Look at the API key: usually it is one of the wrong account or mode.",
    Outcome.UNREADABLE: "Read below what it said. If the provider has changed, Opsmeter must, too.",
    Outcome.ERROR: "Read the error and the log, mend it, and process it again.",
}


@admin.register(BillingEvent)
class BillingEventAdmin(FactsAdmin):
    """What the provider has told us. What opens somebody's billing is shown to nobody."""

    list_display = (
        "received_at",
        "name",
        "state",
        "outcome",
        "workspace",
        "provider_subscription_id",
        "error",
        "attempts_made",
        "repeats",
    )
    list_filter = ("state", "outcome", "source")
    list_select_related = ("subscription__workspace",)
    search_fields = (
        "=dedupe_key",
        "=name",
        "=resource_id",
        "=provider_subscription_id",
        "subscription__workspace__name",
        "subscription__workspace__slug",
    )
    search_help_text = (
        "The message's whole id or name, the provider's whole id of subscription or invoice, "
        "or the workspace's name or slug."
    )
    date_hierarchy = "received_at"
    ordering = ("-received_at",)
    paginator = CappedPaginator
    show_full_result_count = False
    actions = ("process_again",)
    fields = (
        ("name", "source", "provider"),
        ("subscription", "workspace", "provider_subscription_id"),
        ("resource_type", "resource_id"),
        ("state", "outcome"),
        "to_do",
        "error",
        ("attempts_made", "next_attempt_at"),
        ("received_at", "processed_at", "repeats"),
        "dedupe_key",
        "body",
    )
    readonly_fields = ("workspace", "to_do", "body")

    def get_queryset(self, request: HttpRequest) -> QuerySet[BillingEvent]:
        return super().get_queryset(request).defer("sealed_body")

    @admin.display(description="workspace", ordering="subscription__workspace__name")
    def workspace(self, event: BillingEvent) -> Any:
        return event.subscription and event.subscription.workspace

    @admin.display(description="what to do")
    def to_do(self, event: BillingEvent) -> str:
        return _TO_DO.get(Outcome(event.outcome), "Nothing.") if event.outcome else "Nothing."

    @admin.display(description="what it said")
    def body(self, event: BillingEvent) -> str:
        return format_html("<pre>{}</pre>", readable_body(event.sealed_body))

    def has_act_permission(self, request: HttpRequest) -> bool:
        return operator_of(request).has_perm("billing.change_billingevent")

    @admin.action(description="Process again: the selected events, as if they had just come", permissions=["act"])
    def process_again(self, request: HttpRequest, rows: QuerySet[BillingEvent]) -> None:
        done, refusals = 0, set()
        for event in rows:
            try:
                process_again(event, acting_user=operator_of(request))
                done += 1
            except OpsmeterError as refusal:
                refusals.add(explain(refusal))
        messages.success(request, f"Events to be processed again: {done}.")
        for reason in sorted(refusals):
            messages.warning(request, reason)


def readable_body(sealed: str) -> str:
    """The message as indented JSON without what opens somebody's billing, or why it cannot be shown."""
    try:
        text = unseal(sealed)
    except Unreadable:
        return "It cannot be decrypted: SECRET_KEY has changed and the old one is not among SECRET_KEY_FALLBACKS."
    try:
        content = json.loads(text)
    except ValueError:
        return f"It is no JSON, so nobody can say what in it is secret: {len(text)} characters."
    return json.dumps(_without_links(content), indent=2, ensure_ascii=False)


def _without_links(content: Any) -> Any:
    match content:
        case dict():
            return {name: HIDDEN if name == "urls" else _without_links(value) for name, value in content.items()}
        case list():
            return [_without_links(value) for value in content]
        case str() if "signature=" in content.lower():
            return HIDDEN
    return content
