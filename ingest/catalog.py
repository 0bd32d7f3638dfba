"""Every change to prices: imports, operators' entries and decisions.

Prices are only ever added. Each change takes the catalogue's row lock, so that changes take turns, and moves its
version on in the same transaction, so that every process loads the new prices within seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from decimal import Decimal

from django.core.exceptions import ValidationError
from django.db import transaction

from ingest import pricing
from ingest.catalog_plan import (
    Plan,
    SourceCatalogue,
    StoredAlias,
    StoredPrice,
    first_moment,
    make_plan,
    unit_price_problem,
    validate,
)
from ingest.models import CatalogVersion, ModelAlias, ModelPrice, ServiceTier
from ingest.models.prices import OPERATOR, UNIT_PRICE_FIELDS, PriceState
from ingest.price_names import Rule, canonical_provider, clean
from ingest.price_tables import Price, PriceKey, UnitPrices
from opsmeter_site.lib.clock import utc_now
from workspaces.models import User, Workspace
from workspaces.services import record_audit

# An entry further away from the catalogue than this is probably a slip of a unit; the operator is warned.
USUAL_AT_LEAST = Decimal("0.2")
USUAL_AT_MOST = Decimal(5)
_INSERT_BATCH = 2_000


def lock_catalogue() -> CatalogVersion:
    """Hold the catalogue until the transaction ends. Every change of it calls this first."""
    CatalogVersion.objects.bulk_create([CatalogVersion()], ignore_conflicts=True)
    return CatalogVersion.objects.select_for_update().get()


def _announce(version: CatalogVersion) -> None:
    """Move the version on: the transaction changes what price books hold."""
    version.version += 1
    version.changed_at = utc_now()
    version.save()
    transaction.on_commit(pricing.look_again)


# --- Imports --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import read, and what it did (or, in a dry run, would do)."""

    source: str
    prices_read: int
    without_token_prices: int
    plan: Plan


def import_catalogue(read: SourceCatalogue, *, dry_run: bool = False) -> ImportResult:
    """Bring the catalogue to what a source says (`price_source.read_bundled`), in one transaction.

    Raises `InvalidCatalogueError` before anything is changed if the source has something that cannot be stored.
    """
    validate(read)
    now = utc_now()
    with transaction.atomic():
        version = CatalogVersion() if dry_run else lock_catalogue()
        plan = make_plan(read, _stored_prices(), _stored_aliases(), now.date(), now)
        if not dry_run:
            _apply(plan, read, now)
            version.imported_at, version.source = now, read.name
            if plan.changes_anything:
                _announce(version)
            else:
                version.save()
    return ImportResult(read.name, len(read.prices), len(read.without_token_prices), plan)


def _stored_prices() -> list[StoredPrice]:
    rows = pricing.price_rows(ModelPrice.objects.filter(workspace=None), "state")
    return [StoredPrice(price, extra[0]) for price, extra in rows]


def _stored_aliases() -> dict[tuple[str, str], StoredAlias]:
    rows = ModelAlias.objects.values_list("provider", "alias", "model", "source")
    return {(provider, alias): StoredAlias(model, source) for provider, alias, model, source in rows}


def _apply(plan: Plan, read: SourceCatalogue, now: datetime) -> None:
    today = now.date()
    ModelPrice.objects.filter(id__in=plan.superseded).update(state=PriceState.SUPERSEDED, decided_at=now)
    ModelPrice.objects.filter(id__in=plan.confirmed).update(checked_on=today)
    ModelPrice.objects.bulk_create(
        (
            ModelPrice(
                provider=row.spec.provider,
                model=row.spec.model,
                **row.spec.key._asdict(),
                **_columns(row.spec.unit_prices),
                is_withdrawn=row.spec.unit_prices is None,
                revision=row.revision,
                state=row.state,
                source=read.name,
                source_url=row.spec.source_url,
                checked_on=today,
                created_at=now,
            )
            for row in plan.prices
        ),
        batch_size=_INSERT_BATCH,
    )
    ModelAlias.objects.bulk_create(
        (
            ModelAlias(provider=new.provider, alias=new.alias, model=new.model, source=read.name, created_at=now)
            for new in plan.new_aliases
        ),
        batch_size=_INSERT_BATCH,
    )
    for moved in plan.moved_aliases:
        alias = ModelAlias.objects.filter(provider=moved.provider, alias=moved.alias)
        alias.update(model=moved.model, source=read.name)


def _columns(unit_prices: UnitPrices | None) -> Mapping[str, Decimal | None]:
    return dict(zip(UNIT_PRICE_FIELDS, unit_prices or UnitPrices(), strict=True))


# --- Decisions ------------------------------------------------------------------------------------------------------


