"""When summaries are sent, what the next ones cover, and one to look at or send now."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import path
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from alerts.channels import MODULES
from alerts.models import (
    UNDER_WAY,
    Action,
    AlertKind,
    Channel,
    ChannelKind,
    ChannelState,
    Delivery,
    MailTopic,
    Mode,
    Report,
    ReportKind,
    Schedule,
    Weekday,
)
from alerts.preferences import effective_mode, preferences_of
from alerts.recipients import mail_addresses
from alerts.report_runs import make_report_now
from alerts.report_windows import Timetable, next_three
from alerts.schedule_forms import ScheduleForm, form_data
from alerts.schedule_services import ScheduleValues, cursor_after, update_schedule, values_of
from alerts.schedule_words import MEANINGS, MomentInWords, moments_in_words
from alerts.schedules import plan_includes, schedules_of
from billing.selectors import PlanFeatures, plan_features
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput, NotAllowed
from opsmeter_site.lib.forms import add_refusal
from opsmeter_site.lib.htmx import wants_part
from opsmeter_site.lib.toasts import toast_with_undo
from workspaces.access import WorkspaceAccess
from workspaces.models import Role, Workspace
from workspaces.pages import workspace_page

# How long the page says what became of a summary that somebody sent to themselves.
_ASKED_SHOWN = timedelta(hours=1)
_TOLD_IN = {ReportKind.DAILY: Mode.DAILY, ReportKind.WEEKLY: Mode.WEEKLY}


@dataclass(frozen=True, slots=True)
class Card:
    """One kind of summary on the page."""

    kind: ReportKind
    meaning: str
    is_in_plan: bool
    values: ScheduleValues
    weekday: str
    form: ScheduleForm
    moments: list[MomentInWords]


@workspace_page()
@require_http_methods(["GET", "HEAD"])
def summaries(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """All kinds, with their next send moments."""
    return _page(request, access)


@workspace_page(Role.ADMIN)
@require_POST
def save(request: HttpRequest, access: WorkspaceAccess, kind: str) -> HttpResponse:
    """Change when one kind is sent."""
    workspace, schedule = access.workspace, _schedule(access.workspace, kind)
    form = ScheduleForm(schedule, request.POST)
    if not form.is_valid():
        return _page(request, access, {kind: form}, status=422)
    try:
        change = update_schedule(workspace, kind, **asdict(form.values), acting_user=access.user)
    except InvalidInput as refusal:
        add_refusal(form, refusal)
        return _page(request, access, {kind: form}, status=422)
    label = ReportKind(kind).label
    if change.old == change.new:
        messages.info(request, f"{label}: nothing was different, so nothing was saved.")
    else:
        text = f"{label}: saved." if change.new.is_enabled else f"{label}: switched off."
        toast_with_undo(request, text, url=request.path, values=form_data(change.old))
    return redirect("settings-summaries", slug=workspace.slug)


@workspace_page()
@require_GET
def moments(request: HttpRequest, access: WorkspaceAccess, kind: str) -> HttpResponse:
    """The next send moments under what somebody is typing, before it is saved."""
    if not wants_part(request):
        return redirect("settings-summaries", slug=access.workspace.slug)
    schedule = _schedule(access.workspace, kind)
    form = ScheduleForm(schedule, request.GET)
    # Half a time is no mistake while somebody is typing it.
    shown = _moments(access.workspace, schedule, form.values, utc_now()) if form.is_valid() else []
    context = {"moments": shown, "is_on": form.is_valid() and form.values.is_enabled, "is_valid": form.is_valid()}
    return render(request, "alerts/summaries_moments.html", context)


@workspace_page(Role.ADMIN)
@require_POST
def preview(request: HttpRequest, access: WorkspaceAccess, kind: str) -> HttpResponse:
    """Make the last one, and open it. Nobody gets it."""
    report = _make_now(request, access, kind, queue_mail=False)
    if report is None:
        return redirect("settings-summaries", slug=access.workspace.slug)
    return redirect("report", access.workspace.slug, report.pk)


@workspace_page(Role.ADMIN)
@require_POST
def send(request: HttpRequest, access: WorkspaceAccess, kind: str) -> HttpResponse:
    """Make the last one, and mail it to whoever asks, and to nobody else."""
    if _make_now(request, access, kind, queue_mail=True) is not None:
        messages.success(request, f"{ReportKind(kind).label}: on its way to {access.user.email}, and to nobody else.")
    return redirect("settings-summaries", slug=access.workspace.slug)


@workspace_page()
@require_GET
def asked(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """What became of the summary that somebody sent to themselves; the page asks while it is on its way."""
    if not wants_part(request):
        return redirect("settings-summaries", slug=access.workspace.slug)
    return render(request, "alerts/summaries_asked.html", _asked(access, utc_now()))


# --- Parts of the page ------------------------------------------------------------------------------------------------


def _page(
    request: HttpRequest, access: WorkspaceAccess, forms: Mapping[str, ScheduleForm] | None = None, status: int = 200
) -> HttpResponse:
    workspace, now = access.workspace, utc_now()
    plan = plan_features(workspace.pk)
    told_in = _told_in(workspace, plan)
    cards = [_card(workspace, schedule, plan, forms or {}, now) for schedule in schedules_of(workspace, now)]
    context = {
        "cards": [(card, told_in.get(card.kind, [])) for card in cards],
        "plan": plan,
        "now": now,
        "address_count": len(mail_addresses(workspace.pk, MailTopic.SUMMARIES)),
        "channels": _channels(workspace, plan),
        **_asked(access, now),
    }
    return render(request, "alerts/summaries.html", context, status=status)


def _card(
    workspace: Workspace, schedule: Schedule, plan: PlanFeatures, forms: Mapping[str, ScheduleForm], now: datetime
) -> Card:
    kind, values = ReportKind(schedule.kind), values_of(schedule)
    return Card(
        kind=kind,
        meaning=MEANINGS[kind],
        is_in_plan=plan_includes(plan, kind),
        values=values,
        weekday=str(Weekday(values.weekday).label),
        form=forms.get(kind) or ScheduleForm(schedule),
        moments=_moments(workspace, schedule, values, now),
    )


def _moments(workspace: Workspace, schedule: Schedule, values: ScheduleValues, now: datetime) -> list[MomentInWords]:
    """The next three under `values`, by the clocks of the workspace."""
    timetable = Timetable(ReportKind(schedule.kind), workspace.timezone, values.send_at, values.weekday)
    cursor = cursor_after(schedule, timetable, is_enabled=values.is_enabled, now=now)
    return moments_in_words(timetable, next_three(timetable, cursor), now)


def _told_in(workspace: Workspace, plan: PlanFeatures) -> dict[ReportKind, list[str]]:
    """The kinds of alert that nothing but this summary tells."""
    preferences = preferences_of(workspace.pk)
    modes = {kind: effective_mode(kind, preferences, plan) for kind in AlertKind}
    return {
        report: [str(kind.label) for kind, each in modes.items() if each is mode] for report, mode in _TOLD_IN.items()
    }


def _channels(workspace: Workspace, plan: PlanFeatures) -> list[Channel]:
    """The channels besides e-mail that get summaries."""
    if not plan.has_integrations:
        return []
    taking = Channel.objects.filter(workspace=workspace, state=ChannelState.ACTIVE, takes_summaries=True)
    kinds = [kind for kind, module in MODULES.items() if module.TAKES_SUMMARIES and kind != ChannelKind.EMAIL]
    return list(taking.filter(kind__in=kinds).order_by("name"))


def _asked(access: WorkspaceAccess, now: datetime) -> dict[str, Any]:
    mine = Delivery.objects.filter(workspace=access.workspace, action=Action.REPORT, requested_by=access.user)
    last = mine.filter(created_at__gt=now - _ASKED_SHOWN).select_related("report").order_by("-created_at").first()
    return {"asked": last, "is_under_way": last is not None and last.state in UNDER_WAY}


def _make_now(request: HttpRequest, access: WorkspaceAccess, kind: str, *, queue_mail: bool) -> Report | None:
    """The report; None if that is refused, which the next page says."""
    _schedule(access.workspace, kind)
    try:
        return make_report_now(access.workspace, kind, access.user, queue_mail=queue_mail)
    except NotAllowed as refusal:
        messages.error(request, refusal.message)
        return None


def _schedule(workspace: Workspace, kind: str) -> Schedule:
    for schedule in schedules_of(workspace, utc_now()):
        if schedule.kind == kind:
            return schedule
    raise Http404("There is no such summary.")


page_urlpatterns = [
    path("settings/summaries/", summaries, name="settings-summaries"),
    path("settings/summaries/asked/", asked, name="settings-summaries-asked"),
    path("settings/summaries/<slug:kind>/", save, name="settings-summary"),
    path("settings/summaries/<slug:kind>/moments/", moments, name="settings-summary-moments"),
    path("settings/summaries/<slug:kind>/preview/", preview, name="settings-summary-preview"),
    path("settings/summaries/<slug:kind>/send/", send, name="settings-summary-send"),
]
