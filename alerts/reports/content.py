"""What a summary says: all figures of its window, from the same selectors as the console, as JSON to keep."""

from collections import defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from alerts.models import Report, ReportKind
from alerts.reports.alert_figures import alerts_of, open_critical
from alerts.reports.budget_figures import daily_budget, month_forecast, monthly_budget
from alerts.reports.figures import (
    Arrival,
    Bar,
    Change,
    Effect,
    Mover,
    Ranking,
    Refused,
    RefusedSpell,
    ReportContent,
    Row,
    Usage,
)
from alerts.reports.sentences import title_of
from budgets.selectors import budget_values
from ingest import reports
from ingest.drivers import Driver, EndpointChange, explain_change
from ingest.models import UNKNOWN, DataMode, Rollup
from ingest.ranges import DayRange, day_range
from ingest.report_filters import read_filters
from ingest.report_rows import TopRow
from ingest.selectors import Slice
from ingest.snapshots import snapshot
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.money import to_ledger

RANKED = ("endpoint_tag", "tenant_id", "model", "prompt_version")
RANKED_ROWS = 5
# What was not used in so many days before counts as used for the first time.
ARRIVAL_DAYS = 90
_ARRIVING = ("endpoint_tag", "model")
_MOST_ARRIVALS = 8
_MOST_MOVERS = 5
_MOST_NAMES = 5
_MOST_SPELLS = 12
# How many values of a dimension are looked through for new ones and for such without a price.
_COMPARED = 300
_ZERO = Decimal(0)


def build_content(report: Report) -> tuple[str, dict[str, Any]]:
    """The title and the content of a report, from the ledger as it is now. Money as decimal text.

    Call it outside of any transaction: then all figures are of one moment.
    """
    now = utc_now()
    with snapshot():
        content = _read(report, now)
    return title_of(report.workspace.name, content), content.to_json()


def is_empty(content: dict[str, Any]) -> bool:
    """Whether nothing happened in its window."""
    return ReportContent.from_json(content).is_empty


def _read(report: Report, now: datetime) -> ReportContent:
    workspace_id = report.workspace_id
    budget = budget_values(workspace_id)
    modes = _modes(report, budget.counted_data_modes, now)
    reader = _Reader(workspace_id, report, now, modes)
    facts: dict[str, Any] = {
        "kind": report.kind,
        "zone": report.zone,
        "first_day": reader.days.first_day,
        "last_day": reader.days.last_day,
        "before_first_day": reader.before.first_day,
        "before_last_day": reader.before.last_day,
        "as_of": now,
        "newest_data_at": _newest(workspace_id),
        "data_modes": modes,
        "refused": reader.refused(),
        "alerts": alerts_of(workspace_id, reader.days.start, reader.days.end),
    }
    if report.kind == ReportKind.EXECUTIVE:
        facts["open_critical"] = open_critical(workspace_id)
    if reader.has_requests():
        facts |= reader.usage()
        facts |= {
            "daily_budget": daily_budget(workspace_id, budget, reader.days, now),
            "monthly_budget": monthly_budget(workspace_id, budget, reader.days.last_day, now),
            "forecast": month_forecast(workspace_id, now),
        }
    return ReportContent(**facts)


def _modes(report: Report, counted: tuple[str, ...], now: datetime) -> tuple[str, ...]:
    """What budgets count, so that spend and budget are about the same money.

    A summary by hand is there to be looked at: without any real traffic it is about what the console begins with.
    """
    if report.schedule_id is not None:
        return counted
    shown = read_filters({}, report.workspace_id, ZoneInfo(report.zone), now).data_mode
    return counted if shown == DataMode.REAL else (shown,)


def _newest(workspace_id: UUID) -> datetime | None:
    """The quarter hour of the newest data, of whatever mode."""
    newest = Rollup.objects.filter(workspace_id=workspace_id).order_by("-bucket_start")
    return newest.values_list("bucket_start", flat=True).first()


