from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from alerts.models import AlertSettings
from alerts.noticing import raise_alerts
from alerts.rules.spikes import find, hours_before, last_hours
from ingest.models import WorkspacePolicy
from tests.alerts.rolled import roll
from tests.factories import make_workspace

pytestmark = pytest.mark.django_db

# A Tuesday, 13:20 in Berlin: the last whole hours are 10:00 to 13:00 there, 09:00 to 12:00 UTC.
NOW = datetime(2026, 11, 10, 12, 20, tzinfo=UTC)
HOUR, WEEK = timedelta(hours=1), timedelta(days=7)
NINE = datetime(2026, 11, 10, 9, tzinfo=UTC)


@pytest.fixture
def workspace():
    return make_workspace("pro", timezone="Europe/Berlin").workspace


def found(workspace, now=NOW):
    return find([workspace.pk], now)


def weeks(workspace, *amounts):
    """So much in the hours of one week ago, of two weeks ago, …"""
    for week, usd in enumerate(amounts, 1):
        roll(workspace, NINE - week * WEEK + HOUR, usd)


def set_spikes(workspace, **facts):
    AlertSettings.objects.update_or_create(
        workspace=workspace, defaults={f"spike_{name}": value for name, value in facts.items()}
    )


class TestComparison:
    def test_the_usual_is_the_mean_of_four_weeks(self, workspace):
        weeks(workspace, 1, 2, 3, 6)
        roll(workspace, NINE, 10)
        roll(workspace, NINE + 2 * HOUR, 11)
        (finding,) = found(workspace)
        assert finding.title == "Spend spike: $21.00 in 3 hours, 7.0 times the usual"
        assert finding.text == (
            "Spend in USD from 10:00 to 13:00 on 10 Nov 2026 (Europe/Berlin): $21.00. Usual in these hours: $3.00, the "
            "mean of 4 weeks before. Told from 3 times the usual and $5.00 above it on, once a day."
        )
        assert finding.severity == "warning"
        assert (finding.window_start, finding.window_end) == (NINE, NINE + 3 * HOUR)
        assert finding.facts["actual_usd"] == "21.000000000000"
        assert finding.facts["usual_usd"] == "3.000000000000"

    def test_only_these_hours_count(self, workspace):
        weeks(workspace, 1, 1, 1, 1)
        for week in range(5):
            roll(workspace, NINE - week * WEEK - HOUR, 500)
            roll(workspace, NINE - week * WEEK + 3 * HOUR, 500)
        assert found(workspace) == []

    @pytest.mark.parametrize(("actual", "is_told"), [("29.999999999999", False), ("30", True)])
    def test_the_factor_is_reached_exactly(self, workspace, actual, is_told):
        weeks(workspace, 10, 10, 10, 10)
        roll(workspace, NINE, actual)
        assert bool(found(workspace)) is is_told

    @pytest.mark.parametrize(("actual", "is_told"), [("5.999999999999", False), ("6", True)])
    def test_the_minimum_above_the_usual_is_reached_exactly(self, workspace, actual, is_told):
        weeks(workspace, 1, 1, 1, 1)
        roll(workspace, NINE, actual)
        assert bool(found(workspace)) is is_told

    def test_two_weeks_are_enough_and_one_is_not(self, workspace):
        roll(workspace, NINE, 100)
        weeks(workspace, 4)
        assert found(workspace) == []
        roll(workspace, NINE - 2 * WEEK, 8)
        (finding,) = found(workspace)
        assert "Usual in these hours: $6.00, the mean of 2 weeks before." in finding.text

    def test_hours_without_traffic_are_a_figure_once_there_was_any(self, workspace):
        roll(workspace, NINE - 3 * WEEK - 5 * HOUR, 1)
        roll(workspace, NINE, 100)
        (finding,) = found(workspace)
        assert finding.title == "Spend spike: $100.00 in 3 hours, usually nothing"
        assert "$0.00, the mean of 3 weeks before" in finding.text

    def test_only_the_data_that_budgets_count_is_compared(self, workspace):
        weeks(workspace, 1, 1)
        roll(workspace, NINE, 100, data_mode="demo")
        assert found(workspace) == []
        WorkspacePolicy.objects.filter(pk=workspace.pk).update(counted_data_modes=["real", "demo"])
        assert len(found(workspace)) == 1

    def test_other_kinds_of_data_make_no_week(self, workspace):
        for week in range(1, 5):
            roll(workspace, NINE - week * WEEK, 1, data_mode="demo")
        roll(workspace, NINE, 100)
        assert found(workspace) == []


class TestSettings:
    def test_off_is_off(self, workspace):
        weeks(workspace, 1, 1)
        roll(workspace, NINE, 100)
        set_spikes(workspace, is_on=False)
        assert found(workspace) == []

    def test_factor_and_minimum_are_the_workspaces(self, workspace):
        weeks(workspace, 10, 10)
        roll(workspace, NINE, 20)
        assert found(workspace) == []
        set_spikes(workspace, factor=Decimal("1.5"), minimum_usd=Decimal(10))
        assert len(found(workspace)) == 1
        set_spikes(workspace, minimum_usd=Decimal("10.01"))
        assert found(workspace) == []

    @pytest.mark.parametrize(("plan", "is_told"), [("free", False), ("starter", False), ("pro", True), ("team", True)])
    def test_plans_without_integrations_do_not_evaluate(self, plan, is_told):
        workspace = make_workspace(plan).workspace
        weeks(workspace, 1, 1)
        roll(workspace, NINE, 100)
        assert bool(found(workspace)) is is_told


