"""The state of the service at a glance, for the console's first page.

A part that fails, or takes too long, says "unknown" and leaves the others alone: this page is opened when things are
wrong.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db import connection

from opsmeter_site.operators import alert_figures, billing_figures, figures
from opsmeter_site.operators.figures import Figure

logger = structlog.get_logger(__name__)

PATIENCE = "2s"


@dataclass(frozen=True, slots=True)
class Section:
    """Figures under one heading."""

    title: str
    figures: list[Figure]


Part = Callable[[datetime], list[Figure]]

# When something is wrong, several people press "reload": they share one look at the database.
KEPT_FOR = timedelta(seconds=10)
_kept: "tuple[datetime, list[Section]] | None" = None


def recent_state(now: datetime) -> tuple[datetime, list[Section]]:
    """`service_state` of at most `KEPT_FOR` ago, and when that was."""
    global _kept
    if _kept is None or now - _kept[0] >= KEPT_FOR:
        _kept = now, service_state(now)
    return _kept


def service_state(now: datetime) -> list[Section]:
    """All sections at `now` (aware)."""
    with _patience():
        return [
            Section(title, [figure for label, part in parts for figure in _shown(label, part, now)])
            for title, parts in _SECTIONS
        ]


@contextmanager
def _patience() -> Iterator[None]:
    """No statement may hold the page up for long."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET statement_timeout = '{PATIENCE}'")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = DEFAULT")


def _shown(label: str, part: Part, now: datetime) -> list[Figure]:
    try:
        return part(now)
    except Exception as error:  # whatever it is, the other parts matter now
        logger.exception("service_state_unknown", part=label)
        return [Figure(label, "unknown", f"could not be read: {type(error).__name__}", tone=figures.BAD)]


_SECTIONS: tuple[tuple[str, tuple[tuple[str, Part], ...]], ...] = (
    ("Traffic of all workspaces", (("Traffic", figures.of_traffic), ("Refused", figures.of_refusals))),
    ("Ingest on this server", (("Ingest", figures.of_this_server),)),
    (
        "Work",
        (
            ("Scheduler and worker", figures.of_scheduler),
            ("Tasks waiting", figures.of_queue),
            ("Ledger upkeep", figures.of_upkeep),
            ("Jobs", figures.of_jobs),
            ("Prices", figures.of_prices),
        ),
    ),
    (
        "Alerts",
        (
            ("Crossings", alert_figures.of_crossings),
            ("Messages", alert_figures.of_deliveries),
            ("Summaries to send", alert_figures.of_reports),
        ),
    ),
    (
        "Billing",
        (
            ("Billing", billing_figures.of_billing),
            ("Provider's messages", billing_figures.of_events),
            ("Webhooks refused", billing_figures.of_refused_webhooks),
            ("Subscriptions", billing_figures.of_subscriptions),
        ),
    ),
    (
        "Customers",
        (
            ("Plans", figures.of_plans),
            ("Limits", figures.of_limits),
            ("New workspaces", figures.of_new_workspaces),
        ),
    ),
    (
        "System",
        (
            ("Database", figures.of_database),
            ("Migrations", figures.of_migrations),
            ("Redis memory", figures.of_redis),
            ("Versions", figures.of_versions),
        ),
    ),
)
