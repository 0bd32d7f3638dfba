"""Pieces of serializers that take JSON at its word: nothing is converted, and nothing unknown is passed over."""

from typing import Any, cast

from rest_framework import serializers


class StrictSerializer(serializers.Serializer[Any]):
    """An object; what it has beside the fields is refused: a misspelt name must not be lost in silence."""

    def to_internal_value(self, data: Any) -> Any:
        """Refuses unknown names, together with whatever else is wrong."""
        known = ", ".join(self.fields) or "none"
        errors: dict[str, Any] = {name: [f"Unknown field. Known: {known}."] for name in data if name not in self.fields}
        values = None
        try:
            values = super().to_internal_value(data)
        except serializers.ValidationError as error:
            errors.update(cast("dict[str, Any]", error.detail))
        if errors:
            raise serializers.ValidationError(errors)
        return values


class StrictChoiceField(serializers.ChoiceField):
    """One of the names, as text; the framework's own field would take numbers that print alike."""

    def to_internal_value(self, data: Any) -> Any:
        """The name."""
        if not isinstance(data, str) or data not in self.choices:
            names = ", ".join(str(name) for name in self.choices)
            raise serializers.ValidationError(f"Must be one of: {names}.")
        return data
