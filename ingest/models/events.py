"""What happened: one row a call, sums per quarter hour, and what was refused.

These three tables grow with traffic. Their keys begin with the workspace, so that they can be distributed by it, and
their reference to it carries no database constraint: checking it for every row costs more than it gives, since rows are
only ever written under the lock of an existing `WorkspacePolicy`.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models

from workspaces.models import Workspace


class DataMode(models.TextChoices):
    """What kind of traffic a row is."""

    REAL = "real", "Real"
    TEST = "test", "Test"
    DEMO = "demo", "Demo"


class Environment(models.TextChoices):
    """Where the caller runs."""

    PROD = "prod", "Production"
    STAGING = "staging", "Staging"
    DEV = "dev", "Development"


class ServiceTier(models.TextChoices):
    """The provider's price tier of a call."""

    STANDARD = "standard", "Standard"
    BATCH = "batch", "Batch"
    FLEX = "flex", "Flex"
    PRIORITY = "priority", "Priority"


class Outcome(models.TextChoices):
    """How the provider call ended."""

    SUCCESS = "success", "Success"
    ERROR = "error", "Error"


class RefusalReason(models.TextChoices):
    """Why telemetry was refused although it was well formed."""

    PLAN_LIMIT_REACHED = "plan_limit_reached", "Plan limit reached"
    BUDGET_EXCEEDED = "budget_exceeded", "Budget exceeded (hard stop)"


UNKNOWN = "unknown"


class Event(models.Model):
    """One LLM call as its caller reported it, with the price at that time. Written by `ingest.store` only.

    Token buckets are disjoint: uncached input, cache read, cache write and output; reasoning is part of output.
    """

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    occurred_at = models.DateTimeField(help_text="When the call happened, as reported; its day and month count it.")
    received_at = models.DateTimeField()
    api_key_id = models.BigIntegerField(null=True, help_text="The workspaces.ApiKey that sent it.")
    price_id = models.BigIntegerField(null=True, help_text="The ModelPrice that priced it; null if unpriced.")
    fingerprint = models.BigIntegerField(
        help_text="Of the content, to tell a repeat from another call under the same id."
    )
    total_tokens = models.BigIntegerField(help_text="As reported; input + output if not reported.")
    uncached_input_tokens = models.IntegerField()
    cache_read_tokens = models.IntegerField()
    cache_write_tokens = models.IntegerField()
    output_tokens = models.IntegerField()
    reasoning_tokens = models.IntegerField(help_text="Part of the output tokens.")
    latency_ms = models.IntegerField(null=True)
    cost_usd = models.DecimalField(max_digits=20, decimal_places=12, null=True, help_text="USD; null means unpriced.")
    charged_cost_usd = models.DecimalField(
        max_digits=20, decimal_places=12, null=True, help_text="USD before the first re-pricing; see `repricing_id`."
    )
    charged_price_id = models.BigIntegerField(null=True, help_text="The ModelPrice before the first re-pricing.")
    repricing_id = models.BigIntegerField(null=True, help_text="The last Repricing that changed it; null: as charged.")
    reported_cost_usd = models.DecimalField(
        max_digits=20, decimal_places=12, null=True, help_text="USD, the provider's own figure; shown beside ours."
    )
    external_request_id = models.CharField(max_length=200)
    provider = models.CharField(max_length=100)
    model = models.CharField(max_length=200)
    endpoint_tag = models.CharField(max_length=200)
    prompt_version = models.CharField(max_length=200)
    environment = models.CharField(max_length=10, choices=Environment)
    data_mode = models.CharField(max_length=10, choices=DataMode)
    service_tier = models.CharField(max_length=10, choices=ServiceTier)
    status = models.CharField(max_length=10, choices=Outcome)
    error_code = models.CharField(max_length=200, null=True)
    user_id = models.CharField(max_length=200)
    tenant_id = models.CharField(max_length=200)
    feature_tag = models.CharField(max_length=200)
    metadata = models.JSONField(null=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["workspace", "external_request_id"], name="event_external_id_unique"),
        )
        indexes = (
            # Serves the newest-first list of one workspace and everything that reads a time range of raw rows.
            models.Index(fields=["workspace", "occurred_at"], name="event_by_time"),
        )

    def __str__(self) -> str:
        return self.external_request_id


