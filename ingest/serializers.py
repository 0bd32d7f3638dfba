"""The JSON of the ledger's own endpoints; only for their description, the answers are made from plain values."""

from typing import Any

from rest_framework import serializers


class PricedModelSerializer(serializers.Serializer[Any]):
    """One model's price in force. USD per million tokens; null where the provider has no such price."""

    provider = serializers.CharField()
    model = serializers.CharField()
    aliases = serializers.ListField(child=serializers.CharField(), help_text="Other exact names of the same model.")
    inputUsdPer1M = serializers.FloatField(allow_null=True, min_value=0)  # noqa: N815 (the names of the wire)
    outputUsdPer1M = serializers.FloatField(allow_null=True, min_value=0)  # noqa: N815
    cachedInputUsdPer1M = serializers.FloatField(allow_null=True, min_value=0)  # noqa: N815
    cacheWriteUsdPer1M = serializers.FloatField(allow_null=True, min_value=0)  # noqa: N815
    effectiveFrom = serializers.DateTimeField(  # noqa: N815
        allow_null=True, help_text="null: since ever, as far as is known."
    )
    checkedOn = serializers.DateField(help_text="The last day on which the source said so.")  # noqa: N815


class PricingModelsSerializer(serializers.Serializer[Any]):
    """The price list."""

    models = PricedModelSerializer(many=True)
    count = serializers.IntegerField(min_value=0)


class DeletedSerializer(serializers.Serializer[Any]):
    """What a clean-up did."""

    ok = serializers.BooleanField()
    deleted = serializers.IntegerField(min_value=0, help_text="Stored rows that are gone.")
