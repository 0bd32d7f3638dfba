"""What was found and somebody should know: the one shape in which every source hands it over."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from alerts.models import AlertKind, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to tell a workspace. Its window is `[window_start, window_end)`, aware UTC.

    `scope` says what it is about ("limit:<id>", "endpoint_tag:checkout"), `metric` what was measured ("usd.day",
    "usd_per_request"); the two together with the window tell a repeat, the two alone are what a cooldown covers.
    `promise` is what else makes it a new one: the amount and threshold of a limit. A quiet one stands in the inbox and
    is sent to nobody; what repeats of it are about is added to the alert's `scope_values`.
    `text` names metric, unit and window. `facts` are JSON values, money as decimal text; `drill` there holds query
    parameters for the investigate page (`ingest.report_filters.DRILL_PARAMETERS`).
    """

    workspace_id: UUID
    kind: AlertKind
    severity: Severity
    scope: str
    metric: str
    title: str
    text: str
    window_start: datetime
    window_end: datetime
    occurred_at: datetime
    promise: str = ""
    is_urgent: bool = False
    is_quiet: bool = False
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def dedup_key(self) -> str:
        """Scope, metric and window, and the promise if there is one."""
        key = f"{self.scope}|{self.metric}|{self.window_start:%Y-%m-%dT%H:%MZ}"
        return f"{key}|{self.promise}" if self.promise else key
