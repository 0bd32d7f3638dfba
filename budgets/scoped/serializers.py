"""The JSON of budgets under `/v1/budgets`, key for key, and how a wish becomes a draft."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from budgets.models import BudgetPeriod, Enforcement
from budgets.scoped.checks import LONGEST_NAME, LONGEST_REASON, MAX_ESTIMATE_USD_PER_1M, MAX_LIMIT_USD, MOST_THRESHOLDS
from budgets.scoped.drafts import BudgetDraft
from budgets.serializers import LimitField, NumberField, SwitchField
from ingest.limits import OVER
from ingest.models import UnpricedPolicy
from ingest.scopes import WIRE_NAMES, WORKSPACE_WIRE_NAME
from opsmeter_site.lib.openapi import UsdField, UtcTimeField
from opsmeter_site.lib.strict import StrictChoiceField, StrictSerializer

PERIOD_NAMES = {BudgetPeriod.DAY.value: "daily", BudgetPeriod.MONTH.value: "monthly"}
PERIODS = {name: period for period, name in PERIOD_NAMES.items()}
SCOPES = {name: kind for kind, name in WIRE_NAMES.items()}
ALL_SCOPES = [WORKSPACE_WIRE_NAME, *SCOPES]
MANAGERS = ["settings", "budgets"]
SIMULATED_DAYS = (30, 90)
# What the wire calls the fields of budgets, raises and adjustments.
FIELD_NAMES = {
    "scope_kind": "scope",
    "scope_value": "scopeValue",
    "is_each_value": "eachValue",
    "limit_usd": "limitUsd",
    "thresholds_usd": "thresholds",
    "estimate_usd_per_1m": "estimateUsdPer1MTokens",
    "usd": "amountUsd",
}
_HUNDRED = Decimal(100)
_THRESHOLD = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"percent": {"type": "number", "minimum": 0.01, "maximum": 100}},
            "required": ["percent"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"usd": {"type": "number", "minimum": 1e-12, "maximum": int(MAX_LIMIT_USD)}},
            "required": ["usd"],
            "additionalProperties": False,
        },
    ]
}


# --- What is asked for ------------------------------------------------------------------------------------------------


class TextField(serializers.Field[Any, Any, Any, Any]):
    """Text and nothing that prints like it. Its length is checked by the service."""

    def to_internal_value(self, data: Any) -> str:
        """The text."""
        if not isinstance(data, str):
            raise serializers.ValidationError("Must be text.")
        return data

    def to_representation(self, value: str) -> str:
        """The text."""
        return value


@extend_schema_field({"type": "string", "maxLength": LONGEST_NAME})
class NameField(TextField):
    """What a budget is called."""


@extend_schema_field({"type": "string", "maxLength": 200})
class ScopeValueField(TextField):
    """One value of a dimension."""


@extend_schema_field({"type": "string", "minLength": 1, "maxLength": LONGEST_REASON})
class ReasonField(TextField):
    """Why somebody did it."""


@extend_schema_field({"type": "number", "minimum": 0.000001, "maximum": int(MAX_ESTIMATE_USD_PER_1M)})
class EstimateField(NumberField):
    """USD per 1M tokens, at most 6 decimals."""


@extend_schema_field(
    {"type": "number", "minimum": -int(MAX_LIMIT_USD), "maximum": int(MAX_LIMIT_USD), "example": -12.5}
)
class AmountField(NumberField):
    """USD, at most 12 decimals, not 0."""


@extend_schema_field({"type": "string", "format": "date-time", "example": "2026-03-09T00:00:00Z"})
class MomentField(TextField):
    """A moment in ISO 8601, with its offset."""

    def to_internal_value(self, data: Any) -> Any:
        """The moment, in UTC: the database does not know every offset."""
        try:
            moment = datetime.fromisoformat(super().to_internal_value(data))
        except ValueError:
            raise serializers.ValidationError("Must be a time such as 2026-03-09T00:00:00Z.") from None
        if moment.tzinfo is None:
            raise serializers.ValidationError("Must say its offset from UTC, such as a trailing Z.")
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            raise serializers.ValidationError("Is before or after all that a calendar knows.") from None


@extend_schema_field({"type": "integer", "enum": list(SIMULATED_DAYS)})
class DaysField(serializers.Field[Any, Any, Any, Any]):
    """How many UTC days are replayed."""

    def to_internal_value(self, data: Any) -> int:
        """The number."""
        if isinstance(data, bool) or data not in SIMULATED_DAYS:
            raise serializers.ValidationError("Must be 30 or 90.")
        return int(data)


@extend_schema_field(_THRESHOLD)
class ThresholdField(serializers.Field[Any, Any, Any, Any]):
    """`{"percent": 50}` of the limit, or `{"usd": 40}`."""

    def to_internal_value(self, data: Any) -> tuple[str, Decimal]:
        """Its unit and its number; its range is checked by the service."""
        if not isinstance(data, dict) or len(data) != 1 or not data.keys() <= {"percent", "usd"}:
            raise serializers.ValidationError('Must be {"percent": …} or {"usd": …}.')
        unit, number = next(iter(data.items()))
        return unit, NumberField().to_internal_value(number)

    def to_representation(self, value: Any) -> Any:
        """As it was made by `thresholds_json`."""
        return value


class BudgetWishSerializer(StrictSerializer):
    """A budget on one scope."""

    name = NameField(required=False, help_text="Unique in the workspace; made from scope and period if left out.")
    scope = StrictChoiceField(
        source="scope_kind",
        choices=ALL_SCOPES,
        help_text="The dimension that it is set on. `workspace` is refused: see /v1/settings/budgets.",
    )
    scopeValue = ScopeValueField(  # noqa: N815 (the names of the wire)
        source="scope_value",
        required=False,
        allow_null=True,
        help_text="As events carry it; of `apiKey` the key's id. Leave it out with `eachValue`.",
    )
    eachValue = SwitchField(  # noqa: N815
        source="is_each_value",
        required=False,
        help_text="Hold every value of the dimension to the limit by itself, also values not seen yet.",
    )
    period = StrictChoiceField(choices=list(PERIODS), required=False, help_text="UTC; `daily` if left out.")
    limitUsd = LimitField(source="limit_usd")  # noqa: N815
    thresholds = serializers.ListField(
        child=ThresholdField(),
        required=False,
        max_length=MOST_THRESHOLDS + 1,
        help_text="When people are told, besides over the limit (100, which may be listed). 50 and 80 if left out.",
    )
    enforcement = StrictChoiceField(
        choices=Enforcement.values,
        required=False,
        help_text="`hard` refuses telemetry (402) once spend is above the limit; `soft` (the default) only says so.",
    )
    unpriced = StrictChoiceField(
        choices=UnpricedPolicy.values,
        required=False,
        help_text="Requests without a price: `ignore` (the default), `estimate`, or `block` (hard stops only).",
    )
    estimateUsdPer1MTokens = EstimateField(  # noqa: N815
        source="estimate_usd_per_1m", required=False, allow_null=True, help_text="With `estimate`, and only then."
    )


class SimulationWishSerializer(BudgetWishSerializer):
    """A budget, and how far to look back."""

    days = DaysField(required=False, default=SIMULATED_DAYS[0], help_text="UTC days, today included.")


class RaiseWishSerializer(StrictSerializer):
    """Another limit for some time."""

    limitUsd = LimitField(source="limit_usd", help_text="Above the budget's limit.")  # noqa: N815
    until = MomentField(help_text="At most 92 days ahead; the raise ends by the clock.")
    reason = ReasonField()


class AdjustmentWishSerializer(StrictSerializer):
    """USD to count in the running period besides the events."""

    amountUsd = AmountField(source="usd", help_text="Below 0 to take off what was counted.")  # noqa: N815
    reason = ReasonField()
    scopeValue = ScopeValueField(  # noqa: N815
        source="scope_value", required=False, allow_null=True, help_text="Whose, of a budget on each value."
    )


def drafted(wish: dict[str, Any], old: BudgetDraft | None = None) -> BudgetDraft:
    """The budget that is asked for, or `old` with what the wish names changed."""
    changes = {name: value for name, value in wish.items() if name in BudgetDraft.__dataclass_fields__}
    if "scope_kind" in changes:
        changes["scope_kind"] = SCOPES.get(changes["scope_kind"], "")
    if "scope_value" in changes:
        changes["scope_value"] = changes["scope_value"] or ""
    if "period" in changes:
        changes["period"] = PERIODS[changes["period"]]
    if "thresholds" in changes:
        given = changes["thresholds"]
        changes["thresholds"] = tuple(number / _HUNDRED for unit, number in given if unit == "percent")
        changes["thresholds_usd"] = tuple(number for unit, number in given if unit == "usd")
    if changes.get("unpriced", UnpricedPolicy.ESTIMATE) != UnpricedPolicy.ESTIMATE:
        # Whoever stops estimating need not say that there is no estimate.
        changes.setdefault("estimate_usd_per_1m", None)
    return BudgetDraft(**changes) if old is None else replace(old, **changes)


# --- What is answered -------------------------------------------------------------------------------------------------


class RaiseSerializer(serializers.Serializer[Any]):
    """A limit that holds for some time."""

    limitUsd = UsdField()  # noqa: N815
    until = UtcTimeField()
    reason = serializers.CharField()


class CurrentSerializer(serializers.Serializer[Any]):
    """Where a budget stands in its running period. Of one on each value: where the value stands that has spent most."""

    periodStart = UtcTimeField()  # noqa: N815
    resetsAt = UtcTimeField(help_text="When the next period begins.")  # noqa: N815
    limitUsd = UsdField(help_text="The one in force, a raise included.")  # noqa: N815
    currentSpendUsd = UsdField(help_text="Estimates and adjustments included.")  # noqa: N815
    heldUsd = UsdField(help_text="By live leases.")  # noqa: N815
    remainingUsd = UsdField(help_text="Limit less spend and leases; never below 0.")  # noqa: N815
    adjustedUsd = UsdField(help_text="The part of the spend that was adjusted by hand.")  # noqa: N815
    utilizationRatio = UsdField(help_text="Spend by limit, 4 decimals.")  # noqa: N815
    isWarning = serializers.BooleanField(help_text="At or above the lowest threshold.")  # noqa: N815
    isExceeded = serializers.BooleanField(help_text="Above the limit.")  # noqa: N815
    isEnforced = serializers.BooleanField(help_text="A hard stop, and no observe mode.")  # noqa: N815
    asOf = UtcTimeField()  # noqa: N815


class ValueSerializer(serializers.Serializer[Any]):
    """Where one value stands."""

    scopeValue = serializers.CharField()  # noqa: N815
    currentSpendUsd = UsdField()  # noqa: N815
    heldUsd = UsdField()  # noqa: N815
    isWarning = serializers.BooleanField()  # noqa: N815
    isExceeded = serializers.BooleanField()  # noqa: N815


class BudgetSerializer(serializers.Serializer[Any]):
    """A budget, and where it stands."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    scope = serializers.ChoiceField(choices=ALL_SCOPES)
    scopeValue = serializers.CharField(  # noqa: N815
        allow_null=True, help_text="null for each value, and for the whole workspace."
    )
    eachValue = serializers.BooleanField()  # noqa: N815
    period = serializers.ChoiceField(choices=list(PERIODS))
    limitUsd = UsdField(help_text="Without a raise.")  # noqa: N815
    thresholds = serializers.ListField(child=ThresholdField())
    enforcement = serializers.ChoiceField(choices=Enforcement.values)
    unpriced = serializers.ChoiceField(choices=UnpricedPolicy.values)
    estimateUsdPer1MTokens = UsdField(allow_null=True)  # noqa: N815
    raised = RaiseSerializer(allow_null=True)
    managedBy = serializers.ChoiceField(  # noqa: N815
        choices=MANAGERS, help_text="`settings`: the two of the whole workspace, set under /v1/settings/budgets."
    )
    createdAt = UtcTimeField()  # noqa: N815
    updatedAt = UtcTimeField()  # noqa: N815
    countsFrom = UtcTimeField(  # noqa: N815
        allow_null=True, help_text="Events of the running period before that may be missing."
    )
    lastSeenAt = UtcTimeField(  # noqa: N815
        allow_null=True, help_text="Start of the last UTC day with counted traffic; null: none within 30 days."
    )
    current = CurrentSerializer()
    values = ValueSerializer(many=True, help_text="On each value: the ten that have spent most.")
    warnings = serializers.ListField(child=serializers.CharField(), help_text="What to know about it, in sentences.")

    def get_fields(self) -> dict[str, Any]:
        """`raise` is a word of Python's own, so it gets its name here."""
        return {("raise" if name == "raised" else name): field for name, field in super().get_fields().items()}


