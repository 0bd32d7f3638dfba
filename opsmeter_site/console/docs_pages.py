"""The developer docs at `/docs/`: which pages there are, and whose address and API key stand in their examples."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import unescape
from itertools import chain

from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.functional import SimpleLazyObject
from django.utils.html import strip_tags
from django.utils.safestring import SafeString
from django.views.decorators.http import require_GET

from alerts.kinds import KINDS
from billing.models import Plan
from opsmeter_site.console.banners import NEXT_PLAN
from opsmeter_site.console.onboarding import first_key_name
from opsmeter_site.console.snippets import PLACEHOLDER_KEY, CodeBlocks
from opsmeter_site.lib import once, tokens
from opsmeter_site.lib.errors import NotFound
from workspaces.access import WorkspaceAccess, role_includes, workspace_for
from workspaces.keys import API_KEY_PREFIX
from workspaces.models import CredentialState, Role
from workspaces.pages import LAST_WORKSPACE


@dataclass(frozen=True, slots=True)
class DocsPage:
    """One page; its text is `templates/docs/pages/<slug>.html`."""

    slug: str
    title: str
    summary: str

    @property
    def url(self) -> str:
        """Its address; the first page is the index."""
        return reverse("docs") if self.slug == INDEX else reverse("docs-page", args=[self.slug])


@dataclass(frozen=True, slots=True)
class DocsGroup:
    """Pages that stand together in the navigation."""

    title: str
    pages: Sequence[DocsPage]


INDEX = "quickstart"
GROUPS = (
    DocsGroup(
        "Send",
        (
            DocsPage(INDEX, "Quickstart", "From an API key to the first priced event."),
            DocsPage("payload", "Payload", "Every field of an event: type, rule and default."),
            DocsPage("attribution", "Users, tenants and prompts", "What costs are grouped by."),
            DocsPage("data-modes", "Data modes and environments", "Real traffic, tests and demo data kept apart."),
            DocsPage("batches", "Batches", "Up to 1,000 events in one request."),
            DocsPage("opentelemetry", "OpenTelemetry", "Spans of model calls become events."),
        ),
    ),
    DocsGroup(
        "Answers",
        (
            DocsPage("answers", "Answers and flags", "What every status, reason and flag means."),
            DocsPage("messages", "Messages for your users", "Polite toasts and banners, ready to copy."),
            DocsPage("limits", "Plan limits and budgets", "Two different controls, and what each of them pauses."),
            DocsPage("leases", "Checks and leases", "Ask before a call, and hold its cost until it is known."),
            DocsPage("rate-limits", "Rate limits and backoff", "What to do with 429, in four languages."),
            DocsPage("status", "Workspace status", "Where the workspace stands, whenever you ask."),
        ),
    ),
    DocsGroup(
        "Workspace",
        (
            DocsPage("prices", "Prices", "How an event gets its cost, and what unpriced means."),
            DocsPage("retention", "Retention", "How long rows and sums are kept."),
            DocsPage("alerts", "Alerts and summaries", "How a workspace hears about its limits."),
            DocsPage("billing", "Billing plan changes", "How a plan changes, and when it is final."),
            DocsPage("security", "Security", "Keys, tokens, and what is never stored."),
        ),
    ),
)
PAGES = {page.slug: page for page in chain.from_iterable(group.pages for group in GROUPS)}


# --- The reader -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reader:
    """Whose examples they are. `api_key` is what stands in them: a whole key, the start of one, or a placeholder."""

    access: WorkspaceAccess | None = None
    api_key: str = PLACEHOLDER_KEY
    has_whole_key: bool = False

    @property
    def has_key(self) -> bool:
        """Whether the examples carry a key of the reader's workspace, at least its start."""
        return self.api_key != PLACEHOLDER_KEY

    @property
    def may_make_keys(self) -> bool:
        """Whether the reader can make another key in that workspace."""
        return self.access is not None and role_includes(self.access.role, Role.MEMBER)


def reader_of(request: HttpRequest) -> Reader:
    """The reader, and the workspace whose pages they opened last, as long as they are in it."""
    slug = request.session.get(LAST_WORKSPACE)
    try:
        access = workspace_for(request.user, slug or "")
    except NotFound:
        return Reader()
    keys = access.workspace.api_keys.order_by("-created_at")
    lookups = [key.lookup for key in keys if key.state is CredentialState.LIVE]
    kept = once.read(request, first_key_name(access.workspace.slug))
    if kept is not None and tokens.lookup_of(kept, API_KEY_PREFIX) in lookups:
        return Reader(access, kept, has_whole_key=True)
    return Reader(access, f"{API_KEY_PREFIX}_{lookups[0]}_…" if lookups else PLACEHOLDER_KEY)


# --- The pages --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Section:
    """A heading of a page and its anchor."""

    anchor: str
    title: str


@login_not_required
@require_GET
def docs_page(request: HttpRequest, page: str = "") -> HttpResponse:
    """One page, for everybody; signed in, with the reader's own key."""
    if page == INDEX:
        return redirect("docs")
    shown = PAGES.get(page or INDEX)
    if shown is None:
        raise Http404
    reader = reader_of(request)
    plans = SimpleLazyObject(lambda: list(Plan.objects.all()))
    facts = {
        "address": request.build_absolute_uri("/").rstrip("/"),
        "api_key": reader.api_key,
        "alert_kinds": KINDS,
        "next_plans": SimpleLazyObject(lambda: {plan.name: NEXT_PLAN.get(plan.tier) for plan in plans}),
    }
    context = {**facts, "page": shown, "reader": reader, "plans": plans, "code": CodeBlocks(facts)}
    text, sections = _with_anchors(render_to_string(f"docs/pages/{shown.slug}.html", context))
    frame = {"groups": GROUPS, "text": text, "sections": sections, "ways_out": _ways_out(request), **_neighbours(shown)}
    response = render(request, "docs/base.html", context | frame)
    if request.user.is_authenticated:
        response["Cache-Control"] = "no-store"
    return response


def _ways_out(request: HttpRequest) -> list[tuple[str, str]]:
    """Where else one may want to go: labels and addresses."""
    people = [("Sign in", reverse("account_login")), ("Sign up", reverse("account_signup"))]
    own = [("Your console", reverse("home"))]
    return [("API reference", reverse("api-docs")), *(own if request.user.is_authenticated else people)]


def _neighbours(page: DocsPage) -> dict[str, DocsPage | None]:
    pages = list(PAGES.values())
    place = pages.index(page)
    return {
        "previous": pages[place - 1] if place else None,
        "next": pages[place + 1] if place + 1 < len(pages) else None,
    }


_HEADING = re.compile(r'<h2 id="([\w-]+)">(.+?)</h2>', re.DOTALL)


def _with_anchors(text: str) -> tuple[SafeString, list[Section]]:
    """The page's text with headings that link to themselves, and these headings."""
    sections = [Section(anchor, unescape(strip_tags(title))) for anchor, title in _HEADING.findall(text)]
    return SafeString(_HEADING.sub(r'<h2 id="\1"><a class="anchor" href="#\1">\2</a></h2>', text)), sections