class TestOnce:
    def test_a_spike_that_goes_on_is_told_once_a_day(self, workspace):
        weeks(workspace, 1, 1)
        for hour in range(-3, 40):
            roll(workspace, NINE + hour * HOUR, 100)
        raise_alerts(found(workspace), NOW)
        # Across midnight, too.
        assert all(found(workspace, NOW + hour * HOUR) == [] for hour in range(24))
        assert len(found(workspace, NOW + 24 * HOUR)) == 1


def walls(zone, hours):
    return [f"{hour.start.astimezone(zone):%d %H:%M}" for hour in hours]


class TestClockChanges:
    """Hours are compared one by one with the same wall time, so that three are always held against three."""

    BERLIN = ZoneInfo("Europe/Berlin")

    def test_the_same_wall_time_on_both_sides_of_a_change(self):
        last = last_hours(self.BERLIN, datetime(2026, 11, 3, 12, 20, tzinfo=UTC))
        before = list(hours_before(self.BERLIN, last))
        assert walls(self.BERLIN, last) == ["03 10:00", "03 11:00", "03 12:00"]
        # Summer time until 25 October: the same hours are one earlier in UTC.
        assert [hour.start.hour for hour in before if hour.week == 1] == [9, 10, 11]
        assert [hour.start.hour for hour in before if hour.week == 2] == [8, 9, 10]
        assert {walls(self.BERLIN, [hour])[0][3:] for hour in before} == {"10:00", "11:00", "12:00"}

    def test_the_night_with_an_hour_too_few(self):
        # 29 March 2026: 02:00 is 03:00.
        last = last_hours(self.BERLIN, datetime(2026, 3, 29, 2, 5, tzinfo=UTC))
        assert walls(self.BERLIN, last) == ["29 00:00", "29 01:00", "29 03:00"]
        week_before = [hour for hour in hours_before(self.BERLIN, last) if hour.week == 1]
        assert walls(self.BERLIN, week_before) == ["22 00:00", "22 01:00", "22 03:00"]

    def test_an_hour_that_a_week_did_not_have_is_left_out_of_that_week(self):
        last = last_hours(self.BERLIN, datetime(2026, 4, 5, 2, 5, tzinfo=UTC))
        assert walls(self.BERLIN, last) == ["05 01:00", "05 02:00", "05 03:00"]
        before = list(hours_before(self.BERLIN, last))
        assert walls(self.BERLIN, [hour for hour in before if hour.week == 1]) == ["29 01:00", "29 03:00"]
        assert walls(self.BERLIN, [hour for hour in before if hour.week == 2]) == ["22 01:00", "22 02:00", "22 03:00"]

    def test_the_mean_is_taken_over_the_weeks_that_had_the_hour(self):
        workspace = make_workspace("pro", timezone="Europe/Berlin").workspace
        now = datetime(2026, 4, 5, 2, 5, tzinfo=UTC)
        two_o_clock = datetime(2026, 4, 5, 0, tzinfo=UTC)
        roll(workspace, two_o_clock, 100)
        # Winter time before 29 March: 02:00 was 01:00 UTC.
        for week, usd in ((2, 10), (3, 20), (4, 30)):
            roll(workspace, two_o_clock + HOUR - week * WEEK, usd)
        (finding,) = find([workspace.pk], now)
        assert "Usual in these hours: $20.00" in finding.text

    def test_the_night_with_an_hour_too_many(self):
        # 25 October 2026: 02:00 comes twice.
        last = last_hours(self.BERLIN, datetime(2026, 10, 25, 2, 5, tzinfo=UTC))
        assert walls(self.BERLIN, last) == ["25 01:00", "25 02:00", "25 02:00"]
        week_before = [hour for hour in hours_before(self.BERLIN, last) if hour.week == 1]
        assert walls(self.BERLIN, week_before) == ["18 01:00", "18 02:00", "18 02:00"]
        a_week_later = last_hours(self.BERLIN, datetime(2026, 11, 1, 3, 5, tzinfo=UTC))
        of_that_night = [hour for hour in hours_before(self.BERLIN, a_week_later) if hour.week == 1]
        # The first of the two.
        assert [hour.start for hour in of_that_night] == [
            datetime(2026, 10, 24, 23, tzinfo=UTC),
            datetime(2026, 10, 25, 0, tzinfo=UTC),
            datetime(2026, 10, 25, 2, tzinfo=UTC),
        ]

    @pytest.mark.parametrize(
        ("name", "start"),
        [("Asia/Kathmandu", "09:15"), ("Pacific/Chatham", "09:15"), ("Australia/Adelaide", "08:30"), ("UTC", "09:00")],
    )
    def test_hours_are_those_of_local_clocks(self, name, start):
        first = last_hours(ZoneInfo(name), NOW)[0].start
        assert f"{first:%H:%M}" == start
        assert first.astimezone(ZoneInfo(name)).minute == 0

    def test_every_hour_of_two_years_has_three_hours_to_compare(self):
        for name in ("Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia"):
            zone = ZoneInfo(name)
            for hour in range(0, 2 * 366 * 24, 5):
                now = datetime(2026, 1, 1, 0, 20, tzinfo=UTC) + hour * HOUR
                last = last_hours(zone, now)
                assert last[-1].start + HOUR <= now < last[-1].start + 3 * HOUR
                assert all(each.start.minute % 15 == 0 for each in hours_before(zone, last))
