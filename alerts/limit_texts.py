"""What alerts about limits say: crossings as findings, and what is over as a recovery."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from alerts.findings import Finding
from alerts.models import Alert, AlertKind, Severity
from alerts.scope_texts import ScopeNames
from ingest.limits import OVER, levels_of, utilization
from ingest.models import Limit, LimitCrossing, Measure, ScopeKind
from ingest.report_filters import PARAMETERS
from ingest.scope_words import kind_in_words
from ingest.scopes import wire_name
from opsmeter_site.lib import formats
from opsmeter_site.lib.periods import Period, Window, window_of

LIMIT_KINDS = (
    AlertKind.BUDGET_WARNING,
    AlertKind.BUDGET_EXCEEDED,
    AlertKind.PLAN_LIMIT_NEAR,
    AlertKind.PLAN_LIMIT_REACHED,
)
# Scope → the parameter that narrows the investigate page to it.
_DRILL: Mapping[str, str] = {
    **{kind: parameter for parameter, kind in PARAMETERS.items()},
    ScopeKind.ENVIRONMENT: "env",
}
_CALLS_GO_ON = "Your LLM calls keep running"


@dataclass(frozen=True, slots=True)
class Scene:
    """What crossings do not say themselves. In observe mode no budget refuses anything."""

    observe_mode: bool = False
    names: ScopeNames = field(default_factory=ScopeNames)

    def is_enforced(self, limit: Limit) -> bool:
        """Whether telemetry above it is refused."""
        return limit.enforce and (limit.measure == Measure.REQUESTS or not self.observe_mode)


def passed_at_once(crossings: Iterable[LimitCrossing]) -> list[list[LimitCrossing]]:
    """What one commit has crossed of one limit, period and value, the highest threshold last. Only that is told."""
    together = defaultdict(list)
    for each in crossings:
        together[each.limit_id, each.period_start, each.scope_value, each.amount, each.crossed_at].append(each)
    return [sorted(some, key=lambda each: (each.threshold, each.threshold_usd is None)) for some in together.values()]


def crossing_finding(crossing: LimitCrossing, scene: Scene, passed: Sequence[LimitCrossing] = ()) -> Finding:
    """What one crossing, with its limit, has to tell; `passed` are the lower ones that came with it."""
    limit = crossing.limit
    share = utilization(crossing.amount, crossing.value)
    subject = scene.names.scope(limit.scope_kind, scope_value(crossing))
    window = window_of(Period(limit.period), crossing.period_start)
    return finding_of(
        crossing,
        scene,
        promise=_promise(crossing),
        title=_title(with_scope(limit.name, subject), crossing, share),
        text=[
            _what_happened(crossing, window, share, scene),
            *_also_passed(passed),
            *what_holds(crossing, window, scene),
        ],
        facts={
            "spend": plain(crossing.value),
            "share": plain(round(share, 4)),
            **threshold_facts(crossing),
            **_scope_facts(crossing, subject),
        },
    )


def finding_of(
    crossing: LimitCrossing,
    scene: Scene,
    *,
    promise: str,
    title: str,
    text: Iterable[str],
    facts: Mapping[str, object],
    is_quiet: bool = False,
) -> Finding:
    """A finding about the limit of `crossing` in its period; `text` are sentences."""
    limit = crossing.limit
    is_over = crossing.threshold >= OVER
    is_enforced = scene.is_enforced(limit)
    window = window_of(Period(limit.period), crossing.period_start)
    return Finding(
        workspace_id=limit.workspace_id,
        kind=kind_of(crossing),
        severity=Severity.CRITICAL if is_over else Severity.WARNING,
        scope=f"limit:{limit.pk}",
        metric=f"{limit.measure}.{limit.period}",
        promise=promise,
        title=title,
        text=" ".join(text),
        window_start=window.start,
        window_end=window.end,
        occurred_at=crossing.crossed_at,
        is_urgent=is_over and is_enforced,
        is_quiet=is_quiet,
        facts={
            "source": limit.source,
            "limit_id": str(limit.pk),
            "name": limit.name,
            "measure": limit.measure,
            "period": limit.period,
            "scope_kind": wire_name(limit.scope_kind),
            "limit": plain(crossing.amount),
            "amount": plain(crossing.amount),
            "is_enforced": is_enforced,
            **({"budget_id": limit.source_id} if limit.source == "budgets" else {}),
            **({"is_quiet": True} if is_quiet else {}),
            **facts,
        },
    )


def what_holds(crossing: LimitCrossing, window: Window, scene: Scene) -> Iterator[str]:
    """What goes for the limit itself, in sentences: what it refuses, until when, and how it counts."""
    limit = crossing.limit
    yield _what_happens_now(crossing, is_enforced=scene.is_enforced(limit), observe_mode=scene.observe_mode)
    if limit.raised_until and crossing.amount == limit.raised_amount:
        yield f"The limit is raised from {formats.usd(limit.amount)} until {moment_words(limit.raised_until)}."
    if limit.estimate_usd_per_1m:
        yield f"Tokens without a price are counted at {formats.usd(limit.estimate_usd_per_1m)} per 1M."
    # Late events are counted in the period in which they occurred.
    ends = "ends" if crossing.crossed_at < window.end else "ended"
    yield f"The {limit.period} {ends} on {window.end:%Y-%m-%d} at {window.end:%H:%M} UTC."


def scope_value(crossing: LimitCrossing) -> str:
    """Whose meter it was; empty for the whole workspace."""
    return crossing.scope_value if crossing.limit.is_each_value else crossing.limit.scope_value


def threshold_facts(crossing: LimitCrossing) -> dict[str, str]:
    """Which threshold an alert is about: a share of the amount in force, or an amount that stays when that changes."""
    usd = crossing.threshold_usd
    return {"threshold": plain(crossing.threshold)} | ({} if usd is None else {"level_usd": plain(usd)})


def recovery_title(alert: Alert) -> str:
    """The title of the recovery that ends `alert`, one about a limit that was exceeded or reached."""
    facts = alert.facts
    name = with_scope(facts["name"], facts.get("scope", ""))
    return f"{name} no longer {_over_word(facts['measure'])}"


def recovery_text(alert: Alert, reason: str) -> str:
    """Its sentences; `reason` is one, without its full stop."""
    window = window_words(Window(alert.window_start, alert.window_end), alert.facts["period"])
    text = f"{reason}. In the {window} it was: {alert.title}."
    if not alert.is_urgent:
        return text
    return f"{text} This limit refuses no telemetry {'of theirs ' if 'scope_values' in alert.facts else ''}any more."


def amount_text(measure: str, amount: Decimal) -> str:
    """An amount of a limit or meter with its unit."""
    return f"{formats.count(amount)} requests" if measure == Measure.REQUESTS else formats.usd(amount)


def kind_of(crossing: LimitCrossing) -> AlertKind:
    """Near or over, of a plan or a budget."""
    is_over = crossing.threshold >= OVER
    if crossing.limit.measure == Measure.REQUESTS:
        return AlertKind.PLAN_LIMIT_REACHED if is_over else AlertKind.PLAN_LIMIT_NEAR
    return AlertKind.BUDGET_EXCEEDED if is_over else AlertKind.BUDGET_WARNING


def called(limit: Limit) -> str:
    """The limit inside a sentence: "the daily budget", or the name of one on a scope in quotes."""
    if limit.scope_kind:
        return f"the budget “{limit.name}”"
    return f"the {limit.name[:1].lower()}{limit.name[1:]}"


def with_scope(name: str, scope: str) -> str:
    """A limit's name, and its scope unless the name says it by itself, as the usual names do."""
    return name if scope.casefold() in name.casefold() else f"{name} ({scope})"


