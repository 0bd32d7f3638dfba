from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import time_machine

from alerts.rules.price_feed import find
from ingest.models import CatalogVersion, ModelPrice
from ingest.tasks import import_prices
from tests.alerts.rolled import roll
from tests.factories import OperatorFactory, make_workspace
from tests.prices import add, bring_in, says, usd

pytestmark = pytest.mark.django_db

IMPORTED = datetime(2026, 11, 1, 9, tzinfo=UTC)
USD = usd("1", "2")
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


@pytest.fixture
def workspace():
    return make_workspace("free").workspace


@pytest.fixture
def catalogue():
    ModelPrice.objects.all().delete()
    CatalogVersion.objects.all().delete()
    imported_at(IMPORTED, says(USD))


def imported_at(moment, *prices):
    with time_machine.travel(moment, tick=False):
        bring_in(*prices)


def found(workspace, now):
    roll(workspace, now)
    return find([workspace.pk], now)


def test_nothing_was_imported_so_nothing_is_stale(workspace):
    CatalogVersion.objects.all().delete()
    assert found(workspace, IMPORTED + 100 * DAY) == []


@pytest.mark.usefixtures("catalogue")
class TestStaleness:
    @pytest.mark.parametrize(("after", "is_stale"), [(7 * DAY - MINUTE, False), (7 * DAY, True)])
    def test_without_an_import_for_a_week(self, workspace, after, is_stale):
        assert bool(found(workspace, IMPORTED + after)) is is_stale

    def test_it_says_since_when(self, workspace):
        (finding,) = found(workspace, IMPORTED + 9 * DAY)
        assert finding.title == "The price catalogue is out of date"
        assert finding.text.startswith("It was last checked 9 days ago (1 Nov 2026), from genai-prices 9.9.9.")
        assert finding.severity == "warning"

    @pytest.mark.parametrize(("after", "is_stale"), [(35 * DAY - MINUTE, False), (35 * DAY, True)])
    def test_with_imports_that_bring_nothing_new(self, workspace, after, is_stale):
        imported_at(IMPORTED + after - DAY, says(USD))
        assert bool(found(workspace, IMPORTED + after)) is is_stale

    def test_it_says_that_nothing_is_new(self, workspace):
        imported_at(IMPORTED + 39 * DAY, says(USD))
        (finding,) = found(workspace, IMPORTED + 40 * DAY)
        assert finding.text.startswith(
            "Its newest price is from 40 days ago (1 Nov 2026), although it is checked against genai-prices 9.9.9."
        )

    def test_what_operators_enter_is_no_import(self, workspace):
        imported_at(IMPORTED + 39 * DAY, says(USD))
        with time_machine.travel(IMPORTED + 39 * DAY, tick=False):
            add(OperatorFactory(), provider="our-host", model="our-model", unit_prices=usd("1", "2"))
        assert len(found(workspace, IMPORTED + 40 * DAY)) == 1

    def test_a_spell_is_one_alert_and_the_next_one_another(self, workspace):
        first, second = (found(workspace, IMPORTED + days * DAY)[0].dedup_key for days in (9, 12))
        assert first == second
        imported_at(IMPORTED + 13 * DAY, says(USD), says(USD, model="gpt-100"))
        assert found(workspace, IMPORTED + 14 * DAY) == []
        assert found(workspace, IMPORTED + 30 * DAY)[0].dedup_key != first

    def test_only_who_has_sent_something_in_a_week_is_told(self, workspace):
        quiet = make_workspace("free").workspace
        now = IMPORTED + 20 * DAY
        roll(quiet, now - 8 * DAY, Decimal(1))
        assert [finding.workspace_id for finding in find([workspace.pk, quiet.pk], now)] == []
        roll(workspace, now - 6 * DAY, Decimal(1))
        assert [finding.workspace_id for finding in find([workspace.pk, quiet.pk], now)] == [workspace.pk]

    def test_the_daily_import_ends_it(self, workspace):
        now = IMPORTED + 20 * DAY
        with time_machine.travel(now, tick=False):
            assert len(found(workspace, now)) == 1
            import_prices()
            assert find([workspace.pk], now) == []
