"""Models without a known price, the first time that a workspace uses them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from alerts.findings import Finding
from alerts.lists import listed, short
from alerts.models import AlertKind, Severity
from alerts.rules.told import Told, scope_of, told
from ingest.models import WorkspacePolicy
from ingest.price_names import canonical_provider, clean
from ingest.price_selectors import Pair, decide, newest_book
from ingest.snapshots import fetch
from opsmeter_site.lib.formats import count
from opsmeter_site.lib.periods import QUARTER_HOUR

# What arrives in time is looked for all the time, what is late more seldom: that look reads weeks.
_RECENT = timedelta(hours=2)
_LATEST = timedelta(days=35) + timedelta(hours=1)
# Names may be made up by a program, without end. Beyond so many, nobody reads them.
_MOST_EVER = 10_000
_SUBJECT = "unpriced"
_METRIC = "requests"

# The grouping inside the LATERAL keeps the planner from reading all of the table: one index range a workspace.
_UNPRICED = """
SELECT policy.workspace_id, sums.provider, sums.model, sums.requests::bigint, sums.first_seen, sums.last_seen
FROM ingest_workspacepolicy AS policy
CROSS JOIN LATERAL (
    SELECT provider, model, sum(requests) AS requests, min(bucket_start) AS first_seen, max(bucket_start) AS last_seen
    FROM ingest_rollup
    WHERE workspace_id = policy.workspace_id AND bucket_start >= %(since)s AND NOT is_priced
        AND data_mode = ANY(policy.counted_data_modes)
    GROUP BY provider, model
    ORDER BY 3 DESC, provider, model
    LIMIT %(limit)s
) AS sums
WHERE policy.workspace_id = ANY(%(workspaces)s)
"""


@dataclass(frozen=True, slots=True)
class Name:
    """A provider and model as the catalogue would write them, and its requests without a price."""

    pair: Pair
    requests: int
    first_seen: datetime
    last_seen: datetime

    @property
    def text(self) -> str:
        """As one word."""
        return "/".join(self.pair)


def find_recent(workspace_ids: Sequence[UUID], now: datetime) -> list[Finding]:
    """Names that no alert has told, in what happened in the last hours."""
    return _find(workspace_ids, now - _RECENT, now)


def find_late(workspace_ids: Sequence[UUID], now: datetime) -> list[Finding]:
    """The same in everything that events may still be told about: they may be weeks late."""
    return _find(workspace_ids, now - _LATEST, now)


def _find(workspace_ids: Sequence[UUID], since: datetime, now: datetime) -> list[Finding]:
    names = _without_price(workspace_ids, since, now)
    if not names:
        return []
    before = told(AlertKind.UNPRICED_MODEL, names)
    own = dict(WorkspacePolicy.objects.filter(pk__in=names).values_list("pk", "has_price_overrides"))
    findings = []
    for workspace_id, found in names.items():
        known = before.get((workspace_id, _SUBJECT), Told())
        by_text = {name.text: name for name in found}
        new = [by_text[text] for text in known.news(by_text, now, _MOST_EVER)]
        if new:
            findings.append(_finding(workspace_id, new, known, has_own=own[workspace_id], now=now))
    return findings


def _without_price(workspace_ids: Sequence[UUID], since: datetime, now: datetime) -> Mapping[UUID, list[Name]]:
    """By workspace: what was stored without a price and has none by now either, most requests first."""
    rows = fetch(_UNPRICED, {"workspaces": list(workspace_ids), "since": since, "limit": _MOST_EVER})
    found: dict[UUID, dict[Pair, Name]] = defaultdict(dict)
    for workspace_id, provider, model, requests, first, last in rows:
        pair = (canonical_provider(provider), clean(model))
        if (same := found[workspace_id].get(pair)) is None:
            found[workspace_id][pair] = Name(pair, requests, first, last)
        else:
            together = (same.requests + requests, min(same.first_seen, first), max(same.last_seen, last))
            found[workspace_id][pair] = Name(pair, *together)
    if not found:
        return {}
    book, _ = newest_book()
    waiting = {
        workspace_id: [name for name in names.values() if decide(book, *name.pair, workspace_id, now).rates is None]
        for workspace_id, names in found.items()
    }
    return {workspace_id: names for workspace_id, names in waiting.items() if names}


def _finding(workspace_id: UUID, new: Sequence[Name], before: Told, *, has_own: bool, now: datetime) -> Finding:
    since, until = min(name.first_seen for name in new), max(name.last_seen for name in new) + QUARTER_HOUR
    lines = [f"{short(name.text)} ({_requests(name)})" for name in new]
    if len(new) == 1:
        title = f"{short(new[0].text)} has no known price"
        drill = {"provider": new[0].pair[0], "model": new[0].pair[1]}
    else:
        title, drill = f"{count(len(new))} models have no known price", {}
    is_last = len(before.values) + len(new) >= _MOST_EVER
    next_step = "Add a price of your own" if has_own else "Ask whoever runs Opsmeter for you to add a price"
    return Finding(
        workspace_id=workspace_id,
        kind=AlertKind.UNPRICED_MODEL,
        severity=Severity.WARNING,
        scope=scope_of(_SUBJECT, before),
        metric=_METRIC,
        title=title,
        text=(
            f"Requests without a known price since {since:%-d %b %Y, %H:%M} UTC, by model, used for the first time: "
            f"{listed(lines)}. Their cost is not known, so totals and budgets leave it out. {next_step}, or send the "
            f"name that the catalogue knows: see Prices, Without a price. Each model is told once"
            + (f", and no more than {count(_MOST_EVER)} ever: these were the last." if is_last else ".")
        ),
        window_start=since,
        window_end=until,
        occurred_at=now,
        facts={
            "requests": sum(name.requests for name in new),
            "told": [name.text for name in new],
            "drill": drill,
        },
    )


def _requests(name: Name) -> str:
    return "1 request" if name.requests == 1 else f"{count(name.requests)} requests"
