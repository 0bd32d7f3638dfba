"""Test and demo rows of a workspace: how many there are, deleting them, and loading a small demo."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q, Sum

from ingest.cleanup import delete_rows
from ingest.explorer import Filters, find
from ingest.gateway.demo import DATA_SET_DAYS, DATA_SET_EVENTS, load_history
from ingest.models import DataMode, Rollup, RowDeletion
from ingest.ranges import EARLIEST_DAY, day_range
from ingest.reports import totals
from ingest.selectors import Slice
from ingest.snapshots import snapshot
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import NotAllowed
from workspaces.models import ApiKey, User, Workspace
from workspaces.services import record_audit

DELETABLE = (DataMode.TEST, DataMode.DEMO)
# Up to so many rows to look through, a deletion is done while the page waits.
AT_ONCE_ROWS = 50_000
# How far own rows are counted before they are deleted.
MOST_COUNTED = 50_000
_COUNTING_SECONDS = 0.25
# Whoever began a deletion and has not finished it by then is gone; two at once would do no harm.
_GIVEN_UP_AFTER = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Stock:
    """The rows of one data mode: requests, USD, and the start of the last quarter hour that has any.

    `is_more`: counting was cut short, and there are more.
    """

    requests: int
    cost_usd: Decimal
    last_bucket: datetime | None = None
    is_more: bool = False


NOTHING = Stock(0, Decimal(0))


# --- Reading --------------------------------------------------------------------------------------------------------


def stocks_of(workspace: Workspace) -> dict[DataMode, Stock]:
    """What the workspace's sums hold of each data mode that can be deleted."""
    tomorrow = utc_now().astimezone(workspace.timezone).date() + timedelta(days=1)
    everything = day_range(workspace.timezone, EARLIEST_DAY, tomorrow)
    rollups = Rollup.objects.filter(workspace_id=workspace.pk)
    stocks = {}
    with snapshot():
        for mode in DELETABLE:
            figures = totals(workspace.pk, everything, Slice(data_mode=(mode.value,)))
            last = rollups.filter(data_mode=mode).order_by("-bucket_start").first() if figures.requests else None
            stocks[mode] = Stock(figures.requests, figures.cost_usd, last.bucket_start if last else None)
    return stocks


def own_keys(workspace: Workspace, person: User) -> list[ApiKey]:
    """The API keys of the workspace that the person has created, also revoked ones."""
    return list(ApiKey.objects.filter(workspace=workspace, created_by=person).order_by("name", "pk"))


def own_stock(workspace_id: UUID, data_mode: str, keys: Sequence[ApiKey]) -> Stock:
    """The raw rows of a data mode that were sent with one of `keys`, counted for a moment."""
    if not keys:
        return NOTHING
    listed = ",".join(str(key.pk) for key in keys)
    filters = Filters(where={"data_mode": data_mode, "api_key_ids": f"{{{listed}}}"})
    found = find(workspace_id, filters, after=None, limit=MOST_COUNTED, seconds=_COUNTING_SECONDS)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), coalesce(sum(cost_usd), 0) FROM ingest_event WHERE workspace_id = %s AND id = ANY(%s)",
            [workspace_id, found.ids],
        )
        requests, cost_usd = cursor.fetchone()
    return Stock(requests, cost_usd, is_more=found.stopped_at is not None)


def is_quick(workspace: Workspace, data_mode: str) -> bool:
    """Whether the rows of a data mode can be deleted while somebody waits: all rows beside them are read, too."""
    rollups = Rollup.objects.filter(workspace_id=workspace.pk)
    with_them = rollups.filter(bucket_start__in=rollups.filter(data_mode=data_mode).values("bucket_start"))
    return (with_them.aggregate(rows=Sum("requests"))["rows"] or 0) <= AT_ONCE_ROWS


def unfinished_deletions(workspace: Workspace) -> list[RowDeletion]:
    """Deletions that were asked for and are not done, in the order of asking."""
    asked = RowDeletion.objects.filter(workspace=workspace, finished_at=None).select_related("asked_by")
    return list(asked.order_by("asked_at"))


# --- Deleting -------------------------------------------------------------------------------------------------------


def request_deletion(workspace: Workspace, data_mode: str, *, only_own: bool, acting_user: User) -> RowDeletion:
    """Store the wish to delete rows; `run_deletion`, or else a worker, does it."""
    return RowDeletion.objects.create(workspace=workspace, data_mode=data_mode, only_own=only_own, asked_by=acting_user)


def run_deletion(deletion: RowDeletion) -> int | None:
    """Delete what was asked for; answers how many rows went, or None if somebody else is at it."""
    now = utc_now()
    free = Q(worked_at=None) | Q(worked_at__lt=now - _GIVEN_UP_AFTER)
    mine = RowDeletion.objects.filter(free, pk=deletion.pk, finished_at=None).update(worked_at=now)
    if not mine:
        return None
    person = deletion.asked_by
    deleted = delete_rows(
        deletion.workspace_id,
        deletion.data_mode,
        created_by_id=person.pk if deletion.only_own else None,
        acting_user=person,
    )
    RowDeletion.objects.filter(pk=deletion.pk).update(finished_at=utc_now(), deleted=deleted)
    return deleted


def run_requested_deletions() -> None:
    """Do every deletion that nobody is at, the oldest wish first."""
    waiting = RowDeletion.objects.filter(finished_at=None).select_related("asked_by").order_by("asked_at")
    for deletion in list(waiting):
        run_deletion(deletion)


# --- Demo data ------------------------------------------------------------------------------------------------------


def load_demo(workspace: Workspace, *, acting_user: User) -> int:
    """Store the small demo data set that the API has, too; answers how many rows.

    Raises `NotAllowed` without a live API key, and `UnavailableError` while the database takes no rows.
    """
    live = ApiKey.objects.filter(workspace=workspace, revoked_at=None).order_by("pk")
    key = live.filter(created_by=acting_user).first() or live.first()
    if key is None:
        raise NotAllowed("Demo rows are sent with an API key of the workspace, and it has none. Create one first.")
    loaded = load_history(workspace.pk, key.pk, events=DATA_SET_EVENTS, days=DATA_SET_DAYS)
    with transaction.atomic():
        record_audit(
            "demo_data.loaded",
            acting_user=acting_user,
            workspace=workspace,
            target="demo data",
            data={"rows": loaded, "api_key": str(key)},
        )
    return loaded
