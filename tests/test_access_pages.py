"""Who may open which page of a workspace. A page without a row fails the test: access is decided on purpose.

People of other workspaces get 404 for every address below `/w/<slug>/`, whatever the method; members whose role is too
low get 403, and nothing changes.
"""

import json
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import transaction
from django.test import Client
from django.urls import get_resolver, reverse

from alerts import outgoing
from alerts.channels import webhook
from alerts.models import (
    Action,
    Alert,
    Channel,
    ChannelKind,
    Delivery,
    DeliveryState,
    MailOptOut,
    MailTopic,
    OptOutReason,
    Recipient,
    Report,
    ReportKind,
    Rule,
)
from budgets.scoped.drafts import BudgetDraft
from budgets.scoped.services import create_budget
from ingest.explorer import Cursor, Filters, Position
from ingest.export_files import Outline
from ingest.export_rows import Wish
from ingest.exports import request_export, work_on_exports
from ingest.models import DataMode, ExportWhat, Repricing, RepricingState
from ingest.overrides import add_override
from ingest.price_tables import UnitPrices
from opsmeter_site.console.urls import page_urlpatterns
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.sealed import seal
from tests.factories import UserFactory, make_cast, token_for
from tests.ledger import new_event, store_events
from workspaces.access import ROLE_ORDER
from workspaces.invitations import invite_member
from workspaces.models import AccessToken, Role

VIEWER, MEMBER, ADMIN, OWNER = ROLE_ORDER
NOBODY = None

