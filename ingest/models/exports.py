"""Files that are too large to be sent while they are read: what was asked for, how far it is, and its pieces."""

from django.conf import settings
from django.db import models

from opsmeter_site.lib.clock import utc_now
from workspaces.models import Workspace


class ExportWhat(models.TextChoices):
    """What the rows of an export are."""

    REQUESTS = "requests", "Requests"
    QUARTER_HOURS = "quarter_hours", "Sums by quarter hour"
    DAYS = "days", "Sums by day"


class ExportFormat(models.TextChoices):
    """How rows are written."""

    CSV = "csv", "CSV"
    JSONL = "jsonl", "JSON Lines"


class ExportState(models.TextChoices):
    """Where a job stands."""

    WAITING = "waiting", "Waiting"
    RUNNING = "running", "Under way"
    DONE = "done", "Ready"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


class ExportJob(models.Model):
    """One export that workers prepare, a chunk at a time; each chunk is stored together with how far the job is.

    What it covers is fixed when it is asked for: the range, the zone, and the last row that belongs to it.
    """

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="exports")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="exports")
    created_at = models.DateTimeField(default=utc_now, editable=False)
    what = models.CharField(max_length=20, choices=ExportWhat)
    format = models.CharField(max_length=10, choices=ExportFormat)
    zone = models.CharField(max_length=64, help_text="IANA name of the zone of its local times.")
    start = models.DateTimeField(null=True, help_text="UTC; empty: from the beginning.")
    end = models.DateTimeField(null=True, help_text="UTC, not included; empty: to the end.")
    where = models.JSONField(default=dict, help_text="Column and wanted value, as text.")
    words = models.JSONField(default=list, help_text="The filters as people read them: pairs of name and value.")
    last_id = models.BigIntegerField(null=True, help_text="The last row that was stored when it was asked for.")
    state = models.CharField(max_length=10, choices=ExportState, default=ExportState.WAITING)
    expected_rows = models.BigIntegerField(help_text="An estimate, for the progress.")
    rows = models.BigIntegerField(default=0)
    chunks = models.PositiveIntegerField(default=0)
    stored_bytes = models.BigIntegerField(default=0, help_text="Of all chunks, as stored.")
    position = models.CharField(max_length=100, blank=True, help_text="Where reading goes on.")
    is_truncated = models.BooleanField(default=False, help_text="There were more rows than an export may have.")
    worked_at = models.DateTimeField(null=True, editable=False, help_text="When the last chunk was begun.")
    finished_at = models.DateTimeField(null=True, editable=False)
    error = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = (
            models.CheckConstraint(condition=models.Q(what__in=ExportWhat.values), name="export_what_known"),
            models.CheckConstraint(condition=models.Q(format__in=ExportFormat.values), name="export_format_known"),
            models.CheckConstraint(condition=models.Q(state__in=ExportState.values), name="export_state_known"),
        )
        indexes = (
            models.Index(fields=["workspace", "-created_at"], name="export_newest_first"),
            # Serves the workers' look for something to do.
            models.Index(
                fields=["worked_at"], condition=models.Q(state__in=["waiting", "running"]), name="export_unfinished"
            ),
        )

    def __str__(self) -> str:
        return f"{self.get_what_display()} as {self.get_format_display()}, {self.created_at:%Y-%m-%d %H:%M}"

    @property
    def is_unfinished(self) -> bool:
        """Whether workers still have something to do for it."""
        return self.state in (ExportState.WAITING, ExportState.RUNNING)


class ExportChunk(models.Model):
    """A piece of an export's file: a gzip member of its own, so that all pieces in order are a gzip file."""

    job = models.ForeignKey(ExportJob, on_delete=models.CASCADE, related_name="pieces", db_index=False)
    number = models.PositiveIntegerField()
    data = models.BinaryField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["job", "number"], name="export_chunk_unique"),)

    def __str__(self) -> str:
        return f"{self.job_id}/{self.number}"
