from datetime import time, timedelta

import pytest
import time_machine

from alerts.channel_sets import email_channel
from alerts.kinds import KINDS
from alerts.models import AlertSettings, Channel, ChannelKind, ChannelState, ReportKind, Schedule
from alerts.preferences import preferences_of
from alerts.schedules import ensure_schedules
from alerts.settings_services import update_alert_settings
from tests.alerts.inbox import NOON
from tests.factories import make_cast
from tests.pages import page, signed_in
from workspaces.models import AuditEntry

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _noon():
    with time_machine.travel(NOON, tick=False):
        yield


@pytest.fixture
def cast():
    return make_cast("pro", timezone="Europe/Berlin")


def address(cast):
    return f"/w/{cast.workspace.slug}/settings/alerts/"


def form_of(shown):
    """What a browser would post from the page's form."""
    form = next(each for each in shown.all("form") if each.all("input", name="version"))
    typed = {each.attributes["name"]: each.attributes.get("value", "") for each in form.all("input")}
    chosen = {
        each.attributes["name"]: option.attributes["value"]
        for each in form.all("select")
        for option in each.all("option")
        if "selected" in option.attributes
    }
    return typed | chosen


def open_form(client, cast, **typed):
    return form_of(page(client.get(address(cast)))) | typed


def stored(cast):
    return preferences_of(cast.workspace.pk)


def toasts(response):
    return [each.one("p").text for each in page(response).all("div", "toast")]


def notices(response):
    return [each.text for each in page(response).all("div", "notice")]


class TestPage:
    def test_admins_get_the_form_with_what_holds(self, cast):
        found = open_form(signed_in(cast.admin), cast)
        assert found["mode_budget_warning"] == "immediate"
        assert found["mode_unpriced_model"] == "daily"
        assert found["cooldown_seconds"] == "5 min"
        assert (found["quiet_from"], found["quiet_until"]) == ("", "")

    @pytest.mark.parametrize("role", ["viewer", "member"])
    def test_the_others_read(self, cast, role):
        update_alert_settings(cast.workspace, acting_user=cast.owner, quiet_from=time(22), quiet_until=time(7))
        client = signed_in(getattr(cast, role))
        shown = page(client.get(address(cast)))
        assert not shown.all("input", name="version")
        assert "22:00 to 07:00" in shown.text
        assert "In the weekly summary" in shown.text
        data = open_form(signed_in(cast.admin), cast, cooldown_seconds="0")
        assert client.post(address(cast), data).status_code == 403
        assert stored(cast).cooldown == timedelta(minutes=5)

    def test_outsiders_find_nothing(self, cast):
        assert signed_in(cast.outsider).get(address(cast)).status_code == 404

    def test_the_next_quiet_hours_are_told_in_local_time(self, cast):
        update_alert_settings(cast.workspace, acting_user=cast.owner, quiet_from=time(22), quiet_until=time(7))
        text = page(signed_in(cast.viewer).get(address(cast))).text
        assert "The next quiet hours: 10 Nov 2026, 22:00 to 11 Nov 2026, 07:00 (Europe/Berlin)." in text
        with time_machine.travel(NOON + timedelta(hours=13), tick=False):
            text = page(signed_in(cast.viewer).get(address(cast))).text
        assert "It is quiet now, until 11 Nov 2026, 07:00 (Europe/Berlin)." in text

    def test_quiet_hours_that_clocks_skip_today_come_tomorrow(self, cast):
        update_alert_settings(cast.workspace, acting_user=cast.owner, quiet_from=time(2, 10), quiet_until=time(2, 50))
        with time_machine.travel("2027-03-28T00:30:00Z", tick=False):
            text = page(signed_in(cast.viewer).get(address(cast))).text
        assert "The next quiet hours: 29 Mar 2027, 02:10 to 29 Mar 2027, 02:50 (Europe/Berlin)." in text

    @pytest.mark.parametrize(
        ("plan", "budget", "unit_cost"),
        [
            ("free", "On the Free plan: in the inbox only.", "Not part of the Free plan; from Pro on."),
            ("starter", "On the Starter plan: in the daily summary.", "Not part of the Starter plan; from Pro on."),
            ("pro", "", ""),
        ],
    )
    def test_what_the_plan_makes_of_a_mode_stands_beside_it(self, plan, budget, unit_cost):
        cast = make_cast(plan)
        rows = page(signed_in(cast.admin).get(address(cast))).one("table", "modes").all("tr")[1:]
        notes = {row.one("label").text: [each.text for each in row.one("td").all("p", "help")] for row in rows}
        assert notes["Budget warning"] == ([budget] if budget else [])
        assert notes["Unit cost over threshold"] == ([unit_cost] if unit_cost else [])

    @pytest.mark.parametrize(
        ("plan", "said"),
        [
            ("free", "The Free plan sends no messages: every alert is in the inbox only."),
            ("starter", "The Starter plan sends nothing at once"),
            ("pro", ""),
        ],
    )
    def test_what_the_plan_does_not_include_is_said_first(self, plan, said):
        cast = make_cast(plan)
        shown = [each.text for each in page(signed_in(cast.viewer).get(address(cast))).all("p", "notice")]
        assert (len(shown), said in "".join(shown)) == (bool(said), True)

    def test_what_is_told_in_a_summary_that_is_off_is_said(self, cast):
        ensure_schedules(cast.workspace, NOON)
        client = signed_in(cast.viewer)
        assert notices(client.get(address(cast))) == []
        Schedule.objects.filter(workspace=cast.workspace, kind=ReportKind.DAILY).update(is_enabled=False)
        (notice,) = notices(client.get(address(cast)))
        assert "Daily summary is switched off, and these are told in it: Unpriced model." in notice

    def test_immediate_alerts_without_an_audience_are_said(self, cast):
        update_alert_settings(cast.workspace, acting_user=cast.owner, recipient_roles=[])
        client = signed_in(cast.viewer)
        (notice,) = notices(client.get(address(cast)))
        assert "What is told immediately reaches nobody" in notice
        slack = Channel.objects.create(workspace=cast.workspace, kind=ChannelKind.SLACK, name="Ops")
        assert notices(client.get(address(cast))) == []
        Channel.objects.filter(pk=slack.pk).update(state=ChannelState.PAUSED)
        assert len(notices(client.get(address(cast)))) == 1

    def test_paused_mail_is_no_audience(self, cast):
        Channel.objects.filter(pk=email_channel(cast.workspace.pk).pk).update(state=ChannelState.PAUSED)
        assert len(notices(signed_in(cast.viewer).get(address(cast)))) == 1

    def test_it_takes_few_statements(self, cast, django_assert_max_num_queries):
        client = signed_in(cast.admin)
        client.get(address(cast))
        with django_assert_max_num_queries(18):
            client.get(address(cast))


