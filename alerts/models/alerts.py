"""The inbox: what has happened that somebody should know."""

import uuid

from django.db import models
from django.db.models import Q

from opsmeter_site.lib.clock import utc_now
from workspaces.models import User, Workspace


class AlertKind(models.TextChoices):
    """What an alert is about."""

    BUDGET_WARNING = "budget_warning", "Budget warning"
    BUDGET_EXCEEDED = "budget_exceeded", "Budget exceeded"
    PLAN_LIMIT_NEAR = "plan_limit_near", "Plan limit near"
    PLAN_LIMIT_REACHED = "plan_limit_reached", "Plan limit reached"
    UNIT_COST = "unit_cost", "Unit cost over threshold"
    SPEND_SPIKE = "spend_spike", "Spend spike"
    SPENDER_OVER = "spender_over", "Tenant or user over an amount"
    UNPRICED_MODEL = "unpriced_model", "Unpriced model"
    PRICE_FEED_STALE = "price_feed_stale", "Price feed stale"
    RECOVERY = "recovery", "Recovery"


class Severity(models.TextChoices):
    """How bad it is; `rank` orders them."""

    INFO = "info", "Info"
    WARNING = "warning", "Warning"
    CRITICAL = "critical", "Critical"

    @property
    def rank(self) -> int:
        """0 for the least."""
        return list(type(self)).index(self)


class AlertState(models.TextChoices):
    """What people have done about it."""

    OPEN = "open", "Open"
    ACKNOWLEDGED = "acknowledged", "Acknowledged"
    RESOLVED = "resolved", "Resolved"


class Handling(models.TextChoices):
    """What became of telling people, decided when the alert arose."""

    SENT = "sent", "Sent at once"
    COOLDOWN = "cooldown", "Held by the cooldown"
    QUIET_HOURS = "quiet_hours", "Held by quiet hours"
    SUMMARY = "summary", "Told in the summary"
    INBOX = "inbox", "In the inbox only"
    PLAN = "plan", "The plan tells it in the summary or inbox only"
    NOBODY = "nobody", "No channel and no recipient takes it"


class Alert(models.Model):
    """One thing to know. Repeats of the same scope, metric and window are counted, not added."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="alerts")
    kind = models.CharField(max_length=20, choices=AlertKind)
    severity = models.CharField(max_length=10, choices=Severity)
    is_urgent = models.BooleanField(default=False, help_text="Telemetry is refused: passes quiet hours.")
    scope = models.CharField(max_length=300, help_text='What it is about: "limit:<id>", "endpoint_tag:checkout".')
    metric = models.CharField(max_length=40, help_text='What was measured: "usd.day", "usd_per_request".')
    dedup_key = models.CharField(max_length=400, help_text="Scope, metric and window.")
    title = models.CharField(max_length=300)
    text = models.TextField(help_text="Plain sentences, with metric, unit and window.")
    facts = models.JSONField(default=dict, help_text="Figures behind the text; money as decimal text.")
    window_start = models.DateTimeField()
    window_end = models.DateTimeField()
    opened_at = models.DateTimeField(default=utc_now, help_text="When it happened.")
    created_at = models.DateTimeField(default=utc_now, editable=False, help_text="When it was in the inbox.")
    occurrences = models.PositiveIntegerField(default=1, help_text="How often it was found, repeats included.")
    last_occurred_at = models.DateTimeField(default=utc_now)
    state = models.CharField(max_length=15, choices=AlertState, default=AlertState.OPEN)
    acknowledged_at = models.DateTimeField(null=True, editable=False)
    acknowledged_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, editable=False, related_name="+")
    resolved_at = models.DateTimeField(null=True, editable=False)
    resolved_by = models.ForeignKey(
        User, on_delete=models.PROTECT, null=True, editable=False, related_name="+", help_text="Empty: by itself."
    )
    resolution = models.CharField(max_length=200, blank=True, help_text="Why, if it resolved by itself.")
    recovers = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, related_name="recoveries", help_text="What a recovery ends."
    )
    handling = models.CharField(max_length=15, choices=Handling)
    held_until = models.DateTimeField(null=True, help_text="When a held message is sent.")

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["workspace", "dedup_key", "kind"],
                condition=~Q(state=AlertState.RESOLVED),
                name="alert_once_until_resolved",
            ),
        )
        indexes = (
            # Serves the inbox, newest first, and the alerts in a summary's window.
            models.Index(fields=["workspace", "-opened_at"], name="alert_newest_first"),
            # What may resolve by itself; and the number of open ones.
            models.Index(
                fields=["workspace", "kind"], condition=~Q(state=AlertState.RESOLVED), name="alert_unresolved"
            ),
            # Serves the cooldown.
            models.Index(fields=["workspace", "scope", "metric", "-created_at"], name="alert_by_scope"),
            # Serves the look for repeats.
            models.Index(fields=["workspace", "dedup_key"], name="alert_by_dedup_key"),
        )

    def __str__(self) -> str:
        return self.title


class AlertNote(models.Model):
    """What somebody wrote beside an alert."""

    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="notes")
    author = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    text = models.TextField(max_length=2_000)
    created_at = models.DateTimeField(default=utc_now, editable=False)

    def __str__(self) -> str:
        return self.text[:60]
