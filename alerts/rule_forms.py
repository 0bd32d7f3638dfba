"""The forms for rules. What is allowed is decided in `alerts.rule_services`."""

from decimal import Decimal
from typing import Any, ClassVar

from django import forms

from alerts.models import Rule, RuleDimension, RuleKind, RulePeriod
from alerts.rule_services import DIMENSIONS, FACTOR_DECIMALS, USD_DECIMALS, USUAL_MINIMUM_REQUESTS, RuleValues
from alerts.rules.spikes import SpikeRule
from opsmeter_site.lib.wire import plain_number

SUGGESTIONS_ID = "rule-values"


class NumberField(forms.DecimalField):
    """A number as people type it."""

    default_error_messages: ClassVar[dict[str, Any]] = {"invalid": "Enter a number, such as 5 or 0.02."}

    def __init__(self, **wanted: Any) -> None:
        # A number input would lose what it cannot read, and with it what was typed.
        widget = forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off", "size": 12})
        super().__init__(widget=widget, **wanted)

    def prepare_value(self, value: Any) -> Any:
        """Without the zeros that the database keeps; what somebody typed stays as it is."""
        return plain_number(value) if isinstance(value, Decimal) else value


class SpikesForm(forms.Form):
    """When spend is a spike."""

    is_on = forms.BooleanField(label="Watch for spend spikes", required=False)
    factor = NumberField(
        label="Times the usual",
        decimal_places=FACTOR_DECIMALS,
        help_text="Spend at least so many times the usual is a spike.",
    )
    minimum_usd = NumberField(
        label="And above it by at least (USD)",
        decimal_places=USD_DECIMALS,
        help_text="Keeps small amounts from being called spikes.",
    )

    @property
    def values(self) -> SpikeRule:
        """What a valid form asks for."""
        return SpikeRule(**self.cleaned_data)


def _dimension_field(kind: RuleKind, label: str) -> forms.ChoiceField:
    return forms.ChoiceField(
        label=label,
        choices=[(each.value, each.label) for each in DIMENSIONS[kind]],
        widget=forms.RadioSelect,
        initial=DIMENSIONS[kind][0].value,
    )


class RuleForm(forms.Form):
    """What the two kinds of rule have in common."""

    kind: ClassVar[RuleKind]
    is_enabled = forms.BooleanField(
        label="This rule is on", required=False, initial=True, help_text="Off, it is kept and says nothing."
    )

    @property
    def values(self) -> RuleValues:
        """What a valid form asks for."""
        return RuleValues(kind=self.kind.value, **self.cleaned_data)


class UnitCostForm(RuleForm):
    """A mean cost per request that endpoints or models must not exceed."""

    kind = RuleKind.UNIT_COST
    dimension = _dimension_field(kind, "Of what")
    value = forms.CharField(
        label="Which one",
        required=False,
        widget=forms.TextInput(attrs={"list": SUGGESTIONS_ID, "autocomplete": "off"}),
        help_text="Its name as it is sent. Empty: each one that has no rule of its own.",
    )
    threshold_usd = NumberField(
        label="Alert above (USD a request)",
        decimal_places=USD_DECIMALS,
        help_text="The mean of the priced requests of the last hour.",
    )
    minimum_requests = forms.IntegerField(
        label="With at least so many priced requests",
        initial=USUAL_MINIMUM_REQUESTS,
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off", "size": 8}),
        help_text="In the last hour. With fewer, a single costly request would raise an alert.",
    )
    field_order = ("dimension", "value", "threshold_usd", "minimum_requests", "is_enabled")


class SpenderForm(RuleForm):
    """An amount that no single tenant or user may exceed in a day or month."""

    kind = RuleKind.SPENDER_OVER
    dimension = _dimension_field(kind, "Who")
    threshold_usd = NumberField(
        label="Alert above (USD)",
        decimal_places=USD_DECIMALS,
        help_text="What any one of them costs. Requests that name nobody count for nobody.",
    )
    period = forms.ChoiceField(
        label="In one", choices=RulePeriod.choices, widget=forms.RadioSelect, initial=RulePeriod.DAY.value
    )
    field_order = ("dimension", "threshold_usd", "period", "is_enabled")


FORMS: dict[RuleKind, type[RuleForm]] = {RuleKind.UNIT_COST: UnitCostForm, RuleKind.SPENDER_OVER: SpenderForm}


def described(rule: Rule) -> str:
    """The rule as a sentence would call it: "any tenant over an amount in a UTC day"."""
    dimension = RuleDimension(rule.dimension).label.lower()
    if rule.kind == RuleKind.SPENDER_OVER:
        return f"any one {dimension} in a {rule.get_period_display()}"
    return f"a request of {dimension} {rule.value}" if rule.value else f"a request of each {dimension}"
