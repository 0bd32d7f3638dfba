"""What limits a workspace: limits as data, meters as exact sums, crossings as rows.

A scope is what a limit or meter counts: the whole workspace (empty kind and value), or the events with one value of one
dimension. A limit on *each value* of a dimension holds every value to the amount by itself, also values not seen yet.
"""

import uuid
from datetime import datetime
from decimal import Decimal

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models

from opsmeter_site.lib import formats
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import Period
from workspaces.models import Workspace


class Measure(models.TextChoices):
    """What a limit counts."""

    REQUESTS = "requests", "Requests"
    USD = "usd", "USD"


class PeriodChoice(models.TextChoices):
    """`opsmeter_site.lib.periods.Period` as model choices."""

    DAY = Period.DAY.value, "UTC day"
    MONTH = Period.MONTH.value, "UTC month"


class ScopeKind(models.TextChoices):
    """The dimensions that a limit can be set on: columns of `Event`. Empty, and no choice here: the whole workspace."""

    ENDPOINT_TAG = "endpoint_tag", "Endpoint"
    TENANT_ID = "tenant_id", "Tenant"
    USER_ID = "user_id", "User"
    MODEL = "model", "Model"
    PROVIDER = "provider", "Provider"
    PROMPT_VERSION = "prompt_version", "Prompt version"
    ENVIRONMENT = "environment", "Environment"
    API_KEY_ID = "api_key_id", "API key"


class UnpricedPolicy(models.TextChoices):
    """What a USD limit makes of events whose cost nobody knows."""

    IGNORE = "ignore", "Count them as nothing"
    ESTIMATE = "estimate", "Count them at an assumed price per token"
    BLOCK = "block", "Refuse them (hard stop only)"


