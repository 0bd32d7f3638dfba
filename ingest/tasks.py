"""Background work on the ledger. Every task may run twice, be killed at any time, and goes on where it was."""

import structlog
from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded

from ingest.audit import audit_all
from ingest.retention import purge_all
from opsmeter_site.lib.clock import utc_now

logger = structlog.get_logger(__name__)

# A sweep that is cut off leaves the rest to the next one, which begins with the workspaces that have waited longest.
_LIMITS = {"soft_time_limit": 3_000, "time_limit": 3_300}


@shared_task(name="ingest.purge_expired_rows", **_LIMITS)  # type: ignore[untyped-decorator]
def purge_expired_rows() -> None:
    """Remove what each workspace's plan no longer keeps."""
    try:
        purge_all(utc_now())
    except SoftTimeLimitExceeded:
        logger.warning("purge_cut_off")


@shared_task(name="ingest.audit_ledgers", **_LIMITS)  # type: ignore[untyped-decorator]
def audit_ledgers() -> None:
    """Compare raw rows, roll-ups and meters of every workspace; a drift is logged as an error and stored."""
    try:
        audit_all(utc_now())
    except SoftTimeLimitExceeded:
        logger.warning("audit_cut_off")
