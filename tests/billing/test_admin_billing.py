"""Billing in the operators' console: what can be looked at, what can be done, and what is shown to nobody."""

import json
from datetime import timedelta

import pytest
from django.contrib import admin
from django.urls import reverse

from billing.models import (
    BillingEvent,
    ChangeKind,
    ChangeRequest,
    EventState,
    Invoice,
    Outcome,
    PlanVariant,
    Status,
    Subscription,
    WorkspacePlan,
)
from billing.subscriptions import apply_invoice
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.sealed import seal
from tests.billing.provider_facts import (
    PROVIDER,
    facts,
    hear,
    invoice_facts,
    make_checkout,
    new_id,
    sell_plans,
    subscribe,
)
from tests.factories import OperatorFactory, UserFactory, make_workspace
from tests.opsmeter_site.test_operators import assert_strict
from workspaces.models import AuditEntry

pytestmark = pytest.mark.django_db
SIGNED = "https://shop.example/billing?expires=1&signature=0123456789abcdef"


@pytest.fixture
def workspace():
    return make_workspace("free").workspace


@pytest.fixture
def console(client):
    client.force_login(OperatorFactory(email="operator@example.com"))
    return client


@pytest.fixture
def provider(httpserver, settings):
    """The provider's API, as far as it answers about one subscription."""
    settings.LEMONSQUEEZY_API_KEY = "key"
    settings.LEMONSQUEEZY_STORE_ID = "1"
    settings.LEMONSQUEEZY_TEST_MODE = True
    settings.LEMONSQUEEZY_API_BASE = httpserver.url_for("/v1")
    return httpserver


def page(model, name="changelist", *args):
    return reverse(f"admin:billing_{model}_{name}", args=args)


def act(console, model, action, *rows, **more):
    data = {"action": action, "_selected_action": [str(row.pk) for row in rows], **more}
    return console.post(page(model), data, follow=True)


def said(response):
    return [str(message) for message in response.context["messages"]]


def orphan():
    """A subscription that nobody knows the workspace of."""
    sell_plans()
    wanted = facts(new_id(), "pro")
    hear(wanted)
    return Subscription.objects.get(provider_subscription_id=wanted.subscription_id)


def event_of(subscription, body, **columns):
    text = body if isinstance(body, str) else json.dumps(body)
    defaults = {
        "provider": PROVIDER,
        "dedupe_key": f"key-{BillingEvent.objects.count()}",
        "name": "subscription_updated",
        "provider_subscription_id": subscription.provider_subscription_id,
        "subscription": subscription,
        "sealed_body": seal(text),
        "state": EventState.DONE,
        "outcome": Outcome.APPLIED,
    }
    return BillingEvent.objects.create(**defaults | columns)


def a_row_of_each(workspace):
    """One of everything that billing keeps, each with the columns that lists and pages show."""
    subscription = subscribe(workspace, "pro")
    apply_invoice(subscription, invoice_facts(subscription.provider_subscription_id))
    return {
        "planvariant": PlanVariant.objects.get(variant_id="200"),
        "subscription": subscription,
        "changerequest": ChangeRequest.objects.create(subscription=subscription, kind=ChangeKind.CANCEL),
        "checkout": make_checkout(workspace, "team"),
        "invoice": Invoice.objects.get(subscription=subscription),
        "billingevent": event_of(subscription, {"meta": {}}),
    }


# --- Looking


def test_every_list_search_and_page_answers_an_operator_and_nobody_else(console, workspace):
    rows = a_row_of_each(workspace)
    paths = []
    for model, row in rows.items():
        paths += [page(model), f"{page(model)}?q={workspace.slug}", page(model, "change", row.pk)]
    for path in paths:
        assert_strict(console.get(path))
    assert_strict(act(console, "subscription", "assign", rows["subscription"]))
    console.force_login(UserFactory())
    for path in paths:
        assert console.get(path).headers["Location"].startswith(reverse("admin:login")), path


