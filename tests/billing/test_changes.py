"""What people ask the provider for: stored first, sent once, refused with a way out, and never a change of plan."""

from datetime import timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest

from billing import changes
from billing.models import ChangeKind, ChangeRequest, ChangeState, Checkout, Plan, PlanVariant, WorkspacePlan
from billing.obstacles import ChangeRefused, obstacle_to_change
from billing.providers import BillingOff
from billing.providers.base import ProviderRefused, ProviderUnavailable, ProviderUnsure
from billing.selectors import standing
from billing.services import change_workspace_plan
from ingest.models import WorkspacePolicy
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput
from tests.billing.asked import CHECKOUT_URL, PORTAL_URL, asked_provider
from tests.billing.provider_facts import facts, hear, subscribe
from tests.factories import UserFactory, make_workspace
from tests.races import at_once
from workspaces.models import AuditEntry
from workspaces.services import add_member

DAY = timedelta(days=1)
BACK = "https://opsmeter.example.com/w/acme/settings/billing/"


@pytest.fixture
def shop(committed, monkeypatch):
    with asked_provider(monkeypatch) as asked:
        yield asked


@pytest.fixture
def opened(shop):
    return make_workspace("free")


@pytest.fixture
def ask(opened):
    """`ask.plan("team")`, `ask.cancel()`, … for the workspace, by its owner."""

    class Ask:
        @staticmethod
        def plan(tier, interval=None):
            return changes.request_plan(opened.workspace, plan_tier=tier, interval=interval, acting_user=opened.owner)

        cancel = staticmethod(partial(changes.request_cancel, opened.workspace, acting_user=opened.owner))
        resume = staticmethod(partial(changes.request_resume, opened.workspace, acting_user=opened.owner))
        portal = staticmethod(partial(changes.portal_links, opened.workspace, acting_user=opened.owner))

        @staticmethod
        def checkout(tier="pro", interval="month", back=BACK):
            return changes.start_checkout(
                opened.workspace, plan_tier=tier, interval=interval, acting_user=opened.owner, return_url=back
            )

    return Ask


def refusal_of(call, *arguments):
    """The reason of a refusal that needed no provider."""
    with pytest.raises(ChangeRefused) as refused:
        call(*arguments)
    assert refused.value.status == 409
    assert refused.value.message.endswith(".")
    return refused.value.reason


def field_of(call, *arguments):
    """The field that is at fault."""
    with pytest.raises(InvalidInput) as refused:
        call(*arguments)
    return refused.value.errors[0].field


def actions_of(workspace):
    """What the audit trail says was asked for, oldest first."""
    entries = AuditEntry.objects.filter(workspace=workspace).order_by("pk")
    return [each.action for each in entries if each.action.endswith(("_requested", "checkout.started"))]


def tell(subscription, plan="pro", interval="month", **said):
    """The provider's word on `subscription`, a minute after the last."""
    said.setdefault("updated_at", utc_now())
    hear(facts(subscription.provider_subscription_id, plan, interval, **said))


# --- Another plan -----------------------------------------------------------------------------------------------------


def test_a_wish_is_stored_sent_once_and_changes_nothing_until_the_provider_says_so(shop, opened, ask):
    subscription = subscribe(opened.workspace, "pro")
    before = WorkspacePolicy.objects.get(workspace=opened.workspace)
    request = ask.plan("team")

    assert shop.asked == [("change_plan", subscription.provider_subscription_id, "300", True)]
    assert (request.kind, request.plan_id, request.state) == (ChangeKind.CHANGE_PLAN, "team", ChangeState.PENDING)
    subscription.refresh_from_db()
    assert (subscription.plan_id, subscription.variant_id, subscription.status) == ("pro", "200", "active")
    assert subscription.next_check_at == request.requested_at + timedelta(minutes=3)
    assert WorkspacePlan.objects.get(workspace=opened.workspace).plan_id == "pro"
    assert WorkspacePolicy.objects.get(workspace=opened.workspace).requests_per_minute == before.requests_per_minute

    tell(subscription, "team")
    request.refresh_from_db()
    assert request.state == ChangeState.CONFIRMED
    assert WorkspacePlan.objects.get(workspace=opened.workspace).plan_id == "team"


