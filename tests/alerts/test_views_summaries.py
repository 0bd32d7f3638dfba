from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
import time_machine

from alerts.models import AlertSettings, Delivery, DeliveryState, MailOptOut, Report, ReportKind, Schedule, Weekday
from alerts.schedules import start_due_reports
from tests.factories import Cast, make_cast
from tests.pages import Node, page, signed_in
from workspaces.models import User

pytestmark = pytest.mark.django_db

DAILY, WEEKLY, EXECUTIVE = ReportKind
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
HTMX = {"headers": {"HX-Request": "true"}}


@pytest.fixture(autouse=True)
def clock():
    with time_machine.travel(NOON, tick=False) as travel:
        yield travel


@pytest.fixture
def cast() -> Cast:
    return make_cast("team", timezone="Europe/Berlin")


def address(cast: Cast, rest: str = "") -> str:
    return f"/w/{cast.workspace.slug}/settings/summaries/{rest}"


def shown(user: User, cast: Cast) -> Node:
    return page(signed_in(user).get(address(cast)))


def moments(where: Node, kind: str = DAILY) -> list[str]:
    return [each.text for each in where.one("div", id=f"{kind}-moments").all("li")]


def save(user: User, cast: Cast, kind: str = DAILY, **typed: Any) -> Any:
    data = {"is_enabled": "on", "send_at": "09:00", "weekday": "0"} | typed
    return signed_in(user).post(address(cast, f"{kind}/"), {name: each for name, each in data.items() if each != ""})


class TestPage:
    def test_it_shows_the_next_three_moments_of_every_kind(self, cast: Cast) -> None:
        found = shown(cast.viewer, cast)
        assert "Europe/Berlin, where it is 18 Nov 2026, 13:00 now" in found.text
        assert moments(found) == [
            "Thu 19 Nov 2026, 09:00 Thu 19 Nov, 08:00 UTC covers Wed 18 Nov 2026",
            "Fri 20 Nov 2026, 09:00 Fri 20 Nov, 08:00 UTC covers Thu 19 Nov 2026",
            "Sat 21 Nov 2026, 09:00 Sat 21 Nov, 08:00 UTC covers Fri 20 Nov 2026",
        ]
        assert moments(found, WEEKLY)[0] == (
            "Mon 23 Nov 2026, 09:00 Mon 23 Nov, 08:00 UTC covers Mon 16 Nov – Sun 22 Nov 2026"
        )
        assert moments(found, EXECUTIVE)[0].endswith("covers Mon 16 Nov – Sun 22 Nov 2026 (UTC)")

    def test_it_can_be_opened_before_beat_has_seen_the_workspace(self, cast: Cast) -> None:
        assert not Schedule.objects.filter(workspace=cast.workspace).exists()
        before = moments(shown(cast.viewer, cast))
        start_due_reports(NOON)
        assert moments(shown(cast.viewer, cast)) == before

    def test_viewers_read_and_have_no_form(self, cast: Cast) -> None:
        found = shown(cast.viewer, cast)
        assert found.one("main").all("form") == []
        assert "Admins and owners can change these." in found.text

    def test_it_says_how_many_get_it(self, cast: Cast) -> None:
        assert "2 addresses" in shown(cast.viewer, cast).text

    def test_it_warns_if_nobody_gets_it(self, cast: Cast) -> None:
        for person in (cast.owner, cast.admin):
            MailOptOut.objects.create(
                workspace=cast.workspace, email=person.email, topic="summaries", reason="unsubscribed"
            )
        assert "Nobody gets these summaries" in shown(cast.viewer, cast).text

    def test_it_names_the_alerts_that_nothing_else_tells(self, cast: Cast) -> None:
        AlertSettings.objects.create(workspace=cast.workspace, modes={"spend_spike": "weekly"})
        cards = shown(cast.viewer, cast).all("section", "card")
        assert "only this summary tells: Unpriced model." in cards[1].text
        assert "Spend spike" in cards[2].text
        assert "only this summary tells" not in cards[3].text

    def test_and_warns_if_it_is_switched_off(self, cast: Cast) -> None:
        save(cast.admin, cast, is_enabled="")
        assert "nobody is sent these alerts" in shown(cast.viewer, cast).text

    @pytest.mark.parametrize(("plan", "missing"), [("free", 3), ("pro", 1), ("team", 0)])
    def test_a_plan_without_a_kind_is_told_so_politely(self, plan: str, missing: int) -> None:
        cast = make_cast(plan)
        found = shown(cast.admin, cast)
        assert found.text.count("Not in your plan") == missing
        assert found.text.count(f"The {plan.capitalize()} plan does not include it.") == missing
        assert len([each for each in found.all("button") if each.text == "Save"]) == 3 - missing


