from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.ranges import RANGE_NAMES, choose_range, day_range

BERLIN = ZoneInfo("Europe/Berlin")
# A Wednesday, 09:20 in Berlin.
NOW = datetime(2026, 11, 18, 8, 20, tzinfo=UTC)
ZONES = ["UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/Los_Angeles", "Australia/Lord_Howe", "Europe/Berlin"]


class TestDayRange:
    def test_whole_local_days(self) -> None:
        days = day_range(BERLIN, date(2026, 11, 1), date(2026, 11, 2))
        assert (days.start, days.end) == (datetime(2026, 10, 31, 23, tzinfo=UTC), datetime(2026, 11, 2, 23, tzinfo=UTC))
        assert days.days == 2

    @pytest.mark.parametrize(
        ("zone", "day", "hours"),
        [
            ("Europe/Berlin", date(2026, 3, 29), 23),
            ("Europe/Berlin", date(2026, 10, 25), 25),
            ("Australia/Lord_Howe", date(2026, 10, 4), 23.5),
        ],
    )
    def test_days_on_which_clocks_change(self, zone: str, day: date, hours: float) -> None:
        days = day_range(ZoneInfo(zone), day, day)
        assert days.end - days.start == timedelta(hours=hours)

    def test_it_ends_on_its_first_day_or_later(self) -> None:
        with pytest.raises(ValueError, match="ends"):
            day_range(BERLIN, date(2026, 11, 2), date(2026, 11, 1))


class TestPrevious:
    def test_as_many_days_just_before(self) -> None:
        days = day_range(BERLIN, date(2026, 11, 8), date(2026, 11, 14))
        before = days.previous(NOW)
        assert before == day_range(BERLIN, date(2026, 11, 1), date(2026, 11, 7))
        assert before.end == days.start

    def test_a_running_range_is_compared_up_to_the_same_time_of_day(self) -> None:
        before = day_range(BERLIN, date(2026, 11, 12), date(2026, 11, 18)).previous(NOW)
        assert (before.first_day, before.last_day) == (date(2026, 11, 5), date(2026, 11, 11))
        assert before.end == datetime(2026, 11, 11, 8, 30, tzinfo=UTC)  # 09:20 is in the quarter hour until 09:30

    def test_on_the_quarter_hour_nothing_is_rounded(self) -> None:
        now = datetime(2026, 11, 18, 8, 15, tzinfo=UTC)
        assert day_range(BERLIN, date(2026, 11, 18), date(2026, 11, 18)).previous(now).end == now - timedelta(days=1)

    def test_clocks_count_not_hours(self) -> None:
        now = datetime(2026, 10, 26, 11, tzinfo=UTC)  # noon, the day after clocks went back
        before = day_range(BERLIN, date(2026, 10, 26), date(2026, 10, 26)).previous(now)
        assert before.end == datetime(2026, 10, 25, 11, tzinfo=UTC)
        assert before.end - before.start == timedelta(hours=13)

    def test_a_wall_time_that_clocks_skipped(self) -> None:
        now = datetime(2026, 3, 30, 0, 30, tzinfo=UTC)  # 02:30; the day before has no such time
        before = day_range(BERLIN, date(2026, 3, 30), date(2026, 3, 30)).previous(now)
        assert before.end == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)

    def test_the_last_minutes_of_a_day_are_compared_with_the_whole_day(self) -> None:
        now = datetime(2026, 11, 18, 22, 59, tzinfo=UTC)
        before = day_range(BERLIN, date(2026, 11, 18), date(2026, 11, 18)).previous(now)
        assert before == day_range(BERLIN, date(2026, 11, 17), date(2026, 11, 17))

    def test_a_range_that_goes_on_after_today(self) -> None:
        before = day_range(BERLIN, date(2026, 11, 17), date(2026, 11, 20)).previous(NOW)
        assert before.first_day == date(2026, 11, 13)
        assert before.end == datetime(2026, 11, 14, 8, 30, tzinfo=UTC)

    @settings(deadline=None)
    @given(zone=st.sampled_from(ZONES), length=st.integers(1, 90), minutes=st.integers(0, 400 * 24 * 60))
    def test_it_lies_within_the_days_before(self, zone: str, length: int, minutes: int) -> None:
        now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
        today = now.astimezone(ZoneInfo(zone)).date()
        days = day_range(ZoneInfo(zone), today - timedelta(days=length - 1), today)
        before = days.previous(now)
        assert before.start <= before.end <= days.start
        assert before.end.minute % 15 == 0
        assert before.days == length
        # What is compared is as long as what there is, but for the rounding and two clock changes.
        assert abs((before.end - before.start) - (now - days.start)) <= timedelta(hours=2, minutes=15)


