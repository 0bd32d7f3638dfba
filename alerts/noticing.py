"""From what happened to the inbox: crossings of limits are claimed, findings become alerts, repeats are counted."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from uuid import UUID

from django.db import transaction
from django.db.models import Count, Q

from alerts.audiences import Audience, lock_audiences, work_for_all
from alerts.findings import Finding
from alerts.limit_texts import LIMIT_KINDS, Scene, crossing_finding, kind_of, passed_at_once
from alerts.models import Alert, AlertKind, AlertState, Handling, Severity
from alerts.outgoing import post, withdraw
from alerts.routing import route
from alerts.scope_texts import ScopeNames
from alerts.value_texts import Before, values_finding, with_more_values
from ingest.models import LimitCrossing, WorkspacePolicy
from opsmeter_site.lib.periods import day_of

_BATCH = 200
_Key = tuple[UUID, str, str]
# A limit, the kind of its alerts, and the start of a period.
_Series = tuple[UUID, AlertKind, datetime]
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
    names = ScopeNames.of(crossing.limit for each in crossings.values() for crossing in each)
    before = _before(chain.from_iterable(crossings.values()), now)

    def tell(some_ids: Iterable[UUID]) -> None:
        findings = [
            finding
            for each in some_ids
            for finding in _findings(crossings[each], Scene(each in observing, names), before)
        ]
        _raise({each: audiences[each] for each in some_ids}, findings, now)

    told = [crossing.pk for each in work_for_all(list(crossings), tell) for crossing in crossings[each]]
    return LimitCrossing.objects.filter(pk__in=told).update(claimed_at=now)


def _findings(crossings: Iterable[LimitCrossing], scene: Scene, before: Mapping[_Series, Before]) -> Iterator[Finding]:
    """One for the highest of those passed at once; but values of a limit on each value are told together."""
    together = defaultdict(list)
    for *passed, highest in passed_at_once(crossings):
        if highest.limit.is_each_value:
            together[_series(highest), highest.amount].append(highest)
        else:
            yield crossing_finding(highest, scene, passed)
    for (series, _), some in together.items():
        yield values_finding(some, scene, before.get(series, Before()))


def _series(crossing: LimitCrossing) -> _Series:
    return crossing.limit_id, kind_of(crossing), crossing.period_start


def _before(crossings: Iterable[LimitCrossing], now: datetime) -> dict[_Series, Before]:
    """The alerts that there are about the same limits on each value, periods and kinds."""
    limits = {f"limit:{each.limit_id}": each.limit for each in crossings if each.limit.is_each_value}
    rows = (
        Alert.objects.filter(
            workspace__in={limit.workspace_id for limit in limits.values()}, scope__in=limits, kind__in=LIMIT_KINDS
        )
        .values_list("scope", "kind", "window_start")
        .annotate(number=Count("pk"), today=Count("pk", filter=Q(created_at__gte=day_of(now).start)))
    )
    return {(limits[scope].pk, AlertKind(kind), start): Before(*numbers) for scope, kind, start, *numbers in rows}


# --- Findings ---------------------------------------------------------------------------------------------------------


def _raise(audiences: Mapping[UUID, Audience], findings: Sequence[Finding], now: datetime) -> list[Alert]:
    """Put findings into inboxes, which the caller holds, and queue what is to be sent."""
    known = _known(findings)
    new: dict[UUID, Alert] = {}
    repeated: dict[UUID, Alert] = {}
    risen: dict[UUID, Alert] = {}
    quiet: set[UUID] = set()
    for finding in findings:
        alert = known.get(_key(finding))
        rises = alert is not None and Severity(finding.severity).rank > Severity(alert.severity).rank
        if alert is None or (rises and alert.state == AlertState.RESOLVED):
            alert = known[_key(finding)] = _new_alert(finding, now)
            new[alert.pk] = alert
            quiet |= {alert.pk} if finding.is_quiet else set()
            continue
        if alert.pk not in new:
            repeated[alert.pk] = alert
            risen |= {alert.pk: alert} if rises else {}
        _repeat(alert, finding, rises=rises)
    if risen:
        withdraw(risen.values())
    loud = [alert for alert in new.values() if alert.pk not in quiet]
    envelopes = route(audiences, [*loud, *risen.values()], now)
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
        # What is not quiet is routed.
        handling=Handling.INBOX if finding.is_quiet else "",
    )


def _repeat(alert: Alert, finding: Finding, *, rises: bool) -> None:
    """Count it. A repeat that is worse is news: the alert says the new figures and is open again."""
    alert.occurrences += 1
    alert.last_occurred_at = max(alert.last_occurred_at, finding.occurred_at)
    if rises:
        alert.severity, alert.is_urgent = finding.severity, finding.is_urgent
        alert.title, alert.text, alert.facts = finding.title, finding.text, dict(finding.facts)
        alert.state, alert.acknowledged_at, alert.acknowledged_by = AlertState.OPEN, None, None
    elif finding.is_quiet:
        alert.facts = with_more_values(alert.facts, dict(finding.facts))


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
