from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine
from django.utils.html import escape

from alerts import services
from alerts.models import Alert, AlertKind, AlertState, Severity
from alerts.noticing import raise_alerts
from alerts.selectors import PAGE_ROWS
from tests.alerts.inbox import NOON, finding, raise_many, raise_one
from tests.factories import make_cast
from tests.ledger import make_events
from tests.pages import page, signed_in

pytestmark = pytest.mark.django_db

HTMX = {"HX-Request": "true"}
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _later():
    with time_machine.travel(NOON + HOUR, tick=False):
        yield


@pytest.fixture
def cast():
    return make_cast("pro", timezone="Europe/Berlin")


def address(cast, rest=""):
    return f"/w/{cast.workspace.slug}/alerts/{rest}"


def titles(response):
    return [each.one("a").text for each in page(response).all("p", "alert-title")]


def tabs(response):
    return [each.text for each in page(response).one("ul", "tabs").all("a")]


def states(*alerts):
    return [Alert.objects.get(pk=each.pk).state for each in alerts]


def toasts(response):
    return [each.one("p").text for each in page(response).all("div", "toast")]


def undo(client, response):
    """Press the Undo button of the page's toast."""
    form = page(response).one("div", "toast").one("form")
    values = {}
    for each in form.all("input"):
        values.setdefault(each.attributes["name"], []).append(each.attributes["value"])
    return client.post(form.attributes["action"], values, follow=True)


