"""Pages about pricing stored requests again: the jobs, a new one, what it would change, and how far it is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.safestring import SafeString
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from ingest import repricing as engine
from ingest.models import Repricing, RepricingState
from ingest.price_selectors import newest_book
from ingest.repricing_forms import RepricingForm
from ingest.repricing_selectors import (
    DayOfJob,
    Effect,
    SentName,
    affected_limits,
    days_of,
    effect_now,
    effects,
    names_meant,
    sent_names,
    unfinished,
)
from ingest.retention import raw_detail_starts_at
from ingest.views.prices import frame, managers
from opsmeter_site.lib import charts
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput, NotAllowed
from opsmeter_site.lib.formats import count, usd, usd_change
from opsmeter_site.lib.forms import add_refusal
from opsmeter_site.lib.htmx import wants_part
from opsmeter_site.lib.periods import DAY
from workspaces.access import WorkspaceAccess
from workspaces.models import Role, Workspace
from workspaces.pages import workspace_page

PAGE_SIZE = 50
_GET_POST = ["GET", "POST"]
_ZERO = Decimal(0)
_STAYS_VISIBLE = "What was charged at first stays visible on each request, and in exports."
_NO_ALERTS = "Alerts that were sent are not sent again; a budget that is over its limit afterwards says so once."


# --- All of them ----------------------------------------------------------------------------------------------------


@workspace_page()
@require_GET
def repricings(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """The workspace's jobs, newest first."""
    jobs = Repricing.objects.filter(workspace=access.workspace).select_related("created_by").order_by("-pk")
    page = Paginator(jobs, PAGE_SIZE).get_page(request.GET.get("page"))
    found = effects(page.object_list)
    _, feed = newest_book()
    context = {
        "page": page,
        "rows": [_about(job, access.workspace, 2) | {"change": effect_now(job, found)} for job in page.object_list],
        "managers": managers(access.workspace),
    }
    return render(request, "ingest/repricings.html", context | frame(request, access, feed, "repricing"))


def _about(job: Repricing, workspace: Workspace, most_names: int) -> dict[str, Any]:
    """A job with the names of its models, and its days by the workspace's calendar, the last one included."""
    zone = workspace.timezone
    last = job.end - timedelta(microseconds=1)
    more = len(job.models_sent) - most_names
    names = ", ".join(job.models_sent[:most_names]) or "all models"
    return {
        "job": job,
        "names": f"{names} and {more} more" if more > 0 else names,
        "first_day": job.start.astimezone(zone).date(),
        "last_day": last.astimezone(zone).date(),
    }


# --- A new one ------------------------------------------------------------------------------------------------------


