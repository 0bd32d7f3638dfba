"""What tokens cost: dated prices that are only ever added to, other names of models, and the catalogue's version."""

from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models.functions import Lower

from opsmeter_site.lib.clock import utc_now
from workspaces.models import Workspace

from .events import ServiceTier

# The start of a price that has no known start: it holds for every moment before the next dated one.
SINCE_EVER = datetime(1970, 1, 1, tzinfo=UTC)
# Columns that hold unit prices, in the order in which they are compared, shown and summed.
UNIT_PRICE_FIELDS = (
    "input_usd_per_1m",
    "output_usd_per_1m",
    "cached_input_usd_per_1m",
    "cache_write_usd_per_1m",
    "request_usd_per_1k",
)
OPERATOR = "operator"


class PriceState(models.TextChoices):
    """Whether a price takes part in pricing."""

    ACTIVE = "active", "Active"
    PENDING = "pending", "Waiting for approval"
    REJECTED = "rejected", "Rejected"
    SUPERSEDED = "superseded", "Superseded before a decision"


def _unit_price(help_text: str) -> "models.DecimalField[Any, Any]":
    # 18 decimals: the smallest step in the source's data; 12 digits before the point is more than anything costs.
    return models.DecimalField(max_digits=30, decimal_places=18, null=True, blank=True, help_text=help_text)


class ModelPrice(models.Model):
    """One price row: what one model costs from a moment on, in one service tier, context band and time of day.

    Append-only. A correction is a new row with the next `revision` of the same key; the highest active revision holds.
    Rates are whole: above `context_above` input tokens (cached ones included) *all* tokens of the call pay this row.
    Written by `ingest.catalog` only, which also moves `CatalogVersion` on, so that every process notices.
    """

    workspace = models.ForeignKey(
        Workspace,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="price_overrides",
        help_text="Only for this workspace; empty: the catalogue, for everyone.",
    )
    provider = models.CharField(max_length=100, help_text="Who hosts the model; hosts never share prices. Lower case.")
    model = models.CharField(max_length=200, help_text="The model's own id, lower case.")
    effective_from = models.DateTimeField(help_text="UTC; 1970-01-01 means: since ever, as far as is known.")
    service_tier = models.CharField(max_length=10, choices=ServiceTier, default=ServiceTier.STANDARD)
    context_above = models.PositiveIntegerField(
        default=0, help_text="Holds for calls with more input tokens than this; 0 is the base price."
    )
    window_start = models.TimeField(
        null=True, blank=True, help_text="UTC time of day from which it holds; empty: all day."
    )
    window_end = models.TimeField(null=True, blank=True, help_text="UTC time of day before which it holds; may wrap.")
    input_usd_per_1m = _unit_price("USD per 1M uncached input tokens; empty: they cost nothing.")
    output_usd_per_1m = _unit_price("USD per 1M output tokens, reasoning included; empty: they cost nothing.")
    cached_input_usd_per_1m = _unit_price("USD per 1M tokens read from the cache; empty: the input price applies.")
    cache_write_usd_per_1m = _unit_price("USD per 1M tokens written to the cache; empty: the input price applies.")
    request_usd_per_1k = _unit_price("USD per 1,000 calls, on top of the tokens; empty: none.")
    is_withdrawn = models.BooleanField(
        default=False, help_text="From then on there is no price of its own here, and the more general one applies."
    )
    revision = models.PositiveIntegerField(default=1, help_text="The highest active revision of a key holds.")
    state = models.CharField(max_length=10, choices=PriceState, default=PriceState.ACTIVE)
    source = models.CharField(max_length=40, help_text='Where it is from: "genai-prices 0.2.3" or "operator".')
    source_url = models.URLField(max_length=500, blank=True, help_text="The host's own price page.")
    checked_on = models.DateField(help_text="The last day on which the source was found to say the same.")
    created_at = models.DateTimeField(default=utc_now, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, editable=False, help_text="When it was approved or rejected.")
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, editable=False, related_name="+"
    )

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=[
                    "provider",
                    "model",
                    "workspace",
                    "service_tier",
                    "effective_from",
                    "context_above",
                    "window_start",
                    "window_end",
                    "revision",
                ],
                name="price_revision_unique",
                nulls_distinct=False,
            ),
            *(
                models.CheckConstraint(condition=models.Q(**{f"{field}__gte": 0}), name=f"price_{field}_not_negative")
                for field in UNIT_PRICE_FIELDS
            ),
            models.CheckConstraint(
                condition=models.Q(is_withdrawn=True, **dict.fromkeys(UNIT_PRICE_FIELDS))
                | models.Q(is_withdrawn=False)
                & ~models.Q(input_usd_per_1m=None, output_usd_per_1m=None, request_usd_per_1k=None),
                name="price_has_a_price_or_is_withdrawn",
            ),
            models.CheckConstraint(
                condition=models.Q(provider=Lower("provider"), model=Lower("model")), name="price_names_lower_case"
            ),
            models.CheckConstraint(
                condition=models.Q(window_start=None, window_end=None)
                | models.Q(window_start__isnull=False, window_end__isnull=False)
                & ~models.Q(window_start=models.F("window_end")),
                name="price_window_whole",
            ),
            models.CheckConstraint(condition=models.Q(service_tier__in=ServiceTier.values), name="price_tier_known"),
            models.CheckConstraint(condition=models.Q(state__in=PriceState.values), name="price_state_known"),
        )
        indexes = (
            # Serves the operators' list of what waits for them.
            models.Index(fields=["created_at"], condition=models.Q(state="pending"), name="price_pending"),
        )

    def __str__(self) -> str:
        since = "" if self.effective_from == SINCE_EVER else f" from {self.effective_from:%Y-%m-%d}"
        above = f" above {self.context_above:,} tokens" if self.context_above else ""
        return f"{self.provider}/{self.model} {self.service_tier}{above}{since}"


class ModelAlias(models.Model):
    """Another exact name of a model on the same host. Never a pattern."""

    provider = models.CharField(max_length=100)
    alias = models.CharField(max_length=200, help_text="Lower case.")
    model = models.CharField(max_length=200, help_text="The id under which the prices are.")
    source = models.CharField(max_length=40)
    created_at = models.DateTimeField(default=utc_now, editable=False)

    class Meta:
        verbose_name_plural = "model aliases"
        constraints = (
            models.UniqueConstraint(fields=["provider", "alias"], name="model_alias_unique"),
            models.CheckConstraint(
                condition=models.Q(provider=Lower("provider"), alias=Lower("alias"), model=Lower("model")),
                name="model_alias_names_lower_case",
            ),
        )

    def __str__(self) -> str:
        return f"{self.provider}/{self.alias} → {self.model}"


class CatalogVersion(models.Model):
    """The one row that says which state of the catalogue is current; moved on in the transaction of every change.

    Its row lock also makes changes of the catalogue take turns. A count or a highest id would miss an approval.
    """

    THE_ROW = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=THE_ROW, editable=False)
    version = models.BigIntegerField(default=0)
    changed_at = models.DateTimeField(default=utc_now)
    imported_at = models.DateTimeField(
        null=True, help_text="The last import that succeeded, also if it found nothing new."
    )
    source = models.CharField(max_length=40, blank=True, help_text="What that import read.")

    class Meta:
        constraints = (models.CheckConstraint(condition=models.Q(id=1), name="catalog_version_one_row"),)

    def __str__(self) -> str:
        return f"version {self.version}"