class _Reader:
    """The ledger in the window of one report, and in the one before it."""

    def __init__(self, workspace_id: UUID, report: Report, now: datetime, modes: tuple[str, ...]) -> None:
        self.workspace_id = workspace_id
        self.days = day_range(ZoneInfo(report.zone), report.first_day, report.last_day)
        self.before = self.days.previous(now)
        self._both = (self.days, self.before)
        self.where = Slice(data_mode=() if set(modes) == set(DataMode.values) else modes)
        # First: it reads of both windows what most of the others need.
        self.endpoints = self.ranking("endpoint_tag")

    def has_requests(self) -> bool:
        """In either window."""
        return bool(self.endpoints.rows)

    def usage(self) -> dict[str, Any]:
        """Everything about requests."""
        arrivals = self.arrivals()
        return {
            "now": self.whole(self.days),
            "before": self.whole(self.before),
            "bars": self.bars(),
            "change": self.change(),
            "rankings": tuple(self.rankings()),
            "arrivals": arrivals,
            "arrivals_days": ARRIVAL_DAYS if arrivals else 0,
            "unpriced_models": self.unpriced_models(),
        }

    def whole(self, days: DayRange) -> Usage:
        return Usage.of(reports.totals(self.workspace_id, days, self.where))

    def ranking(self, dimension: str) -> Ranking:
        top = reports.top(self.workspace_id, self.days, self.before, self.where, dimension, RANKED_ROWS)
        return Ranking(
            dimension=dimension,
            rows=tuple(_row(row) for row in top.rows),
            more=max(0, top.distinct - sum(1 for row in top.rows if row.now.requests)),
            others=Usage.of(top.others),
        )

    def rankings(self) -> list[Ranking]:
        """Those that tell something: a single "unknown" is a field that nobody fills in."""
        found = [self.endpoints if each == "endpoint_tag" else self.ranking(each) for each in RANKED]
        return [one for one in found if any(row.value != UNKNOWN for row in one.rows)]

    def bars(self) -> tuple[Bar, ...]:
        """By day, or by hour for one day; hours are matched by what clocks show, also where they are changed."""
        now, then = (
            [(self._place(number, bar.start), bar) for number, bar in enumerate(series.bars)]
            for series in (reports.series(self.workspace_id, days, self.where, "model", 0) for days in self._both)
        )
        earlier: dict[int, Decimal] = defaultdict(Decimal)
        for place, bar in then:
            earlier[place] += bar.figures.cost_usd
        return tuple(
            Bar(start=bar.start, cost_usd=bar.figures.cost_usd, before_usd=earlier[place]) for place, bar in now
        )

    def _place(self, number: int, start: datetime) -> int:
        return number if self.days.days > 1 else start.astimezone(self.days.zone).hour

    def change(self) -> Change:
        """What moved spend, as the investigate page says it."""
        cells = [reports.cells(self.workspace_id, days, self.where) for days in self._both]
        change = explain_change(before=cells[1], now=cells[0])
        main = change.main_driver
        return Change(
            effects=tuple(
                Effect(driver=driver.value, amount_usd=to_ledger(amount))
                for driver, amount in change.effects.items()
                if to_ledger(amount)
            ),
            main=main.value if main else "",
            main_endpoint=_most_moved(change.endpoints, main) if main else "",
            movers=tuple(
                Mover(
                    endpoint_tag=each.endpoint_tag,
                    before_usd=each.before_usd,
                    now_usd=each.now_usd,
                    driver=each.main_driver.value if each.main_driver else "",
                )
                for each in change.endpoints[:_MOST_MOVERS]
                if each.difference
            ),
        )

    def arrivals(self) -> tuple[Arrival, ...]:
        """Endpoints and models that were not used before, costliest first; none if nothing was."""
        candidates = [(dimension, row) for dimension in _ARRIVING for row in self._moved(dimension) if row.is_new]
        if not candidates:
            return ()
        day = timedelta(days=1)
        earlier = day_range(self.days.zone, self.days.first_day - ARRIVAL_DAYS * day, self.days.first_day - day)
        known = {
            (dimension, row.value, row.provider)
            for dimension in _ARRIVING
            for row in reports.top(self.workspace_id, earlier, earlier, self.where, dimension, limit=10_000).rows
        }
        if not known:
            return ()
        new = [(name, row) for name, row in candidates if (name, row.value, row.provider) not in known]
        new.sort(key=lambda each: (-each[1].now.cost_usd, each[1].value))
        return tuple(
            Arrival(
                dimension=name,
                value=row.value,
                provider=row.provider,
                requests=row.now.requests,
                cost_usd=row.now.cost_usd,
            )
            for name, row in new[:_MOST_ARRIVALS]
        )

    def unpriced_models(self) -> tuple[str, ...]:
        """The models with the most requests without a price."""
        rows = [row for row in self._moved("model") if row.now.unpriced_requests]
        rows.sort(key=lambda row: (-row.now.unpriced_requests, row.value))
        return tuple(dict.fromkeys(f"{row.provider}/{row.value}" for row in rows))[:_MOST_NAMES]

    def _moved(self, dimension: str) -> list[TopRow]:
        return reports.movers(self.workspace_id, self.days, self.before, self.where, dimension, _COMPARED).rows

    def refused(self) -> Refused:
        """What was refused in the window, and when."""
        spells = reports.refused(self.workspace_id, self.days)
        return Refused(
            requests=sum(one.requests for one in spells),
            cost_usd=sum((one.cost_usd for one in spells), _ZERO),
            spells=tuple(
                RefusedSpell(
                    start=one.start, end=one.end, reason=one.reason, requests=one.requests, cost_usd=one.cost_usd
                )
                for one in spells[:_MOST_SPELLS]
            ),
            more=max(0, len(spells) - _MOST_SPELLS),
        )


def _most_moved(endpoints: list[EndpointChange], driver: Driver) -> str:
    """The endpoint in which `driver` moved most; "" if it is one that shows between endpoints only."""
    amounts = {each.endpoint_tag: abs(each.effects[driver]) for each in endpoints if driver in each.effects}
    return max(amounts, key=amounts.__getitem__, default="")


def _row(row: TopRow) -> Row:
    return Row(value=row.value, provider=row.provider, now=Usage.of(row.now), before=Usage.of(row.before))