def plain(number: Decimal) -> str:
    """Every digit, without trailing zeros."""
    return f"{number.normalize():f}"


def window_words(window: Window, period: str) -> str:
    """The period inside a sentence."""
    return f"UTC day {window.start:%Y-%m-%d}" if period == Period.DAY else f"UTC month {window.start:%Y-%m}"


def moment_words(when: datetime) -> str:
    """A moment inside a sentence, in UTC."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _promise(crossing: LimitCrossing) -> str:
    """A share of another amount is another promise; an amount in USD is the same one."""
    usd = crossing.threshold_usd
    return f"{plain(crossing.amount)}@{plain(crossing.threshold)}" if usd is None else f"usd@{plain(usd)}"


def _scope_facts(crossing: LimitCrossing, subject: str) -> dict[str, object]:
    """The scope for people and programs, and what narrows the investigate page to it."""
    kind = crossing.limit.scope_kind
    if not kind:
        return {}
    value = scope_value(crossing)
    drill = {_DRILL[kind]: value} if kind in _DRILL else {}
    return {"scope": subject, "scope_value": value, "drill": drill}


def _title(name: str, crossing: LimitCrossing, share: Decimal) -> str:
    if crossing.threshold >= OVER:
        return f"{name} {_over_word(crossing.limit.measure)}: {_used(crossing)}"
    past = f"past {crossing.threshold_text}, " if _is_overtaken(crossing) else ""
    return f"{name}: {past}{formats.share(share)} used ({_used(crossing)})"


def _is_overtaken(crossing: LimitCrossing) -> bool:
    """Whether a higher threshold was reached, too: then the share alone does not tell their alerts apart."""
    limit = crossing.limit
    levels = levels_of(crossing.amount, limit.thresholds, limit.thresholds_usd)
    return any(level.share > crossing.threshold and level.amount <= crossing.value for level in levels)


def _over_word(measure: str) -> str:
    return "reached" if measure == Measure.REQUESTS else "exceeded"


def _what_happened(crossing: LimitCrossing, window: Window, share: Decimal, scene: Scene) -> str:
    limit = crossing.limit
    name = called(limit)
    is_requests = limit.measure == Measure.REQUESTS
    subject, has = ("Telemetry requests", "have") if is_requests else ("Spend", "has")
    if limit.scope_kind:
        whose = scene.names.value(limit.scope_kind, scope_value(crossing))
        subject = f"{subject} of {kind_in_words(limit.scope_kind, is_first=False)} {whose}"
    if crossing.threshold < OVER:
        predicate = f"{has} reached {crossing.threshold_text} of {name}"
    else:
        predicate = f"have used up {name}" if is_requests else f"is above {name}"
    window_text = window_words(window, limit.period)
    return f"{subject} in the {window_text} {predicate}: {_used(crossing)} ({formats.share(share)})."


def _also_passed(passed: Sequence[LimitCrossing]) -> Iterator[str]:
    if passed:
        yield f"Passed at the same time: {', '.join(each.threshold_text for each in passed)}."


def _what_happens_now(crossing: LimitCrossing, *, is_enforced: bool, observe_mode: bool) -> str:
    limit = crossing.limit
    way_out = "the plan is upgraded" if limit.measure == Measure.REQUESTS else "the limit is raised"
    telemetry = "matching telemetry" if limit.scope_kind else "telemetry"
    if is_enforced and crossing.threshold >= OVER:
        return f"{_CALLS_GO_ON}; {telemetry} is refused with 402 until {way_out} or the UTC {limit.period} ends."
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
