"""`/v1/billing/…`, key for key: what the contract says of it, and nothing of the provider's that must not be there."""

from datetime import UTC, datetime, timedelta

import pytest

from billing.checking import check_subscription
from billing.models import ChangeRequest, ChangeState, Checkout, PlanVariant, Subscription, WorkspacePlan
from billing.providers import provider
from billing.providers.base import ProviderRefused, ProviderUnavailable, ProviderUnsure
from billing.providers.lemonsqueezy import transport
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import to_wire
from tests.billing.asked import CHECKOUT_URL, PAYMENT_URL, PORTAL_URL, asked_provider
from tests.billing.provider_facts import hear, subscribe
from tests.billing.sandbox.running import API_KEY, STORE_ID, running_shop, wait_for
from tests.factories import make_workspace

SUBSCRIPTION = "/v1/billing/subscription"
CHANGE_PLAN = f"{SUBSCRIPTION}/change-plan"
CANCEL = f"{SUBSCRIPTION}/cancel"
RESUME = f"{SUBSCRIPTION}/resume"
CHECKOUT = "/v1/billing/checkout"
PORTAL = "/v1/billing/portal"
RENEWS_AT = datetime(2099, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def shop(app, monkeypatch, settings):
    with asked_provider(monkeypatch) as asked:
        settings.LEMONSQUEEZY_API_KEY = "only-for-tests"
        yield asked


@pytest.fixture
def opened(app):
    return make_workspace("free")


@pytest.fixture
def call(app, opened):
    """Ask as the owner of the workspace, or of another one."""

    def ask(method, path, body=b"", by=opened):
        return app.request(method, path, body, {"Authorization": f"Bearer {by.access_token_plain}"})

    return ask


def is_whole_second(text):
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) <= utc_now()


# --- How things stand -------------------------------------------------------------------------------------------------


def test_without_billing_the_plan_is_still_told(call):
    reply = call("GET", SUBSCRIPTION)
    assert reply.status == 200
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.json == {
        "billing": None,
        "currentPlanTier": "free",
        "currentPlanName": "Free",
        "grantedPlanTier": "free",
        "subscription": None,
        "pending": None,
        "lastFailure": None,
        "retention": None,
    }


def test_a_subscription_is_told_with_what_is_pending(shop, opened, call):
    subscribe(opened.workspace, "pro", renews_at=RENEWS_AT)
    call("POST", CHANGE_PLAN, {"planTier": "team"})
    reply = call("GET", SUBSCRIPTION).json
    assert (reply["billing"], reply["currentPlanTier"], reply["currentPlanName"]) == ("lemonsqueezy", "pro", "Pro")
    assert reply["subscription"] == {
        "status": "active",
        "planTier": "pro",
        "interval": "month",
        "renewsAt": "2099-01-02T03:04:05Z",
        "endsAt": None,
        "trialEndsAt": None,
        "cancelled": False,
        "paymentMethod": {"brand": "visa", "lastFour": "4242"},
        "usable": True,
    }
    request = ChangeRequest.objects.get(subscription__workspace=opened.workspace)
    assert reply["pending"] == {
        "status": "pending_webhook",
        "action": "change_plan",
        "requestedPlanTier": "team",
        "requestedAt": to_wire(request.requested_at),
        "overdue": False,
        "unsure": False,
    }
    assert reply["lastFailure"] is None


def test_a_cancelled_subscription_ends_and_does_not_renew(shop, opened, call):
    subscribe(opened.workspace, "pro", status="cancelled", renews_at=RENEWS_AT, ends_at=RENEWS_AT, card_last_four="")
    found = call("GET", SUBSCRIPTION).json["subscription"]
    assert (found["renewsAt"], found["endsAt"]) == (None, "2099-01-02T03:04:05Z")
    assert (found["cancelled"], found["usable"], found["paymentMethod"]) == (True, True, None)


@pytest.mark.parametrize(
    ("state", "note", "message"),
    [
        (ChangeState.REFUSED, "It said no.", "It said no."),
        (ChangeState.LAPSED, "", "The payment provider never confirmed it, and nothing has changed."),
    ],
)
def test_a_request_that_came_to_nothing_says_why(shop, opened, call, state, note, message):
    subscribe(opened.workspace, "pro")
    call("POST", CANCEL)
    ChangeRequest.objects.update(state=state, note=note, resolved_at=utc_now())
    failure = call("GET", SUBSCRIPTION).json["lastFailure"]
    assert is_whole_second(failure.pop("requestedAt"))
    assert failure == {"action": "cancel", "requestedPlanTier": "free", "state": state, "message": message}


