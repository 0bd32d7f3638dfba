"""Deleting test and demo rows at somebody's wish, where it takes longer than a page may."""

from django.conf import settings
from django.db import models

from opsmeter_site.lib.clock import utc_now
from workspaces.models import Workspace

from .events import DataMode


class RowDeletion(models.Model):
    """One wish to delete the rows of a data mode, and what came of it."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="row_deletions")
    data_mode = models.CharField(max_length=10, choices=DataMode)
    only_own = models.BooleanField(help_text="Only rows that were sent with the person's own API keys.")
    asked_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="row_deletions")
    asked_at = models.DateTimeField(default=utc_now, editable=False)
    worked_at = models.DateTimeField(null=True, editable=False, help_text="When somebody last began to work on it.")
    finished_at = models.DateTimeField(null=True, editable=False)
    deleted = models.BigIntegerField(null=True, editable=False, help_text="Rows, once it is finished.")

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=models.Q(data_mode__in=[DataMode.DEMO, DataMode.TEST]), name="deletion_never_of_real_rows"
            ),
        )
        indexes = (
            models.Index(fields=["workspace", "-asked_at"], name="deletion_newest_first"),
            models.Index(fields=["worked_at"], condition=models.Q(finished_at=None), name="deletion_unfinished"),
        )

    def __str__(self) -> str:
        return f"{self.data_mode} rows, asked for {self.asked_at:%Y-%m-%d %H:%M}"
