"""What limits a workspace: limits as data, meters as exact sums, crossings as rows."""

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models

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


class Limit(models.Model):
    """An amount that a meter is held against. Ingest never asks who set it; `source` does."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="limits")
    name = models.CharField(max_length=100, help_text="As refusals and alerts call it.")
    measure = models.CharField(max_length=10, choices=Measure)
    period = models.CharField(max_length=10, choices=PeriodChoice)
    amount = models.DecimalField(max_digits=24, decimal_places=12, help_text="USD, or a number of requests.")
    thresholds = ArrayField(
        models.DecimalField(max_digits=5, decimal_places=4),
        help_text="Shares of the amount, ascending, at most 1; the first is the warning, 1 means over the limit.",
    )
    enforce = models.BooleanField(help_text="Refuse telemetry above the limit (hard stop), or only say so.")
    source = models.CharField(max_length=20, help_text='The app that set it: "billing" or "budgets".')
    source_id = models.CharField(max_length=40, help_text="That app's own id of the rule.")
    updated_at = models.DateTimeField(default=utc_now)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["workspace", "source", "source_id"], name="limit_source_unique"),
            models.CheckConstraint(condition=models.Q(amount__gte=0), name="limit_amount_not_negative"),
        )

    def __str__(self) -> str:
        return f"{self.name}: {self.amount} {self.measure} a {self.period}"


class Meter(models.Model):
    """The exact sum of one measure over one period: one row a period, so nothing ever resets."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    measure = models.CharField(max_length=10, choices=Measure)
    period = models.CharField(max_length=10, choices=PeriodChoice)
    period_start = models.DateTimeField()
    value = models.DecimalField(max_digits=24, decimal_places=12)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["workspace", "period_start", "period", "measure"], name="meter_unique"),
        )

    def __str__(self) -> str:
        return f"{self.measure} {self.period} {self.period_start:%Y-%m-%d}: {self.value}"


class LimitCrossing(models.Model):
    """A threshold of a limit was crossed in a period. Written in the commit that crossed it; the row is the event."""

    limit = models.ForeignKey(Limit, on_delete=models.CASCADE, related_name="crossings")
    period_start = models.DateTimeField()
    threshold = models.DecimalField(max_digits=5, decimal_places=4)
    amount = models.DecimalField(max_digits=24, decimal_places=12, help_text="The limit's amount at that moment.")
    value = models.DecimalField(max_digits=24, decimal_places=12, help_text="The meter after the commit that crossed.")
    crossed_at = models.DateTimeField()
    claimed_at = models.DateTimeField(
        null=True, editable=False, help_text="When whoever tells people about it took it; null: nobody yet."
    )

    class Meta:
        indexes = (models.Index(fields=["id"], condition=models.Q(claimed_at=None), name="crossing_unclaimed"),)
        constraints = (
            # A changed amount is a new promise: its thresholds can be crossed again in the same period.
            models.UniqueConstraint(
                fields=["limit", "period_start", "threshold", "amount"], name="crossing_once_a_period"
            ),
        )

    def __str__(self) -> str:
        return f"{self.limit.name} at {self.threshold:.0%} ({self.period_start:%Y-%m-%d})"
