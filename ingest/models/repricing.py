"""Pricing stored events again after a price was added or corrected: what is asked, what it changes, how far it is."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models

from opsmeter_site.lib.clock import utc_now
from workspaces.models import Workspace


class RepricingState(models.TextChoices):
    """Where a re-pricing stands. A worker goes on with PREVIEWING and RUNNING; PREVIEWED waits for a person."""

    PREVIEWING = "previewing", "Working out what would change"
    PREVIEWED = "previewed", "Waiting for your confirmation"
    RUNNING = "running", "Re-pricing"
    DONE = "done", "Done"
    CANCELLED = "cancelled", "Cancelled"
    FAILED = "failed", "Failed"


class Repricing(models.Model):
    """One job over the workspace's events of `[start, end)` of chosen models, at one version of the catalogue.

    `cursor` is the id of the last event that the present pass (preview or run) has looked at, `last_id` that of the
    newest event when the job was asked for, or confirmed: later ones are priced as they arrive.
    """

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="repricings")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=utc_now, editable=False)
    reason = models.CharField(max_length=200)
    provider = models.CharField(max_length=100, blank=True, help_text="As sent; empty: all.")
    models_sent = ArrayField(models.CharField(max_length=200), default=list, help_text="As sent; empty: all.")
    start = models.DateTimeField()
    end = models.DateTimeField()
    only_unpriced = models.BooleanField(default=False)
    state = models.CharField(max_length=10, choices=RepricingState, default=RepricingState.PREVIEWING)
    catalogue_version = models.BigIntegerField(help_text="The prices that the preview was made with.")
    cursor = models.BigIntegerField(default=0)
    last_id = models.BigIntegerField()
    expected_rows = models.BigIntegerField(default=0, help_text="About how many events each pass has to look at.")
    looked_at_rows = models.BigIntegerField(default=0)
    changed_rows = models.BigIntegerField(default=0)
    limits_affected = models.JSONField(
        default=list, help_text="What the preview found about limits of running periods."
    )
    worked_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["workspace"],
                condition=models.Q(state__in=["previewing", "previewed", "running"]),
                name="repricing_one_unfinished",
            ),
        )

    def __str__(self) -> str:
        return f"Re-pricing {self.pk}"


class RepricingDay(models.Model):
    """What a re-pricing changes on a UTC day: as previewed, or as done so far. USD count unpriced events as nothing."""

    repricing = models.ForeignKey(Repricing, on_delete=models.CASCADE, related_name="days")
    day = models.DateTimeField()
    is_preview = models.BooleanField()
    rows = models.BigIntegerField(default=0, help_text="Events whose cost changes.")
    newly_priced = models.BigIntegerField(default=0, help_text="Of these, events that had no price.")
    before_usd = models.DecimalField(max_digits=24, decimal_places=12, default=0)
    after_usd = models.DecimalField(max_digits=24, decimal_places=12, default=0)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["repricing", "is_preview", "day"], name="repricing_day_unique"),)

    def __str__(self) -> str:
        return f"{self.day:%Y-%m-%d}: {self.before_usd:.4f} to {self.after_usd:.4f} USD"
