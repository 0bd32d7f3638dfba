"""Sums of raw rows over more than a quarter hour, for reports: exact, or marked as not to be used.

A span says which time is summed; the other tables hold its sums under its id. They are read by span, so their keys
begin with the workspace and the span, and nothing refers to anything by constraint: see `events`.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models

from workspaces.models import Workspace

from .events import DataMode, Environment


class SpanLevel(models.IntegerChoices):
    """How long a span is, by the workspace's clocks. Longer ones are summed from shorter ones."""

    HOUR = 0, "Hour"
    SIX_HOURS = 1, "Six hours"
    DAY = 2, "Day"
    WEEK = 3, "Week"


class SummarySpan(models.Model):
    """A time `[starts_at, ends_at)` that is summed, or is to be.

    Its sums may be used if it is built and not stale. Whoever changes raw rows marks it stale in the same transaction;
    the timezone that it was made for is not kept: it fits a range by its boundaries, or not at all.
    """

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    level = models.PositiveSmallIntegerField(choices=SpanLevel)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    is_stale = models.BooleanField(default=True, help_text="Raw rows have changed since; to be built (again).")
    built_at = models.DateTimeField(null=True, help_text="Null while it has no sums, or is being built.")

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["workspace", "level", "starts_at", "ends_at"], name="summary_span_unique"),
        )
        indexes = (
            # What is to be done; hardly ever more than a few rows.
            models.Index(
                fields=["workspace", "ends_at"],
                condition=models.Q(is_stale=True) | models.Q(built_at=None),
                name="summary_span_due",
            ),
        )

    def __str__(self) -> str:
        return f"{self.get_level_display()} from {self.starts_at:%Y-%m-%d %H:%M}"


class SummaryProgress(models.Model):
    """Up to where the spans of a workspace have been noted down, and for which timezone."""

    workspace = models.OneToOneField(
        Workspace, on_delete=models.CASCADE, primary_key=True, related_name="summary_progress"
    )
    scanned_until = models.DateTimeField(help_text="Events before this have their spans. An older event moves it back.")
    zone = models.CharField(max_length=64, help_text="The timezone whose days the spans follow.")
    looked_at = models.DateTimeField(help_text="When this workspace last had its turn.")

    class Meta:
        verbose_name_plural = "summary progress"

    def __str__(self) -> str:
        return f"{self.workspace}: until {self.scanned_until:%Y-%m-%d %H:%M}"


class Summary(models.Model):
    """The sums that all summaries share; `cost_usd` in USD counts the unpriced requests as nothing."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    span_id = models.BigIntegerField()
    requests = models.BigIntegerField()
    unpriced_requests = models.BigIntegerField()
    errors = models.BigIntegerField()
    uncached_input_tokens = models.BigIntegerField()
    cache_read_tokens = models.BigIntegerField()
    cache_write_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    latency_ms_sum = models.BigIntegerField()
    latency_count = models.BigIntegerField()
    cost_usd = models.DecimalField(max_digits=24, decimal_places=12)

    class Meta:
        abstract = True


class UsageSummary(Summary):
    """Sums of the events of a span that agree in every dimension and in their price."""

    price_id = models.BigIntegerField(help_text="The ModelPrice; 0 if unpriced.")
    cost_squares = models.DecimalField(max_digits=60, decimal_places=24, help_text="Squares of each request's USD.")
    token_squares = models.DecimalField(max_digits=60, decimal_places=0, help_text="Of its input and output tokens.")
    latency_squares = models.DecimalField(max_digits=60, decimal_places=0, help_text="Of its milliseconds.")
    provider = models.CharField(max_length=100)
    model = models.CharField(max_length=200)
    endpoint_tag = models.CharField(max_length=200)
    prompt_version = models.CharField(max_length=200)
    environment = models.CharField(max_length=10, choices=Environment)
    data_mode = models.CharField(max_length=10, choices=DataMode)

    class Meta:
        verbose_name_plural = "usage summaries"

    def __str__(self) -> str:
        return f"{self.provider}/{self.model} {self.endpoint_tag}"


class AttributionKind(models.TextChoices):
    """Whom events are attributed to: a column of the raw rows that roll-ups do not have."""

    USER = "user_id", "User"
    TENANT = "tenant_id", "Tenant"
    FEATURE = "feature_tag", "Feature"


class AttributionSummary(Summary):
    """Sums of the events of a span by user, tenant or feature."""

    kind = models.CharField(max_length=20, choices=AttributionKind)
    value = models.CharField(max_length=200)
    environment = models.CharField(max_length=10, choices=Environment)
    data_mode = models.CharField(max_length=10, choices=DataMode)

    class Meta:
        verbose_name_plural = "attribution summaries"
        constraints = (
            models.UniqueConstraint(
                fields=["workspace", "span_id", "kind", "value", "environment", "data_mode"],
                name="attribution_summary_unique",
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.value}"


class LatencySummary(models.Model):
    """How the latencies of a span are distributed: `counts` of requests in `bins`; see `ingest.percentiles`.

    Empty endpoint and prompt version: all of them together, so that a workspace's distribution is few rows.
    """

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    span_id = models.BigIntegerField()
    endpoint_tag = models.CharField(max_length=200, blank=True)
    prompt_version = models.CharField(max_length=200, blank=True)
    environment = models.CharField(max_length=10, choices=Environment)
    data_mode = models.CharField(max_length=10, choices=DataMode)
    bins = ArrayField(models.SmallIntegerField())
    counts = ArrayField(models.BigIntegerField())

    class Meta:
        verbose_name_plural = "latency summaries"
        constraints = (
            models.UniqueConstraint(
                fields=["workspace", "span_id", "endpoint_tag", "prompt_version", "environment", "data_mode"],
                name="latency_summary_unique",
            ),
        )

    def __str__(self) -> str:
        return f"{self.endpoint_tag or 'all endpoints'} {self.prompt_version}"
