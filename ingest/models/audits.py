"""How far back each layer of a workspace's ledger reaches, and what the last audit of it found."""

from datetime import datetime
from typing import Self
from uuid import UUID

from django.db import models

from opsmeter_site.lib.periods import QUARTER_HOUR, quarter_hour_of
from workspaces.models import Workspace


class LedgerCoverage(models.Model):
    """What retention has removed. Stored, because a longer retention later restores no purged row.

    Written under the ledger lock, before the first row goes.
    """

    workspace = models.OneToOneField(
        Workspace, on_delete=models.CASCADE, primary_key=True, related_name="ledger_coverage"
    )
    events_purged_before = models.DateTimeField(null=True, help_text="Raw rows received before this may be gone.")
    rollups_purged_before = models.DateTimeField(null=True, help_text="Quarter-hour sums before this may be gone.")
    purged_at = models.DateTimeField(null=True, help_text="When retention last finished here.")

    class Meta:
        verbose_name_plural = "ledger coverage"

    def __str__(self) -> str:
        return (
            f"{self.workspace}: raw rows since {self.events_purged_before}, roll-ups since {self.rollups_purged_before}"
        )

    @classmethod
    def of(cls, workspace_id: UUID) -> Self:
        """The workspace's coverage; without limits if retention has never run there."""
        return cls.objects.filter(workspace_id=workspace_id).first() or cls(workspace_id=workspace_id)

    @property
    def raw_from(self) -> datetime | None:
        """The first quarter hour whose raw rows are all there; None if nothing was ever purged."""
        return first_raw_bucket(self.events_purged_before) if self.events_purged_before else None

    @property
    def complete_from(self) -> datetime | None:
        """The first quarter hour of which rows and roll-ups are all there; None if nothing was ever purged."""
        return max((mark for mark in (self.raw_from, self.rollups_from) if mark), default=None)

    @property
    def rollups_from(self) -> datetime | None:
        """The first quarter hour whose roll-ups are all there; None if nothing was ever purged."""
        return self.rollups_purged_before


def first_raw_bucket(purged_before: datetime) -> datetime:
    """The first quarter hour of which no row can have been received before `purged_before`.

    Rows may have occurred five minutes after they were received, by the sender's clock: one quarter hour of margin.
    """
    return quarter_hour_of(purged_before) + 2 * QUARTER_HOUR


class LedgerAudit(models.Model):
    """The last audit of a workspace: raw rows against roll-ups, both against meters, live leases against holds."""

    workspace = models.OneToOneField(Workspace, on_delete=models.CASCADE, primary_key=True, related_name="ledger_audit")
    checked_at = models.DateTimeField()
    events = models.BigIntegerField(help_text="Raw rows that were compared.")
    is_exact = models.BooleanField(help_text="No difference of any kind.")
    drift_usd = models.DecimalField(
        max_digits=24, decimal_places=12, help_text="USD: the sizes of all differences in cost, added up."
    )
    drift_requests = models.BigIntegerField(help_text="The sizes of all differences in requests, added up.")
    details = models.JSONField(help_text="The report as `audit_ledger --json` prints it.")

    def __str__(self) -> str:
        return f"{self.workspace} at {self.checked_at:%Y-%m-%d %H:%M}: {'exact' if self.is_exact else 'DRIFT'}"
