import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import time_machine
from django.test import Client

from budgets.models import Budget
from budgets.scoped.services import adjust_budget, raise_budget
from budgets.selectors import BudgetValues, budget_values
from budgets.services import update_budget_settings
from opsmeter_site.lib.periods import day_of
from tests.budgets.rollups import spend
from tests.factories import make_cast
from workspaces.models import AuditEntry

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)
NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
HTMX = {"headers": {"HX-Request": "true"}}


@pytest.fixture(autouse=True)
def _noon():
    with time_machine.travel(NOON, tick=False):
        yield


@pytest.fixture
def cast():
    return make_cast("pro", timezone="Europe/Berlin")


def address(cast, rest=""):
    return f"/w/{cast.workspace.slug}/settings/budgets/{rest}"


def browser(user):
    client = Client()
    client.force_login(user)
    return client


def fields(response):
    """What a browser would post from the page's form, by name."""
    page = response.content.decode()
    form = re.search(r'<form id="budgets".*?</form>', page, re.DOTALL).group()
    found = {}
    for tag in re.findall(r"<input[^>]*>", form):
        name, value = re.search(r'name="([^"]*)"', tag).group(1), re.search(r'value="([^"]*)"', tag)
        is_choice = 'type="checkbox"' in tag or 'type="radio"' in tag
        if is_choice and not re.search(r"\bchecked\b", tag):
            continue
        found.setdefault(name, []).append(value.group(1) if value else ("on" if is_choice else ""))
    found.pop("csrfmiddlewaretoken", None)
    return found


def open_form(client, cast, **typed):
    """The fields of the page as it is now, with what somebody types into them."""
    return fields(client.get(address(cast))) | typed


def stored(cast):
    return budget_values(cast.workspace.pk)


def set_budgets(cast, **changes):
    update_budget_settings(cast.workspace, acting_user=cast.owner, **changes)


def toasts(response):
    return [str(message) for message in response.context["messages"]]


class TestPage:
    @pytest.mark.parametrize("role", ["viewer", "member"])
    def test_everyone_sees_the_values_and_the_gauges(self, cast, role):
        set_budgets(cast, daily_limit_usd=Decimal(50), counted_data_modes=["real", "test"])
        page = browser(getattr(cast, role)).get(address(cast)).content.decode()
        assert "$50.00" in page
        assert "Real, Test" in page
        assert 'role="meter"' in page
        assert '<form id="budgets"' not in page

    def test_admins_get_the_form_filled_in(self, cast):
        set_budgets(cast, daily_limit_usd=Decimal("12.50"), warning_threshold_ratio=Decimal("0.755"))
        found = fields(browser(cast.admin).get(address(cast)))
        assert found["daily_limit_usd"] == ["12.5"]
        assert found["monthly_limit_usd"] == [""]
        assert found["warning_threshold_ratio"] == ["75.5"]
        assert found["enforcement"] == ["soft"]
        assert found["counted_data_modes"] == ["real"]
        assert "observe_mode" not in found

    def test_the_reset_is_told_in_utc_and_in_the_workspaces_zone(self, cast):
        page = browser(cast.viewer).get(address(cast)).content.decode()
        assert "A new day begins at 00:00 UTC on 11 November (01:00 in Europe/Berlin)." in page
        assert "A new month begins at 00:00 UTC on 1 December (01:00 in Europe/Berlin)." in page

    def test_the_other_day_is_named_where_it_is_another_day(self):
        west = make_cast("pro", timezone="America/Los_Angeles")
        page = browser(west.viewer).get(address(west)).content.decode()
        assert "00:00 UTC on 11 November (16:00 on 10 November in America/Los_Angeles)" in page

    def test_a_forecast_stands_beside_the_gauge(self, cast):
        midnight = day_of(NOON).start
        spend(cast.workspace.pk, {midnight - n * DAY + 6 * DAY / 24: 8 for n in range(40)})
        set_budgets(cast, daily_limit_usd=Decimal(20), monthly_limit_usd=Decimal(200))
        page = browser(cast.viewer).get(address(cast)).content.decode()
        assert "By the end of the month: $240.00 expected, between $240.00 and $240.00." in page
        assert "The limit is expected to be reached on about 26 November" in page
        assert "By the end of the day: $8.00 expected" in page
        assert "The limit is not expected to be reached." in page

    def test_without_enough_days_it_says_so(self, cast):
        page = browser(cast.viewer).get(address(cast)).content.decode()
        assert "No forecast yet: it needs 3 whole UTC days." in page

    def test_outsiders_find_nothing(self, cast):
        client = browser(cast.outsider)
        assert client.get(address(cast)).status_code == 404
        assert client.post(address(cast)).status_code == 404
        assert client.get(address(cast, "preview/")).status_code == 404

    @pytest.mark.parametrize("role", ["viewer", "member"])
    def test_only_admins_change_anything(self, cast, role):
        data = open_form(browser(cast.admin), cast, daily_limit_usd="5")
        client = browser(getattr(cast, role))
        assert client.post(address(cast), data).status_code == 403
        assert client.post(address(cast, "preview/"), data).status_code == 403
        assert stored(cast) == BudgetValues()

    def test_it_takes_few_statements(self, cast, django_assert_max_num_queries):
        midnight = day_of(NOON).start
        spend(cast.workspace.pk, {midnight - n * DAY: 8 for n in range(40)})
        client = browser(cast.admin)
        client.get(address(cast))
        with django_assert_max_num_queries(18):
            client.get(address(cast))
        with django_assert_max_num_queries(20):
            client.get(address(cast, "preview/"))


