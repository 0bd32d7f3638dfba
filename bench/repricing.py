"""A million stored requests are priced again while the same workspace takes live traffic.

The whole product runs as `./opsmeter up` starts it. Measured are what ingest feels of the preview and of the run, how
fast they are, and that the ledger is exact afterwards although the worker is killed half-way.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from bench import pages_data
from bench.load import LoadError, open_limited_workspace
from bench.stack import Stack, stack, wait_served, wait_until
from bench.summaries import EVENTS_PER_SECOND, SENDERS, Live
from billing.services import OpenedWorkspace
from ingest import repricing
from ingest.audit import audit_workspace
from ingest.catalog import add_price
from ingest.models import Repricing, RepricingState, Rollup, ScopeKind
from ingest.models.prices import SINCE_EVER
from ingest.price_tables import UnitPrices
from ingest.services import LimitSpec, put_limit
from opsmeter_site.lib.clock import utc_now

BAR_RATIO = 2.0
DAYS = 20
IDLE_SECONDS = 30.0
_PATIENCE_SECONDS = 1_800.0
_PRICES = UnitPrices(input=Decimal("1.25"), output=Decimal(5), cached_input=Decimal("0.5"))


@dataclass(frozen=True)
class _Watch:
    """What is looked at while the job is worked on."""

    running: Stack
    live: Live
    job: Repricing
    idle_ms: float

    def until(self, state: str, what: str, *, is_to_kill: bool = False) -> None:
        """Wait for the state, and say how long that took and what live ingest felt."""
        self.live.taken = []
        started = time.monotonic()
        if is_to_kill:
            wait_until(self._is_half_done, _PATIENCE_SECONDS, "The job did not come half-way.")
            self.running.kill("reports")
        wait_until(lambda: self._state() == state, _PATIENCE_SECONDS, f"The job did not become {state}.")
        seconds, busy_ms = time.monotonic() - started, self.live.p99_ms()
        print(
            f"{what:20}{self.job.looked_at_rows:10,} rows{seconds:7.0f} s"
            f"{self.job.looked_at_rows / seconds:9,.0f} rows/s   live ingest, p99 ms: {self.idle_ms:.1f} idle, "
            f"{busy_ms:.1f} meanwhile, ratio {busy_ms / self.idle_ms:.2f} (bar {BAR_RATIO:.0f})",
            flush=True,
        )

    def _state(self) -> str:
        self.job.refresh_from_db()
        if self.job.state == RepricingState.FAILED:
            raise LoadError(self.job.error)
        return self.job.state

    def _is_half_done(self) -> bool:
        return self._state() != RepricingState.RUNNING or self.job.looked_at_rows > self.job.expected_rows / 2


def run(options: argparse.Namespace) -> None:
    """Fill a workspace, change its prices, and price everything again under load."""
    opened = open_limited_workspace("Repriced")
    rows = _timed("stored", lambda: pages_data.fill(opened.workspace.pk, options.rows, now=utc_now(), days=DAYS))
    _limit_tenants(opened)
    _change_prices(opened)
    with stack() as running:
        live = Live(running, [opened] * SENDERS)
        running.start(beat=1, worker=1, reports=1, alerts=1, web=1)
        wait_served(running)
        live.start()
        time.sleep(5)
        live.taken = []
        time.sleep(IDLE_SECONDS)
        job = _asked(opened)
        watch = _Watch(running, live, job, live.p99_ms())
        print(f"{rows:,} rows; {EVENTS_PER_SECOND} live events/s to the same workspace", flush=True)
        watch.until(RepricingState.PREVIEWED, "preview")
        repricing.run_repricing(job, acting_user=opened.owner)
        watch.until(RepricingState.DONE, "run, killed once", is_to_kill=True)
        live.is_over.set()
    _check(opened, job, rows)


def _timed(what: str, work: Callable[[], int]) -> int:
    started = time.perf_counter()
    number = work()
    print(f"{number:,} rows {what} in {time.perf_counter() - started:.0f} s", flush=True)
    return number


def _limit_tenants(opened: OpenedWorkspace) -> None:
    """A budget on each tenant: one more meter for every event."""
    spec = LimitSpec(
        source_id="tenants",
        name="Each tenant",
        measure="usd",
        period="month",
        amount=Decimal(10**6),
        thresholds=(Decimal(1),),
        enforce=True,
        scope_kind=ScopeKind.TENANT_ID,
        is_each_value=True,
    )
    put_limit(opened.workspace.pk, "bench", spec)


def _change_prices(opened: OpenedWorkspace) -> None:
    """Give the workspace prices of its own for every model, so that nearly every row changes."""
    names = Rollup.objects.filter(workspace=opened.workspace).values_list("provider", "model").distinct()
    for provider, model in names:
        add_price(
            acting_user=opened.owner,
            workspace=opened.workspace,
            provider=provider,
            model=model,
            effective_from=SINCE_EVER,
            unit_prices=_PRICES,
        )


def _asked(opened: OpenedWorkspace) -> Repricing:
    now = utc_now()
    return repricing.request_repricing(
        opened.workspace,
        provider="",
        models_sent=[],
        start=now - timedelta(days=DAYS + 1),
        end=now,
        only_unpriced=False,
        reason="bench",
        acting_user=opened.owner,
    )


def _check(opened: OpenedWorkspace, job: Repricing, rows: int) -> None:
    """Audit the ledger. Raises `LoadError` if it does not agree with itself, or if no traffic was stored meanwhile."""
    report = audit_workspace(opened.workspace.pk, utc_now())
    print(
        f"{job.changed_rows:,} of {job.looked_at_rows:,} rows changed; audit of {report.events:,} rows: "
        f"drift {report.drift_usd} USD, {report.drift_requests} requests"
    )
    if not report.is_exact or report.events == rows:
        raise LoadError("The ledger does not agree with itself, or nothing was stored meanwhile.")
