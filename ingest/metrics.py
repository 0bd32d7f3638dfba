"""What operators watch of ingest. Never labelled by workspace: that would be one time series a customer."""

from prometheus_client import Counter, Histogram

REQUESTS = Counter("opsmeter_ingest_requests_total", "Ingest requests by route and outcome.", ["route", "outcome"])
EVENTS = Counter("opsmeter_ingest_events_total", "Events by outcome.", ["outcome"])
UNPRICED = Counter("opsmeter_ingest_unpriced_events_total", "Events without a known price.")
ASKS = Counter("opsmeter_ingest_asks_total", "Questions about calls to come, by kind and outcome.", ["kind", "outcome"])
COMMIT_EVENTS = Histogram(
    "opsmeter_ingest_commit_events",
    "Events in one group commit.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 500, 1_000, 2_000),
)
COMMIT_SECONDS = Histogram(
    "opsmeter_ingest_commit_seconds",
    "Duration of one group commit, lock to COMMIT.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
RATE_LIMIT_SKIPPED = Counter("opsmeter_ratelimit_skipped_total", "Requests let through because Redis was away.")