class TestSaving:
    def test_a_change_is_saved_audited_and_can_be_undone(self, cast):
        client = signed_in(cast.admin)
        before = stored(cast)
        data = open_form(client, cast, mode_budget_warning="daily", cooldown_seconds="90 s", quiet_from="22:00")
        done = client.post(address(cast), data | {"quiet_until": "07:15"}, follow=True)
        assert toasts(done) == ["Saved. Alerts are told like this from now on."]
        assert stored(cast).cooldown == timedelta(seconds=90)
        assert stored(cast).quiet_hours.end == time(7, 15)
        assert AuditEntry.objects.filter(workspace=cast.workspace, action="alert_settings.changed").count() == 1
        undo = page(done).one("div", "toast").one("form")
        values = {each.attributes["name"]: each.attributes["value"] for each in undo.all("input")}
        client.post(undo.attributes["action"], values)
        assert stored(cast) == before

    def test_saving_the_same_says_so(self, cast):
        client = signed_in(cast.admin)
        done = client.post(address(cast), open_form(client, cast), follow=True)
        assert toasts(done) == ["These are the settings already; nothing was changed."]
        assert not AlertSettings.objects.filter(workspace=cast.workspace).exists()

    @pytest.mark.parametrize(
        ("typed", "seconds"),
        [("0", 0), ("45", 45), ("90 s", 90), ("5 min", 300), ("10m", 600), ("2 h", 7_200), ("24 hours", 86_400)],
    )
    def test_a_cooldown_is_written_as_people_write_it(self, cast, typed, seconds):
        client = signed_in(cast.admin)
        client.post(address(cast), open_form(client, cast, cooldown_seconds=typed))
        assert stored(cast).cooldown.total_seconds() == seconds

    @pytest.mark.parametrize(
        ("typed", "said"),
        [
            ({"cooldown_seconds": "25 h"}, "At most 24 h."),
            ({"cooldown_seconds": "-5"}, "Write a number with s, min or h"),
            ({"cooldown_seconds": "soon"}, "Write a number with s, min or h"),
            ({"cooldown_seconds": ""}, "This field is required."),
            ({"quiet_from": "25:00", "quiet_until": "07:00"}, "There is no such time of day"),
            ({"quiet_from": "22:00"}, "Quiet hours need a beginning and an end"),
            ({"quiet_from": "07:00", "quiet_until": "07:00"}, "Must not be the time at which they begin."),
            ({"mode_recovery": "hourly"}, "Select a valid choice. hourly is not one of the available choices."),
        ],
    )
    def test_what_cannot_be_is_refused_beside_its_field(self, cast, typed, said):
        client = signed_in(cast.admin)
        response = client.post(address(cast), open_form(client, cast, **typed))
        assert response.status_code == 422
        marked = [each for each in page(response).all(css_class="field-bad") if said in each.text]
        assert marked
        assert not AlertSettings.objects.filter(workspace=cast.workspace).exists()
        kept = form_of(page(response))
        assert all(kept[name] == value for name, value in typed.items() if not name.startswith("mode"))

    def test_somebody_elses_change_is_shown_before_it_is_overwritten(self, cast):
        client = signed_in(cast.admin)
        data = open_form(client, cast, cooldown_seconds="1 min")
        update_alert_settings(cast.workspace, acting_user=cast.owner, modes={"recovery": "inbox"})
        refused = client.post(address(cast), data)
        assert refused.status_code == 409
        rows = page(refused).one("section", css_class="card", role="alert").rows()
        assert rows == [["Recovery", "In the inbox only", "Immediately"], ["Cooldown", "5 min", "1 min"]]
        assert stored(cast).cooldown == timedelta(minutes=5)
        client.post(address(cast), form_of(page(refused)))
        assert stored(cast).cooldown == timedelta(minutes=1)


def test_the_docs_name_every_kind_as_it_is_usually_told(cast):
    rows = page(signed_in(cast.viewer).get("/docs/alerts/")).all("table")[0].rows()
    assert [(row[0], row[2]) for row in rows] == [(kind.label, facts.usual_mode.label) for kind, facts in KINDS.items()]