class TestMomentsInWords:
    @pytest.mark.parametrize(
        ("now", "send_at", "note"),
        [
            (datetime(2026, 3, 28, 12, tzinfo=UTC), time(2, 30), "Clocks skip 02:30 then"),
            (datetime(2026, 10, 24, 12, tzinfo=UTC), time(2, 30), "Clocks show 02:30 twice then"),
            (datetime(2026, 3, 28, 12, tzinfo=UTC), time(9), "These days have 23 hours"),
            (datetime(2026, 10, 24, 12, tzinfo=UTC), time(9), "These days have 25 hours"),
        ],
    )
    def test_unusual_days_are_explained(self, cast: Cast, clock: Any, now: datetime, send_at: time, note: str) -> None:
        clock.move_to(now)
        save(cast.admin, cast, send_at=f"{send_at:%H:%M}")
        assert note in " ".join(moments(shown(cast.viewer, cast)))

    def test_what_is_overdue_is_sent_at_once(self, cast: Cast, clock: Any) -> None:
        start_due_reports(NOON)
        clock.move_to(datetime(2026, 11, 19, 7, tzinfo=UTC))
        save(cast.admin, cast, send_at="07:30")
        assert "Sent at once" in moments(shown(cast.viewer, cast))[0]

    def test_they_follow_what_is_typed_before_it_is_saved(self, cast: Cast) -> None:
        answer = signed_in(cast.viewer).get(
            address(cast, "weekly/moments/"), {"is_enabled": "on", "send_at": "06:45", "weekday": "4"}, **HTMX
        )
        assert "Fri 20 Nov 2026, 06:45" in page(answer).text
        assert "covers Fri 13 Nov – Thu 19 Nov 2026" in page(answer).text
        assert not Schedule.objects.filter(send_at=time(6, 45)).exists()

    @pytest.mark.parametrize(
        ("typed", "words"),
        [
            ({"is_enabled": "on", "send_at": "25:00"}, "Write a time such as 09:00"),
            ({"is_enabled": "on", "send_at": ""}, "Write a time such as 09:00"),
            ({"send_at": "09:00"}, "Switched off: nothing is sent."),
        ],
    )
    def test_half_a_time_is_no_mistake(self, cast: Cast, typed: dict[str, str], words: str) -> None:
        answer = signed_in(cast.viewer).get(address(cast, "daily/moments/"), typed, **HTMX)
        assert answer.status_code == 200
        assert words in page(answer).text

    def test_without_scripts_the_address_leads_to_the_page(self, cast: Cast) -> None:
        assert signed_in(cast.viewer).get(address(cast, "daily/moments/")).url == address(cast)


