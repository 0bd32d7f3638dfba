"""Plans as data, which one each workspace is on, and what the provider calls them."""

from django.db import models
from django.db.models import Q

from opsmeter_site.lib.clock import utc_now
from workspaces.models import Workspace


class Plan(models.Model):
    """What a plan includes. Operators edit the facts; changes reach every workspace on the plan."""

    tier = models.SlugField(primary_key=True, max_length=20, help_text='The token in status answers, such as "pro".')
    name = models.CharField(max_length=50, unique=True)
    rank = models.PositiveSmallIntegerField(unique=True, help_text="Orders plans from the smallest to the largest.")
    monthly_requests = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="Telemetry requests per UTC calendar month; empty means no limit."
    )
    requests_per_minute = models.PositiveIntegerField(help_text="Ingest requests per minute and workspace.")
    raw_retention_days = models.PositiveIntegerField(help_text="Days that raw rows are kept.")
    rollup_retention_days = models.PositiveIntegerField(help_text="Days that quarter-hour sums are kept.")
    members = models.PositiveIntegerField(null=True, blank=True, help_text="People; empty means by contract.")
    has_summaries = models.BooleanField("daily and weekly summaries by e-mail")
    has_immediate_alerts = models.BooleanField("immediate budget alerts")
    has_integrations = models.BooleanField("Slack, Teams, PagerDuty, webhooks, unit-cost and spike rules")
    has_executive_report = models.BooleanField("weekly executive report")
    has_price_overrides = models.BooleanField("price overrides")

    class Meta:
        ordering = ("rank",)
        constraints = (
            models.CheckConstraint(condition=Q(requests_per_minute__gt=0), name="plan_rate_positive"),
            models.CheckConstraint(
                condition=Q(rollup_retention_days__gte=models.F("raw_retention_days")), name="plan_rollups_outlive_rows"
            ),
        )

    def __str__(self) -> str:
        return self.name


class WorkspacePlan(models.Model):
    """The plan of a workspace, with its own numbers where a contract says so."""

    workspace = models.OneToOneField(Workspace, on_delete=models.CASCADE, primary_key=True, related_name="plan")
    plan = models.ForeignKey(
        Plan, on_delete=models.PROTECT, related_name="workspaces", help_text="What applies; see `granted`."
    )
    granted = models.ForeignKey(
        Plan,
        on_delete=models.PROTECT,
        related_name="grants",
        help_text="What the workspace has without a subscription. A subscription can only add to it.",
    )
    monthly_requests_override = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="Replaces the plan's number for this workspace."
    )
    requests_per_minute_override = models.PositiveIntegerField(
        null=True, blank=True, help_text="Replaces the plan's number for this workspace."
    )
    raw_retention_days_override = models.PositiveIntegerField(null=True, blank=True)
    rollup_retention_days_override = models.PositiveIntegerField(null=True, blank=True)
    members_override = models.PositiveIntegerField(null=True, blank=True)
    # After a reduction nothing is deleted earlier than people were told: these five say what is kept meanwhile.
    kept_raw_days = models.PositiveIntegerField(null=True, editable=False)
    kept_rollup_days = models.PositiveIntegerField(null=True, editable=False)
    kept_until = models.DateTimeField(null=True, editable=False)
    announced_raw_days = models.PositiveIntegerField(null=True, editable=False)
    announced_rollup_days = models.PositiveIntegerField(null=True, editable=False)
    notice_mailed_at = models.DateTimeField(
        null=True, editable=False, help_text="When owners and admins were told by mail that less will be kept."
    )
    updated_at = models.DateTimeField(default=utc_now, editable=False)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(requests_per_minute_override__gt=0) | Q(requests_per_minute_override=None),
                name="workspace_plan_rate_positive",
            ),
            models.CheckConstraint(
                condition=Q(
                    kept_until=None,
                    kept_raw_days=None,
                    kept_rollup_days=None,
                    announced_raw_days=None,
                    announced_rollup_days=None,
                )
                | Q(
                    kept_until__isnull=False,
                    kept_raw_days__isnull=False,
                    kept_rollup_days__isnull=False,
                    announced_raw_days__isnull=False,
                    announced_rollup_days__isnull=False,
                ),
                name="workspace_plan_kept_whole",
            ),
        )

    def __str__(self) -> str:
        return f"{self.workspace} · {self.plan}"


class Interval(models.TextChoices):
    """How often a subscription renews."""

    MONTH = "month", "Monthly"
    YEAR = "year", "Yearly"


class PlanVariant(models.Model):
    """What the provider sells as a plan. Every variant that somebody is on must stay here, offered or not."""

    provider = models.CharField(max_length=20, default="lemonsqueezy")
    variant_id = models.CharField(
        "variant", max_length=64, help_text="The provider's id of it: digits, from its dashboard."
    )
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="variants")
    interval = models.CharField(max_length=5, choices=Interval, default=Interval.MONTH)
    is_offered = models.BooleanField("offered", default=True, help_text="Whether people can choose it now.")
    price_text = models.CharField(
        "price as shown",
        max_length=60,
        blank=True,
        help_text='Shown beside the plan, such as "$49 a month plus tax". What is charged is the provider\'s alone.',
    )

    class Meta:
        ordering = ("plan__rank", "interval")
        constraints = (
            models.UniqueConstraint(fields=["provider", "variant_id"], name="plan_variant_unique"),
            models.UniqueConstraint(
                fields=["provider", "plan", "interval"],
                condition=Q(is_offered=True),
                name="plan_variant_offered_once",
            ),
        )

    def __str__(self) -> str:
        return f"{self.plan} · {self.get_interval_display()} · {self.variant_id}"
