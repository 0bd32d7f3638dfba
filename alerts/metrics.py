"""What operators watch of messages. Never labelled by workspace: that would be one time series a customer."""

from prometheus_client import Counter

ATTEMPTS = Counter(
    "opsmeter_alert_attempts_total",
    "Attempts at sending a message, by channel and outcome.",
    ["kind", "outcome"],
)
