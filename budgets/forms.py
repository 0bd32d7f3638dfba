"""The forms for a workspace's budgets: the operators' and the workspace's own."""

from decimal import Decimal
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError

from budgets.changes import version_of
from budgets.models import BudgetSettings, Enforcement
from budgets.scoped.checks import LIMIT_DECIMALS, MAX_LIMIT_USD
from budgets.selectors import BudgetValues, budget_values
from ingest.models import DataMode
from opsmeter_site.lib.formats import usd_exact
from opsmeter_site.lib.wire import plain_number

VALUE_FIELDS = tuple(BudgetValues.__dataclass_fields__)
_HUNDRED = Decimal(100)
_PERCENT_DECIMALS = 2


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


class PercentField(forms.DecimalField):
    """A share that people write in percent: "80" is 0.8."""

    default_error_messages: ClassVar[dict[str, Any]] = {
        "invalid": "Enter a number, such as 80.",
        "range": "Must be above 0 and at most 100.",
        "decimals": "At most %(decimals)s decimals.",
    }

    def prepare_value(self, value: Any) -> Any:
        """The percentage; what somebody typed stays as it is."""
        return plain_number(value * 100) if isinstance(value, Decimal) else value

    def clean(self, value: Any) -> Any:
        """The share."""
        percent = super().clean(value)
        if not 0 < percent <= _HUNDRED:
            raise ValidationError(self.error_messages["range"], code="range")
        if percent != round(percent, _PERCENT_DECIMALS):
            raise ValidationError(
                self.error_messages["decimals"], code="decimals", params={"decimals": _PERCENT_DECIMALS}
            )
        return percent / _HUNDRED


class LimitField(forms.DecimalField):
    """USD above 0; nothing, where that is allowed, for no limit."""

    default_error_messages: ClassVar[dict[str, Any]] = {
        "invalid": "Enter a number of USD, such as 50 or 12.50.",
        "range": f"Must be above 0 and at most {MAX_LIMIT_USD:,}.",
    }

    def __init__(self, *, required: bool = False, **wanted: Any) -> None:
        # A number input would lose what it cannot read, and with it what was typed.
        widget = forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off", "size": 12})
        super().__init__(required=required, decimal_places=LIMIT_DECIMALS, widget=widget, **wanted)

    def prepare_value(self, value: Any) -> Any:
        """Without the zeros that the database keeps; what somebody typed stays as it is."""
        return plain_number(value) if isinstance(value, Decimal) else value

    def validate(self, value: Any) -> None:
        """Refuses what the service would refuse, before anybody is asked a second question about it."""
        super().validate(value)
        if value is not None and not 0 < value <= MAX_LIMIT_USD:
            raise ValidationError(self.error_messages["range"], code="range")


class BudgetsForm(forms.Form):
    """A workspace's budgets on its settings page. `version` says which values the form was made from."""

    daily_limit_usd = LimitField(label="Daily limit (USD)", help_text="Per UTC day. Empty: no limit.")
    monthly_limit_usd = LimitField(label="Monthly limit (USD)", help_text="Per UTC month. Empty: no limit.")
    warning_threshold_ratio = PercentField(
        label="Warning threshold (%)",
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off", "size": 6}),
        help_text="Share of a limit at which <code>budgetWarning</code> is raised.",
    )
    enforcement = forms.ChoiceField(
        label="When a limit is exceeded",
        choices=Enforcement.choices,
        widget=forms.RadioSelect,
        help_text="Calls to your providers always continue; Opsmeter is never in their way. A hard stop answers "
        "telemetry with 402 until the day or month is over, and keeps only the sums of what it refuses.",
    )
    observe_mode = forms.BooleanField(
        label="Observe mode (kill switch)",
        required=False,
        help_text="Everything is counted and shown, and no budget refuses anything, whatever is set above.",
    )
    counted_data_modes = forms.MultipleChoiceField(
        label="Whose spend counts",
        choices=DataMode.choices,
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Choose at least one."},
        help_text="Data modes. A change counts the running day and month again. Requests without a known price count "
        "as $0.",
    )
    version = forms.CharField(widget=forms.HiddenInput, max_length=64)
    confirmed = forms.BooleanField(widget=forms.HiddenInput, required=False)

    @property
    def values(self) -> BudgetValues:
        """The values of a valid form."""
        values = {name: self.cleaned_data[name] for name in VALUE_FIELDS}
        return BudgetValues(**values | {"counted_data_modes": tuple(sorted(set(values["counted_data_modes"])))})


def filled_form(values: BudgetValues) -> BudgetsForm:
    """The form as it is shown first."""
    return BudgetsForm(
        initial={name: getattr(values, name) for name in VALUE_FIELDS} | {"version": version_of(values)},
    )


def form_data(values: BudgetValues, version: str) -> dict[str, str | list[str]]:
    """What the form posts to make `values` the budgets, if `version` still holds then."""
    form = filled_form(values)
    texts = {
        name: "" if value is None else str(form.fields[name].prepare_value(value))
        for name, value in form.initial.items()
        if name not in {"observe_mode", "counted_data_modes"}
    }
    switch = {"observe_mode": "on"} if values.observe_mode else {}
    return {**texts, **switch, "counted_data_modes": list(values.counted_data_modes), "version": version}


def described(values: BudgetValues) -> list[tuple[str, str]]:
    """Every value with the label that it has in the form, in words."""
    labels = {name: field.label for name, field in BudgetsForm.base_fields.items()}
    modes = dict(DataMode.choices)
    words = {
        "daily_limit_usd": _limit_in_words(values.daily_limit_usd),
        "monthly_limit_usd": _limit_in_words(values.monthly_limit_usd),
        "warning_threshold_ratio": f"{plain_number(values.warning_threshold_ratio * _HUNDRED)}",
        "enforcement": Enforcement(values.enforcement).label,
        "observe_mode": "On" if values.observe_mode else "Off",
        "counted_data_modes": ", ".join(str(modes[mode]) for mode in values.counted_data_modes),
    }
    return [(str(labels[name]), text) for name, text in words.items()]


def _limit_in_words(limit: Decimal | None) -> str:
    return "No limit" if limit is None else usd_exact(plain_number(limit))


class ConfirmationForm(BudgetsForm):
    """The same values out of sight, under a second question."""

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        for field in self.fields.values():
            field.widget = field.hidden_widget()