def test_the_wish_is_committed_before_the_provider_is_called(shop, opened, ask):
    subscribe(opened.workspace, "pro")
    seen = []
    shop.meanwhile = lambda: seen.extend(ChangeRequest.objects.filter(subscription__workspace=opened.workspace))
    request = ask.plan("team")
    assert [(each.pk, each.state) for each in seen] == [(request.pk, ChangeState.PENDING)]


def test_whoever_dies_during_the_call_leaves_a_wish_that_is_looked_into(shop, opened, ask):
    subscription = subscribe(opened.workspace, "pro")

    def die():
        raise SystemExit

    shop.meanwhile = die
    with pytest.raises(SystemExit):
        ask.plan("team")
    request = ChangeRequest.objects.get(subscription=subscription)
    subscription.refresh_from_db()
    assert request.state == ChangeState.PENDING
    assert subscription.next_check_at == request.requested_at + timedelta(minutes=3)


@pytest.mark.parametrize(
    ("start", "wish", "is_charged_now"),
    [
        (("starter", "month"), ("pro", None), True),
        (("pro", "month"), ("starter", None), False),
        (("pro", "month"), ("pro", "year"), False),
        (("pro", "year"), ("pro", "month"), False),
        (("pro", "year"), ("team", "month"), True),
    ],
)
def test_only_a_higher_plan_is_charged_at_once(shop, opened, ask, start, wish, is_charged_now):
    subscribe(opened.workspace, *start)
    ask.plan(*wish)
    assert shop.asked[0][-1] is is_charged_now


def test_the_interval_is_kept_unless_another_is_wished_for(shop, opened, ask):
    subscribe(opened.workspace, "starter", "month")
    assert ask.plan("pro").variant_id == "200"


def test_the_interval_that_is_kept_must_be_on_offer(shop, opened, ask):
    subscribe(opened.workspace, "pro", "year")
    assert field_of(ask.plan, "team") == "interval"
    assert shop.asked == []


def test_the_same_wish_again_is_the_same_request(shop, opened, ask):
    subscribe(opened.workspace, "pro")
    assert ask.plan("team").pk == ask.plan("team").pk
    assert len(shop.asked) == 1
    assert actions_of(opened.workspace).count("subscription.change_requested") == 1


@pytest.mark.parametrize("other", [("plan", "starter"), ("plan", "pro"), ("plan", "pro", "year"), ("cancel",)])
def test_another_wish_while_one_is_pending_has_to_wait(shop, opened, ask, other):
    subscribe(opened.workspace, "pro")
    ask.plan("team")
    name, *arguments = other
    assert refusal_of(getattr(ask, name), *arguments) == "change_pending"
    assert len(shop.asked) == 1


def test_two_clicks_at_once_are_one_request(shop, opened, ask):
    subscribe(opened.workspace, "pro")
    first, second = at_once(lambda: ask.plan("team"), lambda: ask.plan("team"))
    assert first.pk == second.pk
    assert len(shop.asked) == 1


def test_of_two_different_wishes_at_once_one_has_to_wait(shop, opened, ask):
    subscribe(opened.workspace, "pro")
    results = at_once(lambda: ask.plan("team"), ask.cancel)
    refused = [each for each in results if isinstance(each, ChangeRefused)]
    assert [each.reason for each in refused] == ["change_pending"]
    assert len(shop.asked) == 1


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"status": "past_due"}, "payment_past_due"),
        ({"status": "unpaid"}, "payment_past_due"),
        ({"status": "cancelled", "ends_at": utc_now() + 10 * DAY}, "subscription_cancelled"),
        ({"status": "cancelled", "ends_at": utc_now() - DAY}, "no_subscription"),
        ({"status": "expired", "ends_at": utc_now() - DAY}, "no_subscription"),
        ({"status": "paused", "pause_mode": "free"}, "subscription_paused"),
        ({"status": "paused", "pause_mode": "void"}, "subscription_paused"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["status"],
)
def test_no_other_plan_for_a_subscription_that_is_not_running(shop, opened, ask, said, reason):
    subscribe(opened.workspace, "pro", **said)
    assert refusal_of(ask.plan, "team") == reason
    assert shop.asked == []
    assert not ChangeRequest.objects.exists()


