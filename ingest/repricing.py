"""Pricing stored events again: asked for by a person, previewed and done by a worker, in pieces that may be killed.

A piece changes events, roll-ups, meters and the job's progress in one short transaction under the ledger lock, so that
the ledger agrees with itself after every one, and ingest hardly waits.

Lock order: the job, then the ledger. Who changes a job's state while it runs waits for the end of a piece.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from time import monotonic, sleep
from uuid import UUID

import structlog
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import F, Sum

from ingest import meters, pricing, repricing_preview
from ingest.limit_sets import ZERO
from ingest.meters import BEGINNING
from ingest.models import CatalogVersion, Event, Repricing, RepricingState, Rollup, WorkspacePolicy
from ingest.price_book import PriceBook
from ingest.repricing_ledger import OutpacedError, Rewrite, add_days
from ingest.repricing_pieces import Change, read_piece, spend_of
from ingest.retention import raw_detail_starts_at
from ingest.scoped_meters import limit_set_of
from ingest.services import lock_ledger
from ingest.sums_ahead import try_turn
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import FieldError, InvalidInput, NotAllowed, NotFound
from opsmeter_site.lib.periods import quarter_hour_of, to_wire
from workspaces.models import User, Workspace
from workspaces.services import record_audit

logger = structlog.get_logger(__name__)

MOST_MODELS = 90
LONGEST_REASON = 200
UNFINISHED = (RepricingState.PREVIEWING, RepricingState.PREVIEWED, RepricingState.RUNNING)
WORKED_ON = (RepricingState.PREVIEWING, RepricingState.RUNNING)

# Few enough that ingest, which waits for the same lock, does not feel a piece.
PIECE_ROWS = 100
# After a piece the worker rests for so many times as long as that took: the processor is there for ingest, too.
REST = 1.0
# While somebody adds up what a workspace has spent, which a piece would make void.
PAUSE_SECONDS = 0.2

# So long after a change of prices, at most, other processes store events by the older ones.
_BOOKS_FOLLOW = timedelta(seconds=2 * pricing.CHECK_EVERY_SECONDS)

_FAILED = "Something went wrong. What has been re-priced so far stays. The people who run the service can see why."
_PRICES_MOVED = "Prices have changed meanwhile. What has been re-priced so far stays; ask again for the rest."


class _NotOurTurnError(Exception):
    """Somebody makes sums of the workspace's events, which must not change meanwhile."""


class _PricesMovedError(Exception):
    """The prices are not those any more that somebody has confirmed."""


# --- Asking ---------------------------------------------------------------------------------------------------------


@transaction.atomic
def request_repricing(
    workspace: Workspace,
    *,
    provider: str,
    models_sent: Sequence[str],
    start: datetime,
    end: datetime,
    only_unpriced: bool,
    reason: str,
    acting_user: User,
) -> Repricing:
    """Store the wish; a worker previews it within seconds. Events that are priced by today's prices are not meant.

    Raises `InvalidInput`, and `NotAllowed` while another re-pricing of the workspace is unfinished.
    """
    now = utc_now()
    end = min(end, max(now, _catalogue_changed_at() + _BOOKS_FOLLOW))
    # Under the lock no event is under way that has an id already, and of two wishes at once the second sees the first.
    policy = lock_ledger(workspace.pk)
    names = list(dict.fromkeys(name.strip() for name in models_sent if name.strip()))
    _check(names, start, end, raw_detail_starts_at(policy, now), reason.strip())
    if Repricing.objects.filter(workspace=workspace, state__in=UNFINISHED).exists():
        raise NotAllowed("Another re-pricing of this workspace is not finished. Finish or cancel it first.")
    job = Repricing(
        workspace=workspace,
        created_by=acting_user,
        reason=reason.strip(),
        provider=provider.strip().lower(),
        models_sent=names,
        start=start,
        end=end,
        only_unpriced=only_unpriced,
        catalogue_version=_todays_book().version,
        last_id=_newest_id(workspace.pk),
    )
    job.expected_rows = _expected_rows(job)
    job.save()
    _record("repricing.requested", job, acting_user)
    return job


def _catalogue_changed_at() -> datetime:
    return CatalogVersion.objects.values_list("changed_at", flat=True).first() or BEGINNING


def _newest_id(workspace_id: UUID) -> int:
    newest = Event.objects.filter(workspace=workspace_id).order_by("-pk").values_list("pk", flat=True).first()
    return newest or 0


