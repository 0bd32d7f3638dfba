"""What is over: alerts of limits resolve by themselves at the start of a new period or when the limit is raised."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from time import monotonic
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from alerts.audiences import Audience, lock_audiences, work_for_all
from alerts.limit_counts import counted_values
from alerts.limit_texts import LIMIT_KINDS, amount_text, moment_words, recovery_text, recovery_title
from alerts.models import Alert, AlertKind, AlertState, Severity
from alerts.outgoing import close_incidents, held_alerts, post
from alerts.routing import route
from ingest.limits import Level, is_over, levels_of
from ingest.models import Limit

# What nobody has resolved by then is taken out of the inbox.
RULE_ALERTS_STAY_OPEN = timedelta(hours=24)
RULE_KINDS = (
    AlertKind.UNIT_COST,
    AlertKind.SPEND_SPIKE,
    AlertKind.SPENDER_OVER,
    AlertKind.UNPRICED_MODEL,
    AlertKind.PRICE_FEED_STALE,
)
_BATCH = 200
# Shorter than the time until beat asks again, so that no two calls do the same work.
_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class _Ended:
    """An alert that no longer holds, and why; `is_recovery` if what was exceeded or reached no longer is."""

    alert: Alert
    reason: str
    is_recovery: bool = False


def recover(now: datetime) -> int:
    """Resolve what no longer holds, and tell it; how many alerts."""
    deadline = monotonic() + _SECONDS
    columns = ("workspace_id", "kind", "severity", "facts", "opened_at", "window_end")
    waiting = sorted({each.alert.workspace_id for each in _ended(_may_have_ended(now).only(*columns), now)})
    resolved = 0
    while waiting and monotonic() < deadline:
        with transaction.atomic():
            resolved += _recover(waiting[:_BATCH], now)
        del waiting[:_BATCH]
    return resolved


def closes_at(kind: str, window_end: datetime) -> datetime:
    """When an alert resolves by itself at the latest."""
    return window_end if kind in LIMIT_KINDS else window_end + RULE_ALERTS_STAY_OPEN


# --- What is over -----------------------------------------------------------------------------------------------------


def _may_have_ended(now: datetime) -> QuerySet[Alert]:
    of_rules = Q(kind__in=RULE_KINDS, window_end__lte=now - RULE_ALERTS_STAY_OPEN)
    return Alert.objects.filter(Q(kind__in=LIMIT_KINDS) | of_rules).exclude(state=AlertState.RESOLVED)


def _ended(alerts: Iterable[Alert], now: datetime) -> list[_Ended]:
    """Those that no longer hold, with a fixed number of queries about all the others' limits and what they count."""
    found, running = [], []
    for alert in alerts:
        if closes_at(alert.kind, alert.window_end) > now:
            running.append(alert)
        elif alert.kind in LIMIT_KINDS:
            # What late events did to a period that was over is news by itself, and no recovery of it is.
            is_recovery = alert.severity == Severity.CRITICAL and alert.opened_at < alert.window_end
            found.append(_Ended(alert, "A new period began", is_recovery=is_recovery))
        else:
            found.append(_Ended(alert, "Its time is long over"))
    limits = {
        str(limit.pk): limit for limit in Limit.objects.filter(workspace__in={each.workspace_id for each in running})
    }
    asked: dict[UUID, tuple[Limit, set[str]]] = {}
    for alert in running:
        if limit := limits.get(alert.facts.get("limit_id", "")):
            _, values = asked.setdefault(limit.pk, (limit, set()))
            values.update(_values(alert, limit))
    counted = counted_values(asked, now)
    return found + [one for alert in running if (one := _ended_early(alert, limits, counted, now))]


def _values(alert: Alert, limit: Limit) -> list[str]:
    """The scope values that an alert is about."""
    return list(alert.facts["scope_values"]) if limit.is_each_value else [limit.scope_value]


