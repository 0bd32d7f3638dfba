"""Telling each thing once, and many things together: what was told stands in the facts of the alerts themselves.

So it outlives a restart, a person who resolves the alert, and the roll-ups that it was found in.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from alerts.models import Alert, AlertKind

# After an alert, what is new of the same subject waits so long and is then told together.
TOGETHER_FOR = timedelta(hours=1)
# Whatever goes on, an alert's facts stay small.
MOST_TOLD = 1_000


@dataclass(slots=True)
class Told:
    """What the alerts about one subject have told so far."""

    alerts: int = 0
    values: set[str] = field(default_factory=set)
    last_at: datetime | None = None

    def news(self, values: Iterable[str], now: datetime, most: int = MOST_TOLD) -> list[str]:
        """Which of `values` are to be told at `now`, in their order; `most`: of all that are ever told.

        None while an earlier alert is fresh.
        """
        if self.last_at is not None and now < self.last_at + TOGETHER_FOR:
            return []
        room = max(most - len(self.values), 0)
        return [value for value in values if value not in self.values][: min(room, MOST_TOLD)]


def told(kind: AlertKind, workspace_ids: Iterable[UUID], since: datetime | None = None) -> dict[tuple[UUID, str], Told]:
    """What was told, by workspace and subject; `since`: by alerts about windows that begin then."""
    alerts = Alert.objects.filter(workspace_id__in=set(workspace_ids), kind=kind)
    if since is not None:
        alerts = alerts.filter(window_start=since, opened_at__gte=since)
    found: dict[tuple[UUID, str], Told] = defaultdict(Told)
    for workspace_id, scope, facts, opened_at in alerts.values_list("workspace_id", "scope", "facts", "opened_at"):
        one = found[workspace_id, scope.rpartition("#")[0]]
        one.alerts += 1
        one.values.update(facts.get("told", ()))
        one.last_at = max(one.last_at or opened_at, opened_at)
    return found


def scope_of(subject: str, before: Told) -> str:
    """The scope of the subject's next alert. Two that find news at once make the same one, so it is told once."""
    return f"{subject}#{before.alerts + 1}"