def _check(names: Sequence[str], start: datetime, end: datetime, kept_from: datetime, reason: str) -> None:
    errors = []
    if start >= end:
        errors.append(FieldError("end", "Must be later than the start."))
    if start < kept_from:
        message = f"Single requests are kept since {to_wire(kept_from)} only; older ones cannot be priced again."
        errors.append(FieldError("start", message))
    if len(names) > MOST_MODELS:
        errors.append(FieldError("models_sent", f"At most {MOST_MODELS} models at a time."))
    if not reason:
        errors.append(FieldError("reason", "Say why, for the audit log."))
    elif len(reason) > LONGEST_REASON:
        errors.append(FieldError("reason", f"At most {LONGEST_REASON} characters."))
    if errors:
        raise InvalidInput(" ".join(error.message for error in errors), errors=errors)


def _expected_rows(job: Repricing) -> int:
    rollups = Rollup.objects.filter(
        workspace_id=job.workspace_id, bucket_start__gte=quarter_hour_of(job.start), bucket_start__lt=job.end
    )
    if job.provider:
        rollups = rollups.filter(provider=job.provider)
    if job.models_sent:
        rollups = rollups.filter(model__in=job.models_sent)
    if job.only_unpriced:
        rollups = rollups.filter(is_priced=False)
    return rollups.aggregate(rows=Sum("requests"))["rows"] or 0


@transaction.atomic
def run_repricing(job: Repricing, *, acting_user: User) -> None:
    """Confirm a preview: a worker changes the events, also those that have arrived since the wish.

    Raises `NotAllowed` unless it is previewed at today's prices.
    """
    stored = _locked(job)
    if stored.state != RepricingState.PREVIEWED:
        raise NotAllowed("Only a re-pricing that waits for confirmation can be run.")
    if _todays_book().version != stored.catalogue_version:
        raise NotAllowed("Prices have changed since the preview. Preview again.")
    lock_ledger(stored.workspace_id)
    stored.last_id = _newest_id(stored.workspace_id)
    stored.state, stored.worked_at = RepricingState.RUNNING, None
    stored.cursor = stored.looked_at_rows = stored.changed_rows = 0
    stored.save()
    _record("repricing.started", stored, acting_user)


@transaction.atomic
def preview_again(job: Repricing, *, acting_user: User) -> None:
    """Make the preview anew, with today's prices. Raises `NotAllowed` unless the job waits for confirmation."""
    stored = _locked(job)
    if stored.state != RepricingState.PREVIEWED:
        raise NotAllowed("Only a re-pricing that waits for confirmation can be previewed again.")
    repricing_preview.begin(stored, _todays_book().version)
    stored.worked_at = None
    stored.save()
    _record("repricing.previewed_again", stored, acting_user)


@transaction.atomic
def cancel_repricing(job: Repricing, *, acting_user: User) -> None:
    """Stop. What has been re-priced so far stays, and the ledger agrees with it. Raises `NotAllowed` if it is over."""
    stored = _locked(job)
    if stored.state not in UNFINISHED:
        raise NotAllowed("This re-pricing is finished already.")
    _close(stored, RepricingState.CANCELLED)
    stored.save()
    _record("repricing.cancelled", stored, acting_user)


def _locked(job: Repricing) -> Repricing:
    stored = Repricing.objects.select_for_update().filter(pk=job.pk).first()
    if stored is None:
        raise NotFound("There is no such re-pricing any more.")
    return stored


def _todays_book() -> PriceBook:
    """The prices as they are now, rather than as this process knew them some seconds ago."""
    pricing.look_again()
    return pricing.current_book()


def _record(action: str, job: Repricing, acting_user: User | None) -> None:
    filters = {
        "provider": job.provider or "all",
        "models": ", ".join(job.models_sent) or "all",
        "from": to_wire(job.start),
        "until": to_wire(job.end),
        "only_unpriced": job.only_unpriced,
    }
    data = {"filters": filters, "reason": job.reason, "rows": job.changed_rows}
    if action == "repricing.finished":
        done = job.days.filter(is_preview=False).aggregate(before=Sum("before_usd"), after=Sum("after_usd"))
        data |= {"before_usd": str(done["before"] or ZERO), "after_usd": str(done["after"] or ZERO)}
    record_audit(action, acting_user=acting_user, workspace=job.workspace, target=job, data=data)


# --- Working --------------------------------------------------------------------------------------------------------


