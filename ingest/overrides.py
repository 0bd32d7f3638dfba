"""A workspace's own prices: added where the plan includes them, ended at any time. `ingest.catalog` stores them."""

from datetime import datetime

from django.db import transaction

from ingest import catalog
from ingest.models import ModelPrice, ServiceTier, WorkspacePolicy
from ingest.models.prices import PriceState
from ingest.price_history import Standing, standings_of
from ingest.price_tables import UnitPrices
from ingest.pricing import price_rows
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import NotAllowed, NotFound
from workspaces.inputs import invalid_input
from workspaces.models import User, Workspace


@transaction.atomic
def add_override(
    *,
    acting_user: User,
    workspace: Workspace,
    provider: str,
    model: str,
    effective_from: datetime,
    unit_prices: UnitPrices,
    service_tier: str = ServiceTier.STANDARD,
    context_above: int = 0,
    source_url: str = "",
) -> ModelPrice:
    """Add a price that only `workspace` pays. Nothing already priced changes.

    Raises `NotAllowed` if the plan does not include own prices, and `InvalidInput` with the fields at fault.
    """
    if not WorkspacePolicy.objects.filter(workspace=workspace, has_price_overrides=True).exists():
        raise NotAllowed("The plan of this workspace does not include prices of its own.")
    with invalid_input():
        return catalog.add_price(
            acting_user=acting_user,
            workspace=workspace,
            provider=provider,
            model=model,
            effective_from=effective_from,
            unit_prices=unit_prices,
            service_tier=service_tier,
            context_above=context_above,
            source_url=source_url,
        )


@transaction.atomic
def withdraw_override(
    *, acting_user: User, workspace: Workspace, price_id: int, from_its_start: bool = False
) -> ModelPrice | None:
    """End an own price now, or from its start on; one that begins later is always ended from its start.

    From then on the catalogue's price applies, if there is one. Also where the plan no longer includes own prices.
    Returns the row that says so, or None if the price had ended before. Raises `NotFound` for any other price.
    """
    catalog.lock_catalogue()
    row = ModelPrice.objects.filter(pk=price_id, workspace=workspace, state=PriceState.ACTIVE).first()
    if row is None:
        raise NotFound("There is no such price.")
    now = utc_now()
    if _standing(row, now) not in {Standing.IN_FORCE, Standing.AHEAD}:
        return None
    return catalog.add_price(
        acting_user=acting_user,
        workspace=workspace,
        provider=row.provider,
        model=row.model,
        effective_from=row.effective_from if from_its_start else max(now, row.effective_from),
        unit_prices=UnitPrices(),
        service_tier=row.service_tier,
        context_above=row.context_above,
        window_start=row.window_start,
        window_end=row.window_end,
        is_withdrawn=True,
    )


def _standing(row: ModelPrice, now: datetime) -> Standing:
    line = ModelPrice.objects.filter(
        workspace=row.workspace, provider=row.provider, model=row.model, state=PriceState.ACTIVE
    )
    return standings_of((price for price, _ in price_rows(line)), now)[row.pk]