def test_without_a_subscription_there_is_nothing_to_change(shop, ask):
    for call in (partial(ask.plan, "pro"), ask.cancel, ask.resume, ask.portal):
        assert refusal_of(call) == "no_subscription"
    assert shop.asked == []


def test_the_plan_that_it_is_on_already_is_refused(shop, opened, ask):
    subscribe(opened.workspace, "pro")
    assert refusal_of(ask.plan, "pro") == "already_on_plan"
    PlanVariant.objects.filter(plan_id="pro").update(is_offered=False)
    assert refusal_of(ask.plan, "pro", "month") == "already_on_plan"
    assert shop.asked == []


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        (("free", None), "planTier"),
        (("enterprise", None), "planTier"),
        (("golden", None), "planTier"),
        (("", None), "planTier"),
        (("team", "year"), "interval"),
        (("team", "week"), "interval"),
    ],
)
def test_only_what_is_on_offer_can_be_wished_for(shop, opened, ask, wish, field):
    subscribe(opened.workspace, "pro")
    assert field_of(ask.plan, *wish) == field
    assert shop.asked == []


def test_more_people_than_the_new_plan_includes_are_refused(shop, opened, ask):
    subscribe(opened.workspace, "pro")
    for _ in range(5):
        add_member(opened.workspace, UserFactory(), "member", acting_user=opened.owner)
    starter = Plan.objects.get(tier="starter")

    def obstacle() -> object:
        return obstacle_to_change(standing(opened.workspace.pk, utc_now()), starter, "month")

    with pytest.raises(ChangeRefused) as refused:
        ask.plan("starter")
    assert refused.value.reason == "too_many_members"
    assert refused.value.message.startswith("Starter includes 5 people, and the workspace has 6. Remove 1 first")

    # Its own number counts instead, and so does what operators granted.
    WorkspacePlan.objects.filter(workspace=opened.workspace).update(members_override=6)
    assert obstacle() is None
    WorkspacePlan.objects.filter(workspace=opened.workspace).update(members_override=None, granted_id="team")
    assert obstacle() is None
    assert ask.plan("starter").state == ChangeState.PENDING


# --- When the provider does not do it ---------------------------------------------------------------------------------


def test_no_proper_answer_leaves_the_wish_pending_and_asks_soon(shop, opened, ask):
    subscription = subscribe(opened.workspace, "pro")
    shop.trouble = ProviderUnsure("It did not answer in time.", headers={"Retry-After": "5"})
    request = ask.plan("team")
    assert (request.state, request.is_unsure) == (ChangeState.PENDING, True)
    subscription.refresh_from_db()
    assert subscription.next_check_at == request.requested_at + timedelta(seconds=15)
    pending = standing(opened.workspace.pk, utc_now()).pending
    assert pending is not None
    assert pending.is_unsure
    # It may have been done, so it is not sent again.
    assert ask.plan("team").pk == request.pk
    assert len(shop.asked) == 1


def test_a_word_that_comes_before_the_missing_answer_stands(shop, opened, ask):
    subscription = subscribe(opened.workspace, "pro")
    shop.meanwhile = lambda: tell(subscription, "team")
    shop.trouble = ProviderUnsure("It did not answer in time.")
    request = ask.plan("team")
    request.refresh_from_db()
    assert (request.state, request.is_unsure) == (ChangeState.CONFIRMED, False)


