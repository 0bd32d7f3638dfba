"""Tenants and users that cost more than a rule allows in a UTC day or month."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

from alerts.findings import Finding
from alerts.lists import listed, short
from alerts.models import AlertKind, Rule, RuleKind, Severity
from alerts.rules.told import MOST_TOLD, TOGETHER_FOR, Told, scope_of, told
from ingest import reports
from ingest.models import UNKNOWN, Measure, Meter, WorkspacePolicy
from ingest.ranges import DayRange, day_range
from ingest.selectors import Slice
from opsmeter_site.lib.formats import count, usd, usd_exact
from opsmeter_site.lib.periods import DAY, Period, Window, window_of

_UTC = ZoneInfo("UTC")
# So long a period is still looked at when it is over: for what came last, and for what waits to be told together.
_STILL_OPEN_FOR = 2 * TOGETHER_FOR


@dataclass(frozen=True, slots=True)
class Spender:
    """A tenant or user, and its USD of a period."""

    value: str
    cost_usd: Decimal


def spenders(workspace_id: UUID, rule: Rule, window: Window, data_modes: Sequence[str]) -> list[Spender]:
    """The costliest tenants or users of a UTC day or month, most first, as many as are ever told.

    Requests without a tenant or user are nobody's.
    """
    days = day_range(_UTC, window.start.date(), (window.end - DAY).date())
    nothing_before = DayRange(_UTC, days.first_day, days.first_day, days.start, days.start)
    where = Slice(data_mode=tuple(data_modes))
    # One more, because nobody may be among them.
    rows = reports.top(workspace_id, days, nothing_before, where, rule.dimension, limit=MOST_TOLD + 1).rows
    return [Spender(row.value, row.now.cost_usd) for row in rows if row.value != UNKNOWN][:MOST_TOLD]


def over(rule: Rule, found: Sequence[Spender]) -> list[Spender]:
    """Those that the rule says something about."""
    return [spender for spender in found if spender.cost_usd > rule.threshold_usd]


def find(workspace_ids: Sequence[UUID], now: datetime) -> list[Finding]:
    """Who has come above a rule's amount and was not told in this period; one finding a rule and period."""
    asked = _worth_a_look(workspace_ids, now)
    policies = WorkspacePolicy.objects.filter(pk__in=asked).values_list("pk", "counted_data_modes")
    found: dict[Window, list[tuple[Rule, list[Spender]]]] = defaultdict(list)
    for workspace_id, data_modes in policies:
        with reports.snapshot():
            for rule, window in asked[workspace_id]:
                if offenders := over(rule, spenders(workspace_id, rule, window, data_modes)):
                    found[window].append((rule, offenders))
    return [finding for window, offending in found.items() for finding in _findings(window, offending, now)]


def _worth_a_look(workspace_ids: Sequence[UUID], now: datetime) -> Mapping[UUID, list[tuple[Rule, Window]]]:
    """The rules that are on, with each open period in which all together have spent more than one may.

    Meters say so at once, and spare most workspaces the look at their tenants and users.
    """
    rules = Rule.objects.filter(workspace_id__in=list(workspace_ids), kind=RuleKind.SPENDER_OVER, is_enabled=True)
    windows = {
        period: dict.fromkeys((window_of(period, now - _STILL_OPEN_FOR), window_of(period, now))) for period in Period
    }
    meters = Meter.objects.filter(
        workspace_id__in={rule.workspace_id for rule in rules},
        measure=Measure.USD,
        scope_kind="",
        period_start__in={window.start for each in windows.values() for window in each},
    ).values_list("workspace_id", "period", "period_start", "value")
    spent = {tuple(key): value for *key, value in meters}
    found: dict[UUID, list[tuple[Rule, Window]]] = defaultdict(list)
    for rule in rules:
        for window in windows[Period(rule.period)]:
            if spent.get((rule.workspace_id, rule.period, window.start), 0) > rule.threshold_usd:
                found[rule.workspace_id].append((rule, window))
    return found


def _findings(window: Window, offending: Sequence[tuple[Rule, list[Spender]]], now: datetime) -> Iterator[Finding]:
    before = told(AlertKind.SPENDER_OVER, (rule.workspace_id for rule, _ in offending), window.start)
    for rule, offenders in offending:
        known = before.get((rule.workspace_id, _subject(rule)), Told())
        by_value = {spender.value: spender for spender in offenders}
        new = [by_value[value] for value in known.news(by_value, now)]
        if new:
            yield _finding(rule, window, new, known, now)


def _subject(rule: Rule) -> str:
    # Another threshold is another promise.
    return f"rule:{rule.pk}:{rule.threshold_usd:f}"


def _finding(rule: Rule, window: Window, new: Sequence[Spender], before: Told, now: datetime) -> Finding:
    what, threshold = rule.get_dimension_display(), usd_exact(rule.threshold_usd)
    period = (
        f"the UTC {rule.period} {window.start:%-d %b %Y}"
        if rule.period == Period.DAY
        else f"the UTC month {window.start:%b %Y}"
    )
    if len(new) == 1:
        title = f"{what} {short(new[0].value)} is over {threshold} this {rule.period}"
    else:
        title = f"{count(len(new))} {what.lower()}s are over {threshold} this {rule.period}"
    lines = [f"{short(spender.value)} {usd(spender.cost_usd)}" for spender in new]
    earlier = f" {_were(len(before.values))} told before." if before.values else ""
    is_last = len(before.values) + len(new) >= MOST_TOLD
    return Finding(
        workspace_id=rule.workspace_id,
        kind=AlertKind.SPENDER_OVER,
        severity=Severity.WARNING,
        scope=scope_of(_subject(rule), before),
        metric=f"usd.{rule.period}",
        title=title,
        text=(
            f"USD by {what.lower()} in {period}, above {threshold}: {listed(lines)}.{earlier}"
            + (f" So many are over it that this rule says no more about this {rule.period}." if is_last else "")
        ),
        window_start=window.start,
        window_end=window.end,
        occurred_at=now,
        facts={
            "rule": rule.pk,
            "dimension": rule.dimension,
            "threshold_usd": f"{rule.threshold_usd:f}",
            "highest_usd": f"{new[0].cost_usd:f}",
            "told": [spender.value for spender in new],
            "drill": {},
        },
    )


def _were(number: int) -> str:
    return "1 was" if number == 1 else f"{count(number)} were"