def test_what_the_provider_says_is_not_edited_here(console, workspace):
    rows = a_row_of_each(workspace)
    for model in rows.keys() - {"planvariant"}:
        assert console.get(page(model, "add")).status_code == 403, model
        assert console.get(page(model, "delete", rows[model].pk)).status_code == 403, model
        assert console.post(page(model, "change", rows[model].pk), {"status": "active"}).status_code == 403, model


def test_a_subscription_shows_what_belongs_to_it(console, workspace):
    rows = a_row_of_each(workspace)
    shown = console.get(page("subscription", "change", rows["subscription"].pk)).content.decode()
    for words in ("$49.00", "Cancellation", "subscription_updated", workspace.name, "4242"):
        assert words in shown


def test_operators_see_at_once_what_needs_them(console, workspace):
    now = utc_now()
    fine = subscribe(workspace, "pro")
    nobodys = orphan()
    late = subscribe(make_workspace("free").workspace, "pro", status=Status.PAST_DUE)
    forgotten = subscribe(make_workspace("free").workspace, "pro")
    Subscription.objects.filter(pk=forgotten.pk).update(next_check_at=now - timedelta(days=3))
    twice = make_workspace("free").workspace
    both = [subscribe(twice, "pro"), subscribe(twice, "team")]
    ended = subscribe(twice, "pro", status=Status.EXPIRED)
    # A cancelled one costs nothing more, beside whichever other.
    subscribe(twice, "pro", status=Status.CANCELLED, ends_at=now + timedelta(days=9))
    subscribe(late.workspace, "pro", status=Status.CANCELLED, ends_at=now + timedelta(days=9))
    strange = subscribe(make_workspace("free").workspace, "starter")
    Subscription.objects.filter(pk=strange.pk).update(variant_id="999")

    def listed(needs):
        return set(console.get(page("subscription"), {"needs": needs}).context["cl"].queryset)

    assert listed("workspace") == {nobodys}
    assert listed("doubtful") == {late}
    assert listed("check") == {forgotten}
    assert listed("twice") == set(both)
    assert listed("variant") == {strange}
    assert {fine, ended} <= set(console.get(page("subscription")).context["cl"].queryset)


def test_requests_that_nobody_confirmed_are_found(console, workspace):
    now = utc_now()
    subscription = subscribe(workspace, "pro")
    waiting = ChangeRequest.objects.create(
        subscription=subscription, kind=ChangeKind.CANCEL, requested_at=now - timedelta(minutes=11)
    )
    ChangeRequest.objects.create(subscription=subscribe(make_workspace().workspace), kind=ChangeKind.CANCEL)
    assert list(console.get(page("changerequest"), {"due": "late"}).context["cl"].queryset) == [waiting]


# --- Variants


def test_a_variant_is_added_changed_and_deleted(console, workspace):
    added = {"variant_id": "12345", "plan": "pro", "interval": "month", "is_offered": "on", "price_text": "$49"}
    assert console.post(page("planvariant", "add"), added).status_code == 302
    variant = PlanVariant.objects.get(variant_id="12345")
    changed = {"plan": "team", "interval": "year", "price_text": "$990", "variant_id": "6"}
    assert console.post(page("planvariant", "change", variant.pk), changed).status_code == 302
    variant.refresh_from_db()
    described = (variant.variant_id, variant.plan_id, variant.interval, variant.price_text, variant.is_offered)
    assert described == ("12345", "team", "year", "$990", False)
    assert console.post(page("planvariant", "delete", variant.pk), {"post": "yes"}).status_code == 302
    assert not PlanVariant.objects.exists()
    told = AuditEntry.objects.filter(action__startswith="plan_variant.").order_by("created_at")
    assert {entry.actor.email for entry in told} == {"operator@example.com"}
    assert [entry.action.rpartition(".")[2] for entry in told] == ["mapped", "mapped", "deleted"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"variant_id": "200"}, "in the list already"),
        ({"variant_id": "pro-monthly"}, "Digits only"),
        ({"plan": "free"}, "not sold"),
        ({"interval": "week"}, "Select a valid choice"),
    ],
)
def test_a_variant_that_makes_no_sense_is_explained(console, workspace, changes, complaint):
    sell_plans()
    data = {"variant_id": "12345", "plan": "pro", "interval": "month", "is_offered": "on", "price_text": ""}
    response = console.post(page("planvariant", "add"), data | changes, follow=True)
    assert complaint in response.content.decode()
    assert not PlanVariant.objects.filter(variant_id="12345").exists()


