"""Prompt versions: A against B for one endpoint, with how sure the difference is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.safestring import SafeString
from django.views.decorators.http import require_GET

from ingest import reports
from ingest.comparison import FEWEST_SAMPLES, Comparison, compare, interval
from ingest.report_filters import ReportFilters, filter_bar, read_filters
from ingest.report_rows import Moments, VersionStats
from ingest.snapshots import snapshot
from opsmeter_site.lib import charts, formats
from opsmeter_site.lib.clock import utc_now
from workspaces.access import WorkspaceAccess
from workspaces.pages import workspace_page


@dataclass(frozen=True, slots=True)
class Metric:
    """One measure of a request and how it is written."""

    name: str
    label: str
    axis_format: charts.Format
    value_format: charts.Format

    def of(self, version: VersionStats) -> Moments:
        """The version's moments of this measure."""
        moments: Moments = getattr(version, self.name)
        return moments


METRICS = (
    Metric("cost_usd", "Cost per request", charts.short_usd, formats.usd_fine),
    Metric("tokens", "Tokens per request", charts.short_count, formats.count),
    Metric("latency_ms", "Latency", formats.milliseconds, formats.milliseconds),
)


@workspace_page()
@require_GET
def versions(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Two versions of one endpoint side by side, and all the others in a table."""
    now = utc_now()
    workspace = access.workspace
    params = request.GET.dict()
    filters = read_filters(params, workspace.pk, workspace.timezone, now, keep=("a", "b"), default_range="30d")
    with snapshot():
        endpoints = reports.endpoints_of(workspace.pk, filters.days)
        endpoint = filters.drill.get("endpoint") or (endpoints[0][0] if endpoints else "")
        stats = reports.version_stats(workspace.pk, filters.days, endpoint, filters.where) if endpoint else []
    first, second = _chosen(stats, params)
    context = {
        **filter_bar(filters),
        "now": now,
        "days": filters.days,
        "endpoint": endpoint,
        "endpoints": endpoints,
        "stats": stats,
        "first": first,
        "second": second,
        "kept": _kept(filters),
        "metrics": [_metric(metric, first, second) for metric in METRICS] if first and second else [],
        "fewest": FEWEST_SAMPLES,
    }
    return render(request, "ingest/versions.html", context)


def _chosen(
    stats: Sequence[VersionStats], params: Mapping[str, str]
) -> tuple[VersionStats | None, VersionStats | None]:
    """The versions that were asked for; the two with most requests where none was."""
    known = {version.prompt_version: version for version in stats}
    first = known.get(params.get("a", "")) or next(iter(stats), None)
    second = known.get(params.get("b", ""))
    if second is None or second is first:
        second = next((version for version in stats if version is not first), None)
    return first, second


def _kept(filters: ReportFilters) -> list[tuple[str, str]]:
    """What the form keeps: everything but its own three fields."""
    chosen = {"range": filters.choice.name, "env": filters.environment, "mode": filters.data_mode}
    if filters.choice.name == "custom":
        chosen |= {"from": filters.days.first_day.isoformat(), "to": filters.days.last_day.isoformat()}
    return list(chosen.items())


def _metric(metric: Metric, first: VersionStats, second: VersionStats) -> dict[str, object]:
    comparison = compare(metric.of(first), metric.of(second))
    return {
        "label": metric.label,
        "verdict": _verdict(comparison, first, second),
        "is_clear": comparison.is_clear,
        "chart": _chart(metric, first, second),
    }


def _chart(metric: Metric, first: VersionStats, second: VersionStats) -> SafeString:
    estimates = []
    for letter, version in (("A", first), ("B", second)):
        moments = metric.of(version)
        low, high = interval(moments) or (None, None)
        estimates.append(
            charts.Estimate(
                name=f"{letter} · {version.prompt_version}",
                mean=moments.mean,
                low=low,
                high=high,
                samples=moments.count,
                note="" if moments.count >= FEWEST_SAMPLES else "too few samples",
            )
        )
    return charts.dot_range(
        chart_id=f"versions-{metric.name}",
        title=metric.label,
        estimates=estimates,
        axis_format=metric.axis_format,
        value_format=metric.value_format,
        shows_title=False,
    )


def _verdict(found: Comparison, first: VersionStats, second: VersionStats) -> str:
    """What may be said about B against A, in one sentence."""
    if found.too_few:
        return f"Too few samples to say: each version needs at least {FEWEST_SAMPLES}."
    if found.low is None or found.high is None:
        return "Nothing to compare with."
    if not found.is_clear:
        return (
            f"No clear difference: B differs from A by {formats.change(found.low)} to {formats.change(found.high)}, "
            "with 95% confidence."
        )
    word = "less" if found.high < 0 else "more"
    near, far = sorted((abs(found.low), abs(found.high)))
    return f"B takes {_percent(near)} to {_percent(far)} {word} than A, with 95% confidence."


def _percent(ratio: Decimal) -> str:
    return formats.change(ratio).lstrip("+−±")