def test_a_retention_notice_is_told(opened, call):
    WorkspacePlan.objects.filter(workspace=opened.workspace).update(
        kept_until=RENEWS_AT, kept_raw_days=90, kept_rollup_days=365, announced_raw_days=14, announced_rollup_days=90
    )
    assert call("GET", SUBSCRIPTION).json["retention"] == {
        "keptUntil": "2099-01-02T03:04:05Z",
        "rawRetentionDays": 14,
        "rollupRetentionDays": 90,
    }


# --- Asking for changes -----------------------------------------------------------------------------------------------


def test_a_change_of_plan_is_answered_as_the_contract_says(shop, opened, call):
    subscribe(opened.workspace, "starter")
    reply = call("POST", CHANGE_PLAN, {"planTier": "pro"})
    assert reply.status == 202
    body = reply.json
    requested_at = body.pop("requestedAt")
    assert is_whole_second(requested_at)
    assert body == {"status": "pending_webhook", "currentPlanTier": "starter", "requestedPlanTier": "pro"}
    # Twice is once.
    assert call("POST", CHANGE_PLAN, {"planTier": "pro", "interval": "month"}).json["requestedAt"] == requested_at
    assert len(shop.asked) == 1


def test_an_end_and_its_withdrawal_name_what_follows(shop, opened, call):
    subscribe(opened.workspace, "pro")
    cancelled = call("POST", CANCEL, {})
    assert cancelled.status == 202
    assert set(cancelled.json) == {"status", "currentPlanTier", "requestedPlanTier", "requestedAt", "endsAt"}
    assert (cancelled.json["requestedPlanTier"], cancelled.json["endsAt"]) == ("free", None)

    other = make_workspace("free")
    subscribe(other.workspace, "team", status="cancelled", ends_at=RENEWS_AT)
    resumed = call("POST", RESUME, by=other)
    assert resumed.status == 202
    assert (resumed.json["status"], resumed.json["currentPlanTier"]) == ("pending_webhook", "team")
    assert (resumed.json["requestedPlanTier"], resumed.json["endsAt"]) == ("team", "2099-01-02T03:04:05Z")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (CHANGE_PLAN, {}, "planTier"),
        (CHANGE_PLAN, {"planTier": None}, "planTier"),
        (CHANGE_PLAN, {"planTier": 3}, "planTier"),
        (CHANGE_PLAN, {"planTier": ["pro"]}, "planTier"),
        (CHANGE_PLAN, {"planTier": "free"}, "planTier"),
        (CHANGE_PLAN, {"planTier": "golden"}, "planTier"),
        (CHANGE_PLAN, {"planTier": "enterprise"}, "planTier"),
        (CHANGE_PLAN, {"planTier": "team", "interval": "week"}, "interval"),
        (CHANGE_PLAN, {"planTier": "team", "interval": "year"}, "interval"),
        (CHANGE_PLAN, {"planTier": "team", "interval": None}, "interval"),
        (CHANGE_PLAN, {"planTier": "team", "seats": 5}, "seats"),
        (CHECKOUT, {}, "planTier"),
        (CHECKOUT, {"planTier": "free"}, "planTier"),
        (CHECKOUT, {"planTier": "pro", "returnUrl": "https://elsewhere.example.com/"}, "returnUrl"),
        (CANCEL, {"atOnce": True}, "atOnce"),
        (RESUME, {"planTier": "pro"}, "planTier"),
    ],
)
def test_bad_input_names_the_field(shop, opened, call, path, body, field):
    subscribe(opened.workspace, "pro")
    reply = call("POST", path, body)
    assert (reply.status, reply.json["reason"]) == (400, "invalid_payload")
    assert [each["field"] for each in reply.json["errors"]] == [field]
    assert shop.asked == []


@pytest.mark.parametrize("path", [CHANGE_PLAN, CHECKOUT])
def test_an_empty_body_is_no_wish(shop, call, path):
    assert call("POST", path).json["reason"] == "invalid_json"


