"""Which values of a dimension moved spend most between two ranges."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from ingest import reports
from ingest.ranges import DayRange
from ingest.report_rows import Figures, UsageCell
from ingest.selectors import Slice

# How many values of users, tenants and features are compared; the costliest now come first, then the gone ones.
COMPARED = 300


@dataclass(frozen=True, slots=True)
class Mover:
    """One value before and now."""

    value: str
    before: Figures
    now: Figures

    @property
    def difference(self) -> Decimal:
        """USD."""
        return self.now.cost_usd - self.before.cost_usd

    @property
    def is_new(self) -> bool:
        """Seen now, not before."""
        return not self.before.requests

    @property
    def is_gone(self) -> bool:
        """Seen before, not now."""
        return not self.now.requests


def movers_among(before: Iterable[UsageCell], now: Iterable[UsageCell], dimension: str) -> list[Mover]:
    """The values of a dimension that cells know (`endpoint_tag`, `model`, `provider`, `prompt_version`)."""
    was, is_ = _by(before, dimension), _by(now, dimension)
    return _sorted(Mover(value, was.get(value, Figures()), is_.get(value, Figures())) for value in {**was, **is_})


def movers_of(workspace_id: UUID, days: DayRange, before: DayRange, where: Slice, dimension: str) -> list[Mover]:
    """The same for users, tenants and features."""
    top = reports.top(workspace_id, days, before, where, dimension, limit=COMPARED)
    return _sorted(Mover(row.value, row.before, row.now) for row in top.rows)


def _by(cells: Iterable[UsageCell], dimension: str) -> dict[str, Figures]:
    groups: dict[str, list[Figures]] = defaultdict(list)
    for cell in cells:
        groups[getattr(cell, dimension)].append(cell.figures)
    return {value: Figures.total(figures) for value, figures in groups.items()}


def _sorted(movers: Iterable[Mover]) -> list[Mover]:
    return sorted(movers, key=lambda mover: (-abs(mover.difference), mover.value))
