"""What a workspace wants to be told, when, and who is told."""

from decimal import Decimal

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower

from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import Period
from workspaces.models import Role, User, Workspace

from .alerts import AlertKind

DEFAULT_COOLDOWN_SECONDS = 300


class Mode(models.TextChoices):
    """How people hear of an alert. It is in the inbox in any case."""

    IMMEDIATE = "immediate", "Immediately"
    DAILY = "daily", "In the daily summary"
    WEEKLY = "weekly", "In the weekly summary"
    INBOX = "inbox", "In the inbox only"


def default_recipient_roles() -> list[str]:
    """Who decides about money hears about it."""
    return [Role.OWNER.value, Role.ADMIN.value]


class AlertSettings(models.Model):
    """How a workspace's alerts are delivered; exists once somebody has changed something."""

    workspace = models.OneToOneField(
        Workspace, on_delete=models.CASCADE, primary_key=True, related_name="alert_settings"
    )
    modes = models.JSONField(default=dict, help_text="Alert kind → mode, where it is not the kind's usual one.")
    cooldown_seconds = models.PositiveIntegerField(
        default=DEFAULT_COOLDOWN_SECONDS, help_text="How long the same scope and metric stays quiet after a message."
    )
    quiet_from = models.TimeField(null=True, help_text="Local time from which non-urgent alerts wait; empty: never.")
    quiet_until = models.TimeField(null=True, help_text="Local time at which they are sent together.")
    recipient_roles = ArrayField(
        models.CharField(max_length=10, choices=Role),
        default=default_recipient_roles,
        help_text="Members with these roles get alerts and summaries by e-mail.",
    )
    spike_is_on = models.BooleanField(default=True)
    spike_factor = models.DecimalField(
        max_digits=6, decimal_places=2, default=Decimal(3), help_text="So many times the usual spend is a spike."
    )
    spike_minimum_usd = models.DecimalField(
        max_digits=20, decimal_places=12, default=Decimal(5), help_text="USD above the usual spend, at least."
    )
    updated_at = models.DateTimeField(default=utc_now, editable=False)

    class Meta:
        verbose_name_plural = "alert settings"
        constraints = (
            models.CheckConstraint(
                condition=Q(quiet_from=None, quiet_until=None)
                | Q(quiet_from__isnull=False, quiet_until__isnull=False) & ~Q(quiet_from=models.F("quiet_until")),
                name="alert_settings_quiet_hours_whole",
            ),
            models.CheckConstraint(condition=Q(spike_factor__gt=1), name="alert_settings_spike_is_more"),
        )

    def __str__(self) -> str:
        return f"Alert settings of {self.workspace}"


class Recipient(models.Model):
    """A named address outside the members. It gets mail once whoever reads it has confirmed that."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="recipients")
    email = models.EmailField("e-mail address")
    added_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=utc_now, editable=False)
    asked_at = models.DateTimeField(default=utc_now, editable=False, help_text="When it was last asked to confirm.")
    confirmed_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        constraints = (models.UniqueConstraint("workspace", Lower("email"), name="recipient_unique_address"),)

    def __str__(self) -> str:
        return self.email


class MailTopic(models.TextChoices):
    """What an address can unsubscribe from."""

    ALERTS = "alerts", "Alerts"
    SUMMARIES = "summaries", "Summaries"


class OptOutReason(models.TextChoices):
    """Why an address gets no mail."""

    UNSUBSCRIBED = "unsubscribed", "Unsubscribed"
    UNDELIVERABLE = "undeliverable", "The mail server refuses this address"


class MailOptOut(models.Model):
    """An address that gets no mail of one topic from one workspace."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="mail_opt_outs")
    email = models.EmailField("e-mail address", help_text="Lower case.")
    topic = models.CharField(max_length=10, choices=MailTopic)
    reason = models.CharField(max_length=20, choices=OptOutReason)
    created_at = models.DateTimeField(default=utc_now, editable=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["workspace", "email", "topic"], name="mail_opt_out_unique"),
            models.CheckConstraint(condition=Q(email=Lower("email")), name="mail_opt_out_lower_case"),
        )

    def __str__(self) -> str:
        return f"{self.email} · {self.get_topic_display()}"


class RuleKind(models.TextChoices):
    """What a rule watches."""

    UNIT_COST = AlertKind.UNIT_COST.value, "Unit cost over a threshold"
    SPENDER_OVER = AlertKind.SPENDER_OVER.value, "Any one tenant or user over an amount"


class RuleDimension(models.TextChoices):
    """What a rule looks at one by one."""

    ENDPOINT = "endpoint_tag", "Endpoint"
    MODEL = "model", "Model"
    TENANT = "tenant_id", "Tenant"
    USER = "user_id", "User"


class RulePeriod(models.TextChoices):
    """Over what a tenant's or user's spend counts."""

    DAY = Period.DAY.value, "UTC day"
    MONTH = Period.MONTH.value, "UTC month"


class Rule(models.Model):
    """Something that a workspace wants watched beside its limits.

    Unit cost: the mean USD a priced request over the last 60 minutes, of one endpoint or model, or of each.
    Spender: the USD of each tenant or user in the UTC day or month.
    """

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="alert_rules")
    kind = models.CharField(max_length=20, choices=RuleKind)
    dimension = models.CharField(max_length=20, choices=RuleDimension)
    value = models.CharField(max_length=200, blank=True, help_text="One endpoint or model; empty: each.")
    threshold_usd = models.DecimalField(max_digits=20, decimal_places=12, help_text="USD.")
    period = models.CharField(max_length=10, choices=RulePeriod, blank=True, help_text="For tenants and users.")
    minimum_requests = models.PositiveIntegerField(
        default=20, help_text="Unit cost: with fewer priced requests in the hour nothing is said."
    )
    is_enabled = models.BooleanField(default=True)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(default=utc_now, editable=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["workspace", "kind", "dimension", "value", "period"], name="alert_rule_unique"
            ),
            models.CheckConstraint(condition=Q(threshold_usd__gt=0), name="alert_rule_threshold_positive"),
        )

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.get_dimension_display()} {self.threshold_usd:f} USD"
