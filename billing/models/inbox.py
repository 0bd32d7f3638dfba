"""What the provider has told us: every signed message, and what became of it."""

from django.db import models
from django.db.models import Q

from billing.models.subscriptions import Subscription
from opsmeter_site.lib.clock import utc_now


class EventSource(models.TextChoices):
    """How we came to know."""

    WEBHOOK = "webhook", "Webhook"
    RECONCILE = "reconcile", "Found by asking"


class EventState(models.TextChoices):
    """How far an event has come."""

    WAITING = "waiting", "Waiting"
    DONE = "done", "Done"
    PARKED = "parked", "Needs an operator"
    FAILED = "failed", "Failed for good"


class Outcome(models.TextChoices):
    """What an event led to."""

    APPLIED = "applied", "Applied"
    UNCHANGED = "unchanged", "Known already"
    STALE = "stale", "Older than what is known"
    IGNORED = "ignored", "Nothing to do for it"
    UNMATCHED = "unmatched", "No workspace is known for it"
    WRONG_MODE = "wrong_mode", "Test event on a live installation, or the reverse"
    WRONG_STORE = "wrong_store", "Another store's"
    UNKNOWN_VARIANT = "unknown_variant", "Variant without a plan"
    UNKNOWN_STATUS = "unknown_status", "Status that is not known"
    NOT_FOUND = "not_found", "The provider does not know it"
    UNREADABLE = "unreadable", "Not what the provider documents"
    ERROR = "error", "Something went wrong on our side"


class BillingEvent(models.Model):
    """One message of the provider, kept whatever it leads to. Repeats of it are counted, not stored."""

    source = models.CharField(max_length=10, choices=EventSource, default=EventSource.WEBHOOK)
    provider = models.CharField(max_length=20)
    dedupe_key = models.CharField(
        max_length=80, unique=True, help_text="The provider's id of the message, or the SHA-256 of its body."
    )
    name = models.CharField("event", max_length=100)
    resource_type = models.CharField(max_length=50, blank=True)
    resource_id = models.CharField(max_length=64, blank=True)
    provider_subscription_id = models.CharField("provider's subscription", max_length=64, blank=True)
    subscription = models.ForeignKey(Subscription, on_delete=models.SET_NULL, null=True, related_name="events")
    sealed_body = models.TextField(
        editable=False, help_text="As it came, encrypted: it holds links that open somebody's billing."
    )
    received_at = models.DateTimeField(default=utc_now, editable=False)
    repeats = models.PositiveIntegerField(default=0, help_text="How often the same message came again.")
    state = models.CharField(max_length=10, choices=EventState, default=EventState.WAITING)
    outcome = models.CharField(max_length=20, choices=Outcome, blank=True)
    error = models.CharField(max_length=500, blank=True)
    attempts_made = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(default=utc_now)
    processed_at = models.DateTimeField(null=True)

    class Meta:
        indexes = (
            models.Index(fields=["next_attempt_at"], condition=Q(state="waiting"), name="billing_event_due"),
            models.Index(fields=["-received_at"], name="billing_event_newest_first"),
            models.Index(fields=["state"], condition=Q(state__in=["parked", "failed"]), name="billing_event_trouble"),
        )

    def __str__(self) -> str:
        return f"{self.name} · {self.get_state_display()} · {self.received_at:%Y-%m-%d %H:%M:%S}"