def _ended_early(
    alert: Alert, limits: Mapping[str, Limit], counted: Mapping[tuple[UUID, str], Decimal], now: datetime
) -> _Ended | None:
    """Whether the limit of a running period no longer is what the alert says of it."""
    facts = alert.facts
    if "limit_id" not in facts:
        return None
    is_critical = alert.severity == Severity.CRITICAL
    limit = limits.get(facts["limit_id"])
    if limit is None:
        return _Ended(alert, "The limit was removed", is_recovery=is_critical)
    amount = limit.amount_at(now)
    level = _level(limit, amount, facts)
    is_same = level is not None and "level_usd" in facts
    # The largest says it for all.
    value = max(counted[limit.pk, each] for each in _values(alert, limit))
    if amount != Decimal(facts["amount"]) and not is_same:
        # If it is over all the same, then the changed limit has a crossing, and an alert, of its own.
        is_recovery = is_critical and not is_over(limit.measure, amount, value)
        return _Ended(alert, _changed(limit, amount), is_recovery=is_recovery)
    if level is None:
        return _Ended(alert, "The warning threshold was changed")
    if not level.is_crossed(limit.measure, value):
        reason = f"What is counted was corrected to {amount_text(limit.measure, value)}"
        return _Ended(alert, reason, is_recovery=is_critical)
    return None


def _level(limit: Limit, amount: Decimal, facts: Mapping[str, Any]) -> Level | None:
    """The threshold that an alert with these `facts` is about, unless the limit has it no more at `amount`."""
    usd = Decimal(facts["level_usd"]) if "level_usd" in facts else None
    share = Decimal(facts["threshold"])
    levels = levels_of(amount, limit.thresholds, limit.thresholds_usd)
    return next((each for each in levels if (each.share == share if usd is None else each.usd == usd)), None)


def _changed(limit: Limit, amount: Decimal) -> str:
    """What happened to a limit whose amount in force is `amount` now."""
    text = amount_text(limit.measure, amount)
    if limit.raised_until is not None and amount != limit.amount:
        return f"The limit was raised to {text} until {moment_words(limit.raised_until)}"
    return f"The limit was changed to {text}"


# --- Resolving it -----------------------------------------------------------------------------------------------------


def _recover(workspace_ids: Sequence[UUID], now: datetime) -> int:
    """Resolve what is over in these workspaces; how many alerts."""
    audiences = lock_audiences(workspace_ids)
    ended = defaultdict(list)
    # Looked at once more: only what holds while the inboxes are held counts.
    for one in _ended(_may_have_ended(now).filter(workspace__in=audiences), now):
        ended[one.alert.workspace_id].append(one)

    def resolve(some_ids: Iterable[UUID]) -> None:
        some = {each: audiences[each] for each in some_ids}
        _resolve(some, [one for each in some_ids for one in ended[each]], now)

    return sum(len(ended[each]) for each in work_for_all(list(ended), resolve))


def _resolve(audiences: Mapping[UUID, Audience], ended: Sequence[_Ended], now: datetime) -> None:
    for one in ended:
        one.alert.state, one.alert.resolved_at, one.alert.resolution = AlertState.RESOLVED, now, one.reason
    alerts = [one.alert for one in ended]
    Alert.objects.bulk_update(alerts, ("state", "resolved_at", "resolution"))
    close_incidents(alerts, now)
    # What was told to nobody ends in silence, too.
    recovered = [one for one in ended if one.is_recovery and not one.alert.facts.get("is_quiet")]
    if recovered:
        _tell_recoveries(audiences, recovered, now)


def _tell_recoveries(audiences: Mapping[UUID, Audience], recovered: Sequence[_Ended], now: datetime) -> None:
    """One recovery for each; whose alert is still held needs no message, since that one says that it has cleared."""
    alerts = [one.alert for one in recovered]
    told = set(Alert.objects.filter(recovers__in=alerts).values_list("recovers", flat=True))
    held = held_alerts(alerts)
    recoveries = [_recovery(one, now) for one in recovered if one.alert.pk not in told]
    envelopes = route(audiences, [each for each in recoveries if each.recovers_id not in held], now)
    Alert.objects.bulk_create(recoveries)
    post(envelopes, now)


def _recovery(one: _Ended, now: datetime) -> Alert:
    alert = one.alert
    return Alert(
        workspace_id=alert.workspace_id,
        kind=AlertKind.RECOVERY,
        severity=Severity.INFO,
        scope=alert.scope,
        metric=alert.metric,
        dedup_key=alert.dedup_key,
        title=recovery_title(alert),
        text=recovery_text(alert, one.reason),
        facts=alert.facts,
        window_start=alert.window_start,
        window_end=alert.window_end,
        opened_at=now,
        created_at=now,
        last_occurred_at=now,
        state=AlertState.RESOLVED,
        resolved_at=now,
        resolution=one.reason,
        recovers=alert,
        # As that of the alert, unless it is routed by itself.
        handling=alert.handling,
        held_until=alert.held_until,
    )
