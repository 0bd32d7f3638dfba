"""Exports: what a file would hold, sending it at once, and the files that workers prepare."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from ingest import exports as jobs
from ingest.export_files import CONTENT_TYPES, MOST_ROWS, Outline, stream
from ingest.export_forms import ExportForm
from ingest.export_rows import COLUMNS, expected_rows, utc_text
from ingest.models import ExportFormat, ExportJob, ExportState, ExportWhat
from ingest.page_filters import SUGGESTED
from ingest.views.requests import detail_of, form_facts
from opsmeter_site.lib.errors import NotAllowed, NotFound
from opsmeter_site.lib.formats import count
from opsmeter_site.lib.toasts import toast_with_undo
from workspaces.access import WorkspaceAccess
from workspaces.models import Workspace
from workspaces.pages import workspace_page

_MOST_LISTED = 50
_GZIP = "application/gzip"


# --- A new one ------------------------------------------------------------------------------------------------------


@workspace_page()
@require_http_methods(["GET", "POST"])
def exports(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """The form, what it would give, and the files of the last days; a POST lets workers prepare one."""
    form = _form(request, access.workspace)
    is_valid = form.is_valid()
    if request.method == "POST" and is_valid:
        return _request(request, access, form)
    context: dict[str, Any] = {"form": form, "suggested": SUGGESTED}
    context |= _plan(access.workspace, form) if is_valid else {}
    if request.htmx:  # type: ignore[attr-defined]
        answer = render(request, "ingest/_exports_new.html", context)
        answer["HX-Push-Url"] = f"?{form.query()}"
        return answer
    is_refused = request.method == "POST"
    return render(request, "ingest/exports.html", context | _listed(access), status=422 if is_refused else 200)


def _form(request: HttpRequest, workspace: Workspace) -> ExportForm:
    asked = request.POST if request.method == "POST" else request.GET
    known = {name: str(value) for name, value in asked.items() if name != "csrfmiddlewaretoken"}
    return ExportForm(known, **form_facts(workspace))


def _request(request: HttpRequest, access: WorkspaceAccess, form: ExportForm) -> HttpResponse:
    try:
        job = jobs.request_export(access.workspace, form.outline(access.workspace), acting_user=access.user)
    except NotAllowed as refusal:
        messages.error(request, refusal.message)
        return redirect(_here(access.workspace, form))
    text = "The export is being prepared. It is listed below, and stays there for 7 days."
    toast_with_undo(request, text, url=_of(job, "export-cancel", access.workspace), values={})
    return redirect(_here(access.workspace))


def _plan(workspace: Workspace, form: ExportForm) -> dict[str, Any]:
    """What the file would hold, and whether it is sent at once."""
    outline = form.outline(workspace)
    wish = outline.wish
    start = wish.filters.start
    rows = expected_rows(wish)
    detail = detail_of(workspace.policy) if wish.what == ExportWhat.REQUESTS else None
    begins_before = detail is not None and detail.has_older_sums and (start is None or start < detail.starts_at)
    return {
        "outline": outline,
        "rows": rows,
        "is_streamed": rows <= jobs.STREAMED_ROWS,
        "is_too_long": rows > MOST_ROWS,
        "most_rows": MOST_ROWS,
        "what": ExportWhat(wish.what).label,
        "start": start,
        "end": wish.filters.end,
        "columns": COLUMNS[wish.what],
        "asked": form.asked(),
        "query": form.query(),
        "detail": detail if begins_before else None,
        "is_about": bool(wish.filters.where),
    }


@workspace_page()
@require_GET
def exports_stream(request: HttpRequest, access: WorkspaceAccess) -> HttpResponseBase:
    """The file itself, sent while it is read; one that would be too large goes back to the page that prepares it."""
    form = _form(request, access.workspace)
    if not form.is_valid():
        return redirect(_here(access.workspace, form))
    outline = form.outline(access.workspace)
    if expected_rows(outline.wish) > jobs.STREAMED_ROWS:
        messages.warning(request, "This export is too large to be sent at once. Let it be prepared instead.")
        return redirect(_here(access.workspace, form))
    jobs.note_download(access.workspace, outline, acting_user=access.user)
    return _file(outline, outline.name(), CONTENT_TYPES[ExportFormat(outline.format)], stream(outline), {})


def _file(
    outline: Outline, name: str, content_type: str, pieces: Iterable[bytes], facts: Mapping[str, str]
) -> StreamingHttpResponse:
    filters, zone = outline.wish.filters, outline.wish.zone
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
        "X-Opsmeter-From": utc_text(filters.start) if filters.start else "beginning",
        "X-Opsmeter-Until": utc_text(filters.end or outline.made_at),
        "X-Opsmeter-Timezone": zone.key,
        "X-Opsmeter-Filters": ", ".join(filters.where) or "none",
        **facts,
    }
    return StreamingHttpResponse(pieces, content_type=content_type, headers=headers)


# --- Prepared ones --------------------------------------------------------------------------------------------------


def _listed(access: WorkspaceAccess) -> dict[str, Any]:
    found = list(jobs.jobs_for(access)[:_MOST_LISTED])
    return {
        "jobs": [{"job": job, "outline": jobs.outline_of(job, access.workspace)} for job in found],
        "is_moving": any(job.is_unfinished for job in found),
        "kept_days": jobs.KEPT.days,
    }


@workspace_page()
@require_GET
def exports_jobs(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """The list of prepared files by itself, to be looked at again while one is under way."""
    return render(request, "ingest/_exports_jobs.html", _listed(access))


@workspace_page()
@require_GET
def export_download(request: HttpRequest, access: WorkspaceAccess, job_id: int) -> HttpResponseBase:
    """A prepared file: packed, or with `plain` as it is."""
    job = jobs.job_for(access, job_id)
    if job.state != ExportState.DONE:
        raise NotFound("This export has no file.")
    outline = jobs.outline_of(job, access.workspace)
    name = outline.name(is_truncated=job.is_truncated)
    facts = {"X-Opsmeter-Rows": str(job.rows), "X-Opsmeter-Truncated": "yes" if job.is_truncated else "no"}
    if "plain" in request.GET:
        content_type = CONTENT_TYPES[ExportFormat(job.format)]
        return _file(outline, name, content_type, jobs.pieces(job, is_packed=False), facts)
    # With its length, whoever reads it notices if the end is missing.
    facts["Content-Length"] = str(job.stored_bytes)
    return _file(outline, f"{name}.gz", _GZIP, jobs.pieces(job, is_packed=True), facts)


@workspace_page()
@require_GET
def export_about(request: HttpRequest, access: WorkspaceAccess, job_id: int) -> JsonResponse:
    """What a prepared file covers, as JSON: range, filters, rows, and whether rows were left out."""
    job = jobs.job_for(access, job_id)
    outline = jobs.outline_of(job, access.workspace)
    name = f"{outline.name(is_truncated=job.is_truncated)}-about.json"
    return JsonResponse(
        outline.about(jobs.progress_of(job)),
        json_dumps_params={"indent": 2, "ensure_ascii": False},
        headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"},
    )


@workspace_page()
@require_POST
def export_cancel(request: HttpRequest, access: WorkspaceAccess, job_id: int) -> HttpResponse:
    """Stop preparing a file."""
    job = jobs.job_for(access, job_id)
    try:
        jobs.cancel_export(job, acting_user=access.user)
    except NotAllowed as refusal:
        messages.info(request, refusal.message)
    else:
        retry = _of(job, "export-retry", access.workspace)
        toast_with_undo(request, "The export is cancelled.", url=retry, values={})
    return redirect(_here(access.workspace))


@workspace_page()
@require_POST
def export_retry(request: HttpRequest, access: WorkspaceAccess, job_id: int) -> HttpResponse:
    """Begin a failed or cancelled export anew."""
    jobs.retry_export(jobs.job_for(access, job_id), acting_user=access.user)
    messages.success(request, "The export is being prepared again, for the same rows.")
    return redirect(_here(access.workspace))


@workspace_page()
@require_http_methods(["GET", "POST"])
def export_delete(request: HttpRequest, access: WorkspaceAccess, job_id: int) -> HttpResponse:
    """Ask, then drop a file."""
    job = jobs.job_for(access, job_id)
    if request.method == "POST":
        jobs.delete_export(job, acting_user=access.user)
        messages.success(request, "The export is deleted.")
        return redirect(_here(access.workspace))
    context = {
        "title": "Delete this export?",
        "consequences": [
            f"{job}: {count(job.rows)} rows. Its file can no longer be downloaded.",
            "The requests and sums themselves stay as they are.",
        ],
        "confirm_label": "Delete the export",
        "cancel_url": _here(access.workspace),
    }
    return render(request, "console/confirm.html", context)


def _here(workspace: Workspace, form: ExportForm | None = None) -> str:
    url = reverse("exports", kwargs={"slug": workspace.slug})
    return f"{url}?{form.query()}" if form else url


def _of(job: ExportJob, name: str, workspace: Workspace) -> str:
    return reverse(name, kwargs={"slug": workspace.slug, "job_id": job.pk})
