"""The figures of the console's first page. Each part is a function of the moment, and may fail by itself."""

import platform
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from importlib.metadata import version
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Count, Q
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.safestring import SafeString

from billing.models import Plan
from ingest.models import (
    CatalogVersion,
    ExportJob,
    ExportState,
    Limit,
    Measure,
    ModelPrice,
    RefusalReason,
    RowDeletion,
    WorkspacePolicy,
)
from ingest.models.prices import PriceState
from ingest.standings import HAS_DRIFT, NEAR, OVER, audit_is_late, purge_is_late, summaries_are_late, with_standing
from opsmeter_site.health import check_migrations
from opsmeter_site.lib import formats
from opsmeter_site.lib.charts import sparkline
from opsmeter_site.lib.heartbeat import STALE_AFTER, last_heartbeat
from opsmeter_site.lib.periods import QUARTER_HOUR, quarter_hour_of
from opsmeter_site.lib.redis import client
from opsmeter_site.operators import measured, traffic
from opsmeter_site.operators.traffic import QuarterHour
from workspaces.models import Workspace

DAY = timedelta(days=1)
_WEEK = timedelta(days=7)
_HOUR_OF_QUARTERS = 4
_SLOW_COMMIT_MS = 100
# More tasks than this wait only when no worker takes them.
_LONG_QUEUE = 20
_QUEUES = ("celery", "alerts", "reports")
_MUCH_UNPRICED = Decimal("0.01")
_OLD_CATALOGUE = timedelta(days=35)
_OUR_ERRORS = ("internal_error", "unavailable")

GOOD, WARN, BAD = "good", "warn", "bad"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure as it is shown. `window` says of when it is; `url` is the list behind it; `tone` good, warn or bad."""

    label: str
    value: str
    window: str
    url: str = ""
    tone: str = ""
    trend: SafeString | str = ""


# --- Traffic ----------------------------------------------------------------------------------------------------------


def of_traffic(now: datetime) -> list[Figure]:
    """Rates, requests, spend and what had no price."""
    quarters = traffic.quarter_hours(quarter_hour_of(now) - DAY)
    by_start = {quarter.start: quarter for quarter in quarters}
    starts = [quarter_hour_of(now) - n * QUARTER_HOUR for n in range(int(DAY / QUARTER_HOUR), -1, -1)]
    requests = [by_start[start].requests if start in by_start else 0 for start in starts]
    total = sum(requests)
    where = _page("activity")
    return [
        # The running quarter hour alone would be no window at all when it has just begun.
        _rate("Requests a minute, now", starts[-2], requests[-2:], now),
        _rate("Requests a minute, last hour", starts[-_HOUR_OF_QUARTERS], requests[-_HOUR_OF_QUARTERS:], now),
        Figure("Requests", formats.count(total), "last 24 hours", where, trend=sparkline(requests)),
        Figure(
            "Metered spend",
            formats.usd(sum((quarter.cost_usd for quarter in quarters), Decimal(0))),
            "last 24 hours",
            f"{where}?order=cost",
        ),
        *_unpriced(quarters, total),
    ]


def _rate(label: str, since: datetime, requests: list[int], now: datetime) -> Figure:
    minutes = Decimal((now - since).total_seconds()) / 60
    rate = sum(requests) / minutes
    shown = formats.count(rate) if rate >= 10 else f"{rate:.1f}"
    return Figure(label, shown, f"since {since:%H:%M} UTC, by time of call", _page("activity"))


def _unpriced(quarters: list[QuarterHour], requests: int) -> list[Figure]:
    tokens = sum(quarter.tokens for quarter in quarters)
    shares = (
        ("Unpriced requests", sum(quarter.unpriced_requests for quarter in quarters), requests),
        ("Unpriced tokens", sum(quarter.unpriced_tokens for quarter in quarters), tokens),
    )
    return [
        Figure(
            label,
            formats.share(Decimal(part) / whole if whole else None),
            f"{formats.count(part)} of {formats.compact(whole)}, last 24 hours",
            _page("unpriced"),
            WARN if part > whole * _MUCH_UNPRICED else "",
        )
        for label, part, whole in shares
    ]


def of_refusals(now: datetime) -> list[Figure]:
    """What limits have refused."""
    refused = traffic.refused_by_reason(quarter_hour_of(now) - DAY)
    return [
        Figure(
            f"Refused: {reason.label.lower()}",
            formats.count(refused.get(reason.value, 0)),
            "events, last 24 hours",
            f"{_page('activity')}?order=refused",
            WARN if refused.get(reason.value) else "",
        )
        for reason in RefusalReason
    ]


# --- This server ------------------------------------------------------------------------------------------------------


def of_this_server(now: datetime) -> list[Figure]:
    """What the server's processes have counted."""
    found = measured.measured()
    window = f"since the server started, {formats.ago(measured.STARTED, now)}"
    limits = {reason.value for reason in RefusalReason}
    counts = Counter({reason: number for reason, number in found.turned_away.items() if reason not in limits})
    ours = sum(counts.pop(reason, 0) for reason in _OUR_ERRORS)
    limited = counts.pop("rate_limited", 0)
    return [
        *(_commit_time(found, share, window) for share in (Decimal("0.5"), Decimal("0.95"))),
        Figure("Failed on our side", formats.count(ours), f"requests, {window}", tone=BAD if ours else ""),
        Figure("Rate limited", formats.count(limited), f"requests, {window}"),
        Figure("Not understood", formats.count(counts.total()), _reasons(counts) or f"requests, {window}"),
        Figure(
            "Let through without a rate limit",
            formats.count(found.skipped_rate_limits),
            f"Redis was away; {window}",
            tone=WARN if found.skipped_rate_limits else "",
        ),
    ]


