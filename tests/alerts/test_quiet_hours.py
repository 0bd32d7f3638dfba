"""Quiet hours are what clocks on the wall say, also in the nights when those are changed."""

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest

from alerts.quiet_hours import QuietHours

BERLIN, NEW_YORK, LOS_ANGELES = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("America/Los_Angeles")
LORD_HOWE, KATHMANDU, UTC_ZONE = ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Asia/Kathmandu"), ZoneInfo("UTC")
NIGHT = QuietHours(time(22), time(7))
LUNCH = QuietHours(time(12), time(13, 30))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "moment", "end"),
    [
        (NIGHT, "2026-06-15 21:59:59", None),
        (NIGHT, "2026-06-15 22:00", "2026-06-16 07:00"),
        (NIGHT, "2026-06-15 23:59", "2026-06-16 07:00"),
        (NIGHT, "2026-06-16 00:00", "2026-06-16 07:00"),
        (NIGHT, "2026-06-16 06:59:59", "2026-06-16 07:00"),
        (NIGHT, "2026-06-16 07:00", None),
        (LUNCH, "2026-06-15 11:59", None),
        (LUNCH, "2026-06-15 12:00", "2026-06-15 13:30"),
        (LUNCH, "2026-06-15 13:29", "2026-06-15 13:30"),
        (LUNCH, "2026-06-15 13:30", None),
        (QuietHours(time(22), time(0)), "2026-06-15 23:00", "2026-06-16 00:00"),
        (QuietHours(time(0), time(7)), "2026-06-16 00:00", "2026-06-16 07:00"),
        # All but one minute.
        (QuietHours(time(7, 1), time(7)), "2026-06-16 07:00", None),
        (QuietHours(time(7, 1), time(7)), "2026-06-16 07:01", "2026-06-17 07:00"),
    ],
)
def test_the_end_is_the_moment_at_which_messages_go_again(hours, moment, end):
    assert hours.end_after(utc(moment), UTC_ZONE) == (utc(end) if end else None)


@pytest.mark.parametrize(
    ("zone", "hours", "moment", "end"),
    [
        # Clocks go from 02:00 to 03:00: the night is an hour shorter.
        (LOS_ANGELES, NIGHT, "2026-03-08 05:59", None),
        (LOS_ANGELES, NIGHT, "2026-03-08 06:00", "2026-03-08 14:00"),
        (LOS_ANGELES, NIGHT, "2026-03-08 13:59", "2026-03-08 14:00"),
        (LOS_ANGELES, NIGHT, "2026-03-08 14:00", None),
        # An end that clocks skip is the moment of the change; a beginning too.
        (LOS_ANGELES, QuietHours(time(22), time(2, 30)), "2026-03-08 09:59", "2026-03-08 10:00"),
        (LOS_ANGELES, QuietHours(time(22), time(2, 30)), "2026-03-08 10:00", None),
        (LOS_ANGELES, QuietHours(time(2, 30), time(7)), "2026-03-08 09:59", None),
        (LOS_ANGELES, QuietHours(time(2, 30), time(7)), "2026-03-08 10:00", "2026-03-08 14:00"),
        # Hours that are skipped as a whole are none.
        (LOS_ANGELES, QuietHours(time(2, 10), time(2, 50)), "2026-03-08 10:00", None),
        # Clocks go back from 02:00 to 01:00: the night is an hour longer, and what comes twice counts once.
        (LOS_ANGELES, NIGHT, "2026-11-01 05:00", "2026-11-01 15:00"),
        (LOS_ANGELES, NIGHT, "2026-11-01 14:59", "2026-11-01 15:00"),
        (LOS_ANGELES, QuietHours(time(22), time(1, 30)), "2026-11-01 08:29", "2026-11-01 08:30"),
        (LOS_ANGELES, QuietHours(time(22), time(1, 30)), "2026-11-01 09:15", None),
        (LOS_ANGELES, QuietHours(time(1, 30), time(7)), "2026-11-01 08:30", "2026-11-01 15:00"),
        # Lord Howe changes by half an hour: 02:00 becomes 02:30 in October, 01:30 in April.
        (LORD_HOWE, NIGHT, "2026-10-03 11:29", None),
        (LORD_HOWE, NIGHT, "2026-10-03 11:30", "2026-10-03 20:00"),
        (LORD_HOWE, QuietHours(time(22), time(2, 15)), "2026-10-03 15:29", "2026-10-03 15:30"),
        (LORD_HOWE, QuietHours(time(22), time(2, 15)), "2026-10-03 15:30", None),
        (LORD_HOWE, NIGHT, "2026-04-04 11:00", "2026-04-04 20:30"),
        (LORD_HOWE, QuietHours(time(22), time(1, 45)), "2026-04-04 14:44", "2026-04-04 14:45"),
        (LORD_HOWE, QuietHours(time(22), time(1, 45)), "2026-04-04 15:05", None),
        # Berlin, and zones that are not whole hours away.
        (BERLIN, NIGHT, "2026-03-28 21:00", "2026-03-29 05:00"),
        (BERLIN, NIGHT, "2026-10-24 20:00", "2026-10-25 06:00"),
        (KATHMANDU, NIGHT, "2026-06-15 16:14", None),
        (KATHMANDU, NIGHT, "2026-06-15 16:15", "2026-06-16 01:15"),
        (NEW_YORK, LUNCH, "2026-06-15 16:00", "2026-06-15 17:30"),
    ],
)
def test_clocks_that_change(zone, hours, moment, end):
    assert hours.end_after(utc(moment), zone) == (utc(end) if end else None)
