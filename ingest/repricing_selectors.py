"""What pages show of re-pricings: the names that can be priced again, and what a job changes, day by day."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db.models import Min, Q, Sum

from ingest.models import Repricing, RepricingDay, RepricingState, Rollup
from ingest.price_book import PriceBook
from ingest.price_names import canonical_provider, clean
from ingest.price_selectors import Pair, model_meant
from ingest.repricing import UNFINISHED
from ingest.scope_words import key_names, kind_in_words, value_in_words
from workspaces.models import Workspace

_COLUMNS = ("rows", "newly_priced", "before_usd", "after_usd")


# --- What can be priced again ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SentName:
    """A provider and model as the workspace sent them, with its requests since some moment."""

    provider: str
    model: str
    requests: int
    unpriced_requests: int
    first_seen: datetime


def sent_names(workspace: Workspace, start: datetime) -> list[SentName]:
    """The names that the workspace has sent since `start`, the most frequent first; all data modes."""
    rows = (
        Rollup.objects.filter(workspace_id=workspace.pk, bucket_start__gte=start)
        .values("provider", "model")
        .annotate(
            sent=Sum("requests"),
            unpriced=Sum("requests", filter=Q(is_priced=False), default=0),
            first=Min("bucket_start"),
        )
        .order_by("-sent", "provider", "model")
    )
    return [SentName(row["provider"], row["model"], row["sent"], row["unpriced"], row["first"]) for row in rows]


def names_meant(
    book: PriceBook, workspace: Workspace, sent: Iterable[SentName], asked: Iterable[Pair], now: datetime
) -> list[SentName]:
    """Those of `sent` that are one of `asked`: as written, as the catalogue writes names, or as prices are found."""
    wanted = set(asked)
    return [
        name
        for name in sent
        if {
            (name.provider, name.model),
            (canonical_provider(name.provider), clean(name.model)),
            model_meant(book, name.provider, name.model, workspace.pk, now),
        }
        & wanted
    ]


# --- What a job changes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Effect:
    """How many requests get another cost, how many of them their first one, and USD before and after."""

    rows: int = 0
    newly_priced: int = 0
    before_usd: Decimal = Decimal(0)
    after_usd: Decimal = Decimal(0)

    @property
    def difference(self) -> Decimal:
        """USD; negative if the requests become cheaper."""
        return self.after_usd - self.before_usd


@dataclass(frozen=True, slots=True)
class DayOfJob:
    """One UTC day: what the preview found, and what has been done."""

    day: datetime
    previewed: Effect = Effect()
    done: Effect = Effect()


def effects(jobs: Iterable[Repricing]) -> Mapping[tuple[int, bool], Effect]:
    """The sums over all days by job and whether it is the preview, in one query."""
    sums = (
        RepricingDay.objects.filter(repricing__in=[job.pk for job in jobs])
        .values("repricing_id", "is_preview")
        .annotate(**{f"sum_{name}": Sum(name) for name in _COLUMNS})
        .values_list("repricing_id", "is_preview", *(f"sum_{name}" for name in _COLUMNS))
    )
    return {(job_id, is_preview): Effect(*figures) for job_id, is_preview, *figures in sums}


def effect_now(job: Repricing, found: Mapping[tuple[int, bool], Effect]) -> Effect:
    """What a list shows of a job: what it would do as long as it waits, then what it has done."""
    is_preview = job.state in (RepricingState.PREVIEWING, RepricingState.PREVIEWED)
    return found.get((job.pk, is_preview), Effect())


def days_of(job: Repricing) -> list[DayOfJob]:
    """The UTC days on which the job changes something, or was to, in order."""
    by_day: dict[datetime, dict[bool, Effect]] = {}
    for row in job.days.order_by("day"):
        figures = Effect(*(getattr(row, name) for name in _COLUMNS))
        by_day.setdefault(row.day, {})[row.is_preview] = figures
    return [DayOfJob(day, both.get(True, Effect()), both.get(False, Effect())) for day, both in by_day.items()]


@dataclass(frozen=True, slots=True)
class AffectedLimit:
    """A limit of a running period whose count a preview moves. All in USD."""

    name: str
    scope: str
    period: str
    amount: Decimal
    before: Decimal
    after: Decimal
    would_be_exceeded: bool
    no_longer_exceeded: bool


def affected_limits(job: Repricing) -> list[AffectedLimit]:
    """What the preview found about limits, in its order; nothing unless it waits for an answer."""
    if job.state != RepricingState.PREVIEWED:
        return []
    keys = key_names(job.workspace_id)
    return [
        AffectedLimit(
            name=found["name"],
            scope=_scope(found["scope_kind"], found["scope_value"], keys),
            period=found["period"],
            amount=Decimal(found["amount"]),
            before=Decimal(found["before"]),
            after=Decimal(found["after"]),
            would_be_exceeded=found["would_be_exceeded"],
            no_longer_exceeded=found["no_longer_exceeded"],
        )
        for found in job.limits_affected
    ]


def _scope(kind: str, value: str, keys: Mapping[str, str]) -> str:
    """Whose budget it is, in words; empty for the whole workspace."""
    return f"{kind_in_words(kind)} {value_in_words(kind, value, keys)}" if kind else ""


def unfinished(workspace: Workspace) -> Repricing | None:
    """The one job that is under way or waits for an answer; there is at most one."""
    return Repricing.objects.filter(workspace=workspace, state__in=UNFINISHED).first()