class BudgetListSerializer(serializers.Serializer[Any]):
    """Some budgets."""

    budgets = BudgetSerializer(many=True)
    count = serializers.IntegerField(min_value=0, help_text="Of all that were asked for, not only of this page.")
    nextCursor = serializers.CharField(allow_null=True, help_text="For the next page; null: there is none.")  # noqa: N815


class DeletedBudgetSerializer(serializers.Serializer[Any]):
    """A budget is gone; leases go on, as they belong to calls."""

    ok = serializers.BooleanField(help_text="Always true.")
    liveLeases = serializers.IntegerField(min_value=0, help_text="Live leases in its scope.")  # noqa: N815
    heldUsd = UsdField(help_text="What they hold.")  # noqa: N815


class AdjustmentSerializer(serializers.Serializer[Any]):
    """USD that somebody has added to, or taken from, what a budget counts."""

    amountUsd = UsdField()  # noqa: N815
    reason = serializers.CharField()
    scopeValue = serializers.CharField(allow_null=True)  # noqa: N815
    periodStart = UtcTimeField()  # noqa: N815
    createdAt = UtcTimeField()  # noqa: N815
    by = serializers.CharField()


class AdjustmentListSerializer(serializers.Serializer[Any]):
    """Adjustments of one budget, the newest first."""

    adjustments = AdjustmentSerializer(many=True)
    count = serializers.IntegerField(min_value=0)


