"""How sure a difference between two means is: Welch's interval, from sample sizes, means and variances alone."""

from dataclasses import dataclass
from decimal import Decimal

from ingest.report_rows import Moments

# Fewer samples of such skewed figures say too little about their mean.
FEWEST_SAMPLES = 30
# Of the normal distribution, which is what Student's t is with so many samples: 95 % lie within.
_Z = Decimal("1.96")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second mean against the first: `low` to `high` is its relative difference with 95 % confidence.

    Both are None with too few samples, or if the first mean is zero.
    """

    low: Decimal | None
    high: Decimal | None
    too_few: bool

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes "no difference"."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def interval(moments: Moments) -> tuple[Decimal, Decimal] | None:
    """The mean's 95 % confidence interval; None with too few samples."""
    if moments.count < FEWEST_SAMPLES or moments.mean is None or moments.variance is None:
        return None
    half = _Z * (moments.variance / moments.count).sqrt()
    return moments.mean - half, moments.mean + half


def compare(first: Moments, second: Moments) -> Comparison:
    """`second` against `first`."""
    if min(first.count, second.count) < FEWEST_SAMPLES:
        return Comparison(None, None, too_few=True)
    if not first.mean or second.mean is None or first.variance is None or second.variance is None:
        return Comparison(None, None, too_few=False)
    difference = second.mean - first.mean
    half = _Z * (first.variance / first.count + second.variance / second.count).sqrt()
    return Comparison((difference - half) / first.mean, (difference + half) / first.mean, too_few=False)
