"""What alerts about limits say: crossings as findings, and what is over as a recovery."""

from decimal import Decimal

from alerts.findings import Finding
from alerts.models import Alert, AlertKind, Severity
from ingest.limits import OVER, utilization
from ingest.models import LimitCrossing, Measure
from opsmeter_site.lib import formats
from opsmeter_site.lib.periods import Period, Window, window_of

LIMIT_KINDS = (
    AlertKind.BUDGET_WARNING,
    AlertKind.BUDGET_EXCEEDED,
    AlertKind.PLAN_LIMIT_NEAR,
    AlertKind.PLAN_LIMIT_REACHED,
)
_CALLS_GO_ON = "Your LLM calls keep running"


def crossing_finding(crossing: LimitCrossing, *, observe_mode: bool) -> Finding:
    """What a crossing, with its limit, has to tell. In observe mode no budget refuses anything."""
    limit = crossing.limit
    is_over = crossing.threshold >= OVER
    is_requests = limit.measure == Measure.REQUESTS
    is_enforced = limit.enforce and (is_requests or not observe_mode)
    window = window_of(Period(limit.period), crossing.period_start)
    share = utilization(crossing.amount, crossing.value)
    return Finding(
        workspace_id=limit.workspace_id,
        kind=_kind(is_requests=is_requests, is_over=is_over),
        severity=Severity.CRITICAL if is_over else Severity.WARNING,
        scope=f"limit:{limit.pk}",
        metric=f"{limit.measure}.{limit.period}",
        promise=f"{_plain(crossing.amount)}@{_plain(crossing.threshold)}",
        title=_title(crossing, share),
        text=" ".join(
            [
                _what_happened(crossing, window, share),
                _what_happens_now(crossing, is_enforced=is_enforced, observe_mode=observe_mode),
                f"The {limit.period} ends on {window.end:%Y-%m-%d} at {window.end:%H:%M} UTC.",
            ]
        ),
        window_start=window.start,
        window_end=window.end,
        occurred_at=crossing.crossed_at,
        is_urgent=is_over and is_enforced,
        facts={
            "source": limit.source,
            "limit_id": str(limit.pk),
            "name": limit.name,
            "measure": limit.measure,
            "period": limit.period,
            "spend": _plain(crossing.value),
            "limit": _plain(crossing.amount),
            "amount": _plain(crossing.amount),
            "share": _plain(round(share, 4)),
            "threshold": _plain(crossing.threshold),
            "is_enforced": is_enforced,
        },
    )


def recovery_title(alert: Alert) -> str:
    """The title of the recovery that ends `alert`, one about a limit that was exceeded or reached."""
    return f"{alert.facts['name']} no longer {_over_word(alert.facts['measure'])}"


def recovery_text(alert: Alert, reason: str) -> str:
    """Its sentences; `reason` is one, without its full stop."""
    window = _window_text(Window(alert.window_start, alert.window_end), alert.facts["period"])
    text = f"{reason}. In the {window} it was: {alert.title}."
    return f"{text} This limit refuses no telemetry any more." if alert.is_urgent else text


def amount_text(measure: str, amount: Decimal) -> str:
    """An amount of a limit or meter with its unit."""
    return f"{formats.count(amount)} requests" if measure == Measure.REQUESTS else formats.usd(amount)


def _kind(*, is_requests: bool, is_over: bool) -> AlertKind:
    if is_requests:
        return AlertKind.PLAN_LIMIT_REACHED if is_over else AlertKind.PLAN_LIMIT_NEAR
    return AlertKind.BUDGET_EXCEEDED if is_over else AlertKind.BUDGET_WARNING


def _title(crossing: LimitCrossing, share: Decimal) -> str:
    limit = crossing.limit
    if crossing.threshold >= OVER:
        return f"{limit.name} {_over_word(limit.measure)}: {_used(crossing)}"
    return f"{limit.name}: {formats.share(share)} used ({_used(crossing)})"


def _over_word(measure: str) -> str:
    return "reached" if measure == Measure.REQUESTS else "exceeded"


def _what_happened(crossing: LimitCrossing, window: Window, share: Decimal) -> str:
    limit = crossing.limit
    name = f"the {limit.name[:1].lower()}{limit.name[1:]}"
    is_requests = limit.measure == Measure.REQUESTS
    subject, has = ("Telemetry requests", "have") if is_requests else ("Spend", "has")
    if crossing.threshold < OVER:
        predicate = f"{has} reached {formats.share(crossing.threshold)} of {name}"
    else:
        predicate = f"have used up {name}" if is_requests else f"is above {name}"
    window_text = _window_text(window, limit.period)
    return f"{subject} in the {window_text} {predicate}: {_used(crossing)} ({formats.share(share)})."


def _what_happens_now(crossing: LimitCrossing, *, is_enforced: bool, observe_mode: bool) -> str:
    limit = crossing.limit
    way_out = "the plan is upgraded" if limit.measure == Measure.REQUESTS else "the limit is raised"
    if is_enforced and crossing.threshold >= OVER:
        return f"{_CALLS_GO_ON}; telemetry is refused with 402 until {way_out} or the UTC {limit.period} ends."
    if is_enforced:
        return f"{_CALLS_GO_ON}, and telemetry is taken. Above the limit it is refused with 402 (hard stop)."
    if limit.enforce and observe_mode:
        return f"{_CALLS_GO_ON}, and telemetry is taken: observe mode is on, so the hard stop refuses nothing."
    return f"{_CALLS_GO_ON}, and telemetry is taken (soft stop)."


def _used(crossing: LimitCrossing) -> str:
    """How much of how much, with as many digits as it takes to tell the two apart."""
    value, amount = crossing.value, crossing.amount
    if crossing.limit.measure == Measure.REQUESTS:
        return f"{formats.count(value)} of {formats.count(amount)} requests"
    write = formats.usd_exact if value != amount and formats.usd(value) == formats.usd(amount) else formats.usd
    return f"{write(value)} of {write(amount)}"


def _window_text(window: Window, period: str) -> str:
    return f"UTC day {window.start:%Y-%m-%d}" if period == Period.DAY else f"UTC month {window.start:%Y-%m}"


def _plain(number: Decimal) -> str:
    """Every digit, without trailing zeros."""
    return f"{number.normalize():f}"