@pytest.mark.parametrize(
    "trouble",
    [
        ProviderUnavailable("It cannot be reached.", headers={"Retry-After": "30"}),
        ProviderRefused("It said no."),
    ],
    ids=["away", "refused"],
)
def test_a_clear_no_ends_the_wish_and_the_next_try_works(shop, opened, ask, trouble):
    subscribe(opened.workspace, "pro")
    shop.trouble = trouble
    with pytest.raises(type(trouble)) as raised:
        ask.plan("team")
    assert raised.value is trouble
    request = ChangeRequest.objects.get(subscription__workspace=opened.workspace)
    assert (request.state, request.note) == (ChangeState.REFUSED, trouble.message)
    assert request.resolved_at is not None
    found = standing(opened.workspace.pk, utc_now())
    assert (found.pending, found.last_failure) == (None, request)

    shop.trouble = None
    second = ask.plan("team")
    assert second.state == ChangeState.PENDING
    assert standing(opened.workspace.pk, utc_now()).last_failure is None


# --- The end, and its withdrawal --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["active", "on_trial", "past_due", "unpaid", "paused"])
def test_whatever_still_costs_can_be_cancelled(shop, opened, ask, status):
    subscription = subscribe(opened.workspace, "pro", status=status)
    request = ask.cancel()
    assert shop.asked == [("cancel", subscription.provider_subscription_id)]
    assert ask.cancel().pk == request.pk
    assert len(shop.asked) == 1
    assert refusal_of(ask.resume) == "change_pending"


def test_what_is_cancelled_can_be_resumed_until_its_end(shop, opened, ask):
    subscription = subscribe(opened.workspace, "pro", status="cancelled", ends_at=utc_now() + 5 * DAY)
    assert refusal_of(ask.cancel) == "already_cancelled"
    ask.resume()
    assert shop.asked == [("resume", subscription.provider_subscription_id)]
    tell(subscription, status="active")
    assert refusal_of(ask.resume) == "not_cancelled"


@pytest.mark.parametrize("status", ["cancelled", "expired"])
def test_what_has_ended_needs_a_new_checkout(shop, opened, ask, status):
    subscribe(opened.workspace, "pro", status=status, ends_at=utc_now() - DAY)
    assert refusal_of(ask.resume) == "no_subscription"
    assert refusal_of(ask.cancel) == "no_subscription"
    assert ask.checkout().url == CHECKOUT_URL


# --- A first subscription ---------------------------------------------------------------------------------------------


def test_the_buyer_is_sent_with_what_binds_the_purchase(shop, opened, ask):
    started = ask.checkout("pro", "year", BACK + "?from=table&checkout=old#plans")
    checkout = Checkout.objects.get(workspace=opened.workspace)
    assert (started.url, started.checkout.pk) == (CHECKOUT_URL, checkout.pk)
    assert started.expires_at == checkout.created_at + timedelta(hours=1)
    assert (checkout.plan_id, checkout.interval, checkout.variant_id) == ("pro", "year", "201")
    assert (checkout.requested_by, checkout.buyer_email) == (opened.owner, opened.owner.email)
    (wish,) = shop.wishes
    assert (wish.checkout_id, wish.workspace_id) == (str(checkout.pk), str(opened.workspace.pk))
    assert (wish.user_id, wish.variant_id, wish.email) == (str(opened.owner.pk), "201", opened.owner.email)
    assert wish.return_url == f"{BACK}?from=table&checkout={checkout.pk}#plans"
    # Nothing is pending until the buyer is back.
    assert standing(opened.workspace.pk, utc_now()).pending is None
    assert CHECKOUT_URL not in repr(started)


def test_a_checkout_may_be_started_again(shop, ask):
    assert ask.checkout().checkout.pk != ask.checkout("team").checkout.pk


@pytest.mark.parametrize(
    "said",
    [
        {"status": "active"},
        {"status": "on_trial"},
        {"status": "past_due"},
        {"status": "unpaid"},
        {"status": "paused", "pause_mode": "void"},
        {"status": "cancelled", "ends_at": utc_now() + 5 * DAY},
    ],
    ids=lambda said: said["status"],
)
def test_there_is_no_second_subscription(shop, opened, ask, said):
    subscribe(opened.workspace, "pro", **said)
    known = Checkout.objects.count()
    assert refusal_of(ask.checkout, "team") == "already_subscribed"
    assert Checkout.objects.count() == known
    assert shop.asked == []