def test_a_variant_that_somebody_is_on_stays(console, workspace):
    subscribe(workspace, "pro")
    used = PlanVariant.objects.get(variant_id="200")
    assert console.post(page("planvariant", "delete", used.pk), {"post": "yes"}).status_code == 403
    assert PlanVariant.objects.filter(pk=used.pk).exists()


# --- Asking


def resource(kind, number, **attributes):
    return {"type": kind, "id": str(number), "attributes": attributes}


def test_the_provider_is_asked_now_and_its_answer_holds(console, workspace, provider):
    subscription = subscribe(workspace, "pro")
    number = subscription.provider_subscription_id
    stamps = {"created_at": "2026-03-02T10:00:00.000000Z", "updated_at": "2026-03-03T10:00:00.000000Z"}
    answer = resource(
        "subscriptions", number, store_id=1, customer_id=7, variant_id=300, status="active", test_mode=True, **stamps
    )
    paid = {"store_id": 1, "subscription_id": int(number), "status": "paid", "total_formatted": "$99.00"}
    invoices = {"data": [resource("subscription-invoices", 900, test_mode=True, **paid, **stamps)]}
    provider.expect_request(f"/v1/subscriptions/{number}").respond_with_json({"data": answer})
    provider.expect_request("/v1/subscription-invoices").respond_with_json(invoices)
    (told,) = said(act(console, "subscription", "ask_now", subscription))
    assert told.startswith(f"{number}: Applied; ")
    assert WorkspacePlan.objects.get(workspace=workspace).plan_id == "team"
    assert Invoice.objects.get(subscription=subscription).total_text == "$99.00"


def test_of_a_provider_that_is_away_the_operator_is_told_once(console, provider):
    both = [subscribe(make_workspace("free").workspace, "pro") for _ in range(2)]
    provider.expect_request("/v1/subscriptions").respond_with_data(status=503)
    told = said(act(console, "subscription", "ask_now", *both))
    assert len(told) == 1
    assert "payment provider" in told[0]


def test_without_billing_nobody_is_asked(console, workspace):
    told = said(act(console, "subscription", "ask_now", subscribe(workspace, "pro")))
    assert "has no billing" in told[0]


def test_not_everybody_is_asked_about_at_once(console, provider):
    many = [orphan() for _ in range(11)]
    assert said(act(console, "subscription", "ask_now", *many)) == [
        "At most 10 at once. All are asked about once a day anyway."
    ]


# --- Whose it is


def test_a_subscription_is_assigned_after_a_second_question(console, workspace):
    lost = orphan()
    event = event_of(lost, {"meta": {}}, state=EventState.PARKED, outcome=Outcome.UNMATCHED)
    first = act(console, "subscription", "assign", lost)
    assert "Whose subscription is it?" in first.content.decode()
    second = act(console, "subscription", "assign", lost, workspace=workspace.pk)
    assert f"Assign it to {workspace}?" in second.content.decode()
    lost.refresh_from_db()
    assert lost.workspace is None
    done = act(console, "subscription", "assign", lost, workspace=workspace.pk, confirmed="yes")
    assert said(done) == [f"{lost.provider_subscription_id} belongs to {workspace} now."]
    lost.refresh_from_db()
    assert (lost.workspace, WorkspacePlan.objects.get(workspace=workspace).plan_id) == (workspace, "pro")
    assert AuditEntry.objects.get(action="subscription.assigned").actor.email == "operator@example.com"
    event.refresh_from_db()
    assert event.state == EventState.WAITING


def test_a_subscription_is_never_taken_from_a_workspace(console, workspace):
    taken = subscribe(make_workspace("free").workspace, "pro")
    told = said(act(console, "subscription", "assign", taken, workspace=workspace.pk, confirmed="yes"))
    assert "Another workspace has this subscription already." in told[0]


