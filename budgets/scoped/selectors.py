"""Where budgets stand: the meter of each, what leases hold, and which budgets apply to a request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db.models import Count, Sum

from budgets.limit_specs import SOURCE
from budgets.models import Budget, Enforcement
from budgets.scoped.figures import NO_FIGURES, Figure, Figures, Question, figures, last_seen, warning_amount
from ingest.limits import estimated_usd, is_over
from ingest.models import Lease, Limit, Measure, MeteredScope, WorkspacePolicy
from ingest.scope_words import WORKSPACE_WORDS, key_names, kind_in_words, scope_in_words, value_in_words
from ingest.scopes import Scoped
from opsmeter_site.lib.periods import Period, Window, window_of

_ZERO = Decimal(0)
_SCOPE_COLUMNS = ("kind", "value", "is_each_value", "counts_from")


@dataclass(frozen=True, slots=True)
class ValueStanding:
    """Where one value of a budget on each value stands. USD."""

    scope_value: str
    spend_usd: Decimal
    held_usd: Decimal
    is_warning: bool
    is_exceeded: bool


@dataclass(frozen=True, slots=True)
class BudgetStanding:
    """Where a budget stands in its running period. USD.

    `limit_usd` is the one in force now (a raise included). Of a budget on each value, `spend_usd` and the flags are
    those of the value that has spent most, and `values` are the ten that have; `warning_values` and `exceeded_values`
    say how many values are near or over. `counts_from` is set if events of the period before it may be missing.
    `last_seen` is the start of the last UTC day with counted traffic; None: none within 30 days.
    """

    budget: Budget
    window: Window
    limit_usd: Decimal
    spend_usd: Decimal
    held_usd: Decimal
    adjusted_usd: Decimal
    unpriced_tokens: int
    is_raised: bool
    is_warning: bool
    is_exceeded: bool
    is_enforced: bool
    counts_from: datetime | None
    last_seen: datetime | None
    values: tuple[ValueStanding, ...] = ()
    seen_values: int = 0
    warning_values: int = 0
    exceeded_values: int = 0

    @property
    def remaining_usd(self) -> Decimal:
        """What is left after spend and leases; below 0 if it is exceeded."""
        return self.limit_usd - self.spend_usd - self.held_usd

    @property
    def utilization_ratio(self) -> Decimal:
        """Spend as a share of the limit, 4 decimals."""
        return (self.spend_usd / self.limit_usd).quantize(Decimal("0.0001"))


@dataclass(frozen=True, slots=True)
class Applied:
    """Whether one budget applies to a request: `why` says it in a sentence; `standing` only if it does."""

    budget: Budget
    applies: bool
    why: str
    standing: BudgetStanding | None


@dataclass(frozen=True, slots=True)
class LiveHolds:
    """How many live leases hold of a budget, and how much, in USD."""

    count: int
    usd: Decimal


def standings(workspace_id: UUID, budgets: Sequence[Budget], now: datetime) -> list[BudgetStanding]:
    """Where each stands at `now` (aware), in their order, with a fixed number of queries."""
    return _standings(workspace_id, [(budget, None) for budget in budgets], now)


def explain(workspace_id: UUID, request: Scoped, now: datetime, *, data_mode: str) -> list[Applied]:
    """Every budget of the workspace, those that apply to the request first, the tightest of them first."""
    budgets = list(Budget.objects.filter(workspace=workspace_id).order_by("created_at", "pk"))
    policy = WorkspacePolicy.objects.get(workspace=workspace_id)
    keys = key_names(workspace_id)
    is_counted = data_mode in policy.counted_data_modes
    matching = [budget for budget in budgets if is_counted and _matches(budget, request)]
    asked = [(budget, request.scope_value(budget.scope_kind) if budget.is_each_value else None) for budget in matching]
    standing_of = {standing.budget.pk: standing for standing in _standings(workspace_id, asked, now)}
    found = []
    for budget in budgets:
        standing = standing_of.get(budget.pk)
        if is_counted:
            why = _why(budget, request, keys, standing, observes=policy.observe_mode)
        else:
            why = f"Counts {_listed(policy.counted_data_modes)} rows only; this one is {data_mode}"
        found.append(Applied(budget, standing is not None, why, standing))
    return sorted(found, key=_tightest_first)


def live_holds(budget: Budget, now: datetime) -> LiveHolds:
    """The live leases in the budget's scope at `now` (aware), of counted data modes."""
    policy = WorkspacePolicy.objects.get(workspace=budget.workspace_id)
    leases = Lease.objects.filter(
        workspace=budget.workspace_id, closed_at=None, expires_at__gt=now, data_mode__in=policy.counted_data_modes
    )
    if budget.scope_kind and not budget.is_each_value:
        leases = leases.filter(**{budget.scope_kind: budget.scope_value})
    sums = leases.aggregate(count=Count("pk"), usd=Sum("usd"), tokens=Sum("unpriced_tokens"))
    usd = sums["usd"] or _ZERO
    estimate = budget.estimate_usd_per_1m or _ZERO
    return LiveHolds(sums["count"], usd + estimated_usd(sums["tokens"] or 0, estimate))


