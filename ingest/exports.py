"""Exports that workers prepare: asking for one, working on it, and giving it up.

A job is a row and needs no message: beat's sweep finds it, does a piece of work, and leaves the rest to the next sweep.
Each piece is stored in the transaction that says how far the job is, so a worker may be killed at any time.
"""

import gzip
from collections.abc import Iterator
from datetime import datetime, timedelta
from time import monotonic
from zoneinfo import ZoneInfo

import structlog
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import F, QuerySet

from ingest.explorer import Filters
from ingest.export_files import Outline, Progress, release_connection, write_part
from ingest.export_rows import Wish, expected_rows, fixed
from ingest.models import ExportChunk, ExportJob, ExportState
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import NotAllowed, NotFound
from workspaces.access import WorkspaceAccess, role_includes
from workspaces.models import Role, User, Workspace
from workspaces.services import record_audit

logger = structlog.get_logger(__name__)

# Up to about so many rows a file is sent while it is read; a larger one becomes a job.
STREAMED_ROWS = 50_000
KEPT = timedelta(days=7)
MOST_UNFINISHED = 3
UNFINISHED = (ExportState.WAITING, ExportState.RUNNING)


# --- Reading --------------------------------------------------------------------------------------------------------


def jobs_for(access: WorkspaceAccess) -> "QuerySet[ExportJob]":
    """The workspace's jobs that the person may see, newest first: owners and admins all, others their own."""
    jobs = ExportJob.objects.filter(workspace=access.workspace).select_related("created_by").order_by("-created_at")
    return jobs if role_includes(access.role, Role.ADMIN) else jobs.filter(created_by=access.user)


def job_for(access: WorkspaceAccess, job_id: int) -> ExportJob:
    """One of these. Raises `NotFound`."""
    job = jobs_for(access).filter(pk=job_id).first()
    if job is None:
        raise NotFound("There is no such export.")
    return job


def outline_of(job: ExportJob, workspace: Workspace) -> Outline:
    """The file that a job is for."""
    filters = Filters(job.start, job.end, job.where, job.last_id)
    wish = Wish(workspace.pk, job.what, ZoneInfo(job.zone), filters)
    words = [(name, value) for name, value in job.words]
    return Outline(wish, job.format, workspace.slug, job.created_at, words)


def progress_of(job: ExportJob) -> Progress:
    """How far a job is."""
    is_done = job.state == ExportState.DONE
    return Progress(job.position, job.rows, bool(job.position) or is_done, is_done, job.is_truncated)


def pieces(job: ExportJob, *, is_packed: bool) -> Iterator[bytes]:
    """The file of a job that is done, as a gzip file or unpacked. Between two pieces no connection is held."""
    for number in range(job.chunks):
        data = bytes(ExportChunk.objects.get(job_id=job.pk, number=number).data)
        release_connection()
        yield data if is_packed else gzip.decompress(data)


# --- Asking ---------------------------------------------------------------------------------------------------------


@transaction.atomic
def request_export(workspace: Workspace, outline: Outline, *, acting_user: User) -> ExportJob:
    """Store the wish for a file; workers begin within seconds. Raises `NotAllowed` while too many are unfinished."""
    # The lock makes the count hold: of two requests at once the second one sees the first.
    Workspace.objects.select_for_update(no_key=True).get(pk=workspace.pk)
    if ExportJob.objects.filter(workspace=workspace, state__in=UNFINISHED).count() >= MOST_UNFINISHED:
        raise NotAllowed(f"{MOST_UNFINISHED} exports of this workspace are under way. Wait for one, or cancel it.")
    wish = fixed(outline.wish)
    job = ExportJob.objects.create(
        workspace=workspace,
        created_by=acting_user,
        created_at=outline.made_at,
        what=wish.what,
        format=outline.format,
        zone=wish.zone.key,
        start=wish.filters.start,
        end=wish.filters.end,
        where=dict(wish.filters.where),
        words=[list(pair) for pair in outline.words],
        last_id=wish.filters.last_id,
        expected_rows=expected_rows(wish),
    )
    _record("export.requested", job, acting_user)
    return job


