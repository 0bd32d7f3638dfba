"""The JSON of budgets and of the workspace status, key for key."""

from decimal import Decimal
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from budgets.models import Enforcement
from budgets.scoped.checks import MAX_LIMIT_USD
from budgets.selectors import DEFAULT_WARNING_THRESHOLD
from ingest.models import DataMode
from opsmeter_site.lib.openapi import UsdField, UtcTimeField
from opsmeter_site.lib.strict import StrictChoiceField, StrictSerializer
from opsmeter_site.lib.wire import plain_number

_SMALLEST_USD = 1e-12  # the ledger's last decimal; only for the description


class NumberField(serializers.Field[Any, Any, Any, Any]):
    """A JSON number and nothing that looks like one: no text, no boolean. Its range is checked by the service."""

    def to_internal_value(self, data: Any) -> Decimal:
        """The number with its exact digits."""
        if isinstance(data, bool) or not isinstance(data, int | Decimal):
            raise serializers.ValidationError("Must be a JSON number.")
        return Decimal(data)

    def to_representation(self, value: Decimal) -> Decimal:
        """Without trailing zeros."""
        return plain_number(value)


@extend_schema_field({"type": "number", "minimum": _SMALLEST_USD, "maximum": int(MAX_LIMIT_USD)})
class LimitField(NumberField):
    """USD, at most 12 decimals."""


@extend_schema_field({"type": "number", "minimum": 0.0001, "maximum": 1})
class ShareField(NumberField):
    """A share of a limit, at most 4 decimals."""


@extend_schema_field({"type": "boolean"})
class SwitchField(serializers.Field[Any, Any, Any, Any]):
    """A JSON boolean; `"true"` and 1 are refused."""

    def to_internal_value(self, data: Any) -> bool:
        """The boolean itself."""
        if not isinstance(data, bool):
            raise serializers.ValidationError("Must be true or false.")
        return data

    def to_representation(self, value: bool) -> bool:
        """The boolean itself."""
        return value


@extend_schema_field(
    {
        "type": "array",
        "items": {"type": "string", "enum": DataMode.values},
        "minItems": 1,
        "maxItems": len(DataMode.values),
        "uniqueItems": True,
    }
)
class DataModesField(serializers.ListField):
    """Data modes, each at most once."""


class BudgetSettingsSerializer(StrictSerializer):
    """A workspace's budgets. USD limits; null means no limit."""

    dailyLimitUsd = LimitField(  # noqa: N815 (the names of the wire)
        source="daily_limit_usd", allow_null=True, default=None, help_text="Per UTC day; null for no limit."
    )
    monthlyLimitUsd = LimitField(  # noqa: N815
        source="monthly_limit_usd", allow_null=True, default=None, help_text="Per UTC month; null for no limit."
    )
    warningThresholdRatio = ShareField(  # noqa: N815
        source="warning_threshold_ratio",
        default=DEFAULT_WARNING_THRESHOLD,
        help_text="Share of a limit at which `budgetWarning` is raised: above 0, at most 1, at most 4 decimals.",
    )
    enforcement = StrictChoiceField(
        choices=Enforcement.values,
        default=Enforcement.SOFT.value,
        help_text="`hard` refuses telemetry (402) once spend is above a limit; `soft` only says so.",
    )
    observeMode = SwitchField(  # noqa: N815
        source="observe_mode", default=False, help_text="Kill switch: everything is evaluated, no budget is enforced."
    )
    countedDataModes = DataModesField(  # noqa: N815
        source="counted_data_modes",
        child=StrictChoiceField(choices=DataMode.values),
        default=[DataMode.REAL.value],
        min_length=1,
        max_length=len(DataMode.values),
        help_text="Whose spend counts: each of `real`, `test`, `demo` at most once.",
    )


class PlanStatusSerializer(serializers.Serializer[Any]):
    """Requests of the UTC month against the plan."""

    planTier = serializers.CharField(source="tier", help_text="The plan's token, such as `starter`.")  # noqa: N815
    planName = serializers.CharField(source="name")  # noqa: N815
    currentRequestCount = serializers.IntegerField(source="request_count", min_value=0)  # noqa: N815
    planRequestLimit = serializers.IntegerField(  # noqa: N815
        source="request_limit", min_value=0, allow_null=True, help_text="null: no limit."
    )
    remainingRequestCount = serializers.IntegerField(  # noqa: N815
        source="remaining", min_value=0, allow_null=True, help_text="null: no limit."
    )
    isPlanLimitReached = serializers.BooleanField(source="is_limit_reached")  # noqa: N815
    telemetryPaused = serializers.BooleanField(source="is_telemetry_paused")  # noqa: N815
    periodStart = UtcTimeField(source="window.start")  # noqa: N815
    periodEnd = UtcTimeField(source="window.last_second", help_text="Inclusive.")  # noqa: N815


class BudgetWindowSerializer(serializers.Serializer[Any]):
    """Spend of one window against its limit."""

    limitUsd = UsdField(source="limit_usd", allow_null=True, help_text="null: no limit.")  # noqa: N815
    currentSpendUsd = UsdField(source="spend_usd")  # noqa: N815
    utilizationRatio = UsdField(source="utilization_ratio", help_text="4 decimals; 0 without a limit.")  # noqa: N815
    isWarning = serializers.BooleanField(  # noqa: N815
        source="is_warning", help_text="At or above the threshold; stays true when exceeded."
    )
    isExceeded = serializers.BooleanField(source="is_exceeded", help_text="Above the limit.")  # noqa: N815
    period = serializers.ChoiceField(choices=["daily", "monthly"])
    periodStart = UtcTimeField(source="window.start")  # noqa: N815
    periodEnd = UtcTimeField(source="window.last_second", help_text="Inclusive.")  # noqa: N815


class BudgetStatusSerializer(serializers.Serializer[Any]):
    """The workspace's daily and monthly budget."""

    warningThresholdRatio = UsdField(source="warning_threshold_ratio")  # noqa: N815
    daily = BudgetWindowSerializer()
    monthly = BudgetWindowSerializer()


class WorkspaceStatusSerializer(serializers.Serializer[Any]):
    """Where a workspace stands now."""

    workspaceId = serializers.UUIDField(source="workspace_id")  # noqa: N815
    isPlanLimitReached = serializers.BooleanField(source="plan.is_limit_reached")  # noqa: N815
    telemetryPaused = serializers.BooleanField(source="plan.is_telemetry_paused")  # noqa: N815
    providerCallsContinue = serializers.BooleanField(  # noqa: N815
        source="provider_calls_continue", help_text="Always true: Opsmeter is never in the path of a provider call."
    )
    isBudgetWarning = serializers.BooleanField(source="is_budget_warning")  # noqa: N815
    isBudgetExceeded = serializers.BooleanField(source="is_budget_exceeded")  # noqa: N815
    severity = serializers.ChoiceField(choices=["normal", "warning", "critical"])
    plan = PlanStatusSerializer()
    budget = BudgetStatusSerializer(source="*")