def work_on_repricings(seconds: float) -> None:
    """Do pieces of what is to be done for about so long, at least one: of the job that has waited longest first."""
    pricing.look_again()
    until = monotonic() + seconds
    rest = 0.0
    while (next_rest := _do_piece(rest)) is not None and monotonic() < until:
        rest = next_rest


@transaction.atomic
def _do_piece(rest: float) -> float | None:
    """Rest, then do the next piece of one job; the seconds to rest for then, or None if there is nothing to do.

    The job is held while the worker rests, so that two workers do not do twice as much.
    """
    waiting = Repricing.objects.filter(state__in=WORKED_ON).select_related("workspace")
    job = (
        waiting.select_for_update(skip_locked=True, of=("self",))
        .order_by(F("worked_at").asc(nulls_first=True), "pk")
        .first()
    )
    if job is None:
        return None
    sleep(rest)
    started = monotonic()
    try:
        with transaction.atomic():
            _advance(job)
    except (OperationalError, InterfaceError):
        raise  # the database is away: the next sweep goes on
    except _NotOurTurnError:
        # The other jobs come first.
        Repricing.objects.filter(pk=job.pk).update(worked_at=utc_now())
        return PAUSE_SECONDS
    except OutpacedError:
        pass  # nothing of it is stored: the piece is done again
    except _PricesMovedError:
        _fail(job.pk, _PRICES_MOVED)
    except Exception:  # whatever it is, it must not keep the other jobs from being worked on
        logger.exception("repricing_failed", job=job.pk)
        _fail(job.pk, _FAILED)
    return REST * (monotonic() - started)


def _fail(job_id: int, error: str) -> None:
    """Give a job up, as it was before the piece that went wrong."""
    job = Repricing.objects.select_related("workspace").get(pk=job_id)
    _close(job, RepricingState.FAILED)
    job.error = error
    job.save()
    _record("repricing.failed", job, None)


def _advance(job: Repricing) -> None:
    """Do the next piece of a job. Raises errors of this module and `OutpacedError`; then nothing may be stored."""
    job.worked_at = utc_now()
    book = pricing.current_book()
    if book.version < job.catalogue_version:
        book = _todays_book()
    if job.state == RepricingState.PREVIEWING:
        if book.version != job.catalogue_version:
            repricing_preview.begin(job, book.version)
        repricing_preview.preview_piece(job, book)
        if job.state == RepricingState.PREVIEWED and not job.changed_rows:
            _finish(job)  # nobody need confirm that nothing changes
        job.save()
    elif book.version != job.catalogue_version:
        raise _PricesMovedError
    else:
        _run_piece(job, book)


def _run_piece(job: Repricing, book: PriceBook) -> None:
    if not try_turn(job.workspace_id):
        raise _NotOurTurnError
    piece = read_piece(job, book, PIECE_ROWS)
    job.cursor = piece.cursor
    job.looked_at_rows += piece.events
    job.changed_rows += len(piece.changes)
    job.save()
    if piece.changes:
        _rewrite(job, piece.changes)
    if job.cursor >= job.last_id:
        _finish(job)
        job.save()


def _finish(job: Repricing) -> None:
    """End a job that has done all there was to do; the caller saves it."""
    _close(job, RepricingState.DONE)
    _record("repricing.finished", job, None)


def _rewrite(job: Repricing, changes: Sequence[Change]) -> None:
    """Write changes. All that can be is done before the lock is taken, and must still hold under it."""
    add_days(job, changes, is_preview=False)
    rewrite = Rewrite(job, changes)
    counted = WorkspacePolicy.objects.get(workspace_id=job.workspace_id).counted_data_modes
    limits = limit_set_of(job.workspace_id)
    spend = spend_of(changes, limits, counted)
    with connection.cursor() as cursor:
        # Nobody is told of a piece: if the database loses its last moments, the job is where it was before them, too.
        cursor.execute("SET LOCAL synchronous_commit = off")
    policy = lock_ledger(job.workspace_id)
    if (policy.limits_version, policy.counted_data_modes) != (limits.version, counted):
        raise OutpacedError
    rewrite.write()
    meters.add_to_meters(job.workspace_id, spend)


def _close(job: Repricing, state: RepricingState) -> None:
    """End a job; if it has changed events, the limits that are over now are told once. The caller saves it."""
    if job.state == RepricingState.RUNNING:
        lock_ledger(job.workspace_id)
        meters.record_crossings(job.workspace_id, utc_now())
    job.state, job.finished_at = state, utc_now()
