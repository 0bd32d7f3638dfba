"""What days to come are expected to cost, and how sure that is, from whole days in the past. Pure.

One rule: a coming day costs what its weekday did in the last four weeks, newer weeks counting more. The same rule is
then tried on the past, and its misses correct the expectation and make the range: it holds what 8 of 10 tries would
have needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from itertools import accumulate
from statistics import quantiles
from typing import NamedTuple, Self

from opsmeter_site.lib.periods import DAY

MIN_DAYS = 3
HISTORY_DAYS = 84
# Newest week first.
_WEEK_WEIGHTS = (4, 3, 2, 1)
_WEEK = 7
# Fewer tries than this say nothing about how far the rule is off.
_MIN_TRIES = 8
_ZERO, _ONE = Decimal(0), Decimal(1)


class Spread(NamedTuple):
    """By what to multiply the rule's amount: the 10th, 50th and 90th percentile; `tries` is 0 if it was never tried."""

    low: Decimal
    middle: Decimal
    high: Decimal
    tries: int


class Step(NamedTuple):
    """A stretch of time ahead and what it may cost, in USD."""

    start: datetime
    end: datetime
    low: Decimal
    expected: Decimal
    high: Decimal

    @classmethod
    def of(cls, start: datetime, end: datetime, usd: Decimal, spread: Spread) -> Self:
        """What the rule makes of `usd`."""
        return cls(start, end, usd * spread.low, usd * spread.middle, usd * spread.high)


@dataclass(frozen=True)
class History:
    """Spend of whole days, oldest first, in USD.

    `weeks` has what the rule said after the first seven days, after eight, and so on to what it says after the last.
    """

    spend: Sequence[Decimal]
    weeks: Sequence[Sequence[Decimal]]

    @classmethod
    def of(cls, spend: Sequence[Decimal]) -> Self:
        """With the rule tried after every day."""
        return cls(spend, [_week_ahead(spend[:today]) for today in range(_WEEK, len(spend) + 1)])

    def before(self, number: int) -> "History":
        """What was known before the day in place `number`: the `HISTORY_DAYS` before it."""
        first = max(0, number - HISTORY_DAYS)
        return History(self.spend[first:number], self.weeks[first : max(0, number - _WEEK + 1)])

    @property
    def average(self) -> Decimal:
        """Spend of an average day."""
        return sum(self.spend, _ZERO) / len(self.spend)

    @cached_property
    def week(self) -> Sequence[Decimal]:
        """What is expected of the seven days after the last one; later ones repeat them."""
        return self.weeks[-1] if self.weeks else [self.average] * _WEEK

    def spread(self, skipped: int, days: int) -> Spread:
        """How the sum of `days` days, `skipped` days ahead, compared with what the rule would have said before them.

        With too few tries: how single days compare with their average, as if all days to come were of one kind.
        """
        sums, ratios = self._sums, []
        for today, week in enumerate(self.weeks[: max(0, len(self.spend) - skipped - days - _WEEK + 1)], start=_WEEK):
            foreseen = _foreseen(week, skipped, days)
            if foreseen:
                ratios.append((sums[today + skipped + days] - sums[today + skipped]) / foreseen)
        tries = len(ratios)
        if tries < _MIN_TRIES:
            tries, average = 0, self.average
            ratios = [usd / average if average else _ONE for usd in self.spend]
        deciles = quantiles(ratios, n=10, method="inclusive")
        return Spread(deciles[0], deciles[4], deciles[8], tries)

    def days_ahead(self, first: datetime, end: datetime, skipped: int) -> tuple[list[Step], int]:
        """The days of `[first, end)`, which begin `skipped` days after the last one, and how often that was tried."""
        number = (end - first).days
        if not number:
            return [], 0
        spread = self.spread(skipped, number)
        starts = [first + n * DAY for n in range(number)]
        week = self.week
        return [
            Step.of(start, start + DAY, week[n % _WEEK], spread) for n, start in enumerate(starts, start=skipped)
        ], spread.tries

    @cached_property
    def _sums(self) -> Sequence[Decimal]:
        """Spend of the first 0, 1, 2 … days."""
        return list(accumulate(self.spend, initial=_ZERO))


def _week_ahead(spend: Sequence[Decimal]) -> list[Decimal]:
    """What the rule says of the seven days that follow the days of `spend`, of which there is a week at least."""
    week = []
    for ahead in range(_WEEK):
        same_weekday = spend[len(spend) + ahead - _WEEK :: -_WEEK]
        weighted = list(zip(_WEEK_WEIGHTS, same_weekday, strict=False))
        week.append(sum(weight * usd for weight, usd in weighted) / Decimal(sum(weight for weight, _ in weighted)))
    return week


def _foreseen(week: Sequence[Decimal], skipped: int, days: int) -> Decimal:
    """The sum of `days` days, `skipped` days ahead."""
    weeks, rest = divmod(days, _WEEK)
    whole = weeks * sum(week, _ZERO) if weeks else _ZERO
    return whole + sum((week[(skipped + n) % _WEEK] for n in range(rest)), _ZERO)
