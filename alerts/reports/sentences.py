"""A summary in words. Plain text; names that people chose are made safe to stand in a sentence or a subject."""

import re
from calendar import monthrange
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from alerts.models import ReportKind
from alerts.reports.figures import ReportContent, Usage
from ingest.drivers import LABELS, MEANINGS
from ingest.ranges import day_range
from opsmeter_site.lib import formats
from opsmeter_site.lib.formats import count, share, usd, usd_change

REASONS = {"plan_limit_reached": "plan limit reached", "budget_exceeded": "budget hard stop"}
_LONGEST_TITLE = 200
_LONGEST_NAME = 60
# Control characters, and marks that are not seen but turn the text around them.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]+")
_MOST_SPELLS = 4
_OTHER_DRIVERS = 2


# --- Names, amounts, times -------------------------------------------------------------------------------------------


def plain_name(text: str, longest: int = _LONGEST_NAME) -> str:
    """A name that somebody chose, on one line, without marks that are not seen, and not too long."""
    seen = " ".join(_UNSEEN.sub(" ", text).split()) or "(no name)"
    return seen if len(seen) <= longest else f"{seen[: longest - 1].rstrip()}…"


def driver_name(driver: str) -> str:
    """A driver as pages call it."""
    names: Mapping[str, str] = {key.value: label for key, label in LABELS.items()}
    return names.get(driver, driver)


def relative(now: Decimal | int | None, before: Decimal | int | None) -> Decimal | None:
    """By what share `now` differs from `before`; None where there is nothing to compare with."""
    return None if now is None or not before else Decimal(now) / Decimal(before) - 1


def up_or_down(ratio: Decimal | None) -> str:
    """Such as "up 12%", "down 3.4%", "unchanged"; "" where there is nothing to compare with."""
    if ratio is None:
        return ""
    text = formats.change(ratio)
    return f"{'up' if text[0] == '+' else 'down'} {text[1:]}" if text[0] in "+−" else "unchanged"


def local_time(moment: datetime, zone: ZoneInfo) -> str:
    """Such as "22 Nov 2026, 09:00" by the clocks of `zone`."""
    return f"{moment.astimezone(zone):%-d %b %Y, %H:%M}"


def zone_name(content: ReportContent) -> str:
    """The zone of the days, for people."""
    return content.zone.replace("_", " ")


def _month(day: date) -> str:
    return f"{day:%B}"


def spend(usage: Usage) -> str:
    """What was spent; "at least" if some requests have no price."""
    return f"{'at least ' if usage.unpriced_requests else ''}{usd(usage.cost_usd)}"


def requests(number: int) -> str:
    """Such as "1 request", "3,100 requests"."""
    return f"{count(number)} {'request' if number == 1 else 'requests'}"


# --- The window ------------------------------------------------------------------------------------------------------


def window_short(content: ReportContent) -> str:
    """Such as "Saturday 21 Nov", "16–22 Nov", "28 Nov – 4 Dec"."""
    first, last = content.first_day, content.last_day
    if first == last:
        return f"{first:%A %-d %b}"
    return f"{first:%-d}–{last:%-d %b}" if first.month == last.month else f"{first:%-d %b} – {last:%-d %b}"


def window(content: ReportContent) -> str:
    """The days with year, and how long they were where clocks were changed."""
    first, last = content.first_day, content.last_day
    days = f"{first:%A, %-d %B %Y}" if first == last else f"{first:%A, %-d %B} to {last:%A, %-d %B %Y}"
    length = day_range(content.time_zone, first, last)
    hours = (length.end - length.start) / timedelta(hours=1)
    usual = 24 * content.days
    return days if hours == usual else f"{days} ({hours:g} hours: clocks were changed)"


def whose_days(content: ReportContent) -> str:
    """By which clocks; and of what, if it is nothing real."""
    noun = "day" if content.days == 1 else "days"
    days = f"UTC {noun}" if content.zone == "UTC" else f"local {noun} in {zone_name(content)}"
    return days if _is_real(content) else f"{days}, {' and '.join(content.data_modes)} data"


def _is_real(content: ReportContent) -> bool:
    return "real" in content.data_modes


def before_words(content: ReportContent) -> str:
    """What it is compared with."""
    return "the day before" if content.days == 1 else f"the {content.days} days before"


def title_of(workspace_name: str, content: ReportContent) -> str:
    """The subject of the mails: whose, which days, how much, and how near the budget."""
    what = "executive report, " if content.kind == ReportKind.EXECUTIVE else ""
    parts = [
        f"{plain_name(workspace_name)} · {what}{window_short(content)}: {_outcome(content)}",
        *_budget_of_title(content),
    ]
    return " · ".join(parts)[:_LONGEST_TITLE]


def _outcome(content: ReportContent) -> str:
    if content.now.requests:
        change = up_or_down(relative(content.now.cost_usd, content.before.cost_usd))
        return ", ".join(each for each in (spend(content.now), change) if each)
    if content.refused.requests:
        return f"{requests(content.refused.requests)} refused"
    return "nothing happened" if content.is_empty else "no requests"