def _standings(workspace_id: UUID, asked: Sequence[tuple[Budget, str | None]], now: datetime) -> list[BudgetStanding]:
    """With a value, where that value of a budget on each value stands."""
    if not asked:
        return []
    policy = WorkspacePolicy.objects.get(workspace=workspace_id)
    rows = Limit.objects.filter(
        workspace=workspace_id, source=SOURCE, source_id__in=[str(budget.pk) for budget, _ in asked]
    )
    limits = {limit.source_id: limit for limit in rows}
    questions = [Question(limits[str(budget.pk)], value) for budget, value in asked]
    has_leases = policy.leases_until is not None and policy.leases_until > now
    counted = figures(workspace_id, questions, now, has_leases=has_leases)
    seen = last_seen(workspace_id, list(limits.values()), now)
    since = _counted_since(workspace_id)
    return [
        _standing(
            budget,
            question,
            counted.get(question.limit.pk, NO_FIGURES),
            policy,
            now,
            counts_from=_missing_before(budget, since, now),
            last_seen=seen[question.limit.pk],
        )
        for (budget, _), question in zip(asked, questions, strict=True)
    ]


def _standing(
    budget: Budget,
    question: Question,
    counted: Figures,
    policy: WorkspacePolicy,
    now: datetime,
    *,
    counts_from: datetime | None,
    last_seen: datetime | None,
) -> BudgetStanding:
    limit = question.limit
    amount, warning = limit.amount_at(now), warning_amount(limit, now)
    values = tuple(
        ValueStanding(
            each.value, each.spend, each.held, each.spend >= warning, is_over(Measure.USD, amount, each.spend)
        )
        for each in counted.top
    )
    top = counted.top[0] if counted.top else Figure("", _ZERO, _ZERO, _ZERO, 0)
    is_each = limit.is_each_value and question.value is None
    return BudgetStanding(
        budget=budget,
        window=window_of(Period(limit.period), now),
        limit_usd=amount,
        spend_usd=top.spend,
        held_usd=top.held,
        adjusted_usd=top.adjusted,
        unpriced_tokens=top.tokens,
        is_raised=amount != limit.amount,
        is_warning=top.spend >= warning,
        is_exceeded=is_over(Measure.USD, amount, top.spend),
        is_enforced=limit.enforce and not policy.observe_mode,
        counts_from=counts_from,
        last_seen=last_seen,
        values=values if is_each else (),
        seen_values=counted.seen if is_each else 0,
        warning_values=counted.near if is_each else 0,
        exceeded_values=counted.over if is_each else 0,
    )


def _counted_since(workspace_id: UUID) -> dict[tuple[str, str, bool], datetime | None]:
    """From when on each metered scope has every event."""
    rows = MeteredScope.objects.filter(workspace=workspace_id).exclude(counts_from=None)
    return {(kind, value, is_each): since for kind, value, is_each, since in rows.values_list(*_SCOPE_COLUMNS)}


def _missing_before(
    budget: Budget, since: Mapping[tuple[str, str, bool], datetime | None], now: datetime
) -> datetime | None:
    """Before when events of the running period may be missing."""
    moment = since.get((budget.scope_kind, budget.scope_value, budget.is_each_value))
    return moment if moment is not None and moment > window_of(Period(budget.period), now).start else None


def _matches(budget: Budget, request: Scoped) -> bool:
    if not budget.scope_kind or budget.is_each_value:
        return True
    return request.scope_value(budget.scope_kind) == budget.scope_value


def _why(
    budget: Budget, request: Scoped, keys: Mapping[str, str], standing: BudgetStanding | None, *, observes: bool
) -> str:
    kind = budget.scope_kind
    sent = request.scope_value(kind) if kind else ""
    value = value_in_words(kind, sent, keys) if sent else "none"
    if standing is None:
        wanted = value_in_words(kind, budget.scope_value, keys)
        return f"Only for {kind_in_words(kind, is_first=False)} {wanted}; this request has {value}"
    if not kind:
        why = f"{WORKSPACE_WORDS}: applies"
    elif budget.is_each_value:
        why = f"{scope_in_words(budget, keys)} by itself; this one is {value}: applies"
    else:
        why = f"{kind_in_words(kind)} is {value}: applies"
    is_hard = budget.enforcement == Enforcement.HARD
    return f"{why}; observe mode, so nothing is enforced" if is_hard and observes else why


def _listed(modes: Sequence[str]) -> str:
    """Data modes in words: "real", "real and test", "demo, real and test"."""
    *first, last = sorted(modes)
    return f"{', '.join(first)} and {last}" if first else last


def _tightest_first(applied: Applied) -> tuple[bool, Decimal]:
    return not applied.applies, applied.standing.remaining_usd if applied.standing else _ZERO
