"""What this server's processes have counted since they started, read from their Prometheus metrics.

With several processes their numbers are added up, as `/internal/metrics` does. Other machines count for themselves.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from opsmeter_site.lib.clock import utc_now
from opsmeter_site.metrics_view import current_registry

# When this process started; its siblings did at about the same time.
STARTED = utc_now()

_COMMIT_BUCKETS = "opsmeter_ingest_commit_seconds_bucket"
_REQUESTS = "opsmeter_ingest_requests_total"
_SKIPPED_RATE_LIMITS = "opsmeter_ratelimit_skipped_total"
_TAKEN = {"accepted", "duplicate"}


@dataclass(frozen=True, slots=True)
class Measured:
    """Counts since `STARTED`.

    `commit_buckets`: group commits that took at most so many seconds, by upper bound, infinity last.
    `turned_away`: requests that were not taken, by the reason that the answer gave.
    """

    commit_buckets: Mapping[float, float]
    turned_away: Mapping[str, int]
    skipped_rate_limits: int

    @property
    def commits(self) -> int:
        """How many group commits there were."""
        return int(self.commit_buckets.get(math.inf, 0))

    def commit_ms(self, share: float) -> float | None:
        """The time in milliseconds within which `share` of the commits ended: infinity if above all bounds."""
        return quantile_ms(self.commit_buckets, share)


def measured() -> Measured:
    """The counters as they stand now."""
    buckets: dict[float, float] = defaultdict(float)
    turned_away: Counter[str] = Counter()
    skipped = 0
    for family in current_registry().collect():
        for sample in family.samples:
            if sample.name == _COMMIT_BUCKETS:
                buckets[float(sample.labels["le"])] += sample.value
            elif sample.name == _REQUESTS and sample.labels["outcome"] not in _TAKEN:
                turned_away[sample.labels["outcome"]] += int(sample.value)
            elif sample.name == _SKIPPED_RATE_LIMITS:
                skipped += int(sample.value)
    return Measured(dict(sorted(buckets.items())), turned_away, skipped)


def quantile_ms(buckets: Mapping[float, float], share: float) -> float | None:
    """`share` of a histogram in milliseconds, spread evenly within a bucket; None without observations.

    `buckets` are cumulative counts by upper bound in seconds, ascending, the last one infinity.
    """
    total = buckets.get(math.inf, 0)
    if not total:
        return None
    rank, lower, below = share * total, 0.0, 0.0
    for upper, count in buckets.items():
        if count >= rank:
            return (
                upper * 1_000
                if math.isinf(upper)
                else 1_000 * (lower + (upper - lower) * (rank - below) / (count - below))
            )
        lower, below = upper, count
    return math.inf