class TestSaving:
    def test_a_change_is_saved_audited_and_can_be_undone(self, cast):
        client = browser(cast.admin)
        set_budgets(cast, monthly_limit_usd=Decimal(700), counted_data_modes=["demo", "real"])
        data = open_form(client, cast, daily_limit_usd="12.50", warning_threshold_ratio="75", observe_mode="on")
        data["counted_data_modes"] = ["real"]
        page = client.post(address(cast), data, follow=True)
        assert page.redirect_chain == [(address(cast), 302)]
        assert stored(cast) == BudgetValues(
            daily_limit_usd=Decimal("12.5"),
            monthly_limit_usd=Decimal(700),
            warning_threshold_ratio=Decimal("0.75"),
            observe_mode=True,
            counted_data_modes=("real",),
        )
        entry = AuditEntry.objects.filter(workspace=cast.workspace, action="budgets.changed").latest("id")
        assert entry.actor == cast.admin
        assert toasts(page) == ["The budgets are saved and hold from now on."]

        undone = client.post(address(cast), _undo(page.content.decode()), follow=True)
        assert undone.status_code == 200
        assert stored(cast) == BudgetValues(monthly_limit_usd=Decimal(700), counted_data_modes=("demo", "real"))

    def test_emptying_a_limit_removes_it(self, cast):
        set_budgets(cast, daily_limit_usd=Decimal(50))
        client = browser(cast.owner)
        client.post(address(cast), open_form(client, cast, daily_limit_usd=""))
        assert stored(cast).daily_limit_usd is None

    def test_a_double_submit_changes_once(self, cast):
        client = browser(cast.owner)
        data = open_form(client, cast, daily_limit_usd="50")
        client.post(address(cast), data)
        page = client.post(address(cast), data, follow=True)
        assert page.status_code == 200
        assert AuditEntry.objects.filter(action="budgets.changed").count() == 1
        assert len(toasts(page)) == 2

    def test_somebody_elses_change_is_not_overwritten_unseen(self, cast):
        client = browser(cast.admin)
        data = open_form(client, cast, daily_limit_usd="50")
        set_budgets(cast, daily_limit_usd=Decimal(70), observe_mode=True)
        page = client.post(address(cast), data)
        text = page.content.decode()
        assert page.status_code == 409
        assert stored(cast).daily_limit_usd == 70
        assert "the budgets have been changed meanwhile" in text
        assert cast.owner.email in text
        assert "$70.00" in text
        assert "$50.00" in text
        again = fields(page)
        assert again["daily_limit_usd"] == ["50"]
        assert client.post(address(cast), again).status_code == 302
        assert (stored(cast).daily_limit_usd, stored(cast).observe_mode) == (50, False)

    @pytest.mark.parametrize(
        ("field", "typed", "error"),
        [
            ("daily_limit_usd", "fifty", "Enter a number of USD"),
            ("daily_limit_usd", "0", "Must be above 0"),
            ("monthly_limit_usd", "-5", "Must be above 0"),
            ("monthly_limit_usd", "10000000.01", "at most 10,000,000"),
            ("monthly_limit_usd", "NaN", "Enter a number of USD"),
            ("monthly_limit_usd", "1e999999", "Must be above 0"),
            ("daily_limit_usd", "0.0000000000001", "12 decimal places"),
            ("warning_threshold_ratio", "", "required"),
            ("warning_threshold_ratio", "80%", "Enter a number, such as 80."),
            ("warning_threshold_ratio", "0", "Must be above 0 and at most 100."),
            ("warning_threshold_ratio", "100.01", "Must be above 0 and at most 100."),
            ("warning_threshold_ratio", "80.125", "At most 2 decimals."),
            ("enforcement", "firm", "Select a valid choice"),
            ("counted_data_modes", [], "Choose at least one."),
            ("counted_data_modes", ["real", "imagined"], "Select a valid choice"),
        ],
    )
    def test_a_bad_value_is_kept_and_told_beside_its_field(self, cast, field, typed, error):
        client = browser(cast.owner)
        page = client.post(address(cast), open_form(client, cast, **{field: typed}))
        assert page.status_code == 422
        assert any(error in told for told in page.context["form"].errors[field]), page.context["form"].errors
        assert error in page.content.decode()
        if isinstance(typed, str) and field != "enforcement":
            assert fields(page)[field] == [typed]
        assert stored(cast) == BudgetValues()
        preview = client.post(address(cast, "preview/"), open_form(client, cast, **{field: typed}), **HTMX)
        assert preview.status_code == 200
        assert error in preview.content.decode()

    def test_a_form_without_a_version_is_refused(self, cast):
        client = browser(cast.owner)
        data = open_form(client, cast, daily_limit_usd="5")
        del data["version"]
        assert client.post(address(cast), data).status_code == 422


