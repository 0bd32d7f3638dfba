"""Forms for prices and aliases. Rules live in `ingest.catalog`; the operators' forms only ask again where it warns."""

from typing import Any

from django import forms
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError

from ingest.catalog import unusual_unit_prices
from ingest.models import ModelAlias, ModelPrice
from ingest.models.prices import UNIT_PRICE_FIELDS
from ingest.price_names import canonical_provider, clean
from ingest.price_tables import UnitPrices

KEY_FIELDS = ("effective_from", "service_tier", "context_above", "window_start", "window_end")


class ModelPriceForm(forms.ModelForm):  # type: ignore[type-arg]
    """A new price. One far away from the catalogue's is stored only if the operator says that it is meant."""

    source_url = forms.URLField(
        label="Source", required=False, max_length=500, assume_scheme="https", help_text="The host's own price page."
    )
    is_meant = forms.BooleanField(
        label="I have checked it",
        required=False,
        help_text="Tick this when a warning above is about something that is meant so.",
    )

    class Meta:
        model = ModelPrice
        fields = ("workspace", "provider", "model", *KEY_FIELDS, *UNIT_PRICE_FIELDS, "is_withdrawn", "source_url")

    def clean_provider(self) -> str:
        """The host's name as the catalogue writes it."""
        return canonical_provider(self.cleaned_data["provider"])

    def clean_model(self) -> str:
        """The id as the catalogue writes it."""
        return clean(self.cleaned_data["model"])

    def unit_prices(self) -> UnitPrices:
        """The unit prices that were entered."""
        return UnitPrices(*(self.cleaned_data.get(name) for name in UNIT_PRICE_FIELDS))

    def clean(self) -> dict[str, Any]:
        """Ask again about what looks like a slip of a unit or a name."""
        super().clean()
        data = self.cleaned_data
        if self.errors or data["is_meant"] or data["is_withdrawn"]:
            return data
        warnings = unusual_unit_prices(
            provider=data["provider"],
            model=data["model"],
            service_tier=data["service_tier"],
            moment=data["effective_from"],
            unit_prices=self.unit_prices(),
        )
        for name, warning in warnings.items():
            self.add_error(name, warning)
        return data


class ModelAliasForm(forms.ModelForm):  # type: ignore[type-arg]
    """Another exact name of a model."""

    class Meta:
        model = ModelAlias
        fields = ("provider", "alias", "model")

    def clean(self) -> dict[str, Any]:
        """All names as the catalogue writes them."""
        super().clean()
        data = self.cleaned_data
        cleaners = {"provider": canonical_provider, "alias": clean, "model": clean}
        return data | {name: cleaner(data[name]) for name, cleaner in cleaners.items() if name in data}


def messages_of(error: ValidationError) -> str:
    """What a service refused, as one text for people."""
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    parts = [
        text if name == NON_FIELD_ERRORS else f"{name}: {text}"
        for name, texts in error.message_dict.items()
        for text in texts
    ]
    return " ".join(parts)
