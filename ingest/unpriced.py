"""The inbox of names without a price: what a workspace sent that nobody knows the price of, and why."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from django.db.models import Max, Min, QuerySet, Sum

from ingest.models import Rollup
from ingest.name_suggestions import Suggester
from ingest.price_book import PriceBook
from ingest.price_names import canonical_provider, clean
from ingest.price_selectors import Pair, decide, hosts, models_of, token_sum
from opsmeter_site.lib.periods import QUARTER_HOUR
from workspaces.models import Workspace


class Reason(StrEnum):
    """Why requests of a name have no price."""

    UNKNOWN_PROVIDER = "Unknown provider"
    UNKNOWN_MODEL = "Unknown model"
    NO_PRICE_THEN = "No price at that time"
    PRICED_SINCE = "Priced since"


@dataclass(frozen=True, slots=True)
class UnpricedName:
    """One provider and model without a price, as the catalogue would write them, and how it was `sent`.

    `share` is that of all tokens of the workspace in the same time, 0 to 1. Moments are those of quarter hours.
    """

    provider: str
    model: str
    sent: tuple[Pair, ...]
    requests: int
    tokens: int
    share: Decimal
    first_seen: datetime
    last_seen: datetime
    endpoints: tuple[str, ...]
    reason: Reason
    suggestion: str | None = None


@dataclass(frozen=True, slots=True)
class Inbox:
    """What has no price. `waiting` still needs one; `priced_since` has one now, but had none when it was stored."""

    waiting: tuple[UnpricedName, ...]
    priced_since: tuple[UnpricedName, ...]
    requests: int
    tokens: int
    all_tokens: int

    @property
    def share(self) -> Decimal | None:
        """The share of all tokens that has no price; None without any tokens."""
        return Decimal(self.tokens) / self.all_tokens if self.all_tokens else None


def inbox(book: PriceBook, workspace: Workspace, start: datetime | None, now: datetime) -> Inbox:
    """What was sent since `start` (None: as long as sums are kept) and stored without a price, most tokens first.

    From roll-ups in two queries, so it counts all data modes.
    """
    rollups = Rollup.objects.filter(workspace_id=workspace.pk)
    if start is not None:
        rollups = rollups.filter(bucket_start__gte=start)
    all_tokens = rollups.aggregate(tokens=token_sum())["tokens"]
    groups: dict[Pair, list[Mapping[str, Any]]] = defaultdict(list)
    for row in _unpriced(rollups):
        groups[canonical_provider(row["provider"]), clean(row["model"])].append(row)
    known = frozenset(hosts(book, now))
    names = [_name(book, workspace, pair, rows, all_tokens, known, now) for pair, rows in groups.items()]
    names.sort(key=lambda name: (-name.tokens, -name.requests, name.provider, name.model))
    return Inbox(
        waiting=tuple(name for name in names if name.reason != Reason.PRICED_SINCE),
        priced_since=tuple(name for name in names if name.reason == Reason.PRICED_SINCE),
        requests=sum(name.requests for name in names),
        tokens=sum(name.tokens for name in names),
        all_tokens=all_tokens,
    )


def _unpriced(rollups: "QuerySet[Rollup]") -> Iterable[Mapping[str, Any]]:
    return (
        rollups.filter(is_priced=False)
        .values("provider", "model", "endpoint_tag")
        .annotate(sent=Sum("requests"), tokens=token_sum(), first=Min("bucket_start"), last=Max("bucket_start"))
        .order_by("-sent", "endpoint_tag", "provider", "model")
    )


def _name(
    book: PriceBook,
    workspace: Workspace,
    pair: Pair,
    rows: list[Mapping[str, Any]],
    all_tokens: int,
    known: frozenset[str],
    now: datetime,
) -> UnpricedName:
    tokens, last = sum(row["tokens"] for row in rows), max(row["last"] for row in rows)
    return UnpricedName(
        provider=pair[0],
        model=pair[1],
        sent=tuple(dict.fromkeys((row["provider"], row["model"]) for row in rows)),
        requests=sum(row["sent"] for row in rows),
        tokens=tokens,
        share=Decimal(tokens) / all_tokens if all_tokens else Decimal(0),
        first_seen=min(row["first"] for row in rows),
        last_seen=last,
        endpoints=tuple(dict.fromkeys(row["endpoint_tag"] for row in rows)),
        reason=_reason(book, workspace, pair, known, last, now),
    )


def _reason(
    book: PriceBook, workspace: Workspace, pair: Pair, known: frozenset[str], last_seen: datetime, now: datetime
) -> Reason:
    # A quarter hour's events are at its start or later, and a price may begin within it.
    latest = min(last_seen + QUARTER_HOUR, now)
    if decide(book, *pair, workspace.pk, latest).rates is not None:
        return Reason.PRICED_SINCE
    if decide(book, *pair, workspace.pk, now).model is not None:
        return Reason.NO_PRICE_THEN
    return Reason.UNKNOWN_MODEL if pair[0] in known else Reason.UNKNOWN_PROVIDER


def with_suggestions(book: PriceBook, names: Iterable[UnpricedName], now: datetime) -> list[UnpricedName]:
    """`names` (those that a page shows), each with the model of the same host that it might mean."""
    suggesters: dict[str, Suggester] = {}
    shown = []
    for name in names:
        if name.provider not in suggesters:
            suggesters[name.provider] = Suggester(models_of(book, name.provider, now))
        shown.append(replace(name, suggestion=suggesters[name.provider].suggest(name.model)))
    return shown
