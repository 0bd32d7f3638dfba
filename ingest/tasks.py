"""Background work on the ledger. Every task may run twice, be killed at any time, and goes on where it was."""

import structlog
from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded

from ingest import exports, repricing
from ingest.audit import audit_all
from ingest.catalog import import_catalogue
from ingest.hygiene import run_requested_deletions
from ingest.price_source import read_bundled
from ingest.retention import purge_all
from ingest.services import end_all_raises
from ingest.summaries import summarise_all
from opsmeter_site.lib.clock import utc_now

logger = structlog.get_logger(__name__)

# A sweep that is cut off leaves the rest to the next one, which begins with the workspaces that have waited longest.
_LIMITS = {"soft_time_limit": 3_000, "time_limit": 3_300}

_SUMMARISE_SECONDS = 40
# Short enough that other work gets its turn between two sweeps.
_EXPORT_SECONDS = 20.0
_REPRICING_SECONDS = 20.0


@shared_task(name="ingest.purge_expired_rows", **_LIMITS)  # type: ignore[untyped-decorator]
def purge_expired_rows() -> None:
    """Remove what each workspace's plan no longer keeps."""
    try:
        purge_all(utc_now())
    except SoftTimeLimitExceeded:
        logger.warning("purge_cut_off")


@shared_task(name="ingest.audit_ledgers", **_LIMITS)  # type: ignore[untyped-decorator]
def audit_ledgers() -> None:
    """Compare every workspace's ledger with itself; a drift is logged as an error and stored."""
    try:
        audit_all(utc_now())
    except SoftTimeLimitExceeded:
        logger.warning("audit_cut_off")


# Within the minute until the next one; a span that is cut off is begun again.
@shared_task(name="ingest.summarise", soft_time_limit=300, time_limit=330)  # type: ignore[untyped-decorator]
def summarise() -> None:
    """Sum what is over, and what has changed, for the pages that show longer times."""
    try:
        summarise_all(utc_now(), seconds=_SUMMARISE_SECONDS)
    except SoftTimeLimitExceeded:
        logger.warning("summarise_cut_off")


@shared_task(name="ingest.work_on_exports")  # type: ignore[untyped-decorator]
def work_on_exports() -> None:
    """Write pieces of the exports that are waiting."""
    exports.work_on_exports(_EXPORT_SECONDS)


@shared_task(name="ingest.work_on_repricings")  # type: ignore[untyped-decorator]
def work_on_repricings() -> None:
    """Preview and run the re-pricings that somebody has asked for."""
    repricing.work_on_repricings(_REPRICING_SECONDS)


@shared_task(name="ingest.delete_old_exports")  # type: ignore[untyped-decorator]
def delete_old_exports() -> None:
    """Drop exports whose time is over."""
    exports.delete_old_exports(utc_now())


@shared_task(name="ingest.delete_requested_rows")  # type: ignore[untyped-decorator]
def delete_requested_rows() -> None:
    """Delete the test and demo rows that somebody has asked to delete."""
    run_requested_deletions()


@shared_task(name="ingest.end_raises")  # type: ignore[untyped-decorator]
def end_raises() -> None:
    """Record what limits have crossed whose raise is over."""
    end_all_raises(utc_now())


@shared_task(name="ingest.import_prices")  # type: ignore[untyped-decorator]
def import_prices() -> None:
    """Bring the catalogue to what the installed price list says; a list that cannot be read changes nothing."""
    import_catalogue(read_bundled())
