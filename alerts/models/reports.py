"""Summaries: when they are due, and what they said."""

import uuid
from datetime import time

from django.db import models
from django.db.models import Q

from opsmeter_site.lib.clock import utc_now
from workspaces.models import User, Workspace


class ReportKind(models.TextChoices):
    """The kinds of summary."""

    DAILY = "daily", "Daily summary"
    WEEKLY = "weekly", "Weekly summary"
    EXECUTIVE = "executive", "Weekly executive report"


class Weekday(models.IntegerChoices):
    """As `datetime.date.weekday` counts."""

    MONDAY = 0, "Monday"
    TUESDAY = 1, "Tuesday"
    WEDNESDAY = 2, "Wednesday"
    THURSDAY = 3, "Thursday"
    FRIDAY = 4, "Friday"
    SATURDAY = 5, "Saturday"
    SUNDAY = 6, "Sunday"


class Schedule(models.Model):
    """When a workspace gets one kind of summary, by its own clocks.

    `next_day` is the cursor, a local day: the next report is sent on the first send day after it. `next_due_at` follows
    from it, the zone, the send time and the weekday; beat asks for that alone.
    """

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="report_schedules")
    kind = models.CharField(max_length=10, choices=ReportKind)
    is_enabled = models.BooleanField(default=True)
    skips_empty = models.BooleanField(default=False, help_text="Send nothing about a period without any request.")
    send_at = models.TimeField(default=time(9), help_text="Local wall time, to the minute.")
    weekday = models.PositiveSmallIntegerField(choices=Weekday, default=Weekday.MONDAY, help_text="Of weekly ones.")
    zone = models.CharField(max_length=64, help_text="The timezone that `next_due_at` was computed in.")
    next_day = models.DateField()
    next_due_at = models.DateTimeField()

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["workspace", "kind"], name="schedule_one_a_kind"),
            models.CheckConstraint(condition=Q(weekday__lte=6), name="schedule_weekday_known"),
        )
        indexes = (models.Index(fields=["next_due_at"], condition=Q(is_enabled=True), name="schedule_due"),)

    def __str__(self) -> str:
        return f"{self.get_kind_display()} of {self.workspace}"


class ReportState(models.TextChoices):
    """How far a report has come."""

    PENDING = "pending", "To be made"
    READY = "ready", "Made"
    SKIPPED = "skipped", "Skipped: nothing happened"
    FAILED = "failed", "Could not be made"


class Report(models.Model):
    """One summary of one period: made once, sent to whoever is to get it, kept to be read."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="reports")
    schedule = models.ForeignKey(
        Schedule, on_delete=models.CASCADE, null=True, related_name="reports", help_text="Empty: asked for by hand."
    )
    kind = models.CharField(max_length=10, choices=ReportKind)
    zone = models.CharField(max_length=64, help_text="The timezone whose days it covers.")
    first_day = models.DateField()
    last_day = models.DateField(help_text="Included.")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    due_at = models.DateTimeField(help_text="When it was to be sent.")
    requested_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    state = models.CharField(max_length=10, choices=ReportState, default=ReportState.PENDING)
    next_attempt_at = models.DateTimeField(
        default=utc_now, help_text="Pending: when it is made; moved on while somebody makes it."
    )
    attempts_made = models.PositiveIntegerField(default=0)
    last_error = models.CharField(max_length=500, blank=True)
    title = models.CharField(max_length=200, blank=True, help_text="The subject of its mails.")
    content = models.JSONField(null=True, help_text="The figures as they were; money as decimal text.")
    made_at = models.DateTimeField(null=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["schedule", "first_day"], name="report_once_a_period"),)
        indexes = (
            models.Index(fields=["next_attempt_at"], condition=Q(state="pending"), name="report_due"),
            models.Index(fields=["workspace", "-due_at"], name="report_newest_first"),
        )

    def __str__(self) -> str:
        return self.title or f"{self.get_kind_display()} {self.first_day}"
