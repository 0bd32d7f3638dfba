"""The pages of summaries: what is listed, what one says, and what became of its messages."""

from datetime import timedelta

import pytest
from django.test import Client

from alerts.models import Channel, Delivery, DeliveryState, Report, ReportState, Schedule
from alerts.reports import listing
from alerts.schedules import ensure_schedules
from opsmeter_site.lib.clock import utc_now
from tests.alerts.test_reports_mail import NASTY, full_content
from tests.factories import make_cast
from tests.pages import page, signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast():
    return make_cast("team", name="Acme", timezone="Europe/Berlin")


@pytest.fixture
def browser(cast):
    return signed_in(cast.viewer)


@pytest.fixture
def schedule(cast):
    return Schedule.objects.update_or_create(
        workspace=cast.workspace,
        kind="daily",
        defaults={"zone": "Europe/Berlin", "next_day": utc_now().date(), "next_due_at": utc_now() + timedelta(hours=5)},
    )[0]


def add_report(cast, made=None, age=timedelta(0), **facts):
    content = made or full_content()
    return Report.objects.create(
        workspace=cast.workspace,
        **{
            "kind": content.kind,
            "zone": content.zone,
            "first_day": content.first_day,
            "last_day": content.last_day,
            "starts_at": utc_now(),
            "ends_at": utc_now(),
            "due_at": utc_now() - age,
            "state": ReportState.READY,
            "title": f"Acme · Saturday 21 Nov: {age.days}",
            "content": content.to_json(),
            "made_at": utc_now(),
            **facts,
        },
    )


def rows_of(shown):
    return shown.one("section", "card").one("table").rows()


def test_newest_first_page_by_page(cast, browser, monkeypatch):
    monkeypatch.setattr(listing, "PAGE_SIZE", 2)
    for days in (3, 1, 2, 0, 4):
        add_report(cast, age=timedelta(days=days))
    seen, address = [], f"/w/{cast.workspace.slug}/reports/"
    while address:
        shown = page(browser.get(address))
        seen += [row[0] for row in rows_of(shown)]
        older = [link for link in shown.all("a", "button-plain") if link.text == "Older"]
        address = f"/w/{cast.workspace.slug}/reports/{older[0].attributes['href']}" if older else ""
    assert seen == [f"Saturday 21 Nov: {days}" for days in range(5)]


def test_filters_by_kind_and_state(cast, browser):
    add_report(cast, full_content("weekly"), title="A week")
    add_report(cast, state=ReportState.FAILED, title="A failure", content=None)
    for query, expected in (
        ("kind=weekly", "A week"),
        ("state=failed", "A failure"),
        ("kind=weekly&cursor=x~y", "A week"),
    ):
        (row,) = rows_of(page(browser.get(f"/w/{cast.workspace.slug}/reports/?{query}")))
        assert row[0] == expected
    nothing = page(browser.get(f"/w/{cast.workspace.slug}/reports/?kind=executive"))
    assert "There is none that these filters name." in nothing.text


def test_nothing_yet_says_when_the_first_one_comes(cast, browser, schedule):
    shown = page(browser.get(f"/w/{cast.workspace.slug}/reports/")).one("div", "empty")
    assert "The first one comes on" in shown.text
    assert shown.one("time").attributes["datetime"] == f"{schedule.next_due_at:%Y-%m-%dT%H:%M:%SZ}"
    Schedule.objects.all().delete()
    shown = page(browser.get(f"/w/{cast.workspace.slug}/reports/")).one("div", "empty")
    assert shown.one("a").attributes["href"] == f"/w/{cast.workspace.slug}/settings/summaries/"


@pytest.mark.parametrize(("plan", "is_said"), [("free", False), ("starter", True)])
def test_a_first_one_is_promised_only_where_the_plan_includes_it(plan, is_said):
    cast = make_cast(plan)
    ensure_schedules(cast.workspace, utc_now())
    shown = page(signed_in(cast.viewer).get(f"/w/{cast.workspace.slug}/reports/")).one("div", "empty")
    assert ("The first one comes on" in shown.text) is is_said


