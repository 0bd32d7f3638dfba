"""The inbox: the list of alerts, one alert, and what people do about them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import path, reverse
from django.views.decorators.http import require_GET, require_POST

from alerts import services
from alerts.alert_facts import budget_path, facts_of, window_text
from alerts.models import Alert, AlertKind, AlertState, Severity
from alerts.selectors import (
    MOST_COUNTED,
    PAGE_ROWS,
    InboxFilters,
    Messages,
    alert_of,
    alerts_of,
    deliveries_about,
    has_alerts,
    inbox_counts,
    inbox_page,
    messages_about,
)
from alerts.telling import looked_after, repeats, scope_in_words, told
from alerts.timeline import MOST_DELIVERIES, timeline
from alerts.what_changed import what_changed
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.cursors import Cursor
from opsmeter_site.lib.errors import InvalidInput, OpsmeterError
from opsmeter_site.lib.forms import add_refusal
from opsmeter_site.lib.htmx import wants_part
from opsmeter_site.lib.toasts import toast_with_undo
from workspaces.access import WorkspaceAccess, role_includes
from workspaces.models import Role, User
from workspaces.pages import workspace_page

PERIODS = {
    "24h": ("24 hours", timedelta(days=1)),
    "7d": ("7 days", timedelta(days=7)),
    "30d": ("30 days", timedelta(days=30)),
}


# --- The list ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What an address asks for. What is not understood counts as not said."""

    state: str
    kind: str
    severity: str
    period: str
    cursor: Cursor | None

    @classmethod
    def read(cls, params: Mapping[str, str]) -> "Asked":
        """From a query string."""
        return cls(
            state=_one_of(params.get("state"), AlertState.values) or AlertState.OPEN.value,
            kind=_one_of(params.get("kind"), AlertKind.values),
            severity=_one_of(params.get("severity"), Severity.values),
            period=_one_of(params.get("period"), list(PERIODS)),
            cursor=Cursor.decode(params.get("cursor", "")),
        )

    @property
    def is_narrowed(self) -> bool:
        """Whether anything but the state is chosen."""
        return bool(self.kind or self.severity or self.period)

    def filters(self, now: datetime) -> InboxFilters:
        """As selectors understand it."""
        since = now - PERIODS[self.period][1] if self.period else None
        return InboxFilters(self.state, self.kind, self.severity, since)

    def query(self, **changes: str) -> str:
        """The query string with some parameters changed; what is usual is left out."""
        state = "" if self.state == AlertState.OPEN else self.state
        parameters = {"state": state, "kind": self.kind, "severity": self.severity, "period": self.period, **changes}
        return f"?{urlencode({name: each for name, each in parameters.items() if each})}"


def _one_of(value: str | None, known: list[str]) -> str:
    return value if value is not None and value in known else ""


@dataclass(frozen=True, slots=True)
class Row:
    """An alert as the list shows it."""

    alert: Alert
    scope: str
    told: str
    repeats: str
    looked_after: str
    may_change: bool


