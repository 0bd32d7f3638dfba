"""What a report page shows, as its address says it: range, environment, data mode, and values drilled down to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import parse_qsl, urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

from ingest.models import DataMode, Environment, Rollup
from ingest.ranges import DEFAULT_RANGE, DayRange, RangeChoice, choose_range
from ingest.selectors import Slice

ALL = "all"
# Query parameter → dimension.
DRILL_PARAMETERS = {
    "endpoint": "endpoint_tag",
    "model": "model",
    "provider": "provider",
    "version": "prompt_version",
}
# The same with the dimensions that only raw rows and attribution know; the requests explorer has all of these.
PARAMETERS = {**DRILL_PARAMETERS, "tenant": "tenant_id", "user": "user_id", "feature": "feature_tag"}
RANGE_LABELS = {
    "today": "Today",
    "7d": "7 days",
    "30d": "30 days",
    "mtd": "Month to date",
    "custom": "Custom",
}
_LONGEST_VALUE = 200


@dataclass(frozen=True, slots=True)
class ReportFilters:
    """The filters of one request, with defaults filled in. `extra`: further parameters that links keep."""

    choice: RangeChoice
    environment: str
    data_mode: str
    default_data_mode: str
    default_range: str = DEFAULT_RANGE
    drill: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def days(self) -> DayRange:
        """The range that is shown."""
        return self.choice.range

    @property
    def where(self) -> Slice:
        """The filters as selectors understand them."""
        return Slice(
            environment=() if self.environment == ALL else (self.environment,),
            data_mode=() if self.data_mode == ALL else (self.data_mode,),
            **{DRILL_PARAMETERS[name]: (value,) for name, value in self.drill.items()},
        )

    @property
    def shows_other_data(self) -> bool:
        """Whether there is no real traffic yet and the page therefore begins with something else."""
        return self.data_mode == self.default_data_mode != DataMode.REAL

    def query(self, **changes: str | None) -> str:
        """The query string of these filters with some parameters changed; None removes one. Defaults are left out."""
        parameters: dict[str, str | None] = {"range": self.choice.name, "env": self.environment, "mode": self.data_mode}
        if self.choice.name == "custom":
            parameters |= {"from": self.days.first_day.isoformat(), "to": self.days.last_day.isoformat()}
        parameters |= {**self.drill, **self.extra, **changes}
        if parameters.get("range") != "custom":
            parameters |= {"from": None, "to": None}
        usual = {"range": self.default_range, "env": Environment.PROD, "mode": self.default_data_mode}
        kept = {name: value for name, value in parameters.items() if value and value != usual.get(name)}
        return f"?{urlencode(kept)}" if kept else "?"


def requests_query(filters: ReportFilters, name: str, value: str) -> str:
    """The requests explorer's query for one value of a parameter, in the range and with the filters of a report."""
    chosen = {"env": filters.environment, "mode": filters.data_mode}
    wanted = {
        "range": "custom",
        "from": filters.days.first_day.isoformat(),
        "to": filters.days.last_day.isoformat(),
        **{key: each for key, each in chosen.items() if each != ALL},
        **filters.drill,
        name: value,
    }
    return f"?{urlencode(wanted)}"


def read_filters(
    params: Mapping[str, str],
    workspace_id: UUID,
    zone: ZoneInfo,
    now: datetime,
    *,
    keep: tuple[str, ...] = (),
    default_range: str = DEFAULT_RANGE,
) -> ReportFilters:
    """The filters of a query string. What is not understood counts as not said; `keep`: the page's own parameters."""
    usual_mode = _default_data_mode(workspace_id)
    return ReportFilters(
        choice=choose_range({**params, "range": params.get("range") or default_range}, zone, now),
        environment=_one_of(params.get("env"), Environment.values, Environment.PROD),
        data_mode=_one_of(params.get("mode"), DataMode.values, usual_mode),
        default_data_mode=usual_mode,
        default_range=default_range,
        drill={name: params[name][:_LONGEST_VALUE] for name in DRILL_PARAMETERS if params.get(name)},
        extra={name: params[name][:_LONGEST_VALUE] for name in keep if params.get(name)},
    )


def _one_of(value: str | None, known: list[str], usual: str) -> str:
    return value if value in known or value == ALL else usual


def _default_data_mode(workspace_id: UUID) -> str:
    """Real, unless there is no real traffic at all but some of another kind: then a first look is not an empty page."""
    rollups = Rollup.objects.filter(workspace_id=workspace_id)
    for mode in (DataMode.REAL, DataMode.DEMO, DataMode.TEST):
        if rollups.filter(data_mode=mode).exists():
            return mode.value
    return DataMode.REAL.value


# --- As the filter bar's template wants it ----------------------------------------------------------------------------


def filter_bar(filters: ReportFilters) -> dict[str, object]:
    """The context of `ingest/_report_filters.html`."""
    return {
        "filters": filters,
        "range_links": [
            {"label": label, "query": filters.query(range=name), "is_current": name == filters.choice.name}
            for name, label in RANGE_LABELS.items()
            if name != "custom"
        ],
        "environment_choices": [*Environment.choices, (ALL, "All")],
        "mode_choices": [*DataMode.choices, (ALL, "All")],
        "kept_custom": _pairs(filters, without=("range", "from", "to")),
        "kept_modes": _pairs(filters, without=("env", "mode")),
        "drill_chips": [
            {"label": name.capitalize(), "value": value, "query": filters.query(**{name: None})}
            for name, value in filters.drill.items()
        ],
    }


def _pairs(filters: ReportFilters, *, without: tuple[str, ...]) -> list[tuple[str, str]]:
    return parse_qsl(filters.query(**dict.fromkeys(without)).removeprefix("?"))
