"""Pages that add or end a price, or give a model another name. Each change is looked at twice before it is stored."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_http_methods

from ingest import catalog
from ingest.models import ModelPrice, ServiceTier
from ingest.models.prices import SINCE_EVER, UNIT_PRICE_FIELDS, PriceState
from ingest.overrides import add_override, withdraw_override
from ingest.price_book import PriceBook
from ingest.price_checks import doubts, draft_rates
from ingest.price_forms import SAMPLE_INPUT, SAMPLE_OUTPUT, AliasForm, PriceEntryForm, WithdrawForm
from ingest.price_names import canonical_provider
from ingest.price_selectors import decide, hosts, newest_book
from ingest.price_tables import Price
from ingest.views.prices import frame, operator_rights, price_url
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput, NotAllowed
from opsmeter_site.lib.formats import usd_exact
from opsmeter_site.lib.forms import add_refusal
from workspaces.access import WorkspaceAccess
from workspaces.inputs import invalid_input
from workspaces.models import Role, Workspace
from workspaces.pages import workspace_page

STAYS = "Requests that are stored already keep what they have until they are re-priced (Prices, Re-pricing)."
_GET_POST = ["GET", "POST"]
_DRAFT = ("provider", "model", "service_tier", "effective_from", "unit_prices")
_DOUBTED = ("provider", "model", "service_tier", "unit_prices")

Store = Callable[[Mapping[str, Any]], ModelPrice]


# --- Entries --------------------------------------------------------------------------------------------------------


@workspace_page(Role.ADMIN)
@require_http_methods(_GET_POST)
def price_own_new(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Add a price that only this workspace pays."""

    def store(entry: Mapping[str, Any]) -> ModelPrice:
        return add_override(acting_user=access.user, workspace=access.workspace, **entry)

    book, feed = newest_book()
    facts = frame(request, access, feed, "own")
    if not facts["may_add_own"]:
        raise NotAllowed("The plan of this workspace does not include prices of its own.")
    return _entry(request, access, book, facts | {"is_own": True}, store)