@workspace_page()
@require_GET
def alerts(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """One page of the inbox; for htmx, which looks again and again, only the list."""
    now, workspace = utc_now(), access.workspace
    asked = Asked.read(request.GET.dict())
    filters = asked.filters(now)
    page = inbox_page(workspace.pk, filters, asked.cursor)
    counts = inbox_counts(workspace.pk, filters)
    sent = messages_about([alert.pk for alert in page.alerts])
    context: dict[str, Any] = {
        "asked": asked,
        "rows": [_row(alert, sent[alert.pk], access, now) for alert in page.alerts],
        "tabs": [
            {
                "label": state.label,
                "count": counts[state.value],
                "query": asked.query(state="" if state is AlertState.OPEN else state.value),
                "is_current": state.value == asked.state,
            }
            for state in AlertState
        ],
        "most_counted": MOST_COUNTED,
        "here": asked.query(cursor=request.GET.get("cursor", "") if asked.cursor else ""),
        "newer": asked.query(cursor=page.newer.encode()) if page.newer else "",
        "older": asked.query(cursor=page.older.encode()) if page.older else "",
        "is_new_here": not page.alerts and not asked.is_narrowed and not has_alerts(workspace.pk),
        "may_change": role_includes(access.role, Role.MEMBER),
        "deeds": _deeds(AlertState(asked.state)),
    }
    if wants_part(request):
        return render(request, "alerts/_inbox_part.html", context)
    context |= {"kinds": AlertKind.choices, "severities": Severity.choices, "periods": PERIODS}
    return render(request, "alerts/inbox.html", context)


def _row(alert: Alert, sent: Messages, access: WorkspaceAccess, now: datetime) -> Row:
    zone = access.workspace.timezone
    return Row(
        alert=alert,
        scope=scope_in_words(alert),
        told=told(alert, sent, zone, now),
        repeats=repeats(alert, zone, now),
        looked_after=looked_after(alert),
        may_change=not _is_over(alert),
    )


# --- One alert --------------------------------------------------------------------------------------------------------


class NoteForm(forms.Form):
    """A note beside an alert; what is wrong with one, the service says."""

    text = forms.CharField(
        label="A note for the others", required=False, strip=False, widget=forms.Textarea(attrs={"rows": 3})
    )


@workspace_page()
@require_GET
def alert(request: HttpRequest, access: WorkspaceAccess, alert_id: UUID) -> HttpResponse:
    """What happened, why, who was told, and what people wrote about it."""
    return _page(request, access, alert_of(access.workspace.pk, alert_id), NoteForm())


def _page(request: HttpRequest, access: WorkspaceAccess, found: Alert, form: NoteForm) -> HttpResponse:
    now, workspace = utc_now(), access.workspace
    sent = messages_about([found.pk])[found.pk]
    deliveries = deliveries_about(found, MOST_DELIVERIES)
    context = {
        "alert": found,
        "scope": scope_in_words(found),
        "facts": facts_of(found, workspace.timezone),
        "window": window_text(found.window_start, found.window_end),
        "changed": what_changed(found, workspace.policy, workspace.timezone, now),
        "step": _next_step(found, workspace.slug),
        "moments": timeline(found, deliveries, sent, access, now),
        "more_deliveries": sent.total - len(deliveries),
        "recoveries": found.recoveries.order_by("opened_at"),
        "notes": found.notes.select_related("author").order_by("created_at", "pk"),
        "may_change": role_includes(access.role, Role.MEMBER),
        "deeds": [] if _is_over(found) else _deeds(AlertState(found.state)),
        "note_form": form,
    }
    return render(request, "alerts/alert.html", context, status=422 if form.errors else 200)


def _is_over(found: Alert) -> bool:
    """Whether it resolved by itself, which nobody takes back."""
    return found.state == AlertState.RESOLVED and found.resolved_by is None


def _next_step(found: Alert, slug: str) -> dict[str, str]:
    """Where one can do something about the cause: a label and an address, or nothing."""
    pages = {
        AlertKind.BUDGET_WARNING: ("Look at the budget", budget_path(found, slug)),
        AlertKind.BUDGET_EXCEEDED: ("Look at the budget", budget_path(found, slug)),
        AlertKind.PLAN_LIMIT_NEAR: ("What this means", reverse("docs-page", args=["limits"])),
        AlertKind.PLAN_LIMIT_REACHED: ("What this means", reverse("docs-page", args=["limits"])),
        AlertKind.UNIT_COST: ("Look at the rules", reverse("settings-rules", args=[slug])),
        AlertKind.SPEND_SPIKE: ("Look at the rules", reverse("settings-rules", args=[slug])),
        AlertKind.SPENDER_OVER: ("Look at the rules", reverse("settings-rules", args=[slug])),
        AlertKind.UNPRICED_MODEL: ("See names without a price", reverse("prices-unpriced", args=[slug])),
        AlertKind.PRICE_FEED_STALE: ("Look at the prices", reverse("prices", args=[slug])),
    }
    label, url = pages.get(AlertKind(found.kind), ("", ""))
    return {"label": label, "url": url}


@workspace_page(Role.MEMBER)
@require_POST
def alert_note(request: HttpRequest, access: WorkspaceAccess, alert_id: UUID) -> HttpResponse:
    """Write something beside an alert."""
    found = alert_of(access.workspace.pk, alert_id)
    form = NoteForm(request.POST)
    try:
        services.add_note(found, access.user, request.POST.get("text", ""))
    except InvalidInput as refusal:
        form.full_clean()
        add_refusal(form, refusal)
        return _page(request, access, found, form)
    messages.success(request, "The note is added.")
    return redirect("alert", access.workspace.slug, alert_id)


# --- What people do ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Deed:
    """Something to do about alerts; `past` is how they are afterwards."""

    name: str
    label: str
    past: str
    do: Callable[[Alert, User], object]


def _take_back_resolve(alert: Alert, acting_user: User) -> None:
    """From resolved back to acknowledged, which only an undo asks for."""
    services.reopen(alert, acting_user)
    services.acknowledge(alert, acting_user)


DEEDS = {
    deed.name: deed
    for deed in (
        Deed("acknowledge", "Acknowledge", "acknowledged", services.acknowledge),
        Deed("resolve", "Resolve", "resolved", services.resolve),
        Deed("reopen", "Reopen", "open again", services.reopen),
        Deed("unresolve", "Back to acknowledged", "acknowledged again", _take_back_resolve),
    )
}
_OFFERED = {
    AlertState.OPEN: ("acknowledge", "resolve"),
    AlertState.ACKNOWLEDGED: ("resolve", "reopen"),
    AlertState.RESOLVED: ("reopen",),
}
# What takes an alert back to the state that it had before.
_UNDO = {
    (AlertState.OPEN, "acknowledge"): "reopen",
    (AlertState.OPEN, "resolve"): "reopen",
    (AlertState.ACKNOWLEDGED, "resolve"): "unresolve",
    (AlertState.ACKNOWLEDGED, "reopen"): "acknowledge",
    (AlertState.RESOLVED, "reopen"): "resolve",
    (AlertState.RESOLVED, "unresolve"): "resolve",
}


def _deeds(state: AlertState) -> list[Deed]:
    return [DEEDS[name] for name in _OFFERED[state]]


@workspace_page(Role.MEMBER)
@require_POST
def alerts_change(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Do one thing about all alerts that were chosen (`alert`, repeated), then go back to where the list was."""
    found = alerts_of(access.workspace.pk, _ids(request.POST.getlist("alert")))
    here = reverse("alerts", args=[access.workspace.slug])
    back = here + Asked.read(QueryDict(request.POST.get("back", "").removeprefix("?")).dict()).query()
    if not found:
        messages.info(request, "Nothing was changed: choose at least one alert.")
        return redirect(back)
    _do(request, access, found, undo_at=reverse("alerts-change", args=[access.workspace.slug]), back=back)
    return redirect(back)


@workspace_page(Role.MEMBER)
@require_POST
def alert_change(request: HttpRequest, access: WorkspaceAccess, alert_id: UUID) -> HttpResponse:
    """Do one thing about one alert, and stay on its page."""
    found = alert_of(access.workspace.pk, alert_id)
    _do(request, access, [found], undo_at=request.path, back="")
    return redirect("alert", access.workspace.slug, alert_id)


def _ids(texts: list[str]) -> list[UUID]:
    """The ids among what a form has sent; no page shows more than `PAGE_ROWS`."""
    ids = []
    for text in texts[:PAGE_ROWS]:
        try:
            ids.append(UUID(text))
        except ValueError:
            continue
    return ids


def _do(request: HttpRequest, access: WorkspaceAccess, found: list[Alert], *, undo_at: str, back: str) -> None:
    """Do what the form asks for, and say so with a way back for those that it was done to."""
    deed = DEEDS.get(request.POST.get("deed", ""))
    if deed is None:
        messages.error(request, "There is no such thing to do. Nothing was changed.")
        return
    before = AlertState(found[0].state)
    done, refused = _each(deed, found, access.user)
    if refused:
        messages.error(request, refused)
    undo = _UNDO.get((before, deed.name))
    if done and undo:
        text = f"{len(done)} alert{' is' if len(done) == 1 else 's are'} {deed.past}."
        values = {"deed": undo, "alert": [str(each.pk) for each in done], "back": back.partition("?")[2]}
        toast_with_undo(request, text, url=undo_at, values=values)
    elif done:
        messages.info(request, "Nothing was changed: that had been done already.")


def _each(deed: Deed, found: list[Alert], person: User) -> tuple[list[Alert], str]:
    """Those that it was done to, and why not to the others."""
    done, refused = [], ""
    for each in found:
        try:
            deed.do(each, person)
        except OpsmeterError as refusal:
            refused = f"{each.title}: {refusal.message}"
        else:
            done.append(each)
    return done, refused


page_urlpatterns = [
    path("alerts/", alerts, name="alerts"),
    path("alerts/change/", alerts_change, name="alerts-change"),
    path("alerts/<uuid:alert_id>/", alert, name="alert"),
    path("alerts/<uuid:alert_id>/change/", alert_change, name="alert-change"),
    path("alerts/<uuid:alert_id>/notes/", alert_note, name="alert-note"),
]
