"""The preview of a re-pricing: what would change on which day, and what that means for limits of running periods."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from ingest.limit_sets import ZERO
from ingest.limits import estimated_usd, is_over
from ingest.meters import MeterPlace, counted
from ingest.models import Limit, Measure, Repricing, RepricingState, WorkspacePolicy
from ingest.price_book import PriceBook
from ingest.repricing_ledger import add_days
from ingest.repricing_pieces import Spend, read_piece, spend_of
from ingest.scoped_meters import limit_set_of
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import Period, window_of

PIECE_ROWS = 2_000
# Of a limit on each value, so many values are shown at most.
MOST_VALUES = 20
# So many scopes are kept in mind while the preview goes on; of more, those that move most.
MOST_SCOPES = 2_000


def begin(job: Repricing, catalogue_version: int) -> None:
    """Make the job preview from its beginning, with these prices; the caller saves it."""
    job.days.filter(is_preview=True).delete()
    job.state, job.catalogue_version = RepricingState.PREVIEWING, catalogue_version
    job.cursor = job.looked_at_rows = job.changed_rows = 0
    job.limits_affected = []


def preview_piece(job: Repricing, book: PriceBook) -> None:
    """Look at the next events of the job, and finish the preview at the end; the caller saves the job.

    Until then `limits_affected` holds sums: by how much each meter of a running period moves.
    """
    piece = read_piece(job, book, PIECE_ROWS)
    add_days(job, piece.changes, is_preview=True)
    policy = WorkspacePolicy.objects.get(workspace_id=job.workspace_id)
    moved = spend_of(piece.changes, limit_set_of(job.workspace_id), policy.counted_data_modes)
    now = utc_now()
    sums = _unpacked(job.limits_affected)
    for place, spend in moved.items():
        if window_of(Period(place.period), now).start == place.period_start:
            sums[place] = sums.get(place, Spend()).plus(spend)
    job.cursor = piece.cursor
    job.looked_at_rows += piece.events
    job.changed_rows += len(piece.changes)
    if job.cursor < job.last_id:
        job.limits_affected = _packed(sums)
    else:
        job.state = RepricingState.PREVIEWED
        job.limits_affected = list(_limits_affected(job, sums, now))


# --- Sums until then ------------------------------------------------------------------------------------------------


def _packed(sums: dict[MeterPlace, Spend]) -> list[list[Any]]:
    places = list(sums)
    if len(places) > MOST_SCOPES:
        places.sort(key=lambda place: (place.scope_kind != "", -abs(sums[place].usd)))
    return [
        [*place[:3], place.period_start.isoformat(), str(sums[place].usd), sums[place].unpriced_tokens]
        for place in places[:MOST_SCOPES]
    ]


def _unpacked(rows: Iterable[list[Any]]) -> dict[MeterPlace, Spend]:
    return {
        MeterPlace(kind, value, period, datetime.fromisoformat(start)): Spend(Decimal(usd), tokens)
        for kind, value, period, start, usd, tokens in rows
    }


# --- What they mean -------------------------------------------------------------------------------------------------


def _limits_affected(job: Repricing, sums: dict[MeterPlace, Spend], now: datetime) -> Iterator[dict[str, Any]]:
    limits = Limit.objects.filter(workspace_id=job.workspace_id, measure=Measure.USD)
    for limit in limits.order_by("scope_kind", "scope_value", "period", "name", "id"):
        yield from _effects(limit, sums, now)


def _effects(limit: Limit, sums: dict[MeterPlace, Spend], now: datetime) -> list[dict[str, Any]]:
    """What the change means for a limit; of a limit on each value, the values where it means most."""
    start = window_of(Period(limit.period), now).start
    amount = limit.amount_at(now)
    standing = counted(limit, now)
    effects = []
    for place, spend in sums.items():
        value = place.scope_value
        is_meant = limit.is_each_value or value == limit.scope_value
        if not is_meant or (place.scope_kind, place.period, place.period_start) != (
            limit.scope_kind,
            limit.period,
            start,
        ):
            continue
        before = standing.get(value, ZERO)
        after = before + spend.usd + estimated_usd(spend.unpriced_tokens, limit.estimate_usd_per_1m)
        if after != before:
            effects.append(_effect(limit, value, start, amount, before, after))
    effects.sort(key=_by_meaning)
    return effects[:MOST_VALUES]


def _effect(
    limit: Limit, scope_value: str, start: datetime, amount: Decimal, before: Decimal, after: Decimal
) -> dict[str, Any]:
    was_over, is_over_then = (is_over(limit.measure, amount, value) for value in (before, after))
    return {
        "limit": str(limit.id),
        "source": limit.source,
        "source_id": limit.source_id,
        "name": limit.name,
        "period": limit.period,
        "period_start": start.isoformat(),
        "scope_kind": limit.scope_kind,
        "scope_value": scope_value,
        "before": f"{before:f}",
        "after": f"{after:f}",
        "amount": f"{amount:f}",
        "would_be_exceeded": is_over_then and not was_over,
        "no_longer_exceeded": was_over and not is_over_then,
    }


def _by_meaning(effect: dict[str, Any]) -> tuple[bool, Decimal]:
    is_telling = effect["would_be_exceeded"] or effect["no_longer_exceeded"]
    return not is_telling, -abs(Decimal(effect["after"]) - Decimal(effect["before"]))
