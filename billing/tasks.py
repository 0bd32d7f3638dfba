"""Billing's work in the background. Every task may run twice, be killed at any time, and goes on where it was."""

from celery import shared_task

from billing.inbox import process_due
from billing.reconciliation import reconcile_due
from billing.retention_notices import end_retention_notices, mail_retention_notices
from billing.subscriptions import expire_lapsed
from opsmeter_site.lib.clock import utc_now

# Short enough that a stop is not waited for; the next sweep goes on.
_PROCESS_SECONDS = 5.0
_RECONCILE_SECONDS = 40.0


@shared_task(name="billing.process")  # type: ignore[untyped-decorator]
def process() -> None:
    """Bring the provider's waiting messages into effect."""
    process_due(_PROCESS_SECONDS)


@shared_task(name="billing.reconcile")  # type: ignore[untyped-decorator]
def reconcile() -> None:
    """Ask the provider about what is in doubt, and once a day about everything."""
    reconcile_due(_RECONCILE_SECONDS)


@shared_task(name="billing.keep_time")  # type: ignore[untyped-decorator]
def keep_time() -> None:
    """Take what has ended by the clock, whether or not anybody says so."""
    now = utc_now()
    expire_lapsed(now)
    end_retention_notices(now)
    mail_retention_notices(now)