class TestSaving:
    def test_an_admin_changes_it_and_can_undo_that(self, cast: Cast) -> None:
        answer = save(cast.admin, cast, WEEKLY, send_at="17:05", weekday="4", skips_empty="on")
        assert answer.url == address(cast)
        stored = Schedule.objects.get(workspace=cast.workspace, kind=WEEKLY)
        assert (stored.send_at, stored.weekday, stored.skips_empty) == (time(17, 5), Weekday.FRIDAY, True)

        client = signed_in(cast.admin)
        client.post(address(cast, "weekly/"), {"is_enabled": "on", "send_at": "18:00", "weekday": "4"})
        undo = page(client.get(address(cast))).one("div", "toast").one("form")
        fields = {each.attributes["name"]: each.attributes["value"] for each in undo.all("input")}
        client.post(undo.attributes["action"], fields)
        stored.refresh_from_db()
        assert (stored.send_at, stored.weekday, stored.skips_empty) == (time(17, 5), Weekday.FRIDAY, True)

    def test_the_daily_one_has_no_weekday(self, cast: Cast) -> None:
        assert save(cast.admin, cast, weekday="").status_code == 302
        assert save(cast.admin, cast, send_at="08:00", weekday="").status_code == 302

    @pytest.mark.parametrize(
        ("kind", "typed", "words"),
        [
            (DAILY, {"send_at": "24:00"}, "There is no such time of day; write one such as 09:00."),
            (DAILY, {"send_at": "nine"}, "There is no such time of day; write one such as 09:00."),
            (DAILY, {"send_at": ""}, "Write a time such as 09:00."),
            (WEEKLY, {"weekday": "7"}, "There is no such weekday."),
            (WEEKLY, {"weekday": "x"}, "There is no such weekday."),
        ],
    )
    def test_impossible_values_come_back_with_what_is_wrong(
        self, cast: Cast, kind: str, typed: dict[str, str], words: str
    ) -> None:
        answer = save(cast.admin, cast, kind, **typed)
        assert answer.status_code == 422
        assert words in page(answer).text
        assert not Schedule.objects.filter(workspace=cast.workspace).exclude(send_at=time(9)).exists()

    def test_an_unknown_kind_is_not_there(self, cast: Cast) -> None:
        assert save(cast.admin, cast, "monthly").status_code == 404
        assert signed_in(cast.admin).post(address(cast, "monthly/send/")).status_code == 404

    @pytest.mark.parametrize("rest", ["daily/", "daily/preview/", "daily/send/"])
    def test_members_change_nothing(self, cast: Cast, rest: str) -> None:
        answer = signed_in(cast.member).post(address(cast, rest), {"send_at": "08:00"})
        assert answer.status_code == 403
        assert not Report.objects.exists()

    def test_a_plan_without_it_is_refused(self) -> None:
        cast = make_cast("free")
        assert save(cast.admin, cast, send_at="08:00").status_code == 403


class TestNow:
    def test_a_preview_opens_the_report(self, cast: Cast) -> None:
        answer = signed_in(cast.admin).post(address(cast, "daily/preview/"))
        report = Report.objects.get(workspace=cast.workspace)
        assert answer.url == f"/w/{cast.workspace.slug}/reports/{report.pk}/"
        assert not Delivery.objects.exists()

    def test_sent_to_me_says_where_and_what_became_of_it(self, cast: Cast) -> None:
        client = signed_in(cast.admin)
        client.post(address(cast, "weekly/send/"))
        found = page(client.get(address(cast)))
        assert f"Weekly summary: on its way to {cast.admin.email}" in found.one("div", "toast").text
        status = found.one("div", id="asked")
        assert "On its way" in status.text
        assert status.attributes["hx-get"] == address(cast, "asked/")
        Delivery.objects.update(state=DeliveryState.SENT, sent_at=NOON + timedelta(seconds=1))
        part = page(client.get(address(cast, "asked/"), **HTMX)).one("div", id="asked")
        assert "Handed over" in part.text
        assert "hx-get" not in part.attributes
        assert "Sent to you" not in shown(cast.owner, cast).text

    def test_a_failure_is_told(self, cast: Cast) -> None:
        client = signed_in(cast.admin)
        client.post(address(cast, "daily/send/"))
        Delivery.objects.update(state=DeliveryState.FAILED, last_error="550 no such mailbox")
        assert "Failed 550 no such mailbox" in shown(cast.admin, cast).one("div", id="asked").text

    def test_too_many_are_refused_on_the_page(self, cast: Cast) -> None:
        client = signed_in(cast.admin)
        for _ in range(11):
            client.post(address(cast, "daily/send/"))
        assert Report.objects.count() == 10
        assert "an hour are enough" in page(client.get(address(cast))).text