class TestList:
    def test_the_newest_is_first_with_all_that_matters(self, cast):
        raise_one(cast.workspace, scope="limit:old", occurred_at=NOON - HOUR, title="Earlier")
        raise_one(cast.workspace, severity=Severity.CRITICAL, title="Later <one>")
        response = signed_in(cast.viewer).get(address(cast))
        assert titles(response) == ["Later <one>", "Earlier"]
        row = page(response).all("li", "alert-row")[0].text
        assert "Critical" in row
        assert "Budget warning" in row
        assert "Daily budget" in row
        assert "1 hour ago" in row
        assert "10 Nov 2026, 13:00" in row
        assert tabs(response) == ["Open 2", "Acknowledged 0", "Resolved 0"]

    def test_states_and_filters_are_in_the_address(self, cast):
        warning = raise_one(cast.workspace, scope="limit:1")
        critical = raise_one(cast.workspace, scope="limit:2", severity=Severity.CRITICAL, title="Critical one")
        raise_one(
            cast.workspace, scope="x", kind=AlertKind.UNPRICED_MODEL, title="Unpriced", occurred_at=NOON - 48 * HOUR
        )
        services.acknowledge(warning, cast.member)
        client = signed_in(cast.viewer)
        assert titles(client.get(address(cast, "?state=acknowledged"))) == [warning.title]
        assert titles(client.get(address(cast, "?severity=critical"))) == [critical.title]
        assert titles(client.get(address(cast, "?kind=unpriced_model"))) == ["Unpriced"]
        assert titles(client.get(address(cast, "?period=24h"))) == [critical.title]
        narrowed = client.get(address(cast, "?kind=budget_warning&period=7d"))
        assert tabs(narrowed) == ["Open 1", "Acknowledged 1", "Resolved 0"]
        links = [each.attributes["href"] for each in page(narrowed).one("ul", "tabs").all("a")]
        assert links[1].endswith("?state=acknowledged&kind=budget_warning&period=7d")

    def test_what_is_not_understood_counts_as_not_said(self, cast):
        raise_one(cast.workspace)
        query = "?state=x&kind=y&severity=z&period=1y&cursor=%00"
        assert len(titles(signed_in(cast.viewer).get(address(cast, query)))) == 1

    def test_an_empty_inbox_says_what_will_come(self, cast):
        text = page(signed_in(cast.admin).get(address(cast))).one("div", "empty")
        assert "Nothing has happened yet" in text.text
        assert text.one("a", "button").text == "Set a budget"
        raise_one(cast.workspace)
        assert "Nothing matches" in page(signed_in(cast.viewer).get(address(cast, "?severity=info"))).text
        assert "No alert is in this state" in page(signed_in(cast.viewer).get(address(cast, "?state=resolved"))).text

    def test_pages_lead_there_and_back(self, cast):
        raise_many(cast.workspace, 2 * PAGE_ROWS + 1)
        client = signed_in(cast.viewer)
        seen, address_of_page = [], address(cast)
        while address_of_page:
            shown = client.get(address_of_page)
            seen.append(titles(shown))
            older = [each for each in page(shown).all("nav", "pager")[0].all("a") if each.text == "Older"]
            address_of_page = older[0].attributes["href"] if older else None
        assert [len(each) for each in seen] == [PAGE_ROWS, PAGE_ROWS, 1]
        assert [each for part in seen for each in part] == [f"Alert {n}" for n in reversed(range(2 * PAGE_ROWS + 1))]
        newer = page(shown).one("nav", "pager").one("a")
        assert newer.text == "Newer"
        back = client.get(newer.attributes["href"])
        assert titles(back) == seen[1]
        first = page(back).one("nav", "pager").all("a")[0]
        again = client.get(first.attributes["href"])
        assert titles(again) == seen[0]
        assert [each.text for each in page(again).one("nav", "pager").all("a")] == ["Older"]

    def test_equal_moments_lose_nobody(self, cast):
        raise_many(cast.workspace, PAGE_ROWS + 5, apart=timedelta(0))
        client = signed_in(cast.viewer)
        first = client.get(address(cast))
        older = page(first).one("nav", "pager").one("a").attributes["href"]
        assert len({*titles(first), *titles(client.get(older))}) == PAGE_ROWS + 5

    def test_how_it_was_told_and_how_often(self, cast):
        raise_one(cast.workspace)
        raise_alerts([finding(cast.workspace, occurred_at=NOON + HOUR / 2)], NOON + HOUR / 2)
        row = page(signed_in(cast.viewer).get(address(cast))).one("li", "alert-row").text
        assert "Being sent" in row
        assert "De-duplicated: found 2 times, last 13:30" in row

    def test_who_looked_after_it(self, cast):
        acknowledged, resolved, past = raise_many(cast.workspace, 3)
        services.acknowledge(acknowledged, cast.member)
        services.resolve(resolved, cast.admin)
        over = {"state": AlertState.RESOLVED, "resolved_at": NOON, "resolution": "A new period began"}
        Alert.objects.filter(pk=past.pk).update(**over)
        client = signed_in(cast.member)
        assert "Acknowledged by The member" in page(client.get(address(cast, "?state=acknowledged"))).text
        rows = page(client.get(address(cast, "?state=resolved"))).all("li", "alert-row")
        assert ["By itself: A new period began" in row.text for row in rows] == [True, False]
        assert ["Resolved by The admin" in row.text for row in rows] == [False, True]
        assert ["disabled" in row.one("input").attributes for row in rows] == [True, False]

    @pytest.mark.parametrize(
        ("kind", "facts", "about"),
        [
            (AlertKind.UNIT_COST, {"drill": {"endpoint": "checkout"}}, "Endpoint checkout"),
            (AlertKind.SPEND_SPIKE, {"drill": {}}, "The whole workspace"),
        ],
    )
    def test_what_it_is_about(self, cast, kind, facts, about):
        raise_one(cast.workspace, kind=kind, facts=facts, title="T")
        shown = page(signed_in(cast.viewer).get(address(cast))).one("p", "alert-facts").text
        assert about in shown

    def test_it_looks_again_by_itself(self, cast):
        client = signed_in(cast.member)
        here = address(cast, "?severity=warning")
        assert page(client.get(here)).one("section", id="inbox").attributes["hx-get"] == here
        raise_one(cast.workspace)
        part = client.get(here, headers=HTMX)
        assert b"<html" not in part.content
        assert len(titles(part)) == 1
        number = page(part).one("span", id="open-alerts")
        assert number.attributes["hx-swap-oob"] == "true"
        assert number.text == "1 open"

    def test_it_takes_few_statements_however_many_rows(self, cast, django_assert_max_num_queries):
        raise_many(cast.workspace, PAGE_ROWS)
        client = signed_in(cast.member)
        client.get(address(cast))
        with django_assert_max_num_queries(10):
            client.get(address(cast))
        with django_assert_max_num_queries(7):
            client.get(address(cast), headers=HTMX)

    def test_the_number_of_open_alerts_is_on_every_page(self, cast):
        client = signed_in(cast.viewer)
        somewhere = f"/w/{cast.workspace.slug}/settings/budgets/"
        assert "hidden" in page(client.get(somewhere)).one("span", id="open-alerts").attributes
        raise_many(cast.workspace, 3)
        shown = page(client.get(somewhere)).one("span", id="open-alerts")
        assert shown.text == "3 open"
        assert "hidden" not in shown.attributes
        assert "3 alerts nobody has looked after yet" in page(client.get(f"/w/{cast.workspace.slug}/")).text

    def test_outsiders_find_nothing(self, cast):
        alert = raise_one(cast.workspace)
        client = signed_in(cast.outsider)
        assert client.get(address(cast)).status_code == 404
        assert client.get(address(cast, f"{alert.pk}/")).status_code == 404
        assert client.post(address(cast, "change/"), {"deed": "resolve", "alert": str(alert.pk)}).status_code == 404