def _undo(page):
    """The fields of the toast's Undo button."""
    toast = re.search(r'<div class="toast.*?</form>', page, re.DOTALL).group()
    found = {}
    for tag in re.findall(r'<input type="hidden"[^>]*>', toast):
        found.setdefault(re.search(r'name="([^"]*)"', tag).group(1), []).append(
            re.search(r'value="([^"]*)"', tag).group(1)
        )
    return found


class TestSecondQuestion:
    """Asked where saving would refuse telemetry, or raise an alert, at once."""

    def ask(self, cast, **typed):
        client = browser(cast.admin)
        before = stored(cast)
        page = client.post(address(cast), open_form(client, cast, **typed))
        if page.status_code == 302:
            return None
        assert page.status_code == 200
        assert stored(cast) == before
        return page

    def confirm(self, cast, page):
        return browser(cast.admin).post(address(cast), self.kept(page))

    def kept(self, page):
        """What a browser would post from the question."""
        form = re.search(
            r'<form method="post"\s+class="card form confirm".*?</form>', page.content.decode(), re.DOTALL
        ).group()
        data = {}
        for tag in re.findall(r'<input type="hidden"[^>]*>', form):
            value = re.search(r'value="([^"]*)"', tag)
            data.setdefault(re.search(r'name="([^"]*)"', tag).group(1), []).append(value.group(1) if value else "")
        return data

    def test_the_way_back_keeps_what_was_typed(self, cast):
        spend(cast.workspace.pk, {NOON: 60})
        page = self.ask(cast, daily_limit_usd="50", monthly_limit_usd="500", enforcement="hard")
        way_back = re.search(r'formaction="([^"]*)">Back to the form<', page.content.decode()).group(1)
        typed = fields(browser(cast.admin).post(way_back, self.kept(page)))
        assert (typed["daily_limit_usd"], typed["monthly_limit_usd"], typed["enforcement"]) == (
            ["50"],
            ["500"],
            ["hard"],
        )
        assert "confirmed" not in typed
        assert stored(cast).daily_limit_usd is None

    def test_a_limit_below_what_is_spent_refuses_at_once(self, cast):
        spend(cast.workspace.pk, {NOON: "61.20"})
        set_budgets(cast, enforcement="hard")
        page = self.ask(cast, daily_limit_usd="50", monthly_limit_usd="500")
        assert page.context["consequences"] == [
            "Telemetry would be refused (402) from now until 00:00 UTC on 11 November (01:00 in Europe/Berlin): "
            "$61.20 of $50.00 is spent this day.",
            "Calls to your providers always continue.",
        ]
        assert self.confirm(cast, page).status_code == 302
        assert (stored(cast).daily_limit_usd, stored(cast).monthly_limit_usd) == (50, 500)

    def test_with_a_soft_stop_it_raises_an_alert_at_once(self, cast):
        spend(cast.workspace.pk, {NOON - DAY: 60})
        page = self.ask(cast, monthly_limit_usd="50")
        assert page.context["consequences"] == [
            "The monthly budget is exceeded at once: $60.00 of $50.00 is spent this month. Alerts and answers say so "
            "until 00:00 UTC on 1 December (01:00 in Europe/Berlin); nothing is refused."
        ]

    def test_turning_on_the_hard_stop(self, cast):
        set_budgets(cast, daily_limit_usd=Decimal(50))
        page = self.ask(cast, enforcement="hard")
        assert "refused (402) whenever spend is above a limit" in page.context["consequences"][0]
        self.confirm(cast, page)
        assert stored(cast).enforcement == "hard"

    def test_turning_off_observe_mode_turns_on_the_hard_stop(self, cast):
        spend(cast.workspace.pk, {NOON: 60})
        set_budgets(cast, daily_limit_usd=Decimal(50), enforcement="hard", observe_mode=True)
        client = browser(cast.admin)
        data = open_form(client, cast)
        del data["observe_mode"]
        page = client.post(address(cast), data)
        assert "Telemetry would be refused" in page.context["consequences"][0]

    def test_counting_other_data_modes_can_exceed_a_limit(self, cast):
        spend(cast.workspace.pk, {NOON: 60}, "test")
        set_budgets(cast, daily_limit_usd=Decimal(50), enforcement="hard")
        page = self.ask(cast, counted_data_modes=["real", "test"])
        assert "$60.00 of $50.00 is spent this day" in page.context["consequences"][0]
        self.confirm(cast, page)
        assert stored(cast).counted_data_modes == ("real", "test")

    def test_it_asks_by_what_is_enforced_an_adjustment_and_a_raise_included(self, cast):
        set_budgets(cast, daily_limit_usd=Decimal(50))
        budget = Budget.objects.get(workspace=cast.workspace)
        adjust_budget(budget, Decimal(60), "a call that was not sent", acting_user=cast.owner)
        page = self.ask(cast, enforcement="hard")
        assert "from now until" in page.context["consequences"][0]
        assert "$60.00 of $50.00 is spent this day" in page.context["consequences"][0]

        raise_budget(budget, Decimal(80), NOON + 3 * DAY / 24, "a launch", acting_user=cast.owner)
        page = self.ask(cast, enforcement="hard")
        assert "whenever spend is above a limit" in page.context["consequences"][0]

    @pytest.mark.parametrize(
        "typed",
        [
            {"daily_limit_usd": "61.2", "monthly_limit_usd": "500"},  # spent, but not above
            {"enforcement": "hard"},  # without any limit
            {"enforcement": "hard", "observe_mode": "on", "daily_limit_usd": "70"},
            {"warning_threshold_ratio": "10", "daily_limit_usd": "70"},
        ],
    )
    def test_other_changes_are_not_asked_about(self, cast, typed):
        spend(cast.workspace.pk, {NOON: "61.20"})
        assert self.ask(cast, **typed) is None

    def test_what_is_exceeded_already_is_not_asked_about_again(self, cast):
        spend(cast.workspace.pk, {NOON: 60})
        set_budgets(cast, daily_limit_usd=Decimal(50), enforcement="hard")
        assert self.ask(cast, daily_limit_usd="40") is None
        assert self.ask(cast, warning_threshold_ratio="50") is None