def test_what_became_of_the_messages(cast, browser, schedule):
    report = add_report(cast, schedule=schedule)
    channel = Channel.objects.create(workspace=cast.workspace, kind="slack", name="Slack of finance")
    states = [(DeliveryState.SENT, ""), (DeliveryState.SENT, ""), (DeliveryState.FAILED, "channel_is_archived")]
    for state, error in states:
        Delivery.objects.create(
            workspace=cast.workspace,
            channel=channel,
            channel_kind="slack",
            action="report",
            report=report,
            state=state,
            last_error=error,
        )
    (row,) = rows_of(page(browser.get(f"/w/{cast.workspace.slug}/reports/")))
    assert row[3] == "sent to 2 1 failed"
    shown = page(browser.get(f"/w/{cast.workspace.slug}/reports/{report.pk}/"))
    table = shown.one("section", aria_labelledby="messages-heading").one("table").rows()
    assert [row[1] for row in table] == ["Sent", "Sent", "Failed channel_is_archived"]
    channel.delete()
    shown = page(browser.get(f"/w/{cast.workspace.slug}/reports/{report.pk}/"))
    assert "a channel that was deleted" in shown.one("section", aria_labelledby="messages-heading").text


def test_addresses_outside_the_workspace_are_for_admins(cast, browser, schedule):
    report = add_report(cast, schedule=schedule)
    report.deliveries.create(
        workspace=cast.workspace, channel_kind="email", recipient="books@elsewhere.example", action="report"
    )
    address = f"/w/{cast.workspace.slug}/reports/{report.pk}/"
    assert "books@" not in page(browser.get(address)).text
    browser.force_login(cast.admin)
    assert "books@elsewhere.example" in page(browser.get(address)).text


@pytest.mark.parametrize("kind", ["daily", "weekly", "executive"])
def test_one_summary_says_all_that_its_mail_says(cast, browser, kind):
    report = add_report(cast, full_content(kind), requested_by=cast.owner)
    shown = page(browser.get(f"/w/{cast.workspace.slug}/reports/{report.pk}/"))
    for words in (
        "Spend was at least $41.25",
        "Mostly volume (+$5.00)",
        "$412.55 of $500.00 (82.5%) in November so far.",
        "12 requests (0.4%) without a price",
        "preview",
        "asked for by",
        "Unit cost of chat",
    ):
        assert words in shown.text, words
    bars = shown.one("figure", id="spend").one("table").rows()
    assert len(bars) == (24 if kind == "daily" else 7)
    assert [row[0] for row in shown.one("figure", id="change").one("table").rows()] == [
        "Before",
        "Volume",
        "Price",
        "Now",
    ]


def test_names_are_escaped(cast, browser):
    report = add_report(cast, full_content(name=NASTY))
    answer = browser.get(f"/w/{cast.workspace.slug}/reports/{report.pk}/").content.decode()
    assert "<img src=x" not in answer
    assert "\u202e" not in answer


def test_one_that_is_not_made_yet_can_be_opened(cast, browser, schedule):
    for state in (ReportState.PENDING, ReportState.FAILED, ReportState.SKIPPED):
        report = add_report(cast, state=state, content=None, title="", made_at=None)
        shown = page(browser.get(f"/w/{cast.workspace.slug}/reports/{report.pk}/"))
        assert report.get_state_display() in shown.text


def test_a_stored_one_of_an_older_release_is_readable(cast, browser):
    kept = full_content().to_json()
    old = {name: kept[name] for name in list(kept)[:8]}
    report = add_report(cast, content=old)
    assert browser.get(f"/w/{cast.workspace.slug}/reports/{report.pk}/").status_code == 200


def test_other_workspaces_have_none_of_it(cast):
    report = add_report(cast)
    stranger = make_cast("team")
    client = Client()
    client.force_login(stranger.owner)
    assert client.get(f"/w/{stranger.workspace.slug}/reports/{report.pk}/").status_code == 404
    assert client.get(f"/w/{cast.workspace.slug}/reports/{report.pk}/").status_code == 404