def approve_price(price: ModelPrice, *, acting_user: User) -> list[ModelPrice]:
    """Let a waiting price, and with it all that wait for the same model and date, take part in pricing.

    Returns the rows. Raises `ValidationError` if it does not wait, or if a newer price of the same key is in force.
    """
    return _decide(price, PriceState.ACTIVE, "price.approved", acting_user)


def reject_price(price: ModelPrice, *, acting_user: User) -> list[ModelPrice]:
    """Refuse a waiting price, and with it all that wait for the same model and date; imports will not offer it again.

    Returns the rows. Raises `ValidationError` if it does not wait.
    """
    return _decide(price, PriceState.REJECTED, "price.rejected", acting_user)


@transaction.atomic
def _decide(price: ModelPrice, state: PriceState, action: str, acting_user: User) -> list[ModelPrice]:
    version = lock_catalogue()
    same_model = ModelPrice.objects.filter(workspace=price.workspace, provider=price.provider, model=price.model)
    same_date = same_model.filter(effective_from=price.effective_from)
    group = list(same_date.filter(state=PriceState.PENDING).order_by("id"))
    if price not in group:
        raise ValidationError({"state": "This price does not wait for a decision (any more)."})
    if state == PriceState.ACTIVE:
        in_force = {_key(row): row.revision for row in same_date.filter(state=PriceState.ACTIVE).order_by("revision")}
        if any(in_force.get(_key(row), 0) > row.revision for row in group):
            raise ValidationError({"state": "A newer price for the same date is in force; reject this one."})
    for row in group:
        row.state, row.decided_at, row.decided_by = state, utc_now(), acting_user
    ModelPrice.objects.bulk_update(group, ["state", "decided_at", "decided_by"])
    for row in group:
        record_audit(action, acting_user=acting_user, workspace=row.workspace, target=row, data=_facts(row))
    _announce(version)
    return group


def _key(row: ModelPrice) -> PriceKey:
    return PriceKey(row.service_tier, row.effective_from, row.context_above, row.window_start, row.window_end)


# --- Entries --------------------------------------------------------------------------------------------------------


@transaction.atomic
def add_price(
    *,
    acting_user: User,
    provider: str,
    model: str,
    effective_from: datetime,
    unit_prices: UnitPrices,
    workspace: Workspace | None = None,
    service_tier: str = ServiceTier.STANDARD,
    context_above: int = 0,
    window_start: time | None = None,
    window_end: time | None = None,
    is_withdrawn: bool = False,
    source_url: str = "",
) -> ModelPrice:
    """Add an operator's price, in force at once: a new date, a correction, or a workspace's own price.

    `is_withdrawn` (without unit prices) ends what is there: an override, a tier, a context band. Nothing already priced
    changes. Sent twice, it is stored once. Raises `ValidationError` with the fields at fault; ask `unusual_unit_prices`
    before, to warn.
    """
    key = PriceKey(service_tier, effective_from, context_above, window_start, window_end)
    check_unit_prices(unit_prices, is_withdrawn=is_withdrawn)
    _check_times(key)
    version = lock_catalogue()
    row = ModelPrice(
        workspace=workspace,
        provider=canonical_provider(provider),
        model=clean(model),
        **key._asdict(),
        **_columns(unit_prices),
        is_withdrawn=is_withdrawn,
        source=OPERATOR,
        source_url=source_url,
        checked_on=utc_now().date(),
        created_by=acting_user,
    )
    siblings = ModelPrice.objects.filter(workspace=workspace, provider=row.provider, model=row.model, **key._asdict())
    newest = siblings.order_by("-revision").first()
    if newest is not None and _says_the_same(newest, row):
        return newest
    row.revision = 1 if newest is None else newest.revision + 1
    row.full_clean(exclude=["workspace", "created_by"])
    siblings.filter(state=PriceState.PENDING).update(
        state=PriceState.SUPERSEDED, decided_at=utc_now(), decided_by=acting_user
    )
    row.save()
    action = "price.withdrawn" if is_withdrawn else "price.added"
    record_audit(action, acting_user=acting_user, workspace=workspace, target=row, data=_facts(row))
    _announce(version)
    return row


def _says_the_same(stored: ModelPrice, entered: ModelPrice) -> bool:
    """Whether an operator's or member's newest row of the same key is in force and is this very entry."""
    facts = ("source", "source_url", "is_withdrawn", "state", *UNIT_PRICE_FIELDS)
    return all(getattr(stored, fact) == getattr(entered, fact) for fact in facts)