class TestChanging:
    def test_several_at_once_with_a_way_back(self, cast):
        one, two, three = raise_many(cast.workspace, 3)
        client = signed_in(cast.member)
        data = {"deed": "acknowledge", "alert": [str(one.pk), str(two.pk)], "back": "?severity=warning"}
        done = client.post(address(cast, "change/"), data, follow=True)
        assert done.redirect_chain[-1][0] == address(cast, "?severity=warning")
        assert states(one, two, three) == ["acknowledged", "acknowledged", "open"]
        assert toasts(done) == ["2 alerts are acknowledged."]
        assert Alert.objects.get(pk=one.pk).acknowledged_by == cast.member
        undone = undo(client, done)
        assert states(one, two, three) == ["open"] * 3
        assert undone.redirect_chain[-1][0] == address(cast, "?severity=warning")

    @pytest.mark.parametrize(
        ("before", "deed", "after"),
        [
            ("open", "acknowledge", "acknowledged"),
            ("open", "resolve", "resolved"),
            ("acknowledged", "resolve", "resolved"),
            ("acknowledged", "reopen", "open"),
            ("resolved", "reopen", "open"),
        ],
    )
    def test_every_undo_leads_back(self, cast, before, deed, after):
        alert = raise_one(cast.workspace)
        if before != "open":
            {"acknowledged": services.acknowledge, "resolved": services.resolve}[before](alert, cast.member)
        client = signed_in(cast.member)
        done = client.post(address(cast, f"{alert.pk}/change/"), {"deed": deed}, follow=True)
        assert done.redirect_chain[-1][0] == address(cast, f"{alert.pk}/")
        assert states(alert) == [after]
        undo(client, done)
        assert states(alert) == [before]

    def test_what_is_refused_says_why_and_stops_no_other(self, cast):
        old = raise_one(cast.workspace, scope="limit:0", occurred_at=NOON - 48 * HOUR)
        new = raise_one(cast.workspace)
        services.resolve(old, cast.member)
        services.resolve(new, cast.member)
        data = {"deed": "reopen", "alert": [str(old.pk), str(new.pk)]}
        done = signed_in(cast.member).post(address(cast, "change/"), data, follow=True)
        assert states(old, new) == ["resolved", "open"]
        assert any("Its time is over" in each for each in toasts(done))
        assert "1 alert is open again." in toasts(done)

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            ({"deed": "resolve"}, "Nothing was changed: choose at least one alert."),
            ({"deed": "resolve", "alert": "nonsense"}, "Nothing was changed: choose at least one alert."),
            ({"deed": "explode"}, "There is no such thing to do. Nothing was changed."),
        ],
    )
    def test_nonsense_changes_nothing(self, cast, data, said):
        alert = raise_one(cast.workspace)
        wanted = data if "alert" in data or data["deed"] == "resolve" else data | {"alert": str(alert.pk)}
        done = signed_in(cast.member).post(address(cast, "change/"), wanted, follow=True)
        assert toasts(done) == [said]
        assert states(alert) == ["open"]

    def test_another_workspaces_alert_is_not_touched(self, cast):
        theirs = raise_one(make_cast("pro").workspace)
        signed_in(cast.owner).post(address(cast, "change/"), {"deed": "resolve", "alert": str(theirs.pk)})
        assert signed_in(cast.owner).get(address(cast, f"{theirs.pk}/")).status_code == 404
        assert states(theirs) == ["open"]

    def test_back_leads_nowhere_else(self, cast):
        alert = raise_one(cast.workspace)
        data = {"deed": "resolve", "alert": str(alert.pk), "back": "//evil.example/?state=resolved"}
        assert signed_in(cast.member).post(address(cast, "change/"), data).url.startswith(address(cast))

    def test_viewers_only_read(self, cast):
        alert = raise_one(cast.workspace)
        client = signed_in(cast.viewer)
        assert client.post(address(cast, "change/"), {"deed": "resolve", "alert": str(alert.pk)}).status_code == 403
        assert client.post(address(cast, f"{alert.pk}/change/"), {"deed": "resolve"}).status_code == 403
        assert client.post(address(cast, f"{alert.pk}/notes/"), {"text": "Hello"}).status_code == 403
        assert states(alert) == ["open"]
        assert not page(client.get(address(cast))).all("input", name="alert")