@pytest.mark.parametrize("chosen", ["", "nonsense", "00000000-0000-0000-0000-000000000000"])
def test_without_a_workspace_the_question_stays(console, chosen):
    response = act(console, "subscription", "assign", orphan(), workspace=chosen, confirmed="yes")
    assert "Whose subscription is it?" in response.content.decode()
    assert said(response) == ["Choose a workspace."]


def test_one_subscription_is_assigned_at_a_time(console, workspace):
    assert said(act(console, "subscription", "assign", orphan(), orphan())) == ["One at a time."]


def test_who_may_only_look_can_do_nothing(client, workspace):
    looker = UserFactory(is_staff=True)
    client.force_login(looker)
    request = type("Request", (), {"user": looker})()
    for model in (Subscription, BillingEvent):
        assert not admin.site._registry[model].has_act_permission(request)
    assert client.get(page("subscription")).status_code == 403


# --- The inbox


def test_an_event_shows_its_body_without_what_opens_a_billing(console, workspace):
    body = {
        "meta": {"event_name": "subscription_updated"},
        "data": {
            "attributes": {
                "user_email": "buyer@example.com",
                "urls": {"customer_portal": "https://shop.example/quiet-portal"},
                "odd": [f"see {SIGNED}"],
            }
        },
    }
    event = event_of(subscribe(workspace, "pro"), body)
    shown = console.get(page("billingevent", "change", event.pk)).content.decode()
    assert "buyer@example.com" in shown
    assert "&quot;urls&quot;: &quot;(hidden)&quot;" in shown
    assert "0123456789abcdef" not in shown
    assert "quiet-portal" not in shown
    assert event.sealed_body not in shown


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("unmatched", "Find out whose it is"),
        ("unknown_variant", "Map its variant"),
        ("applied", "Nothing."),
        ("", "Nothing."),
    ],
)
def test_an_event_says_what_to_do_about_it(console, workspace, outcome, words):
    event = event_of(subscribe(workspace, "pro"), {"meta": {}}, outcome=outcome)
    assert words in console.get(page("billingevent", "change", event.pk)).content.decode()


def test_a_body_that_cannot_be_read_says_why(console, workspace, settings):
    subscription = subscribe(workspace, "pro")
    event, odd = event_of(subscription, {"meta": {}}), event_of(subscription, f"no json {SIGNED}")
    shown = console.get(page("billingevent", "change", odd.pk)).content.decode()
    assert "It is no JSON" in shown
    assert "0123456789abcdef" not in shown
    BillingEvent.objects.filter(pk=event.pk).update(sealed_body=seal("{}")[:-4])
    shown = console.get(page("billingevent", "change", event.pk)).content.decode()
    assert "It cannot be decrypted" in shown


def test_events_are_processed_again(console, workspace):
    subscription = subscribe(workspace, "pro")
    parked = event_of(subscription, {"meta": {}}, state=EventState.PARKED, outcome=Outcome.UNKNOWN_VARIANT)
    waiting = event_of(subscription, {"meta": {}}, state=EventState.WAITING, outcome="")
    told = said(act(console, "billingevent", "process_again", parked, waiting))
    assert told == ["Events to be processed again: 1.", "This event is waiting to be processed already."]
    parked.refresh_from_db()
    assert (parked.state, parked.outcome) == (EventState.WAITING, "")
    assert AuditEntry.objects.get(action="billing_event.retried").actor.email == "operator@example.com"


# --- What applies


def test_a_workspaces_plan_says_why_it_applies(console, workspace):
    subscription = subscribe(workspace, "pro")
    shown = console.get(page("workspaceplan", "change", workspace.pk)).content.decode()
    assert f"Pro: by subscription {subscription.provider_subscription_id} (active)" in shown
    # A lower grant changes nothing of it, a higher one wins.
    console.post(page("workspaceplan", "change", workspace.pk), {"granted": "starter"})
    assert WorkspacePlan.objects.get(workspace=workspace).plan_id == "pro"
    console.post(page("workspaceplan", "change", workspace.pk), {"granted": "team"})
    assert WorkspacePlan.objects.get(workspace=workspace).plan_id == "team"
    assert "Team: granted" in console.get(page("workspaceplan", "change", workspace.pk)).content.decode()