def _budget_of_title(content: ReportContent) -> list[str]:
    if not _is_real(content):
        return [f"{' and '.join(content.data_modes)} data"]
    if not content.now.requests:
        return []
    daily, monthly = content.daily_budget, content.monthly_budget
    if content.days == 1 and daily and daily.limit_usd:
        return [f"daily budget {share(daily.highest.spend_usd / daily.limit_usd)}"]
    if monthly and monthly.limit_usd:
        return [f"monthly budget {share(monthly.spend_usd / monthly.limit_usd)}"]
    return []


# --- Spend, and why --------------------------------------------------------------------------------------------------


def headline(content: ReportContent) -> str:
    """What was spent, against the period before."""
    when = f"on {content.first_day:%A}" if content.days == 1 else f"in these {content.days} days"
    if content.is_empty:
        return f"Nothing happened {when}: no request, none refused, no alert."
    if not content.now.requests:
        refused = content.refused.requests
        gone = f"; {count(refused)} {'was' if refused == 1 else 'were'} refused" if refused else ""
        was = f"; {spend(content.before)} was spent {before_words(content)}" if content.before.requests else ""
        return f"No request was stored {when}{gone}{was}."
    ratio = relative(content.now.cost_usd, content.before.cost_usd)
    if ratio is None:
        before = spend(content.before) if content.before.unpriced_requests else "nothing"
        return f"Spend was {spend(content.now)} {when}; {before} was spent {before_words(content)}."
    changed = up_or_down(ratio)
    if changed == "unchanged":
        return f"Spend was {spend(content.now)} {when}, as much as {before_words(content)}."
    return (
        f"Spend was {spend(content.now)} {when}, {changed} ({usd(abs(content.difference))}) "
        f"from {spend(content.before)} {before_words(content)}."
    )


def cause(content: ReportContent) -> str:
    """What moved spend most, and what else did; "" if nothing did or there is nothing to compare with."""
    change = content.change
    if not change.main or not content.before.requests or not content.now.requests:
        return ""
    amounts = {effect.driver: effect.amount_usd for effect in change.effects}
    main = f"Mostly {driver_name(change.main).lower()} ({usd_change(amounts.get(change.main))})"
    if change.main == "volume":
        main += f": {requests(content.now.requests)}, {count(content.before.requests)} before"
    elif change.main_endpoint:
        main += f", above all in “{plain_name(change.main_endpoint)}”"
    also = ", ".join(f"{driver_name(each).lower()} {usd_change(amounts[each])}" for each in _other_drivers(content))
    return f"{main}. Also: {also}." if also else f"{main}."


def _other_drivers(content: ReportContent) -> list[str]:
    """What moved spend next to the main driver, most first."""
    effects = sorted(content.change.effects, key=lambda each: -abs(each.amount_usd))
    return [each.driver for each in effects if each.driver != content.change.main][:_OTHER_DRIVERS]


def meanings(content: ReportContent) -> list[str]:
    """What the drivers in `cause` mean, for readers who do not know their names."""
    known: Mapping[str, str] = {key.value: meaning for key, meaning in MEANINGS.items()}
    named = [content.change.main, *_other_drivers(content)] if cause(content) else []
    return [f"{driver_name(each)}: {known[each][0].lower()}{known[each][1:]}" for each in named if each in known]


def unit_cost(content: ReportContent) -> str:
    """What a request costs; "" without requests."""
    now, before = content.now.cost_per_request, content.before.cost_per_request
    if now is None:
        return ""
    changed = up_or_down(relative(now, before))
    was = f", {changed} from {formats.usd_fine(before)}" if changed and changed != "unchanged" else ""
    return f"A request cost {formats.usd_fine(now)} on average{was}."


# --- Budgets ---------------------------------------------------------------------------------------------------------


def daily_budget(content: ReportContent) -> str:
    """The daily budget's UTC days; "" without a budget."""
    budget = content.daily_budget
    if budget is None:
        return ""
    highest = budget.highest
    used = _of(highest.spend_usd, budget.limit_usd)
    so_far = " so far" if highest.is_running else ""
    if len(budget.days) == 1:
        return f"{used} on the UTC day {highest.day:%-d %B}{so_far}."
    over = f"Exceeded on {budget.exceeded} of {len(budget.days)} UTC days" if budget.exceeded else "Never exceeded"
    return f"{over}; most on {highest.day:%A, %-d %B}: {used}{so_far}."


def monthly_budget(content: ReportContent) -> str:
    """The month so far; "" for contents without it."""
    budget = content.monthly_budget
    if budget is None:
        return ""
    when = f"in {_month(budget.month)}{' so far' if budget.is_running else ''}"
    if budget.limit_usd is None:
        return f"{usd(budget.spend_usd)} {when}; there is no monthly budget."
    return f"{_of(budget.spend_usd, budget.limit_usd)} {when}."


