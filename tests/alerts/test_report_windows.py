"""Two years of summaries in zones with unusual clocks, beside a walk through the same years in UTC quarter hours."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from alerts.models import ReportKind, Weekday
from alerts.report_windows import (
    MOST_MADE_UP,
    Timetable,
    due_until,
    first_cursor,
    last_completed,
    next_due,
    next_three,
    upcoming,
)
from opsmeter_site.lib.periods import exists

DAY, HOUR, QUARTER = timedelta(days=1), timedelta(hours=1), timedelta(minutes=15)
BERLIN = ZoneInfo("Europe/Berlin")

# Zone and the year in which two simulated years begin: those in which its clocks do something worth a test.
ZONES = {
    "UTC": 2025,
    "Europe/Berlin": 2025,
    "America/Los_Angeles": 2025,
    "America/St_Johns": 2025,
    "America/Sao_Paulo": 2017,
    "Africa/Cairo": 2025,
    "Africa/Casablanca": 2025,
    "Asia/Kathmandu": 2025,
    "Asia/Kolkata": 2025,
    "Asia/Tehran": 2021,
    "Australia/Lord_Howe": 2025,
    "Pacific/Apia": 2011,
    "Pacific/Chatham": 2025,
    "Pacific/Kiritimati": 2025,
}
SEND_TIMES = (time(9), time(2, 30), time(0), time(0, 30), time(23, 59))


class Walk:
    """What clocks showed in two years; days on which they changed are looked at every quarter hour, when they did."""

    def __init__(self, zone: ZoneInfo, year: int) -> None:
        start, self.end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 2, 1, 1, tzinfo=UTC)
        # Where clocks begin to run on undisturbed: the moment, and what they show then.
        self.shown = list(_undisturbed(zone, start, self.end))
        self.lengths: dict[date, timedelta] = {}
        self.begins: dict[date, datetime] = {}
        for (moment, wall), (until, _) in pairwise([*self.shown, (self.end, None)]):
            while moment < until:
                day = wall.date()
                step = min(datetime.combine(day + DAY, time()) - wall, until - moment)
                self.begins.setdefault(day, moment)
                self.lengths[day] = self.lengths.get(day, timedelta()) + step
                moment, wall = moment + step, wall + step
        self.days = sorted(self.begins)[1:-1]

    def moments_of(self, wall_time: time, days: list[date]) -> list[datetime]:
        """The first minute at which clocks show the time or a later one, for each of `days`, which ascend."""
        found = []
        stretches = pairwise([*self.shown, (self.end, None)])
        (moment, wall), (until, _) = next(stretches)
        for day in days:
            wanted = datetime.combine(day, wall_time)
            while wall + (until - moment) <= wanted:
                (moment, wall), (until, _) = next(stretches)
            found.append(moment + max(wanted - wall, timedelta()))
        return found


def _undisturbed(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    moment, offset = start, None
    while moment < end:
        wall = moment.astimezone(zone)
        if wall.utcoffset() != offset:
            offset = wall.utcoffset()
            yield moment, wall.replace(tzinfo=None)
        moment += DAY if (moment + DAY).astimezone(zone).utcoffset() == offset else QUARTER


@pytest.fixture(scope="module", params=ZONES)
def walked(request: pytest.FixtureRequest) -> tuple[ZoneInfo, Walk]:
    zone = ZoneInfo(request.param)
    return zone, Walk(zone, ZONES[request.param])


def chain(kind: ReportKind, zone: ZoneInfo, send_at: time, walk: Walk, weekday: int = Weekday.MONDAY):
    """The reports whose send moment and window lie inside the walk."""
    reports = []
    for report in upcoming(Timetable(kind, zone, send_at, weekday), walk.days[0]):
        if report.next_day > walk.days[-1]:
            return reports
        reports.append(report)
    raise AssertionError


@pytest.mark.parametrize("send_at", SEND_TIMES, ids=str)
def test_every_local_day_gets_one_report_at_its_wall_time(walked: tuple[ZoneInfo, Walk], send_at: time) -> None:
    zone, walk = walked
    reports = chain(ReportKind.DAILY, zone, send_at, walk)
    covered = [report.days.first_day for report in reports]
    assert covered == [day for day in walk.days if day < walk.days[-1]]
    assert all(report.days.last_day == report.days.first_day for report in reports)
    assert [report.due_at for report in reports] == walk.moments_of(send_at, [day + DAY for day in covered])
    for report in reports:
        assert report.days.start == walk.begins[report.days.first_day]
        assert report.days.end - report.days.start == walk.lengths[report.days.first_day]
        assert report.due_at >= report.days.end
    assert all(before.days.end == after.days.start for before, after in pairwise(reports))
    assert all(before.due_at < after.due_at for before, after in pairwise(reports))


@pytest.mark.parametrize("send_at", SEND_TIMES, ids=str)
def test_every_local_week_gets_one_report_at_its_wall_time(walked: tuple[ZoneInfo, Walk], send_at: time) -> None:
    zone, walk = walked
    for weekday in (Weekday.MONDAY, Weekday.FRIDAY, Weekday.SUNDAY):
        reports = chain(ReportKind.WEEKLY, zone, send_at, walk, weekday)[1:]
        send_days = [report.days.last_day + DAY for report in reports]
        dates = [walk.days[0] + DAY * number for number in range((walk.days[-1] - walk.days[0]).days + 1)]
        assert send_days == [day for day in dates[8:] if day.weekday() == weekday][-len(send_days) :]
        assert len(send_days) >= 102
        assert [report.due_at for report in reports] == walk.moments_of(send_at, send_days)
        for report in reports:
            days = [report.days.first_day + DAY * number for number in range(7)]
            assert report.days.last_day == days[-1]
            assert report.days.end - report.days.start == sum((walk.lengths.get(day, DAY * 0) for day in days), DAY * 0)
        assert all(before.days.end == after.days.start for before, after in pairwise(reports))


def test_the_executive_report_covers_the_last_seven_utc_days(walked: tuple[ZoneInfo, Walk]) -> None:
    zone, walk = walked
    for send_at in SEND_TIMES:
        for report in chain(ReportKind.EXECUTIVE, zone, send_at, walk):
            assert report.days.zone.key == "UTC"
            assert report.days.end - report.days.start == DAY * 7
            assert timedelta() <= report.due_at - report.days.end < DAY


def test_the_walk_has_met_every_unusual_day() -> None:
    """Otherwise it would prove little."""
    walks = {name: Walk(ZoneInfo(name), year) for name, year in ZONES.items()}
    lengths = {name: {walk.lengths.get(day, DAY * 0) / HOUR for day in walk.days} for name, walk in walks.items()}
    assert lengths["Europe/Berlin"] == {23, 24, 25}
    assert lengths["Australia/Lord_Howe"] == {23.5, 24, 24.5}
    assert lengths["America/Sao_Paulo"] == lengths["Africa/Cairo"] == lengths["Pacific/Chatham"] == {23, 24, 25}
    assert lengths["Asia/Kathmandu"] == {24}
    assert not exists(ZoneInfo("Pacific/Apia"), date(2011, 12, 30))


def test_a_day_that_never_was_gets_no_report() -> None:
    timetable = Timetable(ReportKind.DAILY, ZoneInfo("Pacific/Apia"), time(9), 0)
    reports = next_three(timetable, date(2011, 12, 28))
    assert [report.days.first_day.isoformat() for report in reports] == ["2011-12-28", "2011-12-29", "2011-12-31"]
    # 09:00 of the missing day is told at the next minute that clocks showed.
    assert reports[1].due_at == reports[1].days.end == datetime(2011, 12, 30, 10, tzinfo=UTC)


def test_a_new_schedule_begins_with_the_running_day_and_week() -> None:
    now = datetime(2026, 11, 18, 22, 59, tzinfo=UTC)
    cursor = first_cursor(BERLIN, now)
    daily = next_due(Timetable(ReportKind.DAILY, BERLIN, time(9), 0), cursor)
    weekly = next_due(Timetable(ReportKind.WEEKLY, BERLIN, time(9), 0), cursor)
    assert (daily.days.first_day, daily.due_at) == (date(2026, 11, 18), datetime(2026, 11, 19, 8, tzinfo=UTC))
    assert (weekly.days.first_day, weekly.due_at) == (date(2026, 11, 16), datetime(2026, 11, 23, 8, tzinfo=UTC))
    assert first_cursor(BERLIN, now + timedelta(minutes=1)) == date(2026, 11, 19)


@pytest.mark.parametrize("weekday", Weekday.values)
def test_another_weekday_may_overlap_and_leaves_no_gap(weekday: int) -> None:
    cursor = date(2026, 11, 16)
    report = next_due(Timetable(ReportKind.WEEKLY, BERLIN, time(9), weekday), cursor)
    assert report.days.days == 7
    assert report.days.first_day <= cursor <= report.days.last_day
    assert report.next_day.weekday() == weekday


def test_after_a_downtime_the_last_ones_are_made_up_oldest_first() -> None:
    timetable = Timetable(ReportKind.DAILY, BERLIN, time(9), 0)
    now = datetime(2026, 11, 20, 8, tzinfo=UTC)
    assert [report.days.first_day.day for report in due_until(timetable, date(2026, 11, 17), now)] == [17, 18, 19]
    assert due_until(timetable, date(2026, 11, 19), now - timedelta(seconds=1)) == []
    many = due_until(timetable, date(2026, 1, 1), now)
    assert [report.days.first_day.day for report in many] == [13, 14, 15, 16, 17, 18, 19]
    assert len(many) == MOST_MADE_UP


def test_the_last_completed_period_does_not_wait_for_the_send_time() -> None:
    now = datetime(2026, 11, 18, 0, 30, tzinfo=UTC)
    spans = {
        (kind, zone.key): (report.days.first_day.isoformat(), report.days.last_day.isoformat())
        for kind in ReportKind
        for zone in (BERLIN, ZoneInfo("America/Los_Angeles"))
        for report in [last_completed(Timetable(kind, zone, time(9), Weekday.WEDNESDAY), now)]
    }
    assert spans == {
        ("daily", "Europe/Berlin"): ("2026-11-17", "2026-11-17"),
        ("daily", "America/Los_Angeles"): ("2026-11-16", "2026-11-16"),
        ("weekly", "Europe/Berlin"): ("2026-11-11", "2026-11-17"),
        ("weekly", "America/Los_Angeles"): ("2026-11-04", "2026-11-10"),
        ("executive", "Europe/Berlin"): ("2026-11-11", "2026-11-17"),
        ("executive", "America/Los_Angeles"): ("2026-11-11", "2026-11-17"),
    }


def test_the_last_completed_day_is_one_that_was() -> None:
    timetable = Timetable(ReportKind.DAILY, ZoneInfo("Pacific/Apia"), time(9), 0)
    assert last_completed(timetable, datetime(2011, 12, 30, 20, tzinfo=UTC)).days.first_day == date(2011, 12, 29)
