"""The operators' form for a workspace's budgets."""

from typing import Any

from django import forms

from budgets.models import BudgetSettings
from budgets.selectors import BudgetValues, budget_values
from budgets.services import LIMIT_DECIMALS, MAX_LIMIT_USD
from ingest.models import DataMode

VALUE_FIELDS = tuple(BudgetValues.__dataclass_fields__)


class BudgetSettingsForm(forms.ModelForm):  # type: ignore[type-arg]
    """All that can be set about a workspace's budgets, on one page."""

    daily_limit_usd = forms.DecimalField(
        label="Daily limit (USD)",
        required=False,
        min_value=0,
        max_value=MAX_LIMIT_USD,
        decimal_places=LIMIT_DECIMALS,
        help_text="Per UTC day. Empty: no limit.",
    )
    monthly_limit_usd = forms.DecimalField(
        label="Monthly limit (USD)",
        required=False,
        min_value=0,
        max_value=MAX_LIMIT_USD,
        decimal_places=LIMIT_DECIMALS,
        help_text="Per UTC month. Empty: no limit.",
    )
    observe_mode = forms.BooleanField(
        required=False, help_text="Kill switch: budgets are evaluated and shown, none is enforced."
    )
    counted_data_modes = forms.MultipleChoiceField(
        choices=DataMode.choices,
        widget=forms.CheckboxSelectMultiple,
        initial=[DataMode.REAL.value],
        help_text="Whose spend counts. A change counts the current periods again.",
    )

    class Meta:
        model = BudgetSettings
        fields = ("workspace", "warning_threshold_ratio", "enforcement")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is not None:
            values = budget_values(self.instance.pk)
            self.initial.update({name: getattr(values, name) for name in VALUE_FIELDS})
            self.initial["counted_data_modes"] = list(values.counted_data_modes)