@workspace_page()
@require_http_methods(_GET_POST)
def price_new(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Add a price to the catalogue, for everybody."""
    _require_operator(request, "add_modelprice")

    def store(entry: Mapping[str, Any]) -> ModelPrice:
        with invalid_input():
            return catalog.add_price(acting_user=access.user, **entry)

    book, feed = newest_book()
    return _entry(request, access, book, frame(request, access, feed, "catalogue") | {"is_own": False}, store)


def _require_operator(request: HttpRequest, right: str) -> None:
    if right not in operator_rights(request):
        raise PermissionDenied("Only those who run this service may change the catalogue.")


def _entry(
    request: HttpRequest, access: WorkspaceAccess, book: PriceBook, facts: Mapping[str, Any], store: Store
) -> HttpResponse:
    """The form; then what it would mean, with a second question; then the change."""
    workspace, facts = access.workspace, {**facts, "providers": hosts(book, utc_now())}
    with timezone.override(workspace.timezone):
        if request.method == "GET":
            form = PriceEntryForm(initial=_initial(request, book, workspace))
            return render(request, "ingest/prices_entry.html", {**facts, "form": form})
        form = PriceEntryForm(request.POST)
        if not form.is_valid():
            return render(request, "ingest/prices_entry.html", {**facts, "form": form}, status=422)
        if "edit" in request.POST:
            return render(request, "ingest/prices_entry.html", {**facts, "form": form})
        entry, is_own = form.entry(), bool(facts["is_own"])
        review = _review(book, workspace if is_own else None, entry)
        if "confirmed" not in request.POST:
            return render(request, "ingest/prices_review.html", {**facts, **review, "form": form})
        if review["doubts"] and not form.cleaned_data["is_meant"]:
            form.add_error("is_meant", "Please look at the warnings above, and tick this if the price is right.")
            return render(request, "ingest/prices_review.html", {**facts, **review, "form": form}, status=422)
        try:
            price = store(entry)
        except InvalidInput as refusal:
            add_refusal(form, refusal)
            return render(request, "ingest/prices_entry.html", {**facts, "form": form}, status=422)
    name = f"{price.provider}/{price.model}"
    for_whom = f"in {workspace.name}" if is_own else "for everybody"
    messages.success(request, f"{name} now has a price {for_whom}. {STAYS}")
    return redirect(price_url(workspace.slug, price.provider, price.model))


def _initial(request: HttpRequest, book: PriceBook, workspace: Workspace) -> dict[str, Any]:
    """What the address says, and the unit prices in force for that name, to start from."""
    provider, model, now = request.GET.get("provider", ""), request.GET.get("model", ""), utc_now()
    initial = {"provider": provider, "model": model, "effective_from": _seen(request.GET.get("since", "")) or now}
    known = decide(book, provider, model, workspace.pk, now).price
    if known is not None:
        units = zip(UNIT_PRICE_FIELDS, known.unit_prices, strict=True)
        initial |= {name: catalog.plain(unit) for name, unit in units if unit is not None}
    return initial


def _seen(text: str) -> datetime | None:
    """The moment of a link from the inbox, if it is one in the past."""
    try:
        moment = parse_datetime(text)
    except ValueError:
        return None
    is_past = moment is not None and moment.tzinfo is not None and SINCE_EVER < moment < utc_now()
    return moment if is_past else None


def _review(book: PriceBook, workspace: Workspace | None, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What the entry would mean: a sample request at the new price and at the one in force, and what looks wrong."""
    tokens = max(SAMPLE_INPUT, entry["context_above"] + 1 if entry["context_above"] else 0)
    before = book.resolve(
        workspace_id=workspace.pk if workspace else None,
        provider=entry["provider"],
        model=entry["model"],
        service_tier=entry["service_tier"],
        occurred_at=entry["effective_from"],
        uncached_input_tokens=tokens,
        output_tokens=SAMPLE_OUTPUT,
    )
    after = draft_rates(**{name: entry[name] for name in _DRAFT}).cost(tokens, 0, 0, SAMPLE_OUTPUT)
    return {
        "entry": entry,
        "tier": ServiceTier(entry["service_tier"]).label,
        "sample_input": tokens,
        "sample_output": SAMPLE_OUTPUT,
        "before": before,
        "after": after,
        "ratio": (after - before.cost_usd) / before.cost_usd if before.cost_usd else None,
        "doubts": {
            PriceEntryForm.base_fields[name].label: doubt
            for name, doubt in doubts(
                book, **{name: entry[name] for name in _DOUBTED}, moment=entry["effective_from"]
            ).items()
        },
        "stays": STAYS,
    }


# --- The end of an own price ----------------------------------------------------------------------------------------


@workspace_page(Role.ADMIN)
@require_http_methods(_GET_POST)
def price_own_withdraw(request: HttpRequest, access: WorkspaceAccess, price_id: int) -> HttpResponse:
    """End an own price, now or from its start on."""
    workspace = access.workspace
    own = ModelPrice.objects.filter(workspace=workspace, state=PriceState.ACTIVE, is_withdrawn=False)
    row = get_object_or_404(own, pk=price_id)
    form = WithdrawForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        from_its_start = form.cleaned_data["since"] == "start"
        ended = withdraw_override(
            acting_user=access.user, workspace=workspace, price_id=row.pk, from_its_start=from_its_start
        )
        name = f"{row.provider}/{row.model}"
        said = f"The own price of {name} is withdrawn." if ended else f"The own price of {name} had ended before."
        messages.success(request, f"{said} {STAYS}")
        return redirect("prices-own", slug=workspace.slug)
    book, _ = newest_book()
    catalogues = decide(book, row.provider, row.model, None, utc_now()).price
    context = {
        "title": f"Withdraw your price of {row.provider}/{row.model}",
        "consequences": [_what_applies(catalogues), STAYS],
        "confirm_label": "Withdraw it",
        "cancel_url": reverse("prices-own", kwargs={"slug": workspace.slug}),
        "form": form,
    }
    return render(request, "console/confirm.html", context, status=422 if form.errors else 200)


def _what_applies(price: Price | None) -> str:
    if price is None:
        return "The catalogue has no price for it: its requests will be unpriced."
    return f"From then on it costs what the catalogue says for {_in_words(price)}"


def _in_words(price: Price) -> str:
    units = price.unit_prices
    return (
        f"{price.model}: {usd_exact(units.input)} per 1M input tokens, {usd_exact(units.output)} per 1M output tokens."
    )


# --- Other names ----------------------------------------------------------------------------------------------------


@workspace_page()
@require_http_methods(_GET_POST)
def price_alias(request: HttpRequest, access: WorkspaceAccess) -> HttpResponse:
    """Let a name mean a model of the same host, for everybody."""
    _require_operator(request, "add_modelalias")
    slug = access.workspace.slug
    asked = request.POST or request.GET
    form = AliasForm(request.POST) if request.method == "POST" else AliasForm(initial=request.GET.dict())
    if request.method == "POST" and form.is_valid() and _set_alias(form, access):
        data = form.cleaned_data
        messages.success(request, f"{data['alias']} now costs what {data['model']} costs, for everybody. {STAYS}")
        return redirect("prices-unpriced", slug=slug)
    book, _ = newest_book()
    provider, model = canonical_provider(asked.get("provider", "")), asked.get("model", "")
    known = decide(book, provider, model, None, utc_now()).price
    context = {
        "title": f"Another name: {provider}/{asked.get('alias', '')}",
        "consequences": [
            "In every workspace, requests under this name cost what the model below costs.",
            *([f"That is, for {_in_words(known)}"] if known else []),
            "A name that means a model with another price needs a price of its own instead.",
            STAYS,
        ],
        "confirm_label": "Set the name",
        "cancel_url": reverse("prices-unpriced", kwargs={"slug": slug}),
        "form": form,
        "danger": False,
    }
    return render(request, "console/confirm.html", context, status=422 if form.errors else 200)


def _set_alias(form: AliasForm, access: WorkspaceAccess) -> bool:
    """Store it, or say in the form why not."""
    try:
        with invalid_input():
            catalog.set_alias(acting_user=access.user, **form.cleaned_data)
    except InvalidInput as refusal:
        add_refusal(form, refusal)
        return False
    return True