def check_unit_prices(unit_prices: UnitPrices, *, is_withdrawn: bool = False) -> None:
    """Raise `ValidationError` with the columns at fault unless these can be stored and charged."""
    named = dict(zip(UNIT_PRICE_FIELDS, unit_prices, strict=True))
    errors = {name: problem for name, value in named.items() if (problem := unit_price_problem(value))}
    if errors:
        raise ValidationError(errors)
    if is_withdrawn and any(value is not None for value in unit_prices):
        raise ValidationError({"is_withdrawn": "A withdrawn price has no unit prices."})
    if not is_withdrawn and unit_prices.input is None and unit_prices.output is None and unit_prices.request is None:
        raise ValidationError({UNIT_PRICE_FIELDS[0]: "Give at least a price for input, output or calls."})


def _check_times(key: PriceKey) -> None:
    if key.effective_from.tzinfo is None:
        raise ValidationError({"effective_from": "The time needs a zone."})
    if (key.window_start is None) != (key.window_end is None):
        raise ValidationError({"window_end": "A window of the day needs a start and an end."})
    if key.window_start is not None and key.window_start == key.window_end:
        raise ValidationError({"window_end": "A window that ends when it starts is no window; leave both empty."})


def unusual_unit_prices(
    *, provider: str, model: str, service_tier: str, moment: datetime, unit_prices: UnitPrices
) -> Mapping[str, str]:
    """Warnings about `unit_prices` by column: far from what the catalogue says for the same model, tier and moment."""
    found = pricing.current_book().resolve(
        workspace_id=None, provider=provider, model=model, service_tier=service_tier, occurred_at=moment
    )
    if found.rates is None:
        return {"model": f"The catalogue has no price for {found.provider}/{clean(model)}; is that its exact name?"}
    warnings: dict[str, str] = {}
    if found.rule != Rule.EXACT:
        warnings["model"] = f"The catalogue knows this name as {found.model}; its prices belong under that."
    in_force = _effective(found.rates.price.unit_prices)
    for name, new, old in zip(UNIT_PRICE_FIELDS, unit_prices, in_force, strict=True):
        if new is not None and old and not USUAL_AT_LEAST <= new / old <= USUAL_AT_MOST:
            warnings[name] = f"{times(new / old)} the catalogue's {plain(old)} USD. Is the unit right?"
    return warnings


def times(ratio: Decimal) -> str:
    """A ratio for people: "1,000 times", "0.0012 times"."""
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{plain(Decimal(f'{ratio:.2g}'))} times"


def plain(number: Decimal) -> str:
    """All digits that say something."""
    return f"{number.normalize():f}"


def _effective(units: UnitPrices) -> UnitPrices:
    """`units` with the input price where cached input or cache writes have none of their own (see `Rates`)."""
    cached = units.input if units.cached_input is None else units.cached_input
    written = units.input if units.cache_write is None else units.cache_write
    return units._replace(cached_input=cached, cache_write=written)


@transaction.atomic
def set_alias(*, acting_user: User, provider: str, alias: str, model: str) -> ModelAlias:
    """Make `alias` another exact name of `model` on the same host; moves an existing one. Imports leave it alone.

    Raises `ValidationError` if the model has no price, or if the alias is a model's own id.
    """
    version = lock_catalogue()
    host, name, target = canonical_provider(provider), clean(alias), clean(model)
    priced = ModelPrice.objects.filter(workspace=None, provider=host, state=PriceState.ACTIVE)
    if not priced.filter(model=target).exists():
        raise ValidationError({"model": f"{host}/{target} has no price."})
    if priced.filter(model=name).exists():
        raise ValidationError({"alias": f"{host}/{name} is a model with prices of its own."})
    row = ModelAlias.objects.filter(provider=host, alias=name).first() or ModelAlias(provider=host, alias=name)
    before = row.model
    row.model, row.source = target, OPERATOR
    row.full_clean()
    row.save()
    record_audit(
        "price_alias.set", acting_user=acting_user, target=row, data={"model": target, "before": before or None}
    )
    _announce(version)
    return row


def _facts(row: ModelPrice) -> dict[str, object]:
    values: Sequence[tuple[str, Decimal | None]] = [(name, getattr(row, name)) for name in UNIT_PRICE_FIELDS]
    return {
        "price": row.pk,
        "effective_from": row.effective_from.isoformat(),
        "revision": row.revision,
        "source": row.source,
        "is_withdrawn": row.is_withdrawn,
        **{name: None if value is None else f"{value:f}" for name, value in values},
    }


def price_in_force(row: ModelPrice) -> Price | None:
    """The catalogue's price that a waiting `row` would replace: in force at its own date, tier and size."""
    found = pricing.current_book().resolve(
        workspace_id=None,
        provider=row.provider,
        model=row.model,
        service_tier=row.service_tier,
        occurred_at=first_moment(_key(row)),
        uncached_input_tokens=row.context_above + 1 if row.context_above else 0,
    )
    return found.price
