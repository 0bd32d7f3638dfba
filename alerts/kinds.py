"""What is usual for each kind of alert: how it is told, and from which plan feature on."""

from collections.abc import Mapping
from dataclasses import dataclass

from alerts.models import AlertKind, Mode


@dataclass(frozen=True, slots=True)
class KindFacts:
    """`usual_mode` holds until somebody chooses another; `meaning` is one sentence for the settings page."""

    usual_mode: Mode
    meaning: str
    needs_integrations: bool = False


KINDS: Mapping[AlertKind, KindFacts] = {
    AlertKind.BUDGET_WARNING: KindFacts(Mode.IMMEDIATE, "Spend has reached the warning threshold of a budget."),
    AlertKind.BUDGET_EXCEEDED: KindFacts(Mode.IMMEDIATE, "Spend is above a budget."),
    AlertKind.PLAN_LIMIT_NEAR: KindFacts(Mode.IMMEDIATE, "80 % of the plan's requests of the month are used."),
    AlertKind.PLAN_LIMIT_REACHED: KindFacts(Mode.IMMEDIATE, "The plan's requests are used up; telemetry is paused."),
    AlertKind.UNIT_COST: KindFacts(
        Mode.IMMEDIATE, "A request of an endpoint or model costs more, on average, than a rule allows.", True
    ),
    AlertKind.SPEND_SPIKE: KindFacts(
        Mode.IMMEDIATE, "Spend is far above the same hours of the four weeks before.", True
    ),
    AlertKind.SPENDER_OVER: KindFacts(Mode.IMMEDIATE, "One tenant or user has cost more than a rule allows."),
    AlertKind.UNPRICED_MODEL: KindFacts(Mode.DAILY, "A model without a known price was used for the first time."),
    AlertKind.PRICE_FEED_STALE: KindFacts(
        Mode.WEEKLY, "The price catalogue has not been checked for a week, or has brought nothing new for five."
    ),
    AlertKind.RECOVERY: KindFacts(Mode.IMMEDIATE, "What was exceeded or reached no longer is."),
}