def _of(spend_usd: Decimal, limit_usd: Decimal) -> str:
    used = f" ({share(spend_usd / limit_usd)})" if limit_usd else ""
    return f"{usd(spend_usd)} of {usd(limit_usd)}{used}"


def forecast(content: ReportContent) -> str:
    """Where the running month will end; "" without a forecast."""
    ahead = content.forecast
    if ahead is None:
        return ""
    return (
        f"{_month(ahead.month)} is expected to end at {usd(ahead.expected_usd)}, "
        f"between {usd(ahead.low_usd)} and {usd(ahead.high_usd)}."
    )


def budget_risk(content: ReportContent) -> str:
    """Whether and when the monthly budget will be exceeded; "" without a budget or forecast."""
    ahead = content.forecast
    if ahead is None or ahead.limit_usd is None:
        return ""
    budget = f"The monthly budget of {usd(ahead.limit_usd)}"
    if ahead.is_exceeded:
        return f"{budget} is exceeded already."
    if ahead.earliest_at is None:
        return f"{budget} is not expected to be exceeded."
    earliest = f"at the earliest {ahead.earliest_at:%-d %B}"
    if ahead.expected_at is None:
        return f"{budget} may be exceeded, {earliest}."
    when = f"on about {ahead.expected_at:%-d %B}"
    is_sure = ahead.earliest_at.date() == ahead.expected_at.date()
    return f"{budget} will be exceeded {when}." if is_sure else f"{budget} will be exceeded {when}, {earliest}."


def run_rate(content: ReportContent) -> str:
    """What a month at the pace of these days costs; "" without requests."""
    if not content.now.requests:
        return ""
    days = monthrange(content.last_day.year, content.last_day.month)[1]
    month = content.now.cost_usd / content.days * days
    text = f"At the pace of these {content.days} days, a month of {days} days costs {usd(month)}"
    limit = content.monthly_budget.limit_usd if content.monthly_budget else None
    return f"{text}: {share(month / limit)} of the monthly budget of {usd(limit)}." if limit else f"{text}."


# --- How far the figures can be trusted ------------------------------------------------------------------------------


def unpriced(content: ReportContent) -> str:
    """What has no price; "" if all has."""
    number = content.now.unpriced_requests
    if not number:
        return ""
    names = ", ".join(plain_name(each) for each in content.unpriced_models)
    models = f" Models: {names}." if names else ""
    part = share(content.now.unpriced_share)
    return f"{requests(number)} ({part}) without a price, counted as $0: true spend is higher.{models}"


def refused(content: ReportContent) -> str:
    """What was refused, why and when; "" if nothing was."""
    gone = content.refused
    if not gone.requests:
        return ""
    reasons = " and ".join(dict.fromkeys(REASONS.get(spell.reason, spell.reason) for spell in gone.spells))
    zone = content.time_zone
    times = [
        f"{spell.start.astimezone(zone):%-d %b %H:%M}–{spell.end.astimezone(zone):%H:%M}"
        for spell in gone.spells[:_MOST_SPELLS]
    ]
    more = len(gone.spells) - len(times) + gone.more
    when = ", ".join(times) + (f" and {more} more {'time' if more == 1 else 'times'}" if more else "")
    return (
        f"{requests(gone.requests)} ({share(content.refused_share)} of what arrived) refused, {reasons}; about "
        f"{usd(gone.cost_usd)} that no figure here contains: {when}."
    )


def data_age(content: ReportContent) -> str:
    """As of when the figures are, and how old the newest data was."""
    zone = content.time_zone
    newest = f"; the newest data is of {local_time(content.newest_data_at, zone)}" if content.newest_data_at else ""
    return f"As of {local_time(content.as_of, zone)} ({zone_name(content)}){newest}."


def what_counts(content: ReportContent) -> str:
    """Which events these figures are about."""
    modes = " and ".join(content.data_modes)
    counted = f"{modes.capitalize()} requests of all environments."
    return f"{counted} Budgets count UTC days and months."


def alerts(content: ReportContent) -> str:
    """How many alerts arose; "" if none did."""
    found = content.alerts
    if not found.total:
        return ""
    parts = [f"{found.total:,} {'alert' if found.total == 1 else 'alerts'}"]
    if found.critical:
        parts.append(f"{found.critical:,} critical")
    if found.held:
        parts.append(f"{found.held:,} held by the cooldown or quiet hours")
    if found.repeats:
        parts.append(f"{found.repeats:,} {'repeat' if found.repeats == 1 else 'repeats'} only counted")
    return f"{', '.join(parts)}."


def risks(content: ReportContent) -> list[str]:
    """What the executive report warns of."""
    found = []
    if content.open_critical:
        number = len(content.open_critical)
        found.append(
            f"{'A critical alert is' if number == 1 else f'{number} critical alerts are'} open, "
            f"the newest: {plain_name(content.open_critical[0].title, 120)}"
        )
    ahead = content.forecast
    if ahead and (ahead.is_exceeded or ahead.earliest_at):
        found.append(budget_risk(content))
    return found