class Limit(models.Model):
    """An amount that a meter is held against. Ingest never asks who set it; `source` does."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="limits")
    name = models.CharField(max_length=100, help_text="As refusals and alerts call it.")
    measure = models.CharField(max_length=10, choices=Measure)
    period = models.CharField(max_length=10, choices=PeriodChoice)
    scope_kind = models.CharField(max_length=20, choices=ScopeKind, blank=True, default="")
    scope_value = models.CharField(max_length=200, blank=True, default="", help_text="Empty for each value.")
    is_each_value = models.BooleanField(default=False)
    amount = models.DecimalField(max_digits=24, decimal_places=12, help_text="USD, or a number of requests.")
    raised_amount = models.DecimalField(
        max_digits=24, decimal_places=12, null=True, help_text="Holds instead of the amount before `raised_until`."
    )
    raised_until = models.DateTimeField(null=True)
    thresholds = ArrayField(
        models.DecimalField(max_digits=13, decimal_places=12),
        help_text="Shares of the amount, ascending, at most 1; the first is the warning, 1 means over the limit.",
    )
    thresholds_usd = ArrayField(
        models.DecimalField(max_digits=24, decimal_places=12),
        default=list,
        help_text="Further thresholds in USD; those that are not below the amount in force say nothing.",
    )
    unpriced = models.CharField(max_length=10, choices=UnpricedPolicy, default=UnpricedPolicy.IGNORE)
    estimate_usd_per_1m = models.DecimalField(
        max_digits=18, decimal_places=6, default=0, help_text="USD per 1M tokens of unpriced events; 0 ignores them."
    )
    enforce = models.BooleanField(help_text="Refuse telemetry above the limit (hard stop), or only say so.")
    source = models.CharField(max_length=20, help_text='The app that set it: "billing" or "budgets".')
    source_id = models.CharField(max_length=40, help_text="That app's own id of the rule.")
    updated_at = models.DateTimeField(default=utc_now)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["workspace", "source", "source_id"], name="limit_source_unique"),
            models.CheckConstraint(condition=models.Q(amount__gte=0), name="limit_amount_not_negative"),
            models.CheckConstraint(
                condition=models.Q(raised_amount=None, raised_until=None)
                | models.Q(raised_amount__isnull=False, raised_until__isnull=False),
                name="limit_raise_whole",
            ),
        )

    def __str__(self) -> str:
        return f"{self.name}: {self.amount} {self.measure} a {self.period}"

    def amount_at(self, now: datetime) -> Decimal:
        """The amount in force at `now` (aware): a raise ends by the clock."""
        if self.raised_amount is None or self.raised_until is None or now >= self.raised_until:
            return self.amount
        return self.raised_amount


class LimitAdjustment(models.Model):
    """USD that somebody has added to (or taken from) what one limit counts in one period, with the reason why.

    Meters stay the sums of their events: an adjustment is added whenever a meter is held against its limit.
    """

    limit = models.ForeignKey(Limit, on_delete=models.CASCADE, related_name="adjustments")
    period_start = models.DateTimeField()
    scope_value = models.CharField(max_length=200, blank=True, default="", help_text="Of a limit on each value.")
    usd = models.DecimalField(max_digits=24, decimal_places=12)
    reason = models.CharField(max_length=200)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(default=utc_now, editable=False)

    def __str__(self) -> str:
        return f"{self.usd:+f} USD: {self.reason}"


class MeteredScope(models.Model):
    """A scope besides the whole workspace whose meters are kept, because a limit is set on it.

    `value` is empty for each value. Events that occurred before `counts_from` may be missing in its meters, because
    they were no longer stored when counting began.
    """

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="metered_scopes")
    kind = models.CharField(max_length=20, choices=ScopeKind)
    value = models.CharField(max_length=200, blank=True)
    is_each_value = models.BooleanField()
    counts_from = models.DateTimeField(null=True, help_text="Empty: nothing is missing.")

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["workspace", "kind", "value", "is_each_value"], name="metered_scope_unique"
            ),
        )

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.value or '(each)'}"


class Meter(models.Model):
    """The exact sum of one measure of one scope over one period: one row a period, so nothing ever resets.

    The whole workspace is the scope with empty kind and value: whoever asks for it has to say so.
    """

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    measure = models.CharField(max_length=10, choices=Measure)
    period = models.CharField(max_length=10, choices=PeriodChoice)
    period_start = models.DateTimeField()
    scope_kind = models.CharField(max_length=20, choices=ScopeKind, blank=True, default="")
    scope_value = models.CharField(max_length=200, blank=True, default="")
    value = models.DecimalField(max_digits=24, decimal_places=12)
    unpriced_tokens = models.BigIntegerField(
        default=0, db_default=0, help_text="Input and output tokens of the counted events without a price (USD meters)."
    )

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["workspace", "period_start", "scope_kind", "scope_value", "period", "measure"],
                name="meter_unique",
            ),
        )

    def __str__(self) -> str:
        return f"{self.measure} {self.period} {self.period_start:%Y-%m-%d}: {self.value}"


class LimitCrossing(models.Model):
    """A threshold of a limit was crossed in a period. Written in the commit that crossed it; the row is the event."""

    limit = models.ForeignKey(Limit, on_delete=models.CASCADE, related_name="crossings")
    period_start = models.DateTimeField()
    scope_value = models.CharField(
        max_length=200, blank=True, default="", db_default="", help_text="Whose meter it was, of a limit on each value."
    )
    threshold = models.DecimalField(
        max_digits=13, decimal_places=12, help_text="As a share of `amount`; 1 means over the limit."
    )
    threshold_usd = models.DecimalField(
        max_digits=24, decimal_places=12, null=True, help_text="Of a threshold that is set in USD; null: a share."
    )
    amount = models.DecimalField(max_digits=24, decimal_places=12, help_text="The limit's amount at that moment.")
    value = models.DecimalField(max_digits=24, decimal_places=12, help_text="The meter after the commit that crossed.")
    crossed_at = models.DateTimeField()
    claimed_at = models.DateTimeField(
        null=True, editable=False, help_text="When whoever tells people about it took it; null: nobody yet."
    )

    class Meta:
        indexes = (models.Index(fields=["id"], condition=models.Q(claimed_at=None), name="crossing_unclaimed"),)
        constraints = (
            # A changed amount is a new promise: its shares can be crossed again in the same period. USD stay the same.
            models.UniqueConstraint(
                fields=["limit", "period_start", "scope_value", "threshold", "amount"],
                condition=models.Q(threshold_usd=None),
                name="crossing_once_a_period",
            ),
            models.UniqueConstraint(
                fields=["limit", "period_start", "scope_value", "threshold_usd"],
                condition=models.Q(threshold_usd__isnull=False),
                name="crossing_of_usd_once_a_period",
            ),
        )

    def __str__(self) -> str:
        return f"{self.limit.name} at {self.threshold_text} ({self.period_start:%Y-%m-%d})"

    @property
    def threshold_text(self) -> str:
        """The threshold as it was set: a share, or an amount."""
        return formats.share(self.threshold) if self.threshold_usd is None else formats.usd_exact(self.threshold_usd)