@pytest.mark.parametrize(
    ("wish", "field"),
    [(("free",), "planTier"), (("enterprise",), "planTier"), (("team", "year"), "interval"), (("pro", ""), "interval")],
)
def test_only_what_is_on_offer_can_be_bought(shop, ask, wish, field):
    assert field_of(ask.checkout, *wish) == field
    assert not Checkout.objects.exists()


def test_a_checkout_that_the_provider_did_not_open_leaves_nothing_pending(shop, opened, ask):
    shop.trouble = ProviderUnsure("It did not answer in time.")
    with pytest.raises(ProviderUnsure):
        ask.checkout()
    assert standing(opened.workspace.pk, utc_now()).pending is None


def test_a_return_is_noted_once_and_only_for_the_workspaces_own_checkouts(shop, opened, ask):
    checkout = ask.checkout().checkout
    stranger = make_workspace("free").workspace
    changes.note_return(stranger, checkout.pk)
    changes.note_return(opened.workspace, uuid4())
    changes.note_return(opened.workspace, UUID(int=0))
    checkout.refresh_from_db()
    assert checkout.returned_at is None

    changes.note_return(opened.workspace, checkout.pk)
    checkout.refresh_from_db()
    first = checkout.returned_at
    changes.note_return(opened.workspace, checkout.pk)
    checkout.refresh_from_db()
    assert checkout.returned_at == first is not None


def test_right_after_a_return_nothing_is_bought_a_second_time(shop, opened, ask):
    checkout = ask.checkout().checkout
    changes.note_return(opened.workspace, checkout.pk)
    assert refusal_of(ask.checkout) == "change_pending"
    assert refusal_of(ask.plan, "team") == "change_pending"
    # Nothing came of it: whoever came back without paying can try again.
    Checkout.objects.filter(pk=checkout.pk).update(returned_at=utc_now() - timedelta(minutes=4))
    assert ask.checkout().url == CHECKOUT_URL


# --- The provider's pages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["active", "past_due", "expired"])
def test_links_are_fetched_and_leave_no_trace(shop, opened, ask, status):
    subscription = subscribe(opened.workspace, "pro", status=status)
    links = ask.portal()
    assert links.portal_url == PORTAL_URL
    assert shop.asked == [("portal_links", subscription.provider_subscription_id)]
    entry = AuditEntry.objects.get(workspace=opened.workspace, action="billing_portal.opened")
    assert "shop.example.com" not in f"{entry.target} {entry.data}"
    assert "secret" not in repr(links)


# --- All of them ------------------------------------------------------------------------------------------------------


def test_every_request_is_in_the_audit_trail(shop, opened, ask):
    ask.checkout()
    subscription = subscribe(opened.workspace, "pro")
    ask.plan("team")
    tell(subscription, "team")
    ask.cancel()
    tell(subscription, "team", status="cancelled", ends_at=utc_now() + 5 * DAY)
    ask.resume()
    assert actions_of(opened.workspace) == [
        "checkout.started",
        "subscription.change_requested",
        "subscription.cancel_requested",
        "subscription.resume_requested",
    ]
    entry = AuditEntry.objects.get(workspace=opened.workspace, action="subscription.change_requested")
    assert (entry.actor, entry.target) == (opened.owner, "Team")
    assert entry.data == {"plan": "team", "plan_before": "pro", "interval": "month", "interval_before": "month"}


@pytest.mark.usefixtures("committed")
def test_without_billing_nothing_can_be_asked_for():
    opened = make_workspace("free")
    change_workspace_plan(opened.workspace, plan_tier="pro", acting_user=None)
    for call in (changes.request_cancel, changes.request_resume, changes.portal_links):
        with pytest.raises(BillingOff):
            call(opened.workspace, acting_user=opened.owner)
    with pytest.raises(BillingOff):
        changes.request_plan(opened.workspace, plan_tier="team", interval=None, acting_user=opened.owner)
    with pytest.raises(BillingOff):
        changes.start_checkout(
            opened.workspace, plan_tier="team", interval="month", acting_user=opened.owner, return_url=BACK
        )