class TestChooseRange:
    @pytest.mark.parametrize(
        ("name", "first_day"),
        [
            ("today", date(2026, 11, 18)),
            ("7d", date(2026, 11, 12)),
            ("30d", date(2026, 10, 20)),
            ("mtd", date(2026, 11, 1)),
        ],
    )
    def test_named_ranges_end_today(self, name: str, first_day: date) -> None:
        choice = choose_range({"range": name}, BERLIN, NOW)
        assert (choice.name, choice.error) == (name, "")
        assert (choice.range.first_day, choice.range.last_day) == (first_day, date(2026, 11, 18))

    def test_today_is_the_workspaces_own(self) -> None:
        now = datetime(2026, 11, 18, 2, tzinfo=UTC)
        assert choose_range({"range": "today"}, ZoneInfo("America/Los_Angeles"), now).range.last_day.day == 17

    def test_seven_days_unless_asked_otherwise(self) -> None:
        assert choose_range({}, BERLIN, NOW) == choose_range({"range": "7d"}, BERLIN, NOW)

    def test_custom(self) -> None:
        choice = choose_range({"range": "custom", "from": "2026-11-01", "to": "2026-11-07"}, BERLIN, NOW)
        assert (choice.name, choice.error) == ("custom", "")
        assert choice.range == day_range(BERLIN, date(2026, 11, 1), date(2026, 11, 7))

    def test_custom_ends_today_at_the_latest(self) -> None:
        choice = choose_range({"range": "custom", "from": "2026-11-01", "to": "2027-11-07"}, BERLIN, NOW)
        assert (choice.range.last_day, choice.error) == (date(2026, 11, 18), "")

    @pytest.mark.parametrize(
        ("first", "last", "error"),
        [
            ("2026-11-07", "2026-11-01", "after the last"),
            ("2026-11-19", "2026-11-20", "after today"),
            ("2025-10-14", "2026-11-18", "at most 400 days"),
            ("0001-01-01", "0001-01-02", "before 2000"),
            ("2026-02-30", "2026-03-01", "two dates"),
            ("yesterday", "today", "two dates"),
            ("", "", "two dates"),
        ],
    )
    def test_a_custom_range_that_cannot_be_shown(self, first: str, last: str, error: str) -> None:
        choice = choose_range({"range": "custom", "from": first, "to": last}, BERLIN, NOW)
        assert error in choice.error
        assert (choice.name, choice.range) == ("7d", choose_range({}, BERLIN, NOW).range)

    def test_four_hundred_days_are_not_too_many(self) -> None:
        choice = choose_range({"range": "custom", "from": "2025-10-15", "to": "2026-11-18"}, BERLIN, NOW)
        assert (choice.range.days, choice.error) == (400, "")

    def test_an_unknown_name(self) -> None:
        choice = choose_range({"range": "fortnight"}, BERLIN, NOW)
        assert choice.name == "7d"
        assert "fortnight" in choice.error

    @settings(deadline=None)
    @given(name=st.sampled_from(RANGE_NAMES) | st.text(), first=st.text(), last=st.text())
    def test_any_text_gives_a_range(self, name: str, first: str, last: str) -> None:
        choice = choose_range({"range": name, "from": first, "to": last}, BERLIN, NOW)
        assert choice.name in RANGE_NAMES
        assert choice.range.start < choice.range.end