@pytest.mark.parametrize(
    ("said", "method", "path", "body", "reason"),
    [
        ({}, "POST", CHANGE_PLAN, {"planTier": "pro"}, "already_on_plan"),
        ({"status": "past_due"}, "POST", CHANGE_PLAN, {"planTier": "team"}, "payment_past_due"),
        ({"status": "expired"}, "POST", CHANGE_PLAN, {"planTier": "team"}, "no_subscription"),
        ({}, "POST", RESUME, b"", "not_cancelled"),
        ({"status": "cancelled", "ends_at": RENEWS_AT}, "POST", CANCEL, b"", "already_cancelled"),
        ({}, "POST", CHECKOUT, {"planTier": "team"}, "already_subscribed"),
        (None, "GET", PORTAL, b"", "no_subscription"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_409_and_asks_nobody(shop, opened, call, said, method, path, body, reason):
    if said is not None:
        subscribe(opened.workspace, "pro", **said)
    reply = call(method, path, body)
    assert (reply.status, reply.json["ok"], reply.json["reason"], reply.json["errors"]) == (409, False, reason, [])
    assert reply.json["message"]
    assert shop.asked == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", CHANGE_PLAN, {"planTier": "pro"}),
        ("POST", CANCEL, b""),
        ("POST", RESUME, b""),
        ("POST", CHECKOUT, {"planTier": "pro"}),
        ("GET", PORTAL, b""),
    ],
)
def test_without_billing_there_is_nobody_to_ask(call, method, path, body):
    reply = call(method, path, body)
    assert (reply.status, reply.json["reason"]) == (409, "billing_off")


# --- When the provider does not do it ---------------------------------------------------------------------------------


def test_a_slow_provider_is_a_pending_request(shop, opened, call):
    subscribe(opened.workspace, "pro")
    shop.trouble = ProviderUnsure("It did not answer in time.", headers={"Retry-After": "5"})
    assert call("POST", CHANGE_PLAN, {"planTier": "team"}).status == 202
    assert call("GET", SUBSCRIPTION).json["pending"]["unsure"] is True


@pytest.mark.parametrize(
    ("trouble", "status", "reason", "retry_after"),
    [
        (ProviderUnavailable("Away.", headers={"Retry-After": "30"}), 503, "provider_unavailable", "30"),
        (ProviderRefused("It said no."), 409, "provider_refused", None),
    ],
    ids=["away", "refused"],
)
def test_a_clear_no_is_passed_on_and_the_next_try_works(shop, opened, call, trouble, status, reason, retry_after):
    subscribe(opened.workspace, "pro")
    shop.trouble = trouble
    reply = call("POST", CHANGE_PLAN, {"planTier": "team"})
    assert (reply.status, reply.json["reason"], reply.json["message"]) == (status, reason, trouble.message)
    assert reply.headers.get("Retry-After") == retry_after
    shop.trouble = None
    assert call("POST", CHANGE_PLAN, {"planTier": "team"}).status == 202


# --- The provider's own pages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "interval"), [({}, "month"), ({"interval": "year"}, "year")])
def test_a_checkout_says_where_to_send_the_buyer(shop, opened, call, body, interval):
    reply = call("POST", CHECKOUT, {"planTier": "pro", **body})
    checkout = Checkout.objects.get(workspace=opened.workspace)
    assert (reply.status, reply.headers["Cache-Control"]) == (201, "no-store")
    assert reply.json == {
        "checkoutUrl": CHECKOUT_URL,
        "checkoutId": str(checkout.pk),
        "planTier": "pro",
        "interval": interval,
        "expiresAt": to_wire(checkout.created_at + timedelta(hours=1)),
    }
    back = f"http://testserver/w/{opened.workspace.slug}/settings/billing/?checkout={checkout.pk}"
    assert shop.wishes[0].return_url == back


def test_links_are_fresh_and_not_kept(shop, opened, call):
    subscribe(opened.workspace, "pro")
    reply = call("GET", PORTAL)
    assert (reply.status, reply.headers["Cache-Control"]) == (200, "no-store")
    assert reply.json == {"portalUrl": PORTAL_URL, "paymentMethodUrl": PAYMENT_URL}
    call("GET", PORTAL)
    assert len(shop.asked) == 2


# --- With the provider's double ---------------------------------------------------------------------------------------

SOLD = {"starter": 101, "pro": 201, "team": 301}


@pytest.fixture
def store(app, settings, monkeypatch):
    """The double as this installation's provider."""
    with asked_provider(monkeypatch), running_shop() as (shop, address):
        monkeypatch.setattr("billing.changes.provider", provider)
        settings.LEMONSQUEEZY_API_KEY, settings.LEMONSQUEEZY_STORE_ID = API_KEY, STORE_ID
        settings.LEMONSQUEEZY_API_BASE, settings.LEMONSQUEEZY_TEST_MODE = f"{address}/v1", True
        PlanVariant.objects.exclude(interval="month").delete()
        for plan, variant_id in SOLD.items():
            PlanVariant.objects.filter(plan_id=plan).update(variant_id=str(variant_id))
        yield shop


@pytest.fixture
def bought(store, opened, call):
    """A Pro subscription, bought through the API and the double's checkout."""
    started = call("POST", CHECKOUT, {"planTier": "pro"}).json
    (sold,) = store.checkouts()
    assert started["checkoutUrl"] == store.checkout_url(sold)
    subscription_id = str(store.pay(sold.id))
    hear(provider().fetch_subscription(subscription_id), checkout=Checkout.objects.get(pk=started["checkoutId"]))
    return Subscription.objects.get(provider_subscription_id=subscription_id)


def listen(subscription):
    """The provider is asked, as a message or the reconciliation makes us do."""
    check_subscription(subscription, utc_now(), urgent=True, with_invoices=False)


def test_a_subscription_from_checkout_to_resumption(call, bought):
    for path, body, plan, cancelled in (
        (CHANGE_PLAN, {"planTier": "team"}, "team", False),
        (CANCEL, b"", "team", True),
        (RESUME, {}, "team", False),
        (CHANGE_PLAN, {"planTier": "starter"}, "starter", False),
    ):
        before = call("GET", SUBSCRIPTION).json
        assert call("POST", path, body).status == 202
        asked = call("GET", SUBSCRIPTION).json
        assert asked.pop("pending")["status"] == "pending_webhook"
        assert asked == {key: value for key, value in before.items() if key != "pending"}
        listen(bought)
        after = call("GET", SUBSCRIPTION).json
        assert after["pending"] is None
        assert (after["currentPlanTier"], after["subscription"]["cancelled"]) == (plan, cancelled)
        assert (after["subscription"]["endsAt"] is not None) is cancelled


@pytest.mark.parametrize(("trouble", "plan"), [("timeout", "pro"), ("late", "team"), ("500", "pro")])
def test_whatever_a_lost_answer_hid_is_found_by_asking(store, call, bought, trouble, plan, monkeypatch):
    store.set_faults(api_trouble=trouble, api_trouble_calls=1)
    with monkeypatch.context() as impatient:
        impatient.setattr(transport, "READ_SECONDS", 0.2)
        assert call("POST", CHANGE_PLAN, {"planTier": "team"}).status == 202
    # The provider may come to the request after nobody waits for the answer any more.
    wait_for(lambda: store.subscription(int(bought.provider_subscription_id)).variant_id == SOLD[plan])
    found = call("GET", SUBSCRIPTION).json
    assert (found["currentPlanTier"], found["pending"]["unsure"]) == ("pro", True)
    listen(bought)
    found = call("GET", SUBSCRIPTION).json
    assert found["currentPlanTier"] == plan
    assert (found["pending"] is None) is (plan == "team")


def test_a_busy_provider_is_503_and_the_next_try_works(store, call, bought):
    store.set_faults(api_trouble="429")
    reply = call("POST", CHANGE_PLAN, {"planTier": "team"})
    assert (reply.status, reply.json["reason"]) == (503, "provider_unavailable")
    assert int(reply.headers["Retry-After"]) > 0
    assert ChangeRequest.objects.get().state == ChangeState.REFUSED


def test_a_provider_out_of_reach_is_503_and_nothing_is_pending(call, bought, settings):
    address, settings.LEMONSQUEEZY_API_BASE = settings.LEMONSQUEEZY_API_BASE, "http://127.0.0.1:9/v1"
    reply = call("POST", CHANGE_PLAN, {"planTier": "team"})
    assert (reply.status, reply.json["reason"]) == (503, "provider_unavailable")
    assert call("GET", SUBSCRIPTION).json["pending"] is None
    settings.LEMONSQUEEZY_API_BASE = address
    assert call("POST", CHANGE_PLAN, {"planTier": "team"}).status == 202


def test_links_are_the_providers_own(call, bought, store):
    links = call("GET", PORTAL).json
    assert all(url.startswith(store.base_url) for url in links.values())
