"""Latency percentiles from a histogram whose bins grow by 5 %.

Bin n holds what lies in [1.05ⁿ, 1.05ⁿ⁺¹) milliseconds, bin -1 what took none.
"""

from collections.abc import Mapping

from ingest.report_rows import Percentiles

BIN_RATIO = 1.05
# The bin of a raw row's latency; null without one.
BIN_SQL = (
    "CASE WHEN latency_ms > 0 THEN floor(ln(latency_ms::float8) / ln(1.05::float8)) WHEN latency_ms = 0 THEN -1 END"
    "::smallint"
)


def percentiles(bins: Mapping[int, int], *, is_complete: bool) -> Percentiles:
    """What is shown of a histogram, by bin its number of requests."""
    return Percentiles(percentile(bins, 0.50), percentile(bins, 0.95), sum(bins.values()), is_complete)


def percentile(bins: Mapping[int, int], share: float) -> float | None:
    """The latency in ms that `share` of the requests do not exceed, at most 5 % off; None without requests.

    Inside its bin it is taken to lie as far up as its rank is among the bin's requests.
    """
    rank = share * sum(bins.values())
    below = 0
    for number, requests in sorted(bins.items()):
        if requests and below + requests >= rank:
            return 0.0 if number < 0 else BIN_RATIO ** (number + (rank - below) / requests)
        below += requests
    return None
