"""What every page says about payments and retention, and to whom."""

from datetime import timedelta

import pytest
from django.urls import reverse

from billing.models import WorkspacePlan
from billing.plans import Overrides
from billing.services import change_workspace_plan
from billing.troubles import troubles_of
from opsmeter_site.console.banners import banners_for
from opsmeter_site.lib.clock import utc_now
from tests.billing.provider_facts import subscribe
from tests.factories import make_cast
from tests.pages import page, signed_in
from workspaces.access import workspace_for

DAY = timedelta(days=1)


@pytest.fixture
def cast(db):
    return make_cast("free")


def banners(cast, role="admin"):
    return banners_for(workspace_for(getattr(cast, role), cast.workspace.slug))


SOON = utc_now() + 5 * DAY


# By name, so that the tests are called the same in every process.
TROUBLES = {
    "past_due": ("bad", f"The next attempt is at {SOON:%H:%M} UTC on {SOON:%-d %B %Y}. Nothing is stopped yet."),
    "unpaid": ("bad", "The Pro plan is off until it is paid."),
    "cancelled": ("warn", f"The Pro plan stays usable until {SOON:%H:%M} UTC on {SOON:%-d %B %Y}."),
}


@pytest.mark.parametrize("status", TROUBLES)
def test_who_pays_is_told_of_trouble(cast, status):
    level, words = TROUBLES[status]
    subscribe(cast.workspace, "pro", status=status, renews_at=SOON, ends_at=SOON if status == "cancelled" else None)
    for role in ("owner", "admin"):
        (banner,) = banners(cast, role)
        assert (banner.level, banner.url) == (level, reverse("settings-billing", args=[cast.workspace.slug]))
        assert words in banner.text
    assert banners(cast, "member") == banners(cast, "viewer") == []


@pytest.mark.parametrize("status", ["active", "on_trial", "paused", "expired"])
def test_other_states_are_no_trouble(cast, status):
    subscribe(cast.workspace, "pro", status=status)
    assert banners(cast) == []


def test_an_end_that_has_passed_is_no_news(cast):
    subscribe(cast.workspace, "pro", status="cancelled", ends_at=utc_now() - DAY)
    assert troubles_of(cast.workspace.pk, utc_now()).status == ""


def test_a_cancelled_one_beside_another_that_goes_on_is_no_news(cast):
    subscribe(cast.workspace, "team", status="cancelled", ends_at=SOON)
    subscribe(cast.workspace, "pro")
    assert banners(cast) == []


def test_the_worst_comes_first(cast):
    subscribe(cast.workspace, "pro", status="past_due")
    subscribe(cast.workspace, "team", status="unpaid")
    assert "Team" in banners(cast)[0].text


def test_a_dismissed_banner_comes_back_with_the_next_period(cast):
    subscribe(cast.workspace, "pro", status="past_due", renews_at=SOON)
    before = banners(cast)[0].key
    cast.workspace.subscriptions.update(renews_at=SOON + 3 * DAY)
    assert banners(cast)[0].key != before


def keep_less(cast, moment):
    WorkspacePlan.objects.filter(workspace=cast.workspace).update(
        kept_until=moment, kept_raw_days=90, kept_rollup_days=365, announced_raw_days=14, announced_rollup_days=90
    )


@pytest.mark.parametrize("role", ["owner", "admin", "member", "viewer"])
def test_everybody_is_told_what_will_be_deleted(cast, role):
    keep_less(cast, SOON)
    (banner,) = banners(cast, role)
    assert "Single requests older than 14 days and sums older than 90 days are deleted from" in banner.text
    assert f"from {SOON:%H:%M} UTC on {SOON:%-d %B %Y}." in banner.text
    assert banner.url == reverse("exports", args=[cast.workspace.slug])


def test_what_will_be_deleted_is_told_again_every_day(cast, monkeypatch):
    keep_less(cast, SOON)
    today = banners(cast)[0].key
    monkeypatch.setattr("opsmeter_site.console.banners.utc_now", lambda: utc_now() + DAY)
    assert banners(cast)[0].key != today


@pytest.mark.parametrize(
    ("role", "is_on", "is_linked"), [("admin", True, True), ("admin", False, False), ("viewer", True, False)]
)
def test_an_upgrade_is_one_click_away_for_those_who_may(cast, settings, role, is_on, is_linked):
    settings.LEMONSQUEEZY_API_KEY = "key" if is_on else ""
    change_workspace_plan(cast.workspace, plan_tier="free", overrides=Overrides(monthly_requests=0), acting_user=None)
    shown = page(signed_in(getattr(cast, role)).get(reverse("overview", args=[cast.workspace.slug])))
    banner = shown.one("div", "banner-bad")
    assert "Consider upgrading to Pro." in banner.text
    links = {link.text: link.attributes["href"] for link in banner.all("a")}
    plans = f"{reverse('settings-billing', args=[cast.workspace.slug])}#plans"
    assert links.get("See plans") == (plans if is_linked else None)
    assert ("An admin of this workspace can." in banner.text) is (role == "viewer")


def test_no_banner_leads_to_the_page_that_it_is_on(cast):
    subscribe(cast.workspace, "pro", status="past_due", renews_at=SOON)
    browser = signed_in(cast.admin)
    for name, number in (("overview", 1), ("settings-billing", 0)):
        banner = page(browser.get(reverse(name, args=[cast.workspace.slug]))).one("div", "banner-bad")
        assert len(banner.all("a")) == number


def test_all_of_it_is_one_query_more(cast, django_assert_num_queries):
    subscribe(cast.workspace, "pro", status="past_due")
    access = workspace_for(cast.admin, cast.workspace.slug)
    with django_assert_num_queries(2):
        banners_for(access)
