"""Crossings know thresholds in USD; those stored before they did learn it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.migrations.executor import MigrationExecutor

from ingest.limits import Level, levels_of
from ingest.models import Limit, LimitCrossing
from tests.ledger import make_workspace

BEFORE, AFTER = "0008_scoped_limits", "0009_thresholds_in_usd"
NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)
TODAY = NOON.replace(hour=0)

pytestmark = pytest.mark.django_db


def test_levels_are_ascending_and_say_what_was_set_in_usd() -> None:
    shares, usd = [Decimal("0.5"), Decimal(1)], [Decimal(50), Decimal(40), Decimal(100)]
    assert levels_of(Decimal(100), shares, usd) == (
        Level(Decimal("0.4"), Decimal(40), Decimal(40)),
        Level(Decimal("0.5"), Decimal(50), Decimal(50)),
        Level(Decimal("0.5"), Decimal(50)),
        Level(Decimal(1), Decimal(100)),
    )


@pytest.mark.parametrize(
    ("first", "second", "is_refused"),
    [
        ({}, {}, True),
        ({}, {"amount": 200}, False),
        ({"usd": 40}, {"usd": 40, "amount": 200, "threshold": "0.2"}, True),
        ({"usd": 40}, {"usd": 50}, False),
        ({"usd": 40}, {}, False),
        ({"usd": 40}, {"usd": 40, "scope_value": "acme"}, False),
        ({"usd": 40}, {"usd": 40, "period_start": TODAY + timedelta(days=1)}, False),
    ],
)
def test_a_share_is_crossed_once_an_amount_and_one_in_usd_once(
    first: dict[str, Any], second: dict[str, Any], is_refused: bool
) -> None:
    limit = a_limit()
    cross(limit, **first)
    if is_refused:
        with pytest.raises(IntegrityError), transaction.atomic():
            cross(limit, **second)
    else:
        cross(limit, **second)


def test_rows_from_before_learn_which_thresholds_were_in_usd_and_can_go_back() -> None:
    limit = a_limit(thresholds=["0.5", "1"], thresholds_usd=["33.34", "40"])
    of_shares = a_limit(thresholds=["0.4", "1"], thresholds_usd=["40"])
    another = a_limit(thresholds_usd=["33.34", "40"])
    migrate(BEFORE)
    expected = {
        store(limit): 40,
        store(limit, threshold="0.5"): None,
        # The same amount once more, under another limit.
        store(limit, threshold="0.2", amount=200): None,
        store(limit, threshold="0.476285714286", amount=70): Decimal("33.34"),
        store(limit, scope_value="acme"): 40,
        store(limit, period_start=TODAY + timedelta(days=1)): 40,
        store(limit, threshold="1", amount=40): None,
        store(of_shares): None,
        store(another, threshold="0.41"): None,
        store(another, threshold="0.999999999999", amount=40): 40,
    }
    migrate(AFTER)
    assert dict(LimitCrossing.objects.values_list("pk", "threshold_usd")) == expected

    doubled = cross(of_shares, usd=40)
    migrate(BEFORE)
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM ingest_limitcrossing")
        assert {pk for (pk,) in cursor.fetchall()} == expected.keys() - {doubled.pk}
    migrate(AFTER)
    assert dict(LimitCrossing.objects.values_list("pk", "threshold_usd")) == expected


def a_limit(**changes: Any) -> Limit:
    fields = {"name": "The cap", "measure": "usd", "period": "day", "amount": 100, "thresholds": ["1"]}
    owner = {"workspace": make_workspace(), "source": "budgets", "source_id": "one"}
    return Limit.objects.create(enforce=False, **owner | fields | changes)


def cross(limit: Limit, usd: int | None = None, **changes: Any) -> LimitCrossing:
    fields = {"period_start": TODAY, "threshold": "0.4", "amount": 100, "value": 45, "crossed_at": NOON}
    return LimitCrossing.objects.create(limit=limit, threshold_usd=usd, **fields | changes)


def store(limit: Limit, **changes: Any) -> int:
    """A row as it was stored before; its id."""
    fields = {"period_start": TODAY, "scope_value": "", "threshold": "0.4", "amount": 100} | changes
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO ingest_limitcrossing "
            "(limit_id, period_start, scope_value, threshold, amount, value, crossed_at) "
            "VALUES (%s, %s, %s, %s, %s, 45, now()) RETURNING id",
            [limit.pk, *fields.values()],
        )
        (pk,) = cursor.fetchone()
    return int(pk)


def migrate(name: str) -> None:
    with connection.cursor() as cursor:
        # What foreign keys have yet to check keeps tables from being changed.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    MigrationExecutor(connection).migrate([("ingest", name)])