class TestOneAlert:
    def open(self, cast, alert, who="viewer"):
        return page(signed_in(getattr(cast, who)).get(address(cast, f"{alert.pk}/")))

    def test_it_says_what_happened_and_who_was_told(self, cast):
        alert = raise_one(cast.workspace)
        services.acknowledge(alert, cast.member)
        shown = self.open(cast, alert)
        assert alert.text in shown.text
        assert "Tue 10 Nov 2026 (UTC day)" in shown.text
        moments = [each.text for each in shown.one("ol", "alert-moments").all("li")]
        assert "It happened." in moments[0]
        assert "In the inbox." in moments[1]
        assert any(f"Alert to {cast.owner.email}" in each for each in moments)
        assert "Acknowledged by The member." in moments[-1]
        assert (
            shown.one("ol", "alert-moments")
            .all("a")[0]
            .attributes["href"]
            .startswith(f"/w/{cast.workspace.slug}/deliveries/")
        )
        assert shown.one("a", href=f"/w/{cast.workspace.slug}/settings/budgets/")

    def test_addresses_outside_the_workspace_are_for_admins(self, cast):
        alert = raise_one(cast.workspace)
        alert.deliveries.update(
            recipient="books@elsewhere.example", state="failed", last_error="550 books@elsewhere.example"
        )
        assert "books@elsewhere.example" not in self.open(cast, alert, "member").text
        assert "b…@elsewhere.example" in self.open(cast, alert, "member").text
        assert "550 books@elsewhere.example" in self.open(cast, alert, "admin").text

    def test_the_dominant_driver_and_the_page_on_its_window(self, cast):
        make_events(cast.workspace, 2, occurred_at=NOON - 26 * HOUR, endpoint_tag="chat")
        make_events(cast.workspace, 9, occurred_at=NOON - 2 * HOUR, endpoint_tag="chat")
        shown = self.open(cast, raise_one(cast.workspace, facts={"drill": {"endpoint": "chat"}}))
        assert (
            "$0.09 in this window, $0.02 in the UTC day before, up to the same time (+350%). "
            "Volume moved it most (+$0.07)"
        ) in shown.text
        assert "The endpoint that moved most is chat (+$0.07)." in shown.text
        link = next(each for each in shown.all("a") if "on this window" in each.text).attributes["href"]
        wanted = "?range=custom&from=2026-11-10&to=2026-11-10&env=all&mode=real&endpoint=chat"
        assert link == f"/w/{cast.workspace.slug}/investigate/{wanted}"
        assert "the local days in Europe/Berlin that hold it" in shown.text
        opened = page(signed_in(cast.viewer).get(link))
        assert "$0.09" in opened.text

    def test_in_a_utc_workspace_the_page_is_the_window(self):
        cast = make_cast("pro", timezone="UTC")
        shown = self.open(cast, raise_one(cast.workspace, occurred_at=NOON - 72 * HOUR))
        assert "that hold it" not in shown.text
        assert any("from=2026-11-07&to=2026-11-07" in each.attributes["href"] for each in shown.all("a"))

    def test_a_spike_is_held_against_its_hours_of_the_week_before(self, cast):
        start = NOON - 3 * HOUR
        make_events(cast.workspace, 4, occurred_at=start + HOUR, endpoint_tag="chat", cost_usd=Decimal(2))
        make_events(cast.workspace, 4, occurred_at=start + HOUR - timedelta(days=7), endpoint_tag="chat", cost_usd=1)
        hours = {"hours_start": start.isoformat(), "hours_end": NOON.isoformat()}
        alert = raise_one(cast.workspace, kind=AlertKind.SPEND_SPIKE, scope="workspace", facts=hours)
        shown = self.open(cast, alert)
        assert "$8.00 in this window, $4.00 in the same hours a week before (+100%)" in shown.text
        assert "The whole workspace" in shown.text

    def test_where_money_is_not_the_matter_there_is_no_driver(self, cast):
        alert = raise_one(cast.workspace, kind=AlertKind.UNPRICED_MODEL, scope="unpriced#1", facts={})
        shown = self.open(cast, alert)
        assert "moved it most" not in shown.text
        assert shown.one("a", href=f"/w/{cast.workspace.slug}/prices/unpriced/")

    def test_notes(self, cast):
        alert = raise_one(cast.workspace)
        client = signed_in(cast.member)
        done = client.post(
            address(cast, f"{alert.pk}/notes/"), {"text": "It was the <batch> job.\nFixed."}, follow=True
        )
        assert escape("It was the <batch> job.") in done.content.decode()
        assert "The member" in page(done).one("div", "alert-note").text
        empty = client.post(address(cast, f"{alert.pk}/notes/"), {"text": "  "})
        assert empty.status_code == 422
        assert "Must not be empty." in page(empty).text
        long = client.post(address(cast, f"{alert.pk}/notes/"), {"text": "x" * 2_001})
        assert "At most 2,000 characters." in page(long).text
        assert alert.notes.count() == 1

    def test_a_recovery_and_what_it_ends_lead_to_each_other(self, cast):
        alert = raise_one(cast.workspace, severity=Severity.CRITICAL, kind=AlertKind.BUDGET_EXCEEDED)
        recovery = Alert.objects.create(
            workspace=cast.workspace,
            kind=AlertKind.RECOVERY,
            severity=Severity.INFO,
            scope=alert.scope,
            metric=alert.metric,
            dedup_key=alert.dedup_key,
            title="Daily budget no longer exceeded",
            text="A new period began.",
            window_start=alert.window_start,
            window_end=alert.window_end,
            state=AlertState.RESOLVED,
            resolved_at=NOON,
            resolution="A new period began",
            recovers=alert,
            handling=alert.handling,
        )
        assert self.open(cast, alert).one("a", href=address(cast, f"{recovery.pk}/"))
        shown = self.open(cast, recovery, "member")
        assert shown.one("a", href=address(cast, f"{alert.pk}/")).text == alert.title
        assert "Resolved by itself. A new period began" in shown.text
        assert not [each for each in shown.all("button") if each.text == "Reopen"]
