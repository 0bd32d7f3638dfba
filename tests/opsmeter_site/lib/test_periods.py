from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from opsmeter_site.lib.periods import day_start, exists, next_weekday, wall_moment

BERLIN = "Europe/Berlin"
HALF_PAST_TWO = time(2, 30)


@pytest.mark.parametrize(
    ("zone", "day", "wall_time", "moment"),
    [
        (BERLIN, date(2026, 3, 28), HALF_PAST_TWO, "2026-03-28T01:30Z"),
        # Missing: clocks jump from 02:00 to 03:00 at 01:00 UTC.
        (BERLIN, date(2026, 3, 29), HALF_PAST_TWO, "2026-03-29T01:00Z"),
        (BERLIN, date(2026, 3, 29), time(2), "2026-03-29T01:00Z"),
        (BERLIN, date(2026, 3, 29), time(2, 59), "2026-03-29T01:00Z"),
        (BERLIN, date(2026, 3, 29), time(3), "2026-03-29T01:00Z"),
        (BERLIN, date(2026, 3, 29), time(1, 59), "2026-03-29T00:59Z"),
        # Twice: the first one.
        (BERLIN, date(2026, 10, 25), HALF_PAST_TWO, "2026-10-25T00:30Z"),
        # Half an hour is missing, from 02:00 to 02:30.
        ("Australia/Lord_Howe", date(2026, 10, 4), time(2, 15), "2026-10-03T15:30Z"),
        ("Australia/Lord_Howe", date(2026, 10, 4), HALF_PAST_TWO, "2026-10-03T15:30Z"),
        ("Australia/Lord_Howe", date(2026, 4, 5), time(1, 45), "2026-04-04T14:45Z"),
        # Midnight is missing, until one.
        ("America/Sao_Paulo", date(2018, 11, 4), time(0), "2018-11-04T03:00Z"),
        ("America/Sao_Paulo", date(2018, 11, 4), time(0, 30), "2018-11-04T03:00Z"),
        ("America/Sao_Paulo", date(2018, 11, 4), time(1), "2018-11-04T03:00Z"),
        # A jump over midnight, from 23:30 to 00:30.
        ("America/Toronto", date(1919, 3, 31), time(0), "1919-03-31T04:30Z"),
        # A whole day is missing.
        ("Pacific/Apia", date(2011, 12, 30), time(9), "2011-12-30T10:00Z"),
        ("Asia/Kathmandu", date(2026, 1, 1), time(9), "2026-01-01T03:15Z"),
    ],
)
def test_wall_time_becomes_one_moment(zone: str, day: date, wall_time: time, moment: str) -> None:
    assert wall_moment(ZoneInfo(zone), day, wall_time) == datetime.fromisoformat(moment)


def test_a_second_reading_of_a_wall_time_is_the_same_moment() -> None:
    """Whoever has read 02:30 from a clock in autumn may carry the mark of its second occurrence along."""
    assert wall_moment(ZoneInfo(BERLIN), date(2026, 10, 25), time(2, 30, fold=1)) == datetime(
        2026, 10, 25, 0, 30, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        (BERLIN, date(2026, 3, 29), 23),
        (BERLIN, date(2026, 10, 25), 25),
        (BERLIN, date(2026, 6, 1), 24),
        ("Australia/Lord_Howe", date(2026, 10, 4), 23.5),
        ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
        ("America/Sao_Paulo", date(2018, 11, 4), 23),
        ("America/Havana", date(2026, 11, 1), 25),
        ("Pacific/Apia", date(2011, 12, 30), 0),
    ],
)
def test_a_local_day_is_as_long_as_it_is(zone: str, day: date, hours: float) -> None:
    begins, ends = (day_start(ZoneInfo(zone), each) for each in (day, day + timedelta(days=1)))
    assert ends - begins == timedelta(hours=hours)
    assert exists(ZoneInfo(zone), day) == (hours > 0)


def test_the_next_weekday_is_never_the_day_itself() -> None:
    monday = date(2026, 11, 16)
    assert [next_weekday(monday, weekday).day for weekday in range(7)] == [23, 17, 18, 19, 20, 21, 22]