def _commit_time(found: measured.Measured, share: Decimal, window: str) -> Figure:
    duration = found.commit_ms(float(share))
    shown = "over 5 s" if duration == float("inf") else formats.milliseconds(duration)
    tone = WARN if duration is not None and duration > _SLOW_COMMIT_MS else ""
    return Figure(
        f"Commit time, p{int(share * 100)}", shown, f"{formats.count(found.commits)} commits, {window}", tone=tone
    )


def _reasons(counts: Counter[str]) -> str:
    """The most frequent reasons, for who has to find the sender."""
    return ", ".join(f"{reason} {formats.count(number)}" for reason, number in counts.most_common(3))


# --- Work -------------------------------------------------------------------------------------------------------------


def of_scheduler(now: datetime) -> list[Figure]:
    """Beat's heartbeat."""
    seen = last_heartbeat()
    if seen is None:
        return [Figure("Scheduler and worker", "no sign of life", "in the last week", tone=BAD)]
    alive = now - seen <= STALE_AFTER
    return [
        Figure(
            "Scheduler and worker",
            "alive" if alive else "stopped",
            f"heartbeat {formats.ago(seen, now)}, every minute",
            tone=GOOD if alive else BAD,
        )
    ]


def of_queue(_now: datetime) -> list[Figure]:
    """Celery's queues together."""
    waiting = sum(int(client().llen(f"{settings.REDIS_KEY_PREFIX}:celery:{queue}")) for queue in _QUEUES)
    return [Figure("Tasks waiting", formats.count(waiting), "now", tone=WARN if waiting > _LONG_QUEUE else "")]


def of_upkeep(now: datetime) -> list[Figure]:
    """Audits and retention."""
    found = WorkspacePolicy.objects.aggregate(
        drift=Count("pk", filter=HAS_DRIFT),
        audits=Count("pk", filter=audit_is_late(now)),
        purges=Count("pk", filter=purge_is_late(now)),
        summaries=Count("pk", filter=summaries_are_late(now)),
    )
    where = reverse("admin:ingest_workspacepolicy_changelist")
    return [
        _count("Ledgers with drift", found["drift"], "workspaces, last audit", f"{where}?ledger=drift", BAD),
        _count("Ledger audits late", found["audits"], "workspaces, 36 hours", f"{where}?ledger=late", WARN),
        _count("Retention late", found["purges"], "workspaces, 3 hours", f"{where}?retention=late", WARN),
        _count("Sums for pages late", found["summaries"], "workspaces, 1 hour", f"{where}?summaries=late", WARN),
    ]


def of_jobs(now: datetime) -> list[Figure]:
    """Exports and deletions that people have asked for."""
    unfinished = Q(state__in=[ExportState.WAITING, ExportState.RUNNING])
    exports = ExportJob.objects.filter(unfinished | Q(created_at__gte=now - _WEEK)).aggregate(
        failed=Count("pk", filter=Q(state=ExportState.FAILED)), unfinished=Count("pk", filter=unfinished)
    )
    deletions = RowDeletion.objects.filter(finished_at=None).count()
    where = reverse("admin:ingest_exportjob_changelist")
    wishes = f"{reverse('admin:ingest_rowdeletion_changelist')}?state=waiting"
    return [
        _count("Exports failed", exports["failed"], "last 7 days", f"{where}?state__exact=failed", WARN),
        _count("Exports to be written", exports["unfinished"], "now", f"{where}?state__in=waiting,running", ""),
        _count("Deletions to be done", deletions, "now", wishes, ""),
    ]


