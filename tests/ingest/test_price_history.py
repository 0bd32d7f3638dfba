"""What each stored price row means now: the same that the price book charges."""

from datetime import timedelta

import pytest

from ingest.models import ModelPrice
from ingest.price_history import Standing, history, live_rows
from opsmeter_site.lib.clock import utc_now
from tests.factories import UserFactory
from tests.ledger import make_workspace
from tests.prices import JUNE, MARCH, add, bring_in, cost, says, usd

pytestmark = pytest.mark.usefixtures("empty_catalogue")

APRIL = MARCH + timedelta(days=31)


def standings(now=JUNE, **where):
    rows = history(ModelPrice.objects.filter(**where), now)
    return [(row.price.unit_prices.input, row.standing) for row in rows]


def test_dates_follow_each_other():
    bring_in(says(usd("1")), says(usd("2"), MARCH), says(usd("3"), JUNE + timedelta(days=1)))
    assert standings() == [(3, Standing.AHEAD), (2, Standing.IN_FORCE), (1, Standing.EARLIER)]
    assert cost(at=JUNE) == 2


def test_the_oldest_standard_price_of_the_catalogue_reaches_back_and_others_do_not(operator):
    workspace = make_workspace()
    add(operator, effective_from=JUNE, unit_prices=usd("1"))
    add(operator, effective_from=JUNE, unit_prices=usd("2"), service_tier="batch")
    add(operator, effective_from=JUNE, unit_prices=usd("3"), workspace=workspace)
    assert dict(standings(MARCH)) == {1: Standing.IN_FORCE, 2: Standing.AHEAD, 3: Standing.AHEAD}
    assert cost(at=MARCH, tier="batch", workspace_id=workspace.pk) == 1


def test_a_correction_replaces_and_a_withdrawal_ends(operator):
    workspace = make_workspace()
    add(operator, workspace=workspace, effective_from=MARCH, unit_prices=usd("1"))
    add(operator, workspace=workspace, effective_from=MARCH, unit_prices=usd("2"))
    assert standings() == [(2, Standing.IN_FORCE), (1, Standing.CORRECTED)]
    add(operator, workspace=workspace, effective_from=APRIL, unit_prices=usd(), is_withdrawn=True)
    assert standings() == [(None, Standing.WITHDRAWN), (2, Standing.EARLIER), (1, Standing.CORRECTED)]
    assert live_rows(history(ModelPrice.objects.all(), JUNE)) == []


def test_what_waits_or_was_refused_is_shown_as_such(operator):
    bring_in(says(usd("1")))
    bring_in(says(usd("9")))
    assert standings() == [(9, Standing.WAITING), (1, Standing.IN_FORCE)]
    add(operator, unit_prices=usd("2"))
    assert dict(standings()) == {9: Standing.SUPERSEDED, 2: Standing.IN_FORCE, 1: Standing.CORRECTED}


def test_bands_windows_and_tiers_are_apart_and_own_prices_come_first(operator):
    workspace = make_workspace()
    bring_in(says(usd("1")), says(usd("2"), above=200_000), says(usd("0.5"), tier="batch"))
    add(operator, workspace=workspace, effective_from=MARCH, unit_prices=usd("0.9"))
    live = live_rows(history(ModelPrice.objects.all(), JUNE))
    assert [float(row.price.unit_prices.input) for row in live] == [0.9, 1, 2, 0.5]
    assert [row.is_own for row in live] == [True, False, False, False]


def test_members_are_named_and_operators_are_not():
    bring_in(says(usd("1")))
    somebody = UserFactory(name="Ada")
    add(somebody, effective_from=MARCH)
    add(somebody, effective_from=MARCH, workspace=make_workspace())
    rows = ModelPrice.objects.order_by("id")
    assert {row.entered_by for row in history(rows, utc_now())} == {"", "an operator", "Ada"}
    assert {row.entered_by for row in history(rows, utc_now(), names_operators=True)} == {"", "Ada"}


def test_one_query(django_assert_num_queries, operator):
    add(operator)
    add(operator, model="other")
    with django_assert_num_queries(1):
        assert len(history(ModelPrice.objects.all(), utc_now())) == 2
