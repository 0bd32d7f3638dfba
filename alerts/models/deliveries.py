"""Messages on their way out: a row first, sent later, every attempt kept."""

import uuid
from datetime import timedelta

from django.db import models
from django.db.models import Q

from opsmeter_site.lib.clock import utc_now
from workspaces.models import User, Workspace

from .alerts import Alert, Severity
from .reports import Report
from .settings import MailTopic


class ChannelKind(models.TextChoices):
    """Where messages go."""

    EMAIL = "email", "E-mail"
    SLACK = "slack", "Slack"
    TEAMS = "teams", "Microsoft Teams"
    PAGERDUTY = "pagerduty", "PagerDuty"
    WEBHOOK = "webhook", "Signed webhook"


class ChannelState(models.TextChoices):
    """Whether a channel takes messages."""

    ACTIVE = "active", "Active"
    PAUSED = "paused", "Paused"
    OFF = "off", "Switched off after a permanent failure"


class Channel(models.Model):
    """One way out of a workspace. What is secret about it is encrypted and never shown again."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="channels")
    kind = models.CharField(max_length=10, choices=ChannelKind)
    name = models.CharField(max_length=100)
    sealed = models.TextField(blank=True, editable=False, help_text="The configuration as JSON, encrypted.")
    hint = models.CharField(max_length=200, blank=True, help_text="What may be shown of where it goes.")
    minimum_severity = models.CharField(max_length=10, choices=Severity, default=Severity.INFO)
    takes_alerts = models.BooleanField(default=True)
    takes_summaries = models.BooleanField(default=False)
    state = models.CharField(max_length=10, choices=ChannelState, default=ChannelState.ACTIVE)
    failure = models.CharField(max_length=500, blank=True, help_text="Why it was switched off.")
    failed_at = models.DateTimeField(null=True, editable=False)
    last_sent_at = models.DateTimeField(null=True, editable=False)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(default=utc_now, editable=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["workspace", "name"], name="channel_name_unique"),
            # E-mail goes to the workspace's recipients, so there is one.
            models.UniqueConstraint(
                fields=["workspace"], condition=Q(kind=ChannelKind.EMAIL), name="channel_one_for_email"
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.get_kind_display()})"


class Action(models.TextChoices):
    """What a message says."""

    ALERT = "alert", "Alert"
    RESOLVE = "resolve", "Resolved"
    REPORT = "report", "Summary"
    TEST = "test", "Test"
    CHANNEL_OFF = "channel_off", "Channel switched off"


class DeliveryState(models.TextChoices):
    """How far a message has come."""

    WAITING = "waiting", "Waiting"
    SENDING = "sending", "Sending"
    SENT = "sent", "Sent"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


UNDER_WAY = (DeliveryState.WAITING, DeliveryState.SENDING)


class Delivery(models.Model):
    """One message to one channel, or by e-mail to one recipient. Its id is the receiver's idempotency key."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="deliveries")
    channel = models.ForeignKey(Channel, on_delete=models.SET_NULL, null=True, related_name="deliveries")
    channel_kind = models.CharField(max_length=10, choices=ChannelKind)
    recipient = models.EmailField(blank=True, help_text="For e-mail: who gets it.")
    action = models.CharField(max_length=12, choices=Action)
    alerts = models.ManyToManyField(Alert, related_name="deliveries")
    report = models.ForeignKey(Report, on_delete=models.CASCADE, null=True, related_name="deliveries")
    about = models.ForeignKey(
        Channel, on_delete=models.SET_NULL, null=True, related_name="+", help_text="The channel that was switched off."
    )
    requested_by = models.ForeignKey(
        User, on_delete=models.PROTECT, null=True, related_name="+", help_text="Who asked for this one by hand."
    )
    hold = models.CharField(max_length=15, blank=True, help_text="What it waits for: cooldown or quiet hours.")
    state = models.CharField(max_length=10, choices=DeliveryState, default=DeliveryState.WAITING)
    created_at = models.DateTimeField(default=utc_now, editable=False)
    next_attempt_at = models.DateTimeField(
        default=utc_now, help_text="Waiting: when it is tried. Sending: when it counts as lost and is tried again."
    )
    attempts_made = models.PositiveIntegerField(default=0)
    sent_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=500, blank=True)

    class Meta:
        verbose_name_plural = "deliveries"
        indexes = (
            models.Index(
                fields=["next_attempt_at"], condition=Q(state__in=["waiting", "sending"]), name="delivery_due"
            ),
            models.Index(fields=["workspace", "-created_at"], name="delivery_newest_first"),
        )

    def __str__(self) -> str:
        return f"{self.get_action_display()} · {self.get_channel_kind_display()} · {self.created_at:%Y-%m-%d %H:%M}"

    @property
    def topic(self) -> MailTopic:
        """What a recipient unsubscribes from to get no more messages like this one."""
        return MailTopic.SUMMARIES if self.action == Action.REPORT else MailTopic.ALERTS


LONGEST_ANSWER = 500


class AttemptOutcome(models.TextChoices):
    """How an attempt ended."""

    UNKNOWN = "unknown", "Under way, or cut off"
    SENT = "sent", "Accepted"
    RETRY = "retry", "Failed, to be tried again"
    REFUSED = "refused", "Refused for good"


class Attempt(models.Model):
    """One try at sending a message. Stored before it begins."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    duration_ms = models.PositiveIntegerField(null=True)
    outcome = models.CharField(max_length=10, choices=AttemptOutcome, default=AttemptOutcome.UNKNOWN)
    status_code = models.PositiveIntegerField(null=True, help_text="What the receiver answered, if it speaks HTTP.")
    answer = models.CharField(
        max_length=LONGEST_ANSWER, blank=True, help_text="The beginning of its answer, or the error."
    )

    class Meta:
        constraints = (models.UniqueConstraint(fields=["delivery", "number"], name="attempt_numbered"),)

    def __str__(self) -> str:
        return f"{self.number}: {self.get_outcome_display()}"

    def end(self, outcome: str, status_code: int | None, answer: str) -> None:
        """Store how it ended, just now."""
        self.duration_ms = max(0, (utc_now() - self.started_at) // timedelta(milliseconds=1))
        self.outcome, self.status_code, self.answer = outcome, status_code, answer[:LONGEST_ANSWER]
        self.save()
