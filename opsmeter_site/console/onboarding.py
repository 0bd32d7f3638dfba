"""From a new account to the first priced event: making a workspace, and the checklist that ticks itself off."""

from dataclasses import dataclass
from datetime import timedelta

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods
from timezone_field import TimeZoneFormField

from billing.models import Plan
from billing.services import FIRST_PLAN, start_workspace
from ingest.models import UNKNOWN, DataMode, Event
from opsmeter_site.console.snippets import PLACEHOLDER_KEY, Snippet, first_event_snippets
from opsmeter_site.lib import once
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput
from opsmeter_site.lib.forms import add_refusal
from opsmeter_site.lib.htmx import wants_part
from workspaces.access import WorkspaceAccess
from workspaces.models import ApiKey, User
from workspaces.pages import workspace_page

LATEST_EVENTS = 100
_LOOK_BACK = timedelta(days=35)


class WorkspaceForm(forms.Form):
    """A new workspace: a name and a timezone that the browser has guessed."""

    name = forms.CharField(
        max_length=100,
        label="Name of the workspace",
        help_text="A product or a team: everything that shares one AI bill.",
        widget=forms.TextInput(attrs={"autofocus": True, "autocomplete": "organization"}),
    )
    timezone = TimeZoneFormField(
        use_pytz=False,
        initial="UTC",
        help_text="For charts and summaries. You can change it later.",
        widget=forms.Select(attrs={"data-guess-timezone": True}),
    )


@require_http_methods(["GET", "POST"])
def new_workspace(request: HttpRequest) -> HttpResponse:
    """A form with two fields; the first API key is made along with the workspace."""
    person = request.user
    assert isinstance(person, User)  # noqa: S101 (LoginRequiredMiddleware lets nobody else come here)
    form = WorkspaceForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            workspace, plain_key = start_workspace(person, **form.cleaned_data)
        except InvalidInput as refusal:
            add_refusal(form, refusal)
        else:
            if plain_key is not None:
                once.keep(request, first_key_name(workspace.slug), plain_key)
            return redirect("start", slug=workspace.slug)
    plan = Plan.objects.filter(tier=FIRST_PLAN).first()
    context = {"form": form, "is_first": not person.workspaces.exists(), "plan": plan}
    return render(request, "console/workspace_new.html", context, status=422 if form.errors else 200)


def first_key_name(slug: str) -> str:
    """Under which name the plain text of the workspace's newest API key waits in the session."""
    return f"key:{slug}"


# --- The checklist ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the checklist; `hint` says what to do while it is not done."""

    label: str
    is_done: bool
    hint: str


@dataclass(frozen=True, slots=True)
class Checklist:
    """How far the integration has come: what must be, and what makes the figures worth reading."""

    required: list[Step]
    useful: list[Step]
    latest: Event | None

    @property
    def is_working(self) -> bool:
        """Whether telemetry arrives."""
        return all(step.is_done for step in self.required)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.is_working and all(step.is_done for step in self.useful)


def checklist(access: WorkspaceAccess) -> Checklist:
    """Judged by the latest `LATEST_EVENTS` events of the last 35 days that are not demo data."""
    now = utc_now()
    keys = [key for key in access.workspace.api_keys.filter(revoked_at=None) if _is_live(key)]
    rows = Event.objects.filter(workspace_id=access.workspace.pk, occurred_at__gt=now - _LOOK_BACK)
    events = list(rows.exclude(data_mode=DataMode.DEMO).order_by("-occurred_at")[:LATEST_EVENTS])
    was_sent = bool(events) or any(key.last_used_at for key in keys)
    return Checklist(
        required=[
            Step("An API key is ready", bool(keys), "Make one under Settings, API keys."),
            Step("A payload was sent with it", was_sent, "Run one of the snippets."),
            Step(
                "It was answered with ok",
                bool(events),
                "A key was used, but nothing was stored yet: the answer of the request says why." if was_sent else "",
            ),
            Step("The row is visible here", bool(events), ""),
        ],
        useful=_useful(events),
        latest=events[0] if events else None,
    )


def _is_live(key: ApiKey) -> bool:
    return key.expires_at is None or key.expires_at > utc_now()


def _useful(events: list[Event]) -> list[Step]:
    has = bool(events)
    return [
        Step(
            "endpointTag says which feature calls",
            any(event.endpoint_tag != UNKNOWN for event in events),
            "Send endpointTag, such as support.chat: it is what costs are grouped by.",
        ),
        Step(
            "promptVersion says which prompt",
            any(event.prompt_version != UNKNOWN for event in events),
            "Send promptVersion, such as v12: then versions can be compared.",
        ),
        Step(
            "userId or tenantId says for whom",
            any(value != UNKNOWN for event in events for value in (event.user_id, event.tenant_id)),
            "Send userId or tenantId: pseudonyms do.",
        ),
        Step(
            "No unknown models",
            has and all(event.cost_usd is not None for event in events),
            "Some requests have no price: see Prices, Unpriced.",
        ),
        Step(
            "Tokens and latency are reported",
            has and any(event.total_tokens > 0 and event.latency_ms is not None for event in events),
            "Send inputTokens and outputTokens from the provider's usage, and latencyMs.",
        ),
        Step(
            "Real traffic is told from tests",
            any(event.data_mode == DataMode.REAL for event in events),
            "Send dataMode real in production and test elsewhere; budgets count real.",
        ),
    ]


@workspace_page()
@require_GET
def start(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """The key, the snippets and the checklist; the latter asks for itself again while something is missing."""
    context = {"checklist": checklist(access)}
    if wants_part(request):
        return render(request, "console/start/_checklist.html", context)
    plain_key = once.read(request, first_key_name(access.workspace.slug))
    address = request.build_absolute_uri(reverse("home")).rstrip("/")
    snippets: list[Snippet] = first_event_snippets(address, plain_key or PLACEHOLDER_KEY)
    return render(request, "console/start/page.html", context | {"plain_key": plain_key, "snippets": snippets})
