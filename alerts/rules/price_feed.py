"""The price catalogue, when nothing new comes in any more: providers change prices, and costs would be wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Max

from alerts.findings import Finding
from alerts.models import AlertKind, Severity
from ingest.models import CatalogVersion, ModelPrice
from ingest.models.prices import OPERATOR
from ingest.snapshots import fetch
from opsmeter_site.lib.formats import count

# The import runs every day; without a success for so long it is broken.
NOT_CHECKED_FOR = timedelta(days=7)
# An import that succeeds but has brought no new price for so long reads a list that nobody brings up to date.
NOTHING_NEW_FOR = timedelta(days=35)
_USED_WITHIN = timedelta(days=7)

_WITH_TRAFFIC = """
SELECT asked.id FROM unnest(%(workspaces)s::uuid[]) AS asked (id)
WHERE EXISTS (
    SELECT FROM ingest_rollup
    WHERE workspace_id = asked.id AND bucket_start >= %(since)s AND bucket_start <= %(now)s
)
"""


@dataclass(frozen=True, slots=True)
class Staleness:
    """Since when the catalogue is stale, and why, in a sentence."""

    since: datetime
    why: str


def staleness(now: datetime) -> Staleness | None:
    """How stale the catalogue is; None if it is not, and where no catalogue was ever imported."""
    catalogue = CatalogVersion.objects.first()
    if catalogue is None or catalogue.imported_at is None:
        return None
    imported = ModelPrice.objects.filter(workspace=None).exclude(source=OPERATOR)
    newest = imported.aggregate(newest=Max("created_at"))["newest"] or catalogue.imported_at
    checked = catalogue.imported_at
    spells = (
        Staleness(
            checked + NOT_CHECKED_FOR, f"It was last checked {_days_ago(checked, now)}, from {catalogue.source}."
        ),
        Staleness(
            newest + NOTHING_NEW_FOR,
            f"Its newest price is from {_days_ago(newest, now)}, although it is checked against {catalogue.source}.",
        ),
    )
    first = min(spells, key=lambda spell: spell.since)
    return first if first.since <= now else None


def find(workspace_ids: Sequence[UUID], now: datetime) -> list[Finding]:
    """One finding for each workspace that has sent something lately, if the catalogue is stale; one for each spell."""
    stale = staleness(now)
    if stale is None:
        return []
    parameters = {"workspaces": list(workspace_ids), "since": now - _USED_WITHIN, "now": now}
    return [
        Finding(
            workspace_id=workspace_id,
            kind=AlertKind.PRICE_FEED_STALE,
            severity=Severity.WARNING,
            scope="price_feed",
            metric="days",
            title="The price catalogue is out of date",
            text=(
                f"{stale.why} Providers may have changed prices since, so the USD of new requests may be wrong. "
                "Whoever runs Opsmeter for you can bring it up to date; what is stored keeps its cost."
            ),
            window_start=stale.since,
            window_end=now,
            occurred_at=now,
            facts={"drill": {}},
        )
        for (workspace_id,) in fetch(_WITH_TRAFFIC, parameters)
    ]


def _days_ago(moment: datetime, now: datetime) -> str:
    return f"{count((now - moment).days)} days ago ({moment:%-d %b %Y})"