def of_prices(now: datetime) -> list[Figure]:
    """Prices that wait, and the catalogue's age."""
    waiting = ModelPrice.objects.filter(state=PriceState.PENDING).count()
    catalogue = CatalogVersion.objects.first()
    imported = catalogue.imported_at if catalogue else None
    return [
        _count(
            "Prices waiting for a decision",
            waiting,
            "now",
            f"{reverse('admin:ingest_modelprice_changelist')}?state__exact=pending",
            WARN,
        ),
        Figure(
            "Price catalogue",
            f"version {catalogue.version}" if catalogue else "empty",
            f"imported {formats.ago(imported, now)} from {catalogue.source}" if catalogue and imported else "no import",
            reverse("admin:ingest_catalogversion_changelist"),
            WARN if imported is None or now - imported > _OLD_CATALOGUE else "",
        ),
    ]


def _count(label: str, number: int, window: str, url: str, tone: str) -> Figure:
    """A count of what should not be there: it has a tone as soon as it is above zero."""
    return Figure(label, formats.count(number), window, url, tone if number else "")


# --- Customers --------------------------------------------------------------------------------------------------------


def of_plans(_now: datetime) -> list[Figure]:
    """How many workspaces are on which plan."""
    plans = Plan.objects.annotate(number=Count("workspaces")).order_by("rank")
    where = reverse("admin:billing_workspaceplan_changelist")
    return [
        Figure(f"On {plan.name}", formats.count(plan.number), "workspaces", f"{where}?plan__tier__exact={plan.tier}")
        for plan in plans
    ]


def of_new_workspaces(now: datetime) -> list[Figure]:
    """Who came lately."""
    number = Workspace.objects.filter(created_at__gte=now - _WEEK).count()
    where = reverse("admin:workspaces_workspace_changelist")
    return [Figure("New workspaces", formats.count(number), "last 7 days", where)]


def of_limits(now: datetime) -> list[Figure]:
    """Plan limits and budgets that are near or over."""
    limits: Any = with_standing(Limit.objects.all(), now)
    rows = limits.values_list("measure", "standing").annotate(number=Count("pk")).order_by()
    found = {(measure, standing): number for measure, standing, number in rows}
    where = reverse("admin:ingest_limit_changelist")
    kinds = (
        (Measure.REQUESTS, NEAR, "Near the plan limit", "this UTC month"),
        (Measure.REQUESTS, OVER, "Telemetry paused by the plan", "this UTC month"),
        (Measure.USD, NEAR, "Budgets near", "this UTC day or month"),
        (Measure.USD, OVER, "Budgets exceeded", "this UTC day or month"),
    )
    return [
        _count(
            label,
            found.get((measure.value, standing), 0),
            window,
            f"{where}?measure__exact={measure.value}&standing={standing}",
            WARN,
        )
        for measure, standing, label, window in kinds
    ]


# --- System -----------------------------------------------------------------------------------------------------------


def of_database(_now: datetime) -> list[Figure]:
    """Size and version."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_database_size(current_database()), current_setting('server_version')")
        size, server = cursor.fetchone()
    return [
        Figure("Database", filesizeformat(size), f"PostgreSQL {server.split()[0]}"),
    ]


def of_migrations(_now: datetime) -> list[Figure]:
    """Whether the schema fits the code."""
    found = check_migrations()
    if found["ok"]:
        return [Figure("Migrations", "all applied", "now", tone=GOOD)]
    return [Figure("Migrations", f"{found.get('unapplied', 'unknown')} missing", "now", tone=BAD)]


def of_redis(_now: datetime) -> list[Figure]:
    """Memory and version."""
    found = client().info()
    name = "Valkey" if "valkey_version" in found else "Redis"
    number = found.get("valkey_version", found["redis_version"])
    return [Figure("Redis memory", filesizeformat(found["used_memory"]), f"{name} {number}")]


def of_versions(now: datetime) -> list[Figure]:
    """What this process runs on."""
    return [
        Figure(
            "Versions",
            f"Django {version('django')}",
            f"Python {platform.python_version()}, started {formats.ago(measured.STARTED, now)}",
        )
    ]


def _page(name: str) -> str:
    return reverse(f"admin:{name}")