class HistoryEntrySerializer(serializers.Serializer[Any]):
    """What somebody did."""

    at = UtcTimeField()
    by = serializers.CharField()
    action = serializers.CharField(help_text="Such as `budget.changed`; `budgets.changed` for the budget settings.")
    old = serializers.DictField(help_text="What it said; empty if there was nothing.")
    new = serializers.DictField(help_text="What it said afterwards.")


class HistorySerializer(serializers.Serializer[Any]):
    """What was done to one budget, the newest first."""

    entries = HistoryEntrySerializer(many=True)
    count = serializers.IntegerField(min_value=0)


class ReplayedCrossingSerializer(serializers.Serializer[Any]):
    """A threshold that would have been crossed."""

    crossedAt = UtcTimeField()  # noqa: N815
    percent = UsdField(help_text="Of the limit; 100: over it.")
    levelUsd = UsdField()  # noqa: N815
    spendUsd = UsdField()  # noqa: N815


class ReplayedPeriodSerializer(serializers.Serializer[Any]):
    """One UTC day or month of one value."""

    periodStart = UtcTimeField()  # noqa: N815
    resetsAt = UtcTimeField()  # noqa: N815
    scopeValue = serializers.CharField()  # noqa: N815
    sentRequests = serializers.IntegerField(min_value=0)  # noqa: N815
    sentUsd = UsdField()  # noqa: N815
    refusedRequests = serializers.IntegerField(min_value=0)  # noqa: N815
    refusedUsd = UsdField()  # noqa: N815
    crossings = ReplayedCrossingSerializer(many=True)