@transaction.atomic
def note_download(workspace: Workspace, outline: Outline, *, acting_user: User) -> None:
    """Leave a trace of a file that is sent at once: who took which data out."""
    record_audit(
        "export.downloaded",
        acting_user=acting_user,
        workspace=workspace,
        target=outline.name(),
        data={"filters": dict(outline.words)},
    )


@transaction.atomic
def cancel_export(job: ExportJob, *, acting_user: User) -> None:
    """Stop a job and drop what it has. Raises `NotAllowed` if it is finished."""
    stored = _locked(job)
    if not stored.is_unfinished:
        raise NotAllowed("This export is finished already.")
    _reset(stored, ExportState.CANCELLED)
    _record("export.cancelled", stored, acting_user)


@transaction.atomic
def retry_export(job: ExportJob, *, acting_user: User) -> None:
    """Begin a failed or cancelled job anew, for the same rows. Asking twice changes nothing."""
    stored = _locked(job)
    if stored.state not in (ExportState.FAILED, ExportState.CANCELLED):
        return
    _reset(stored, ExportState.WAITING)
    _record("export.requested", stored, acting_user)


@transaction.atomic
def delete_export(job: ExportJob, *, acting_user: User) -> None:
    """Drop a job and its file."""
    stored = _locked(job)
    _record("export.deleted", stored, acting_user)
    stored.delete()


def _locked(job: ExportJob) -> ExportJob:
    stored = ExportJob.objects.select_for_update().filter(pk=job.pk).first()
    if stored is None:
        raise NotFound("There is no such export any more.")
    return stored


def _reset(job: ExportJob, state: ExportState) -> None:
    ExportChunk.objects.filter(job=job).delete()
    job.state, job.position, job.error = state, "", ""
    job.rows = job.chunks = job.stored_bytes = 0
    job.is_truncated, job.worked_at, job.finished_at = False, None, None
    job.save()


def _record(action: str, job: ExportJob, acting_user: User) -> None:
    record_audit(
        action,
        acting_user=acting_user,
        workspace=job.workspace,
        target=job,
        data={"filters": dict(job.words), "rows": job.rows},
    )


# --- Working --------------------------------------------------------------------------------------------------------


def work_on_exports(seconds: float) -> None:
    """Write pieces of unfinished jobs for about so long, at least one: of the job that has waited longest first."""
    until = monotonic() + seconds
    while _write_piece() and monotonic() < until:
        pass


def _write_piece() -> bool:
    """Write the next piece of one job; False if there is nothing to do that nobody else does."""
    with transaction.atomic():
        waiting = ExportJob.objects.filter(state__in=UNFINISHED).select_related("workspace")
        job = (
            waiting.select_for_update(skip_locked=True, of=("self",))
            .order_by(F("worked_at").asc(nulls_first=True), "pk")
            .first()
        )
        if job is None:
            return False
        job.worked_at = utc_now()
        try:
            with transaction.atomic():
                _advance(job)
        except (OperationalError, InterfaceError):
            raise  # the database is away: the next sweep goes on
        except Exception:  # whatever it is, it must not keep the other jobs from being worked on
            logger.exception("export_failed", job=job.pk)
            _reset(job, ExportState.FAILED)
            job.error = "Something went wrong while it was written. The people who run the service can see why."
            job.finished_at = utc_now()
        job.save()
    return True


def _advance(job: ExportJob) -> None:
    piece, progress = write_part(outline_of(job, job.workspace), progress_of(job))
    if piece:
        data = gzip.compress(piece, compresslevel=6, mtime=0)
        ExportChunk.objects.create(job=job, number=job.chunks, data=data)
        job.chunks += 1
        job.stored_bytes += len(data)
    job.position, job.rows, job.is_truncated = progress.position, progress.rows, progress.is_truncated
    job.state = ExportState.DONE if progress.is_done else ExportState.RUNNING
    job.finished_at = utc_now() if progress.is_done else None


def delete_old_exports(now: datetime) -> int:
    """Drop jobs and files that were asked for longer ago than they are kept; answers how many."""
    _, dropped = ExportJob.objects.filter(created_at__lt=now - KEPT).delete()
    return dropped.get("ingest.ExportJob", 0)
