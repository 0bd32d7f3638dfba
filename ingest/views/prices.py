"""Pages about what models cost: the catalogue, one model, the test of a name, what has no price, a workspace's own."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from ingest.models import ModelPrice
from ingest.price_book import PriceBook
from ingest.price_forms import NameTestForm, SampleForm, with_defaults
from ingest.price_history import HistoryRow, charges_calls, history, live_rows
from ingest.price_names import clean
from ingest.price_selectors import (
    USE_DAYS,
    Feed,
    Pair,
    catalogue,
    decide,
    has_price_overrides,
    hosts,
    model_meant,
    models_of,
    newest_book,
    use_by_model,
    waiting_prices,
)
from ingest.price_tables import Rates
from ingest.unpriced import inbox, with_suggestions
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.htmx import wants_part
from opsmeter_site.lib.periods import day_start
from workspaces.access import WorkspaceAccess, role_includes
from workspaces.models import Membership, Role, User, Workspace
from workspaces.pages import workspace_page

PAGE_SIZE = 50
OPERATOR_RIGHTS = ("add_modelprice", "add_modelalias", "change_modelprice")
# Choices of the inbox: local days, today included; None is as long as sums are kept.
SPANS: Mapping[str, int | None] = {"30d": 30, "90d": 90, "all": None}
_SPAN_LABELS = {"30d": "30 days", "90d": "90 days", "all": "All that is kept"}


# --- What all of them show ------------------------------------------------------------------------------------------


def operator_rights(request: HttpRequest) -> frozenset[str]:
    """What the operators' console would let the person do about prices; it may want more than the permission."""
    if not admin.site.has_permission(request):
        return frozenset()
    return frozenset(right for right in OPERATOR_RIGHTS if request.user.has_perm(f"ingest.{right}"))


def frame(request: HttpRequest, access: WorkspaceAccess, feed: Feed, tab: str) -> dict[str, Any]:
    """What every page about prices knows: where prices are from, and what the person may do about them."""
    includes_own, rights = has_price_overrides(access.workspace.pk), operator_rights(request)
    return {
        "feed": feed,
        "tab": tab,
        "includes_own": includes_own,
        "may_add_own": includes_own and role_includes(access.role, Role.ADMIN),
        "may_add_price": "add_modelprice" in rights,
        "may_set_alias": "add_modelalias" in rights,
        "waiting": waiting_prices() if "change_modelprice" in rights else 0,
    }


def managers(workspace: Workspace) -> list[User]:
    """Whom to ask about the workspace: its owners, then its admins."""
    memberships = Membership.objects.filter(workspace=workspace, role__in=(Role.OWNER, Role.ADMIN))
    people = memberships.select_related("user").order_by("user__name", "user__email")
    return [each.user for each in sorted(people, key=lambda each: each.role != Role.OWNER)]


def price_url(slug: str, provider: str, model: str, name: str = "price") -> str:
    """The address of a page about one model."""
    return f"{reverse(name, kwargs={'slug': slug})}?{urlencode({'provider': provider, 'model': model})}"


# --- The catalogue --------------------------------------------------------------------------------------------------