class Tally(models.Model):
    """The sums that roll-ups and refusals share."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    bucket_start = models.DateTimeField(help_text="Start of the UTC quarter hour.")
    requests = models.BigIntegerField()
    uncached_input_tokens = models.BigIntegerField()
    cache_read_tokens = models.BigIntegerField()
    cache_write_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    cost_usd = models.DecimalField(max_digits=24, decimal_places=12)

    class Meta:
        abstract = True


class Rollup(Tally):
    """Sums of the events of one quarter hour that agree in every dimension."""

    dimensions_key = models.UUIDField(help_text="Digest of the dimensions: they are too long for an index together.")
    provider = models.CharField(max_length=100)
    model = models.CharField(max_length=200)
    endpoint_tag = models.CharField(max_length=200)
    prompt_version = models.CharField(max_length=200)
    environment = models.CharField(max_length=10, choices=Environment)
    data_mode = models.CharField(max_length=10, choices=DataMode)
    is_priced = models.BooleanField()
    errors = models.BigIntegerField()
    latency_ms_sum = models.BigIntegerField()
    latency_count = models.BigIntegerField(help_text="Events that reported a latency.")

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["workspace", "bucket_start", "dimensions_key"], name="rollup_unique"),
        )

    def __str__(self) -> str:
        return f"{self.bucket_start:%Y-%m-%d %H:%M} {self.provider}/{self.model} {self.endpoint_tag}"


class Refusal(Tally):
    """Sums of the well-formed events that a limit refused in one quarter hour; charts mark what is missing."""

    reason = models.CharField(max_length=20, choices=RefusalReason)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["workspace", "bucket_start", "reason"], name="refusal_unique"),)

    def __str__(self) -> str:
        return f"{self.bucket_start:%Y-%m-%d %H:%M} {self.reason}"


def default_counted_data_modes() -> list[str]:
    """Budgets count real traffic unless a workspace says otherwise."""
    return [DataMode.REAL.value]


class WorkspacePolicy(models.Model):
    """What ingest must know of a workspace that is not a counter. Set by `billing` and `budgets`.

    The row is also the workspace's ledger lock: whoever changes its events, roll-ups, meters or limits holds it.
    """

    workspace = models.OneToOneField(Workspace, on_delete=models.CASCADE, primary_key=True, related_name="policy")
    plan_tier = models.CharField(max_length=20)
    plan_name = models.CharField(max_length=50)
    requests_per_minute = models.PositiveIntegerField()
    raw_retention_days = models.PositiveIntegerField()
    rollup_retention_days = models.PositiveIntegerField()
    observe_mode = models.BooleanField(
        default=False, help_text="Kill switch: budgets are evaluated and shown, none is enforced."
    )
    counted_data_modes = ArrayField(
        models.CharField(max_length=10, choices=DataMode), default=default_counted_data_modes
    )
    has_price_overrides = models.BooleanField(
        default=False, help_text="The plan includes prices of the workspace's own."
    )
    leases_until = models.DateTimeField(
        null=True, editable=False, help_text="No lease of the workspace is live from then on."
    )
    rewrites = models.BigIntegerField(
        default=0,
        db_default=0,
        editable=False,
        help_text="Moves on when stored events are changed or deleted on request.",
    )
    limits_version = models.BigIntegerField(
        default=0, editable=False, help_text="Moves on with every change of the workspace's limits."
    )

    class Meta:
        verbose_name_plural = "workspace policies"
        constraints = (
            models.CheckConstraint(condition=models.Q(requests_per_minute__gt=0), name="policy_rate_positive"),
        )

    def __str__(self) -> str:
        return f"{self.workspace} · {self.plan_name}"
