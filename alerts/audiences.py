"""Whom alerts are for: a workspace with its preferences and its plan, held while its inbox changes."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from uuid import UUID

import structlog
from django.db import InterfaceError, OperationalError, transaction

from alerts.preferences import Preferences, preferences_of_many
from billing.selectors import NO_PLAN, PlanFeatures, features_of
from workspaces.models import Workspace

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Audience:
    """One workspace, and what it and its plan say about telling it something."""

    workspace: Workspace
    preferences: Preferences
    plan: PlanFeatures


def lock_inboxes(workspace_ids: Iterable[UUID], *, skip_locked: bool = False) -> list[Workspace]:
    """The workspaces, held until the transaction ends. Whoever raises or resolves alerts calls this first.

    One after the other, so that a repeat sees the alert before it, and a message the one that it may join. Always in
    the same order, so that two callers never wait for each other. `skip_locked` leaves out those that somebody holds.
    """
    inboxes = Workspace.objects.filter(pk__in=list(workspace_ids)).order_by("pk")
    return list(inboxes.select_for_update(no_key=True, skip_locked=skip_locked))


def lock_audiences(workspace_ids: Iterable[UUID], *, skip_locked: bool = False) -> dict[UUID, Audience]:
    """`lock_inboxes`, with all that routing asks for; a workspace that is gone is missing."""
    workspaces = lock_inboxes(workspace_ids, skip_locked=skip_locked)
    preferences = preferences_of_many(each.pk for each in workspaces)
    plans = features_of(each.pk for each in workspaces)
    return {each.pk: Audience(each, preferences[each.pk], plans.get(each.pk, NO_PLAN)) for each in workspaces}


def work_for_all(workspace_ids: Collection[UUID], work: Callable[[Collection[UUID]], None]) -> list[UUID]:
    """Do `work` for all these workspaces at once, or if that fails for one at a time; those for which it is done.

    A workspace that fails stops no other: what was done for it is undone, and the reason logged.
    """
    if not workspace_ids:
        return []
    try:
        with transaction.atomic():
            work(workspace_ids)
    except (InterfaceError, OperationalError):
        # The database went away, or asks to begin again: that concerns the whole transaction.
        raise
    except Exception:
        if len(workspace_ids) > 1:
            return [done for each in workspace_ids for done in work_for_all([each], work)]
        logger.exception("alerts.workspace_failed", workspace_id=str(*workspace_ids))
        return []
    return list(workspace_ids)
