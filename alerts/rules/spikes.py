"""Spend of the last hours against the same hours of the weeks before, by the clocks of the workspace."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from alerts.findings import Finding
from alerts.models import Alert, AlertKind, AlertSettings, Severity
from billing.selectors import features_of
from ingest.snapshots import fetch
from opsmeter_site.lib.formats import usd
from opsmeter_site.lib.periods import DAY, wall_moment
from workspaces.models import Workspace

HOURS = 3
WEEKS = 4
# One week may have been a holiday.
LEAST_WEEKS = 2
# A spike that goes on is told once a day.
_TOLD_FOR = DAY
_HOUR = timedelta(hours=1)
_WEEK = timedelta(days=7)
_METRIC = "usd.3_hours"

# One index range for each hour that is asked for.
_SPEND = """
SELECT asked.workspace_id, asked.week, asked.number, coalesce(sums.cost_usd, 0)
FROM unnest(
    %(workspaces)s::uuid[], %(weeks)s::int[], %(numbers)s::int[], %(starts)s::timestamptz[]
) AS asked (workspace_id, week, number, starts)
JOIN ingest_workspacepolicy AS policy ON policy.workspace_id = asked.workspace_id
CROSS JOIN LATERAL (
    SELECT sum(cost_usd) AS cost_usd
    FROM ingest_rollup
    WHERE workspace_id = asked.workspace_id AND bucket_start >= asked.starts
        AND bucket_start < asked.starts + INTERVAL '1 hour' AND data_mode = ANY(policy.counted_data_modes)
) AS sums
"""

_FIRST_EVENTS = """
SELECT policy.workspace_id, first.bucket_start
FROM ingest_workspacepolicy AS policy
CROSS JOIN LATERAL (
    SELECT bucket_start FROM ingest_rollup
    WHERE workspace_id = policy.workspace_id AND data_mode = ANY(policy.counted_data_modes)
    ORDER BY bucket_start LIMIT 1
) AS first
WHERE policy.workspace_id = ANY(%(workspaces)s)
"""


class Hour(NamedTuple):
    """An hour that begins at `start` (aware UTC): the `number`th of the last ones, or the same one `week` weeks ago."""

    week: int
    number: int
    start: datetime


@dataclass(frozen=True, slots=True)
class SpikeRule:
    """When spend is a spike: at least `factor` times the usual, and at least `minimum_usd` above it."""

    is_on: bool
    factor: Decimal
    minimum_usd: Decimal


@dataclass(frozen=True, slots=True)
class Comparison:
    """USD in the last whole local hours `[start, end)`, and the usual in these hours; None while that is not known."""

    start: datetime
    end: datetime
    actual_usd: Decimal
    usual_usd: Decimal | None
    weeks: int

    def is_spike(self, rule: SpikeRule) -> bool:
        """Whether it is one."""
        if self.usual_usd is None:
            return False
        is_far_above = self.actual_usd - self.usual_usd >= rule.minimum_usd
        return is_far_above and self.actual_usd >= rule.factor * self.usual_usd


def spike_rules(workspace_ids: Sequence[UUID]) -> Mapping[UUID, SpikeRule]:
    """What each workspace has set; where nobody has set anything, the usual."""
    usual = AlertSettings()
    found = dict.fromkeys(workspace_ids, SpikeRule(usual.spike_is_on, usual.spike_factor, usual.spike_minimum_usd))
    rows = AlertSettings.objects.filter(workspace_id__in=list(workspace_ids))
    columns = ("workspace_id", "spike_is_on", "spike_factor", "spike_minimum_usd")
    return found | {workspace_id: SpikeRule(*rule) for workspace_id, *rule in rows.values_list(*columns)}


def last_hours(zone: ZoneInfo, now: datetime) -> list[Hour]:
    """The last whole hours by the clocks of `zone`, in order of time."""
    running = now.astimezone(zone).replace(minute=0, second=0, microsecond=0)
    end = running.astimezone(UTC)
    return [Hour(0, number, end - (HOURS - number) * _HOUR) for number in range(HOURS)]


def hours_before(zone: ZoneInfo, hours: Sequence[Hour]) -> Iterator[Hour]:
    """The same weekdays and wall times of the weeks before. An hour that clocks skipped then is left out."""
    for week in range(1, WEEKS + 1):
        for hour in hours:
            wall = hour.start.astimezone(zone).replace(tzinfo=None) - week * _WEEK
            moment = wall_moment(zone, wall.date(), wall.time())
            if moment.astimezone(zone).replace(tzinfo=None) == wall:
                yield Hour(week, hour.number, moment)


def comparisons(
    zones: Mapping[UUID, ZoneInfo], now: datetime, least_usd: Mapping[UUID, Decimal] | None = None
) -> dict[UUID, Comparison]:
    """By workspace; with `least_usd` only for those that have spent so much in the last hours."""
    last = {zone: last_hours(zone, now) for zone in set(zones.values())}
    actual = _spend({workspace_id: last[zone] for workspace_id, zone in zones.items()})
    asked = {
        key: zone for key, zone in zones.items() if least_usd is None or sum(actual[key].values()) >= least_usd[key]
    }
    before = {zone: list(hours_before(zone, last[zone])) for zone in set(asked.values())}
    earlier = _spend({key: before[zone] for key, zone in asked.items()})
    first = dict(fetch(_FIRST_EVENTS, {"workspaces": list(asked)})) if asked else {}
    return {
        key: _compared(last[zone], before[zone], actual[key], earlier[key], first.get(key))
        for key, zone in asked.items()
    }


def _compared(
    last: Sequence[Hour],
    before: Sequence[Hour],
    actual: Mapping[tuple[int, int], Decimal],
    earlier: Mapping[tuple[int, int], Decimal],
    first_event: datetime | None,
) -> Comparison:
    """A week counts once the workspace has sent anything by its end: from then on, nothing is a figure too."""
    end = last[-1].start + _HOUR
    ends = {hour.week: hour.start + _HOUR for hour in before}
    weeks = [week for week, over in ends.items() if first_event is not None and first_event < over]
    usual = None
    if len(weeks) >= LEAST_WEEKS:
        usual = sum((_mean(hour.number, weeks, earlier) for hour in last), Decimal(0))
    return Comparison(last[0].start, end, sum(actual.values(), Decimal(0)), usual, len(weeks))


def _mean(number: int, weeks: Sequence[int], earlier: Mapping[tuple[int, int], Decimal]) -> Decimal:
    amounts = [earlier[week, number] for week in weeks if (week, number) in earlier]
    return sum(amounts, Decimal(0)) / len(amounts) if amounts else Decimal(0)


def _spend(hours: Mapping[UUID, Sequence[Hour]]) -> dict[UUID, dict[tuple[int, int], Decimal]]:
    """USD by workspace, then by week and number of the hour. Counts the data that budgets count."""
    asked = [(workspace_id, *hour) for workspace_id, each in hours.items() for hour in each]
    found: dict[UUID, dict[tuple[int, int], Decimal]] = defaultdict(dict)
    if not asked:
        return found
    names = ("workspaces", "weeks", "numbers", "starts")
    columns = dict(zip(names, map(list, zip(*asked, strict=True)), strict=True))
    for workspace_id, week, number, cost_usd in fetch(_SPEND, columns):
        found[workspace_id][week, number] = cost_usd
    return found


def find(workspace_ids: Sequence[UUID], now: datetime) -> list[Finding]:
    """Spikes of the workspaces whose plan includes the watch and that have it on, each told once a day."""
    features = features_of(workspace_ids)
    rules = {
        key: rule
        for key, rule in spike_rules(workspace_ids).items()
        if rule.is_on and key in features and features[key].has_integrations
    }
    zones = dict(Workspace.objects.filter(pk__in=rules).values_list("pk", "timezone"))
    least = {key: rule.minimum_usd for key, rule in rules.items()}
    found = {key: compared for key, compared in comparisons(zones, now, least).items() if compared.is_spike(rules[key])}
    alerts = Alert.objects.filter(workspace_id__in=found, kind=AlertKind.SPEND_SPIKE, opened_at__gt=now - _TOLD_FOR)
    told = set(alerts.values_list("workspace_id", flat=True))
    return [_finding(key, compared, rules[key], zones[key], now) for key, compared in found.items() if key not in told]


def hours_in_words(compared: Comparison, zone: ZoneInfo) -> str:
    """Such as "09:00 to 12:00 on 22 Nov 2026 (Europe/Berlin)"."""
    start, end = compared.start.astimezone(zone), compared.end.astimezone(zone)
    return f"{start:%H:%M} to {end:%H:%M} on {start:%-d %b %Y} ({zone})"


def _finding(workspace_id: UUID, compared: Comparison, rule: SpikeRule, zone: ZoneInfo, now: datetime) -> Finding:
    usual = compared.usual_usd or Decimal(0)
    times = f"{compared.actual_usd / usual:.1f} times the usual" if usual else "usually nothing"
    return Finding(
        workspace_id=workspace_id,
        kind=AlertKind.SPEND_SPIKE,
        severity=Severity.WARNING,
        scope="workspace",
        metric=_METRIC,
        title=f"Spend spike: {usd(compared.actual_usd)} in {HOURS} hours, {times}",
        text=(
            f"Spend in USD from {hours_in_words(compared, zone)}: {usd(compared.actual_usd)}. Usual in these hours: "
            f"{usd(usual)}, the mean of {compared.weeks} weeks before. Told from {rule.factor:f} times the usual and "
            f"{usd(rule.minimum_usd)} above it on, once a day."
        ),
        window_start=compared.start,
        window_end=compared.end,
        occurred_at=now,
        facts={
            "actual_usd": f"{compared.actual_usd:f}",
            "usual_usd": f"{usual:.12f}",
            "weeks": compared.weeks,
            "drill": {},
        },
    )