class TestPreview:
    @pytest.fixture
    def _thirty_days(self, cast):
        midnight = day_of(NOON).start
        usd = {midnight - n * DAY + hour * DAY / 24: 5 for n in range(29) for hour in (3, 9)}
        spend(cast.workspace.pk, usd | {midnight - 5 * DAY + 15 * DAY / 24: 30, midnight - 5 * DAY + 16 * DAY / 24: 7})

    @pytest.mark.usefixtures("_thirty_days")
    def test_everyone_sees_what_the_stored_budgets_would_have_done(self, cast):
        set_budgets(cast, daily_limit_usd=Decimal(20))
        page = browser(cast.viewer).get(address(cast, "preview/"), **HTMX)
        text = page.content.decode()
        assert "<html" not in text
        preview = page.context["preview"]
        (row,) = preview.rows
        assert (row.label, row.sent_usd, row.warned, row.exceeded) == ("Thu 5 Nov", 47, "15:00", "15:00")
        assert (preview.refused.requests, preview.refused.usd, preview.unsure.usd) == (1, 7, 0)
        assert "A hard stop would have refused" in text
        assert preview.daily_suggestion is None

    @pytest.mark.usefixtures("_thirty_days")
    def test_it_shows_what_is_in_the_form_and_saves_nothing(self, cast):
        client = browser(cast.admin)
        data = open_form(client, cast, daily_limit_usd="9", enforcement="hard")
        page = client.post(address(cast, "preview/"), data, **HTMX)
        assert page.context["preview"].replay.is_enforced
        assert len(page.context["preview"].replay.exceeded) == 29
        assert "Refused by the hard stop" in page.content.decode()
        assert stored(cast) == BudgetValues()
        assert not AuditEntry.objects.filter(action="budgets.changed").exists()

    @pytest.mark.usefixtures("_thirty_days")
    def test_it_suggests_limits_where_there_are_none(self, cast):
        client = browser(cast.admin)
        page = client.get(address(cast, "preview/"), **HTMX)
        assert page.context["preview"].daily_suggestion == 13
        assert page.context["preview"].monthly_suggestion == Decimal(450)
        filled = client.post(address(cast, "preview/"), open_form(client, cast, take="daily_limit_usd:13"))
        assert fields(filled)["daily_limit_usd"] == ["13"]
        assert stored(cast) == BudgetValues()
        ignored = client.post(address(cast, "preview/"), open_form(client, cast, take="version:13"))
        assert fields(ignored)["version"] == open_form(client, cast)["version"]

    def test_without_scripts_it_is_a_page(self, cast):
        client = browser(cast.admin)
        page = client.post(address(cast, "preview/"), open_form(client, cast, monthly_limit_usd="7"))
        assert page.status_code == 200
        assert "<html" in page.content.decode()
        assert fields(page)["monthly_limit_usd"] == ["7"]
        assert "Limit exceeded" in page.content.decode()
        assert client.get(address(cast, "preview/")).status_code == 200
        bad = client.post(address(cast, "preview/"), open_form(client, cast, monthly_limit_usd="x"))
        assert bad.status_code == 422
        assert fields(bad)["monthly_limit_usd"] == ["x"]

    def test_a_workspace_without_events_has_a_preview(self, cast):
        page = browser(cast.viewer).get(address(cast, "preview/"), **HTMX)
        assert page.context["preview"].daily_suggestion is None
        assert "Without a limit nobody would have been told" in page.content.decode()
