"""Limits as `budgets` would push them down, for tests of the gateway, which never asks who set one."""

import itertools
from decimal import Decimal

from ingest.models import Limit
from ingest.services import LimitSpec, put_limit

# What `payload()` costs.
EVENT_USD = Decimal("0.000045")
_numbers = itertools.count(1)


def limit(meter, amount, *, period="day", enforce=True, name="Budget", source_id=None, **wanted) -> Limit:
    """A hard stop of `amount` USD a day on the client's workspace, unless told otherwise."""
    spec = LimitSpec(
        source_id=source_id or f"limit-{next(_numbers):03}",
        name=name,
        measure="usd",
        period=period,
        amount=Decimal(amount),
        thresholds=wanted.pop("thresholds", (Decimal("0.8"), Decimal(1))),
        enforce=enforce,
        **wanted,
    )
    return put_limit(meter.workspace_id, "budgets", spec)