@workspace_page()
@require_GET
@vary_on_headers("HX-Request")
def prices(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Every model with its price in this workspace: searched, narrowed to a provider or to what is used, in pages."""
    now = utc_now()
    book, feed = newest_book()
    rows = catalogue(book, access.workspace, now)
    words, provider = clean(request.GET.get("q", "")).split(), request.GET.get("provider", "")
    only_used = request.GET.get("used") == "1"
    found = [
        row
        for row in rows
        if provider in ("", row.provider)
        and (row.use is not None or not only_used)
        and all(word in row.text for word in words)
    ]
    page = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "is_narrowed": bool(words or provider or only_used),
        "only_used": only_used,
        "total": len(rows),
        "use_days": USE_DAYS,
    }
    if wants_part(request):
        return render(request, "ingest/_prices_table.html", context)
    context |= {
        "providers": sorted({row.provider for row in rows}),
        "provider": provider,
        "form": NameTestForm(),
    }
    return render(request, "ingest/prices.html", context | frame(request, access, feed, "catalogue"))


@workspace_page()
@require_GET
@vary_on_headers("HX-Request")
def price_test(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """How a name is understood and what a request of it costs, step by step."""
    now = utc_now()
    book, feed = newest_book()
    with timezone.override(access.workspace.timezone):
        is_asked = "provider" in request.GET or "model" in request.GET
        form = NameTestForm(with_defaults(NameTestForm, request.GET) if is_asked else None)
        context: dict[str, Any] = {"form": form, "providers": hosts(book, now)}
        if form.is_valid():
            context |= _decision(book, access.workspace, form.cleaned_data, now)
        status = 422 if form.errors else 200
        if wants_part(request):
            return render(request, "ingest/_prices_test.html", context, status=status)
        return render(request, "ingest/prices_test.html", context | frame(request, access, feed, "test"), status=status)


def _decision(book: PriceBook, workspace: Workspace, asked: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    moment = asked["at"] or now
    decision = book.resolve(
        workspace_id=workspace.pk,
        provider=asked["provider"],
        model=asked["model"],
        service_tier=asked["tier"],
        occurred_at=moment,
        uncached_input_tokens=asked["input"],
        output_tokens=asked["output"],
    )
    return {
        "decision": decision,
        "moment": moment,
        "meant": model_meant(book, asked["provider"], asked["model"], workspace.pk, moment),
        "is_known_host": decision.provider in hosts(book, now),
    }


# --- One model ------------------------------------------------------------------------------------------------------


@workspace_page()
@require_GET
def price(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """All prices of one model, what a request costs, and what the workspace spent on it.

    Other names of a model lead to its own page, and unknown ones to the test that says so.
    """
    now, workspace = utc_now(), access.workspace
    asked = request.GET.get("provider", ""), request.GET.get("model", "")
    if not all(asked):
        return redirect("prices", slug=workspace.slug)
    book, feed = newest_book()
    meant = model_meant(book, *asked, workspace.pk, now)
    if meant != asked:
        return redirect(price_url(workspace.slug, *(meant or asked), "price" if meant else "price-test"))
    stored = ModelPrice.objects.filter(Q(workspace=None) | Q(workspace=workspace), provider=meant[0], model=meant[1])
    facts = frame(request, access, feed, "catalogue")
    rows = history(stored, now, names_operators=facts["may_add_price"])
    sample = SampleForm(with_defaults(SampleForm, request.GET))
    context = {
        "provider": meant[0],
        "model": meant[1],
        "catalogues": model_meant(book, *meant, None, now),
        "aliases": models_of(book, meant[0], now).get(meant[1], ()),
        "history": rows,
        "with_calls": charges_calls(rows),
        "sample": sample,
        **_priced_sample(book, workspace, meant, live_rows(rows), sample, now),
        "use": use_by_model(book, workspace, now, meant[0]).get(meant),
        "use_days": USE_DAYS,
    }
    status = 422 if sample.errors else 200
    return render(request, "ingest/prices_model.html", context | facts, status=status)


def _priced_sample(
    book: PriceBook, workspace: Workspace, meant: Pair, live: list[HistoryRow], sample: SampleForm, now: datetime
) -> dict[str, Any]:
    """What the sample request costs at each of the `live` rows, and which of them it would pay now."""
    if not sample.is_valid():
        return {"live": [(row, None) for row in live]}
    tokens = sample.cleaned_data
    paid = decide(book, *meant, workspace.pk, now, tokens["input"]).price
    return {
        "live": [(row, Rates(row.price).cost(tokens["input"], 0, 0, tokens["output"])) for row in live],
        "paid": None if paid is None else paid.id,
    }


# --- What has no price ----------------------------------------------------------------------------------------------


@workspace_page()
@require_GET
def prices_unpriced(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """The inbox: names without a price, what they weigh, what they might mean, and what can be done about each."""
    now, workspace = utc_now(), access.workspace
    book, feed = newest_book()
    span = request.GET.get("span", "30d")
    if span not in SPANS:
        span = "30d"
    found = inbox(book, workspace, _start_of(workspace, SPANS[span], now), now)
    page = Paginator(found.waiting, PAGE_SIZE).get_page(request.GET.get("page"))
    facts = frame(request, access, feed, "unpriced")
    context = {
        "inbox": found,
        "page": page,
        "names": with_suggestions(book, page.object_list, now),
        "priced_since": found.priced_since[:PAGE_SIZE],
        "span": span,
        "spans": _SPAN_LABELS,
        "managers": [] if facts["may_add_own"] else managers(workspace),
    }
    return render(request, "ingest/prices_unpriced.html", context | facts)


def _start_of(workspace: Workspace, days: int | None, now: datetime) -> datetime | None:
    if days is None:
        return None
    zone = workspace.timezone
    return day_start(zone, now.astimezone(zone).date() - timedelta(days=days - 1))


# --- Own prices -----------------------------------------------------------------------------------------------------


@workspace_page()
@require_GET
def prices_own(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """The workspace's own prices: those that hold or will, and all that there ever were."""
    now = utc_now()
    book, feed = newest_book()
    rows = history(ModelPrice.objects.filter(workspace=access.workspace), now)
    live = live_rows(rows)
    facts = frame(request, access, feed, "own")
    context = {
        "live": [(row, decide(book, row.price.provider, row.price.model, None, now).price) for row in live],
        "with_calls": charges_calls(rows),
        "page": Paginator(rows, PAGE_SIZE).get_page(request.GET.get("page")),
        "managers": [] if facts["may_add_own"] else managers(access.workspace),
        "may_withdraw": role_includes(access.role, Role.ADMIN),
    }
    return render(request, "ingest/prices_own.html", context | facts)