@workspace_page(Role.ADMIN)
@require_http_methods(_GET_POST)
def repricing_new(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Ask for a re-pricing; other pages lead here with names and a first day filled in."""
    workspace, now = access.workspace, utc_now()
    book, feed = newest_book()
    kept_from = raw_detail_starts_at(workspace.policy, now)
    sent = sent_names(workspace, kept_from)
    context = frame(request, access, feed, "repricing") | {"sent": sent, "other": unfinished(workspace)}
    asked = list(zip(request.GET.getlist("provider"), request.GET.getlist("model"), strict=False))
    meant = names_meant(book, workspace, sent, asked, now)
    form = _form(request, workspace, sent, meant, kept_from)
    if request.method == "POST" and form.is_valid():
        try:
            job = engine.request_repricing(workspace, acting_user=access.user, **form.wish())
        except (InvalidInput, NotAllowed) as refusal:
            add_refusal(form, refusal)
        else:
            return redirect(_of(job, "repricing", workspace))
    context |= {"form": form, "not_found": asked if not meant else []}
    return render(request, "ingest/repricing_new.html", context, status=422 if form.errors else 200)


def _form(
    request: HttpRequest, workspace: Workspace, sent: Sequence[SentName], meant: Sequence[SentName], kept_from: datetime
) -> RepricingForm:
    zone, now = workspace.timezone, utc_now()
    today = now.astimezone(zone).date()
    oldest = min((name.first_seen for name in sent), default=now).astimezone(zone).date()
    providers = {name.provider for name in meant}
    initial = {
        "provider": providers.pop() if len(providers) == 1 else "",
        "models_sent": [name.model for name in meant],
        "start": max(oldest, _day(request.GET.get("from", ""), zone)),
        "end": today,
        "only_unpriced": "yes" if request.GET.get("only") == "unpriced" else "no",
    }
    data = request.POST if request.method == "POST" else None
    return RepricingForm(data, initial=initial, sent=sent, zone=zone, kept_from=kept_from, today=today)


def _day(text: str, zone: ZoneInfo) -> date:
    """The local day of the UTC moment that a link names; the first of all days if it names none."""
    try:
        return datetime.fromisoformat(text).astimezone(zone).date()
    except (ValueError, OverflowError):
        return date.min


# --- One ------------------------------------------------------------------------------------------------------------


def _job(access: WorkspaceAccess, repricing_id: int) -> Repricing:
    jobs = Repricing.objects.filter(workspace=access.workspace).select_related("created_by")
    return get_object_or_404(jobs, pk=repricing_id)


@workspace_page()
@require_GET
@vary_on_headers("HX-Request")
def repricing(request: HttpRequest, access: WorkspaceAccess, repricing_id: int) -> HttpResponse:
    """What a job was asked for, what it changes, and how far it is; a script looks again while it moves."""
    job = _job(access, repricing_id)
    _, feed = newest_book()
    found, days = effects([job]), days_of(job)
    context = _about(job, access.workspace, 20) | {
        "previewed": found.get((job.pk, True), Effect()),
        "done": found.get((job.pk, False), Effect()),
        "days": days,
        "chart": _chart(job, days),
        "is_moving": job.state in (RepricingState.PREVIEWING, RepricingState.RUNNING),
        "is_stale": job.state == RepricingState.PREVIEWED and job.catalogue_version != feed.version,
        "is_finished": job.state not in engine.UNFINISHED,
        "limits": affected_limits(job),
        "managers": managers(access.workspace),
    }
    if wants_part(request):
        return render(request, "ingest/_repricing_job.html", context)
    return render(request, "ingest/repricing.html", context | frame(request, access, feed, "repricing"))


def _chart(job: Repricing, days: Sequence[DayOfJob]) -> SafeString:
    """The change of every day, as it would be until somebody confirms, and as it is from then on."""
    is_preview = job.state in (RepricingState.PREVIEWING, RepricingState.PREVIEWED)
    figures = {each.day: each.previewed if is_preview else each.done for each in days}
    bars = [
        charts.Bar(
            label=f"{day:%-d %b}",
            title=f"{day:%a %-d %b %Y}",
            parts={
                "stays": min(change.before_usd, change.after_usd),
                "more": max(change.difference, _ZERO),
                "less": max(-change.difference, _ZERO),
            },
        )
        for day, change in _without_gaps(figures)
    ]
    return charts.stacked_bars(
        chart_id="repricing-days",
        title="Cost of these requests on each UTC day",
        series=[
            charts.Series("stays", "Stays", is_other=True),
            charts.Series("more", "Comes on top"),
            charts.Series("less", "Falls away"),
        ],
        bars=bars,
        axis_format=charts.short_usd,
        value_format=usd,
        empty="No day changes.",
        note="Requests whose cost changes, and no others. A bar is as high as the larger of before and after.",
    )


def _without_gaps(figures: Mapping[datetime, Effect]) -> Iterator[tuple[datetime, Effect]]:
    """Every day from the first to the last one that changes."""
    changed = [day for day, effect in figures.items() if effect.rows]
    if changed:
        first, days = min(changed), (max(changed) - min(changed)).days
        for number in range(days + 1):
            day = first + number * DAY
            yield day, figures.get(day, Effect())


# --- What can be done with it ---------------------------------------------------------------------------------------


@workspace_page(Role.ADMIN)
@require_http_methods(_GET_POST)
def repricing_run(request: HttpRequest, access: WorkspaceAccess, repricing_id: int) -> HttpResponse:
    """Ask, then let workers change the requests."""
    job = _job(access, repricing_id)
    here = _of(job, "repricing", access.workspace)
    if request.method == "POST":
        said = "The requests are being re-priced. You can leave this page; it goes on."
        return _act(request, lambda: engine.run_repricing(job, acting_user=access.user), said, here)
    if job.state != RepricingState.PREVIEWED:
        messages.info(request, "This re-pricing does not wait for a confirmation.")
        return redirect(here)
    change = effects([job]).get((job.pk, True), Effect())
    context = {
        "title": f"Re-price {_requests(change.rows)}?",
        "consequences": _consequences(job, change),
        "confirm_label": f"Re-price {_requests(change.rows)}",
        "cancel_url": here,
        "danger": False,
    }
    return render(request, "console/confirm.html", context)


def _consequences(job: Repricing, change: Effect) -> list[str]:
    budgets = len(affected_limits(job))
    moved = f"{count(budgets)} running one{'s' if budgets > 1 else ''} will move" if budgets else "no running one moves"
    return [
        f"Their cost goes from {usd(change.before_usd)} to {usd(change.after_usd)} ({usd_change(change.difference)}); "
        f"{count(change.newly_priced)} of them get their first price.",
        f"Totals, charts and budgets follow ({moved}).",
        _NO_ALERTS,
        _STAYS_VISIBLE,
        "It can be stopped while it runs; what is done by then stays.",
    ]


@workspace_page(Role.ADMIN)
@require_http_methods(_GET_POST)
def repricing_cancel(request: HttpRequest, access: WorkspaceAccess, repricing_id: int) -> HttpResponse:
    """Ask, then stop a run or discard a preview."""
    job = _job(access, repricing_id)
    here = _of(job, "repricing", access.workspace)
    is_running = job.state == RepricingState.RUNNING
    if request.method == "POST":
        said = "The re-pricing is stopped." if is_running else "The preview is discarded. Nothing was changed."
        return _act(request, lambda: engine.cancel_repricing(job, acting_user=access.user), said, here)
    if job.state not in engine.UNFINISHED:
        messages.info(request, "This re-pricing is finished already.")
        return redirect(here)
    context = {
        "title": "Stop this re-pricing?" if is_running else "Discard this preview?",
        "consequences": _stopped(job) if is_running else ["No request is changed.", "It stays in the list."],
        "confirm_label": "Stop it" if is_running else "Discard it",
        "cancel_url": here,
    }
    return render(request, "console/confirm.html", context)


def _stopped(job: Repricing) -> list[str]:
    done = effects([job]).get((job.pk, False), Effect())
    return [
        f"What is done by then stays: so far {_requests(done.rows)}, {usd_change(done.difference)}.",
        "The others keep the cost that they have. Totals and budgets agree with both.",
        "To go on later, ask for a new re-pricing: it finds what is left.",
    ]


@workspace_page(Role.ADMIN)
@require_POST
def repricing_again(request: HttpRequest, access: WorkspaceAccess, repricing_id: int) -> HttpResponse:
    """Preview once more, by the prices of now."""
    job = _job(access, repricing_id)
    said = "The preview is being made again, by the prices of now."
    here = _of(job, "repricing", access.workspace)
    return _act(request, lambda: engine.preview_again(job, acting_user=access.user), said, here)


def _act(request: HttpRequest, action: Callable[[], object], said: str, here: str) -> HttpResponse:
    """Do it, or say why it cannot be done, and go back to the job."""
    try:
        action()
    except NotAllowed as refusal:
        messages.error(request, refusal.message)
    else:
        messages.success(request, said)
    return redirect(here)


def _requests(number: int) -> str:
    return f"{count(number)} request{'' if number == 1 else 's'}"


def _of(job: Repricing, name: str, workspace: Workspace) -> str:
    return reverse(name, kwargs={"slug": workspace.slug, "repricing_id": job.pk})
