"""Which budgets on a part of a workspace are exceeded, in one statement: what its first page says of them."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import F

from budgets.limit_specs import SOURCE
from ingest.models import Limit
from ingest.standings import OVER, with_standing


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Of `number` budgets on a part of the workspace, those over their limit (id and name), and how many refuse."""

    number: int
    budgets: list[tuple[str, str]]
    refusing: int


def exceeded_budgets(workspace_id: UUID, now: datetime) -> Exceeded:
    """Where they stand at `now` (aware), as they are enforced; a budget on each value counts once."""
    scoped = Limit.objects.filter(workspace=workspace_id, source=SOURCE).exclude(scope_kind="").order_by("name")
    rows = with_standing(scoped, now).annotate(observes=F("workspace__policy__observe_mode"))
    found = list(rows.values("source_id", "name", "standing", "enforce", "observes"))
    over = [row for row in found if row["standing"] == OVER]
    return Exceeded(
        number=len(found),
        budgets=[(row["source_id"], row["name"]) for row in over],
        refusing=sum(row["enforce"] and not row["observes"] for row in over),
    )
