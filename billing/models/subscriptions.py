"""What the provider says of a workspace's subscriptions, and what people have asked for."""

import uuid
from datetime import datetime

from django.db import models
from django.db.models import Q

from billing.models.plans import Interval, Plan
from opsmeter_site.lib.clock import utc_now
from workspaces.models import User, Workspace


class Status(models.TextChoices):
    """The provider's states of a subscription."""

    ON_TRIAL = "on_trial", "On trial"
    ACTIVE = "active", "Active"
    PAUSED = "paused", "Paused"
    PAST_DUE = "past_due", "Payment past due"
    UNPAID = "unpaid", "Unpaid"
    CANCELLED = "cancelled", "Cancelled"
    EXPIRED = "expired", "Expired"


class Subscription(models.Model):
    """One subscription as the provider described it last: `billing.subscriptions` alone writes what it said."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    provider = models.CharField(max_length=20)
    provider_subscription_id = models.CharField("provider's id", max_length=64)
    provider_customer_id = models.CharField("provider's customer", max_length=64, blank=True)
    workspace = models.ForeignKey(
        Workspace,
        on_delete=models.SET_NULL,
        null=True,
        related_name="subscriptions",
        help_text="Empty: nobody knows yet whom it is for.",
    )
    variant_id = models.CharField("variant", max_length=64, blank=True)
    plan = models.ForeignKey(
        Plan,
        on_delete=models.PROTECT,
        null=True,
        related_name="subscriptions",
        help_text="Of the last variant that was known.",
    )
    interval = models.CharField(max_length=5, choices=Interval, blank=True)
    status = models.CharField(max_length=20, choices=Status, blank=True, help_text="Empty: not heard of yet.")
    pause_mode = models.CharField(max_length=10, blank=True, help_text='Of a paused one: "free" keeps the plan.')
    renews_at = models.DateTimeField(null=True, help_text="Past due: the next attempt at the payment.")
    ends_at = models.DateTimeField(null=True)
    trial_ends_at = models.DateTimeField(null=True)
    card_brand = models.CharField(max_length=30, blank=True)
    card_last_four = models.CharField(max_length=4, blank=True)
    is_test = models.BooleanField("test mode", default=False)
    started_at = models.DateTimeField(null=True, help_text="When the provider made it.")
    provider_updated_at = models.DateTimeField(null=True, help_text="The provider's own time of its last change.")
    checked_at = models.DateTimeField(null=True, help_text="When the provider was asked last and answered.")
    heard_at = models.DateTimeField(null=True, help_text="When the last event of it came.")
    next_check_at = models.DateTimeField(null=True, default=utc_now, help_text="When to ask; empty: it is final.")
    lapsed_at = models.DateTimeField(null=True, help_text="When its end passed by our clock and its plan was taken.")
    created_at = models.DateTimeField(default=utc_now, editable=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["provider", "provider_subscription_id"], name="subscription_unique"),
        )
        indexes = (
            models.Index(fields=["next_check_at"], condition=Q(next_check_at__isnull=False), name="subscription_due"),
            models.Index(fields=["ends_at"], condition=Q(status="cancelled"), name="subscription_ending"),
            models.Index(fields=["provider", "provider_customer_id"], name="subscription_customer"),
        )

    def __str__(self) -> str:
        return f"{self.plan or 'Unknown plan'} · {self.get_status_display()} · {self.provider_subscription_id}"

    def gives_access(self, now: datetime) -> bool:
        """Whether its plan applies at `now`: paid for, being tried, in dunning, or cancelled and not over yet."""
        if self.plan_id is None:
            return False
        match self.status:
            case Status.ON_TRIAL | Status.ACTIVE | Status.PAST_DUE:
                return True
            case Status.PAUSED:
                return self.pause_mode == "free"
            case Status.CANCELLED:
                return self.ends_at is None or now < self.ends_at
        return False

    @property
    def is_live(self) -> bool:
        """Whether it exists at the provider as one that can still be changed or paid; only an expired one cannot."""
        return self.status not in ("", Status.EXPIRED)


class Invoice(models.Model):
    """A payment as the provider described it last. Amounts are the provider's own words: nothing here is computed."""

    provider = models.CharField(max_length=20)
    provider_invoice_id = models.CharField("provider's id", max_length=64)
    subscription = models.ForeignKey(Subscription, on_delete=models.CASCADE, related_name="invoices")
    reason = models.CharField(max_length=20, blank=True, help_text="Initial, renewal or updated.")
    status = models.CharField(max_length=20, blank=True, help_text="Pending, paid, void, refunded, …")
    is_refunded = models.BooleanField(default=False)
    total_text = models.CharField("total", max_length=60, blank=True)
    refunded_text = models.CharField("refunded", max_length=60, blank=True)
    currency = models.CharField(max_length=3, blank=True)
    card_brand = models.CharField(max_length=30, blank=True)
    card_last_four = models.CharField(max_length=4, blank=True)
    invoiced_at = models.DateTimeField()
    provider_updated_at = models.DateTimeField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["provider", "provider_invoice_id"], name="invoice_unique"),)
        indexes = (models.Index(fields=["subscription", "-invoiced_at"], name="invoice_newest_first"),)

    def __str__(self) -> str:
        return f"{self.invoiced_at:%Y-%m-%d} · {self.total_text} · {self.status}"


