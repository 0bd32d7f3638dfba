"""What is watched beside limits. Each module finds one kind of thing; `evaluate_all` asks them all."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

import structlog
from django.db import InterfaceError, OperationalError, connection, transaction

from alerts.audiences import lock_inboxes
from alerts.findings import Finding
from alerts.models import Alert
from alerts.noticing import raise_alerts
from alerts.rules import price_feed, spenders, spikes, unit_cost, unpriced
from alerts.rules.laps import Lap, current_lap
from ingest.models import WorkspacePolicy

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Watch:
    """One thing to look for: how often, in how many workspaces at a time, and by which function."""

    name: str
    every: timedelta
    at_a_time: int
    find: Callable[[Sequence[UUID], datetime], list[Finding]]


_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)

# Spenders last and few at a time: they alone read more than an index range of each workspace.
WATCHES = (
    Watch("unit_cost", _MINUTE, 500, unit_cost.find),
    Watch("unpriced", _MINUTE, 500, unpriced.find_recent),
    Watch("unpriced_late", _HOUR, 50, unpriced.find_late),
    Watch("spikes", 5 * _MINUTE, 500, spikes.find),
    Watch("price_feed", _HOUR, 500, price_feed.find),
    Watch("spenders", 5 * _MINUTE, 25, spenders.find),
)


def evaluate_all(now: datetime, seconds: float) -> None:
    """Look at every workspace that has something to watch, within `seconds`; goes on where it stopped."""
    end = monotonic() + seconds
    for place, watch in enumerate(WATCHES):
        # What one leaves of its share is for those after it.
        share = (end - monotonic()) / (len(WATCHES) - place)
        lap = current_lap(watch.name, watch.every, now)
        if lap is None:
            continue
        try:
            _go_on(watch, lap, now, monotonic() + share)
        except (InterfaceError, OperationalError):
            connection.close_if_unusable_or_obsolete()
            logger.exception("watch_cut_off", watch=watch.name)


def _go_on(watch: Watch, lap: Lap, now: datetime, deadline: float) -> None:
    while monotonic() < deadline:
        ordered = WorkspacePolicy.objects.filter(pk__gt=lap.after).order_by("pk")
        workspace_ids = list(ordered.values_list("pk", flat=True)[: watch.at_a_time])
        if not workspace_ids:
            lap.ended()
            return
        _look(watch, workspace_ids, now)
        lap = lap.moved_to(workspace_ids[-1])


def _look(watch: Watch, workspace_ids: Sequence[UUID], now: datetime) -> None:
    """Find and tell; if that fails for all together, for one after the other, so that one cannot hide the others."""
    try:
        by_workspace = defaultdict(list)
        for finding in _not_told(watch.find(workspace_ids, now)):
            by_workspace[finding.workspace_id].append(finding)
        for workspace_id, findings in by_workspace.items():
            _tell(workspace_id, findings, now)
    except (InterfaceError, OperationalError):
        # The database went away: that concerns them all.
        raise
    except Exception:  # whatever it is, it must not keep the other workspaces from their turn
        if len(workspace_ids) == 1:
            logger.exception("watch_failed", watch=watch.name, workspace_id=str(workspace_ids[0]))
            return
        for workspace_id in workspace_ids:
            _look(watch, [workspace_id], now)


@transaction.atomic
def _tell(workspace_id: UUID, findings: Sequence[Finding], now: datetime) -> None:
    # Whoever has found the same at the same time waits here, and then sees that it is told.
    lock_inboxes([workspace_id])
    fresh = _not_told(findings)
    if fresh:
        raise_alerts(fresh, now)


def _not_told(findings: Sequence[Finding]) -> list[Finding]:
    """Those that no alert has told, resolved ones included: what goes on is no news."""
    if not findings:
        return []
    alerts = Alert.objects.filter(
        workspace_id__in={finding.workspace_id for finding in findings},
        dedup_key__in={finding.dedup_key for finding in findings},
    )
    known = set(alerts.values_list("workspace_id", "kind", "dedup_key"))
    return [
        finding for finding in findings if (finding.workspace_id, finding.kind.value, finding.dedup_key) not in known
    ]
