from datetime import UTC, datetime
from uuid import uuid4

import pytest

from opsmeter_site.lib.cursors import Cursor


@pytest.mark.parametrize("is_newer", [True, False])
def test_it_survives_the_address(is_newer):
    cursor = Cursor(datetime(2026, 11, 10, 12, 0, 0, 123456, UTC), uuid4(), is_newer)
    assert Cursor.decode(cursor.encode()) == cursor


@pytest.mark.parametrize(
    "text",
    ["", "o", "x1-" + "0" * 32, "o1", "o1-", "o-" + "0" * 32, "o" + "9" * 30 + "-" + "0" * 32, "o1_0-" + "0" * 32],
)
def test_anything_else_is_none(text):
    assert Cursor.decode(text) is None
