"""From what happened to the inbox: crossings of limits are claimed, findings become alerts, repeats are counted."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from alerts.audiences import Audience, lock_audiences, work_for_all
from alerts.findings import Finding
from alerts.limit_texts import crossing_finding
from alerts.models import Alert, AlertState, Severity
from alerts.outgoing import post, withdraw
from alerts.routing import route
from ingest.models import LimitCrossing, WorkspacePolicy

_BATCH = 200
_Key = tuple[UUID, str, str]
_CHANGED_BY_REPEATS = (
    "occurrences",
    "last_occurred_at",
    "severity",
    "is_urgent",
    "title",
    "text",
    "facts",
    "state",
    "acknowledged_at",
    "acknowledged_by",
    "handling",
    "held_until",
)


def notice_crossings(now: datetime) -> int:
    """Claim what limits have been crossed and tell it; how many crossings. Two callers at once share the work."""
    noticed, last_id = 0, 0
    seen: set[UUID] = set()
    while page := _unclaimed_after(last_id):
        workspace_ids = {workspace_id for _, workspace_id in page} - seen
        # Claim, alerts and messages are one commit: whoever is killed before has done nothing.
        with transaction.atomic():
            noticed += _tell(workspace_ids, now)
        # What could not be told is left to the next call.
        seen |= workspace_ids
        last_id, _ = page[-1]
    return noticed


@transaction.atomic
def raise_alerts(findings: Sequence[Finding], now: datetime) -> list[Alert]:
    """Put findings into the inboxes of their workspaces and queue what is to be sent; the new alerts.

    A repeat is counted on the alert that exists. A workspace that is gone is left out.
    """
    audiences = lock_audiences({finding.workspace_id for finding in findings})
    return _raise(audiences, [finding for finding in findings if finding.workspace_id in audiences], now)


# --- Crossings --------------------------------------------------------------------------------------------------------


def _unclaimed_after(last_id: int) -> list[tuple[int, UUID]]:
    """The next crossings that nobody has claimed, with their workspaces."""
    unclaimed = LimitCrossing.objects.filter(claimed_at=None, pk__gt=last_id).order_by("pk")
    return list(unclaimed.values_list("pk", "limit__workspace_id")[:_BATCH])


def _tell(workspace_ids: Iterable[UUID], now: datetime) -> int:
    """Tell these workspaces all that they have crossed; how many crossings."""
    # Where somebody else is at work, the crossings are theirs, or are looked for again in a second.
    audiences = lock_audiences(workspace_ids, skip_locked=True)
    unclaimed = LimitCrossing.objects.filter(claimed_at=None, limit__workspace__in=audiences).select_related("limit")
    crossings = defaultdict(list)
    for crossing in unclaimed.order_by("pk").select_for_update(skip_locked=True, of=("self",)):
        crossings[crossing.limit.workspace_id].append(crossing)
    policies = WorkspacePolicy.objects.filter(workspace__in=crossings, observe_mode=True)
    observing = set(policies.values_list("workspace_id", flat=True))

    def tell(some_ids: Iterable[UUID]) -> None:
        findings = [
            crossing_finding(crossing, observe_mode=each in observing)
            for each in some_ids
            for crossing in crossings[each]
        ]
        _raise({each: audiences[each] for each in some_ids}, findings, now)

    told = [crossing.pk for each in work_for_all(list(crossings), tell) for crossing in crossings[each]]
    return LimitCrossing.objects.filter(pk__in=told).update(claimed_at=now)


# --- Findings ---------------------------------------------------------------------------------------------------------


def _raise(audiences: Mapping[UUID, Audience], findings: Sequence[Finding], now: datetime) -> list[Alert]:
    """Put findings into inboxes, which the caller holds, and queue what is to be sent."""
    known = _known(findings)
    new: dict[UUID, Alert] = {}
    repeated: dict[UUID, Alert] = {}
    risen: dict[UUID, Alert] = {}
    for finding in findings:
        alert = known.get(_key(finding))
        rises = alert is not None and Severity(finding.severity).rank > Severity(alert.severity).rank
        if alert is None or (rises and alert.state == AlertState.RESOLVED):
            alert = known[_key(finding)] = _new_alert(finding, now)
            new[alert.pk] = alert
            continue
        if alert.pk not in new:
            repeated[alert.pk] = alert
            risen |= {alert.pk: alert} if rises else {}
        _repeat(alert, finding, rises=rises)
    if risen:
        withdraw(risen.values())
    envelopes = route(audiences, [*new.values(), *risen.values()], now)
    Alert.objects.bulk_create(new.values())
    Alert.objects.bulk_update(repeated.values(), _CHANGED_BY_REPEATS)
    post(envelopes, now)
    return list(new.values())


def _new_alert(finding: Finding, now: datetime) -> Alert:
    return Alert(
        workspace_id=finding.workspace_id,
        kind=finding.kind,
        severity=finding.severity,
        is_urgent=finding.is_urgent,
        scope=finding.scope,
        metric=finding.metric,
        dedup_key=finding.dedup_key,
        title=finding.title,
        text=finding.text,
        facts=dict(finding.facts),
        window_start=finding.window_start,
        window_end=finding.window_end,
        opened_at=finding.occurred_at,
        created_at=now,
        last_occurred_at=finding.occurred_at,
    )


def _repeat(alert: Alert, finding: Finding, *, rises: bool) -> None:
    """Count it. A repeat that is worse is news: the alert says the new figures and is open again."""
    alert.occurrences += 1
    alert.last_occurred_at = max(alert.last_occurred_at, finding.occurred_at)
    if rises:
        alert.severity, alert.is_urgent = finding.severity, finding.is_urgent
        alert.title, alert.text, alert.facts = finding.title, finding.text, dict(finding.facts)
        alert.state, alert.acknowledged_at, alert.acknowledged_by = AlertState.OPEN, None, None


def _known(findings: Iterable[Finding]) -> dict[_Key, Alert]:
    """What repeats of these would be counted on: what is not resolved, or was resolved by a person.

    What has resolved by itself and comes back is another alert.
    """
    keys = {finding.dedup_key for finding in findings}
    alerts = Alert.objects.filter(
        ~Q(state=AlertState.RESOLVED) | Q(resolved_by__isnull=False),
        workspace__in={finding.workspace_id for finding in findings},
        dedup_key__in=keys,
    )
    # The unresolved one, of which there is at most one, or else the newest.
    in_order = sorted(alerts, key=lambda alert: (alert.state != AlertState.RESOLVED, alert.created_at))
    return {(alert.workspace_id, alert.dedup_key, alert.kind): alert for alert in in_order}


def _key(finding: Finding) -> _Key:
    return finding.workspace_id, finding.dedup_key, finding.kind
