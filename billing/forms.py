"""Forms of the operators' console."""

from typing import Any

from django import forms
from timezone_field import TimeZoneFormField

from billing.models import Plan, PlanVariant, WorkspacePlan
from billing.plans import NUMBER_RANGES, check_numbers

_GRANTED = {"granted": "Granted plan"}


class _NumbersForm(forms.ModelForm):  # type: ignore[type-arg]
    """Reports numbers out of range beside their fields."""

    suffix = ""

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        for error in check_numbers({name: data.get(f"{name}{self.suffix}") for name in NUMBER_RANGES}):
            self.add_error(f"{error.field}{self.suffix}", error.message)
        return data


class PlanForm(_NumbersForm):
    """The facts of a plan."""

    class Meta:
        model = Plan
        fields = (
            "name",
            *NUMBER_RANGES,
            "has_summaries",
            "has_immediate_alerts",
            "has_integrations",
            "has_executive_report",
            "has_price_overrides",
        )

    def clean(self) -> dict[str, Any]:
        """Ranges, and sums kept at least as long as raw rows."""
        data = super().clean()
        raw, sums = data.get("raw_retention_days"), data.get("rollup_retention_days")
        if raw is not None and sums is not None and sums < raw:
            self.add_error("rollup_retention_days", "Sums are kept at least as long as raw rows.")
        return data


class WorkspacePlanForm(_NumbersForm):
    """What an operator gives a workspace: a plan, and numbers of its own."""

    suffix = "_override"

    class Meta:
        model = WorkspacePlan
        labels = _GRANTED
        fields = ("granted", *(f"{name}_override" for name in NUMBER_RANGES))


class OpenWorkspaceForm(_NumbersForm):
    """A new workspace with its owner and plan."""

    suffix = "_override"

    name = forms.CharField(max_length=100)
    owner_email = forms.EmailField(
        label="Owner's e-mail address", help_text="An existing person is reused; a new one gets a generated password."
    )
    timezone = TimeZoneFormField(initial="UTC")

    class Meta:
        model = WorkspacePlan
        labels = _GRANTED
        fields = ("granted", "monthly_requests_override", "requests_per_minute_override")


class VariantForm(forms.ModelForm):  # type: ignore[type-arg]
    """What the provider calls a plan."""

    class Meta:
        model = PlanVariant
        fields = ("variant_id", "plan", "interval", "is_offered", "price_text")

    def clean_variant_id(self) -> str:
        """A new one: adding a variant twice would change the first."""
        variant_id: str = self.cleaned_data["variant_id"]
        if PlanVariant.objects.filter(variant_id=variant_id).exists():
            raise forms.ValidationError("This variant is in the list already. Change it there.")
        return variant_id
