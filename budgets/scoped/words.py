"""Budgets in words: what one says, how fast it is used up, and what a reader of its figures has to know."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from budgets.gauges import moment_in_words
from budgets.models import Budget, Enforcement
from budgets.scoped.drafts import BudgetDraft
from budgets.scoped.outlook import Outlook, TrackRecord
from budgets.scoped.selectors import BudgetStanding
from ingest.models import UnpricedPolicy
from opsmeter_site.lib.formats import count, usd, usd_change, usd_exact
from opsmeter_site.lib.wire import plain_number

_HUNDRED = Decimal(100)
# Beyond this a weekday says too little.
_WEEKDAY_SPAN = timedelta(days=6)
_UNPRICED_WORDS = {
    UnpricedPolicy.IGNORE: "They count as nothing",
    UnpricedPolicy.ESTIMATE: "They count at the assumed price",
    UnpricedPolicy.BLOCK: "A hard stop refuses them",
}


def percent_in_words(share: Decimal) -> str:
    """0.8 as "80%"."""
    return f"{plain_number(share * _HUNDRED)}%"


def thresholds_in_words(draft: BudgetDraft | Budget) -> str:
    """The thresholds as the editor takes them: "50%, 80%, 20 USD"."""
    shares = [percent_in_words(share) for share in draft.thresholds]
    return ", ".join([*shares, *(f"{plain_number(amount)} USD" for amount in draft.thresholds_usd)])


def described(draft: BudgetDraft) -> list[tuple[str, str]]:
    """All that can be changed about a budget, in words."""
    price = draft.estimate_usd_per_1m
    return [
        ("Name", draft.name),
        ("Limit", f"{usd_exact(plain_number(draft.limit_usd))} a UTC {draft.period}"),
        ("Alert at", thresholds_in_words(draft) or "Only over the limit"),
        ("When it is exceeded", str(Enforcement(draft.enforcement).label)),
        ("Requests without a price", str(UnpricedPolicy(draft.unpriced).label)),
        ("Assumed price", "–" if price is None else f"{usd_exact(plain_number(price))} per 1M tokens"),
    ]


def raise_in_words(budget: Budget, zone: ZoneInfo, now: datetime) -> str:
    """The raise in force at `now` (aware); empty without one."""
    limit, until = budget.raised_limit_usd, budget.raised_until
    if limit is None or until is None or now >= until:
        return ""
    return f"{usd_exact(plain_number(limit))} until {about(until, zone, now)}"


def about(moment: datetime, zone: ZoneInfo, now: datetime) -> str:
    """A moment to come by the workspace's clocks: "Tue 14:20", with its date when it is further away."""
    there = moment.astimezone(zone)
    return f"{there:%a %H:%M}" if moment - now < _WEEKDAY_SPAN else f"{there:%a %-d %B}"


def forecast_in_words(outlook: Outlook) -> str:
    """What the period will have cost, with the range."""
    ahead = outlook.forecast
    if ahead is None:
        return "None yet: it needs three whole UTC days"
    expected = f"{usd(ahead.expected_usd)} by the end of the {ahead.period}"
    return f"{expected}, between {usd(ahead.low_usd)} and {usd(ahead.high_usd)}"


def exhausted_in_words(outlook: Outlook, zone: ZoneInfo, now: datetime) -> str:
    """When the limit will be reached; empty if nothing can be said, or if it has been."""
    ahead = outlook.forecast
    if ahead is None or ahead.is_exceeded:
        return ""
    if ahead.earliest_at is None:
        return f"Not before the {ahead.period} ends"
    earliest = about(ahead.earliest_at, zone, now)
    if ahead.expected_at is None:
        return f"Perhaps, at the earliest about {earliest} ({zone.key})"
    expected = about(ahead.expected_at, zone, now)
    return f"About {expected}" + ("" if earliest == expected else f", at the earliest {earliest}") + f" ({zone.key})"


def outcome_in_words(applied: Sequence[BudgetStanding]) -> str:
    """What hard stops make of one more event to which all of `applied` apply."""
    enforced = [standing for standing in applied if standing.is_enforced]
    refusing = [standing.budget for standing in enforced if standing.is_exceeded]
    if refusing:
        return f"Telemetry like this is refused now (402), by {_names(refusing)}."
    blocking = [standing.budget for standing in enforced if standing.budget.unpriced == UnpricedPolicy.BLOCK]
    if blocking:
        return f"Telemetry like this is refused (402) if its model has no price, by {_names(blocking)}."
    return "No budget refuses telemetry like this now."


def _names(budgets: Sequence[Budget]) -> str:
    *first, last = [f"“{budget.name}”" for budget in budgets]
    return f"{', '.join(first)} and {last}" if first else last


def unpriced_in_words(budget: Budget) -> str:
    """What it makes of requests without a price: "Counts at $5.00 per 1M tokens"."""
    price = budget.estimate_usd_per_1m
    if budget.unpriced == UnpricedPolicy.ESTIMATE and price is not None:
        return f"Counts at {usd_exact(plain_number(price))} per 1M tokens"
    return "Is refused" if budget.unpriced == UnpricedPolicy.BLOCK else "Counts as nothing"


def record_in_words(record: TrackRecord | None) -> str:
    """How right the forecasts of the last whole month were."""
    if record is None:
        return ""
    # Days that cost next to nothing are off by thousands of percent: that says no more than "by more than all of it".
    percent = round(record.mean_error * _HUNDRED)
    error = f"{percent}%" if percent <= _HUNDRED else "more than 100%"
    inside = f"{record.inside_range} of {record.tries} inside the range"
    return f"Last month’s forecasts were off by {error} on average, {inside}."


def notes(standing: BudgetStanding, zone: ZoneInfo) -> list[str]:
    """What a reader of the figures has to know about them."""
    found = []
    if standing.last_seen is None:
        found.append("No traffic of the last 30 days matches this scope.")
    if standing.counts_from and standing.counts_from > standing.window.start:
        found.append(
            f"Counted since {moment_in_words(standing.counts_from, zone)}: what came before is no longer stored."
        )
    if standing.unpriced_tokens:
        tokens = f"{count(standing.unpriced_tokens)} token{'' if standing.unpriced_tokens == 1 else 's'}"
        found.append(f"{tokens} had no price. {_UNPRICED_WORDS[UnpricedPolicy(standing.budget.unpriced)]}.")
    if standing.adjusted_usd:
        found.append(f"Adjusted by hand by {usd_change(standing.adjusted_usd)}.")
    return found