class SimulationSerializer(serializers.Serializer[Any]):
    """What a budget would have done."""

    start = UtcTimeField()
    end = UtcTimeField()
    exactFrom = UtcTimeField(  # noqa: N815
        allow_null=True, help_text="Before that only sums of quarter hours are known; null: exact throughout."
    )
    knownFrom = UtcTimeField(  # noqa: N815
        allow_null=True, help_text="Before that nothing is known; null: something is known throughout."
    )
    sentRequests = serializers.IntegerField(min_value=0)  # noqa: N815
    sentUsd = UsdField()  # noqa: N815
    refusedRequests = serializers.IntegerField(min_value=0)  # noqa: N815
    refusedUsd = UsdField()  # noqa: N815
    alerts = serializers.IntegerField(min_value=0)
    periodCount = serializers.IntegerField(min_value=0, help_text="Of all; the first 1,000 are listed.")  # noqa: N815
    periods = ReplayedPeriodSerializer(many=True)


class LeaseSerializer(serializers.Serializer[Any]):
    """Spend that is about to happen."""

    externalRequestId = serializers.CharField()  # noqa: N815
    heldUsd = UsdField(help_text="The estimate; 0 without a price.")  # noqa: N815
    unpricedTokens = serializers.IntegerField(min_value=0, help_text="The estimate, without a price.")  # noqa: N815
    createdAt = UtcTimeField()  # noqa: N815
    expiresAt = UtcTimeField()  # noqa: N815
    provider = serializers.CharField()
    model = serializers.CharField()
    endpointTag = serializers.CharField()  # noqa: N815
    promptVersion = serializers.CharField()  # noqa: N815
    environment = serializers.CharField()
    dataMode = serializers.CharField()  # noqa: N815
    userId = serializers.CharField()  # noqa: N815
    tenantId = serializers.CharField()  # noqa: N815
    apiKey = serializers.CharField(help_text="The id of the API key that asked for it.")  # noqa: N815


class LeaseListSerializer(serializers.Serializer[Any]):
    """Some live leases, the newest first."""

    leases = LeaseSerializer(many=True)
    count = serializers.IntegerField(min_value=0, help_text="Of all, not only of this page.")
    nextCursor = serializers.CharField(allow_null=True)  # noqa: N815


def thresholds_json(shares: Iterable[Decimal], amounts: Iterable[Decimal]) -> list[dict[str, Decimal]]:
    """Thresholds as they are written, with the one that is always told."""
    percents = [{"percent": NumberField().to_representation(share * _HUNDRED)} for share in (*shares, OVER)]
    return [*percents, *({"usd": NumberField().to_representation(usd)} for usd in amounts)]