class Checkout(models.Model):
    """Somebody was sent to the provider to subscribe. Its id travels there and back: only it binds what was bought."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="checkouts")
    requested_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    provider = models.CharField(max_length=20)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="+")
    interval = models.CharField(max_length=5, choices=Interval)
    variant_id = models.CharField("variant", max_length=64)
    buyer_email = models.EmailField(help_text="Filled in at the provider; the buyer may change it there.")
    created_at = models.DateTimeField(default=utc_now, editable=False)
    returned_at = models.DateTimeField(null=True, help_text="When the buyer came back, which proves nothing.")
    subscription = models.ForeignKey(
        Subscription, on_delete=models.SET_NULL, null=True, related_name="checkouts", help_text="What came of it."
    )

    class Meta:
        indexes = (models.Index(fields=["workspace", "-created_at"], name="checkout_newest_first"),)

    def __str__(self) -> str:
        return f"{self.plan} · {self.get_interval_display()} · {self.created_at:%Y-%m-%d %H:%M}"


class ChangeKind(models.TextChoices):
    """What can be asked for."""

    CHANGE_PLAN = "change_plan", "Change of plan"
    CANCEL = "cancel", "Cancellation"
    RESUME = "resume", "Resumption"


class ChangeState(models.TextChoices):
    """How far a request has come."""

    PENDING = "pending", "Waiting for the provider's word"
    CONFIRMED = "confirmed", "Confirmed by the provider"
    REFUSED = "refused", "Refused by the provider"
    LAPSED = "lapsed", "Never confirmed"


class ChangeRequest(models.Model):
    """What somebody asked the provider to change, until its word comes. Stored before the provider is called."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    subscription = models.ForeignKey(Subscription, on_delete=models.CASCADE, related_name="changes")
    kind = models.CharField(max_length=12, choices=ChangeKind)
    plan = models.ForeignKey(
        Plan, on_delete=models.PROTECT, null=True, related_name="+", help_text="Of a change of plan: the wanted one."
    )
    interval = models.CharField(max_length=5, choices=Interval, blank=True)
    variant_id = models.CharField("variant", max_length=64, blank=True)
    requested_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    requested_at = models.DateTimeField(default=utc_now, editable=False)
    state = models.CharField(max_length=10, choices=ChangeState, default=ChangeState.PENDING)
    is_unsure = models.BooleanField(default=False, help_text="The provider did not answer: it may or may not act.")
    resolved_at = models.DateTimeField(null=True)
    note = models.CharField(max_length=300, blank=True, help_text="Why it was refused, in words for people.")

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["subscription"], condition=Q(state="pending"), name="change_one_pending"),
        )
        indexes = (models.Index(fields=["subscription", "-requested_at"], name="change_newest_first"),)

    def __str__(self) -> str:
        return f"{self.get_kind_display()} · {self.get_state_display()} · {self.requested_at:%Y-%m-%d %H:%M}"