# Name of the URL → the least role for GET and for POST (None: this method is not served).
TABLE = {
    "overview": (VIEWER, NOBODY),
    "start": (VIEWER, NOBODY),
    "investigate": (VIEWER, NOBODY),
    "versions": (VIEWER, NOBODY),
    "requests": (VIEWER, NOBODY),
    "requests-more": (VIEWER, NOBODY),
    "requests-values": (VIEWER, NOBODY),
    "request": (VIEWER, NOBODY),
    "exports": (VIEWER, VIEWER),
    "exports-stream": (VIEWER, NOBODY),
    "exports-jobs": (VIEWER, NOBODY),
    "export-download": (ADMIN, NOBODY),
    "export-about": (ADMIN, NOBODY),
    "export-cancel": (NOBODY, ADMIN),
    "export-retry": (NOBODY, ADMIN),
    "export-delete": (ADMIN, ADMIN),
    "alerts": (VIEWER, NOBODY),
    "alerts-change": (NOBODY, MEMBER),
    "alert": (VIEWER, NOBODY),
    "alert-change": (NOBODY, MEMBER),
    "alert-note": (NOBODY, MEMBER),
    "reports": (VIEWER, NOBODY),
    "report": (VIEWER, NOBODY),
    "deliveries": (VIEWER, NOBODY),
    "delivery": (VIEWER, NOBODY),
    "delivery-retry": (NOBODY, ADMIN),
    "prices": (VIEWER, NOBODY),
    "price": (VIEWER, NOBODY),
    "price-test": (VIEWER, NOBODY),
    "prices-unpriced": (VIEWER, NOBODY),
    "prices-own": (VIEWER, NOBODY),
    "price-own-new": (ADMIN, ADMIN),
    "price-own-withdraw": (ADMIN, ADMIN),
    "repricings": (VIEWER, NOBODY),
    "repricing-new": (ADMIN, ADMIN),
    "repricing": (VIEWER, NOBODY),
    "repricing-run": (ADMIN, ADMIN),
    "repricing-again": (NOBODY, ADMIN),
    "repricing-cancel": (ADMIN, ADMIN),
    "settings-general": (VIEWER, ADMIN),
    "settings-leave": (VIEWER, VIEWER),
    "budgets": (VIEWER, NOBODY),
    "budgets-explain": (VIEWER, NOBODY),
    "budgets-values": (ADMIN, NOBODY),
    "budget": (VIEWER, NOBODY),
    "budget-new": (ADMIN, ADMIN),
    "budget-edit": (ADMIN, ADMIN),
    "budget-raise": (NOBODY, ADMIN),
    "budget-raise-end": (NOBODY, ADMIN),
    "budget-adjust": (NOBODY, ADMIN),
    "budget-delete": (ADMIN, ADMIN),
    "budget-lease-release": (NOBODY, ADMIN),
    "settings-budgets": (VIEWER, ADMIN),
    "settings-budgets-preview": (VIEWER, ADMIN),
    "settings-billing": (ADMIN, NOBODY),
    "settings-billing-cancel": (ADMIN, ADMIN),
    "settings-billing-change": (ADMIN, ADMIN),
    "settings-billing-checkout": (ADMIN, ADMIN),
    "settings-billing-payments": (ADMIN, NOBODY),
    "settings-billing-pending": (ADMIN, NOBODY),
    "settings-billing-portal": (ADMIN, NOBODY),
    "settings-billing-resume": (ADMIN, ADMIN),
    "settings-alerts": (VIEWER, ADMIN),
    "settings-rules": (VIEWER, ADMIN),
    "settings-rule-new": (ADMIN, ADMIN),
    "settings-rule": (ADMIN, ADMIN),
    "settings-rule-delete": (ADMIN, ADMIN),
    "settings-summaries": (VIEWER, NOBODY),
    "settings-summaries-asked": (VIEWER, NOBODY),
    "settings-summary": (NOBODY, ADMIN),
    "settings-summary-moments": (VIEWER, NOBODY),
    "settings-summary-preview": (NOBODY, ADMIN),
    "settings-summary-send": (NOBODY, ADMIN),
    "settings-channels": (VIEWER, NOBODY),
    "settings-channel-new": (ADMIN, ADMIN),
    "settings-channel": (VIEWER, ADMIN),
    "settings-channel-address": (ADMIN, ADMIN),
    "settings-channel-test": (NOBODY, ADMIN),
    "settings-channel-pause": (NOBODY, ADMIN),
    "settings-channel-resume": (NOBODY, ADMIN),
    "settings-channel-rotate": (ADMIN, ADMIN),
    "settings-channel-delete": (ADMIN, ADMIN),
    "settings-recipients": (VIEWER, ADMIN),
    "settings-recipients-mine": (NOBODY, VIEWER),
    "settings-recipient-roles": (NOBODY, ADMIN),
    "settings-recipient-ask": (NOBODY, ADMIN),
    "settings-recipient-remove": (ADMIN, ADMIN),
    "settings-recipient-lift": (NOBODY, ADMIN),
    "settings-members": (VIEWER, ADMIN),
    "settings-member-role": (ADMIN, ADMIN),
    "settings-member-remove": (ADMIN, ADMIN),
    "settings-invitation-resend": (NOBODY, ADMIN),
    "settings-invitation-revoke": (ADMIN, ADMIN),
    "settings-keys": (VIEWER, MEMBER),
    "settings-key-rotate": (ADMIN, ADMIN),
    "settings-key-expiry": (ADMIN, ADMIN),
    "settings-key-revoke": (ADMIN, ADMIN),
    "settings-tokens": (VIEWER, VIEWER),
    "settings-token-revoke": (ADMIN, ADMIN),
    "settings-audit": (ADMIN, NOBODY),
    "settings-audit-csv": (ADMIN, NOBODY),
    "settings-data": (VIEWER, NOBODY),
    "settings-data-state": (VIEWER, NOBODY),
    "settings-data-demo": (NOBODY, ADMIN),
    "settings-data-delete": (ADMIN, ADMIN),
}
# Pages for operators of the service, whatever their role: everybody else is refused.
OPERATORS = {"price-new", "price-alias"}
# Everybody manages what they made, admins everything; another person's looks like something that is not there.
HIDDEN = {
    "export-about",
    "export-cancel",
    "export-delete",
    "export-download",
    "export-retry",
    "settings-key-expiry",
    "settings-key-revoke",
    "settings-key-rotate",
    "settings-token-revoke",
}
# What an address needs beside its path.
QUERIES = {
    "requests-more": f"?cursor={Cursor(Position(utc_now(), 0)).encode()}",
    "requests-values": "?filter=model",
    "price": "?provider=openai&model=gpt-4o",
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def test_every_page_has_a_row():
    assert {pattern.name for pattern in page_urlpatterns} == set(TABLE) | OPERATORS


def test_no_two_addresses_have_one_name():
    names = [name for name in get_resolver().reverse_dict if isinstance(name, str)]
    assert len(names) == len(set(names))


def told(workspace, owner):
    """One of everything that alerts and summaries leave behind."""
    now = utc_now()
    window = {"window_start": now, "window_end": now}
    alert = Alert.objects.create(
        workspace=workspace, kind="unpriced_model", severity="info", title="No price", handling="sent", **window
    )
    config = webhook.with_new_secret({"url": "https://hooks.example.com/opsmeter"}, now)
    sealed = seal(json.dumps(config))
    channel = Channel.objects.create(workspace=workspace, kind=ChannelKind.WEBHOOK, name="Own", sealed=sealed)
    delivery = outgoing.queue(channel, Action.ALERT, alerts=[alert])
    Delivery.objects.filter(pk=delivery.pk).update(state=DeliveryState.FAILED)
    days = {"first_day": now.date(), "last_day": now.date(), "starts_at": now, "ends_at": now, "due_at": now}
    report = Report.objects.create(workspace=workspace, kind=ReportKind.DAILY, zone="UTC", **days)
    rule = Rule.objects.create(workspace=workspace, kind="unit_cost", dimension="model", threshold_usd=1)
    moved = {"created_at": now - timedelta(hours=1), "asked_at": now - timedelta(hours=1)}
    recipient = Recipient.objects.create(workspace=workspace, email="bob@example.org", added_by=owner, **moved)
    refused = {"topic": MailTopic.ALERTS, "reason": OptOutReason.UNDELIVERABLE}
    opt_out = MailOptOut.objects.create(workspace=workspace, email="eve@example.org", **refused)
    return {
        "alert_id": alert.pk,
        "channel_id": channel.pk,
        "delivery_id": delivery.pk,
        "report_id": report.pk,
        "rule_id": rule.pk,
        "recipient_id": recipient.pk,
        "opt_out_id": opt_out.pk,
        "kind": ReportKind.DAILY.value,
    }


def previewed(workspace, owner):
    """A re-pricing that waits for an answer."""
    now = utc_now()
    facts = {"start": now - timedelta(days=1), "end": now, "catalogue_version": 1, "last_id": 0}
    return Repricing.objects.create(
        workspace=workspace, created_by=owner, reason="Too high", state=RepricingState.PREVIEWED, **facts
    )


class Place:
    """A workspace with one of everything that an address can name; the owner made all of it."""

    def __init__(self):
        self.cast = make_cast("enterprise")
        workspace, owner = self.cast.workspace, self.cast.owner
        (event,) = store_events([new_event(workspace, occurred_at=utc_now() - timedelta(hours=1))])
        invite_member(workspace, email=UserFactory.build().email, role=Role.VIEWER, acting_user=owner)
        token_for(owner, workspace)
        wish = Wish(workspace.pk, ExportWhat.REQUESTS, workspace.timezone, Filters())
        outline = Outline(wish, "csv", workspace.slug, utc_now())
        job = request_export(workspace, outline, acting_user=owner)
        work_on_exports(10)
        override = add_override(
            acting_user=owner,
            workspace=workspace,
            provider="openai",
            model="gpt-4o",
            effective_from=utc_now(),
            unit_prices=UnitPrices(input=Decimal(2)),
        )
        budget = create_budget(workspace, BudgetDraft("tenant_id", Decimal(5), "acme"), acting_user=owner)
        self.things = {
            "slug": workspace.slug,
            "budget_id": budget.pk,
            "event_id": event.pk,
            "job_id": job.pk,
            "price_id": override.pk,
            "repricing_id": previewed(workspace, owner).pk,
            "member_id": workspace.memberships.get(user=self.cast.viewer).pk,
            "invitation_id": workspace.invitations.get().pk,
            "key_id": self.cast.opened.api_key.pk,
            "token_id": AccessToken.objects.filter(user=owner).latest("pk").pk,
            "mode": DataMode.TEST.value,
            "scope": "workspace",
            "plan": "pro",
            "interval": "month",
            **told(workspace, owner),
        }

    def address(self, name, **things):
        """The address of the page, naming this workspace's things or others."""
        pattern = next(each for each in page_urlpatterns if each.name == name)
        wanted = {"slug", *pattern.pattern.converters}
        found = {key: value for key, value in {**self.things, **things}.items() if key in wanted}
        return reverse(name, kwargs=found) + QUERIES.get(name, "")


@pytest.fixture(scope="module")
def places(django_db_setup, django_db_blocker):
    """Two workspaces that know nothing of each other."""
    with django_db_blocker.unblock():
        return Place(), Place()


def browser_of(person):
    client = Client()
    if person is not None:
        client.force_login(person)
    return client


@pytest.mark.parametrize("name", sorted(set(TABLE) | OPERATORS))
def test_outsiders_and_strangers(places, committed, name):
    here, elsewhere = places
    address = here.address(name)
    browsers = [browser_of(person) for person in (here.cast.outsider, elsewhere.cast.owner)]
    for method in METHODS:
        for browser in browsers:
            assert browser.generic(method, address).status_code == 404, method
        stranger = browser_of(None).generic(method, address)
        assert stranger.status_code == 302
        assert stranger.url.startswith(reverse("account_login"))


@pytest.fixture
def passing(places, committed):
    """One of them as it was opened: what is done there is undone after the test."""
    with transaction.atomic():
        yield places[0]
        transaction.set_rollback(True)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_what_each_role_may_do(passing, name):
    here = passing
    browsers = {role: browser_of(getattr(here.cast, role.value)) for role in ROLE_ORDER}
    for method, minimum in zip(("GET", "POST"), TABLE[name], strict=True):
        for role, browser in browsers.items():
            status = browser.generic(method, here.address(name)).status_code
            if minimum is NOBODY:
                assert status == 405 or (status == 403 and role is not OWNER), (method, role, status)
            elif ROLE_ORDER.index(role) < ROLE_ORDER.index(minimum):
                assert status in ({403, 404} if name in HIDDEN else {403}), (method, role, status)
            else:
                assert status in {200, 302, 400, 409, 422}, (method, role, status)
                if method == "POST":
                    break  # it has been done


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_what_only_operators_may_do(places, committed, name):
    here, _ = places
    for method in ("GET", "POST"):
        assert browser_of(here.cast.owner).generic(method, here.address(name)).status_code == 403


@pytest.mark.parametrize(
    "thing",
    [
        "event_id",
        "budget_id",
        "job_id",
        "price_id",
        "repricing_id",
        "key_id",
        "token_id",
        "member_id",
        "invitation_id",
        "alert_id",
        "channel_id",
        "delivery_id",
        "report_id",
        "rule_id",
        "recipient_id",
        "opt_out_id",
    ],
)
def test_things_of_another_workspace_are_not_there(places, committed, thing):
    here, elsewhere = places
    browser = browser_of(here.cast.owner)
    for pattern in page_urlpatterns:
        if thing not in pattern.pattern.converters:
            continue
        address = here.address(pattern.name, **{thing: elsewhere.things[thing]})
        for method, minimum in zip(("GET", "POST"), TABLE[pattern.name], strict=True):
            if minimum is not NOBODY:
                response = browser.generic(method, address)
                # Who is no member any more may have been removed in another tab: back to the list, with words.
                gone = 302 if thing == "member_id" else 404
                assert response.status_code == gone, (method, pattern.name)
