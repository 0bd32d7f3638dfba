"""How this app's commands name a workspace."""

from contextlib import suppress
from uuid import UUID

from django.core.management.base import CommandError
from django.db.models import Q

from workspaces.models import Workspace


def find_workspace(slug_or_id: str) -> Workspace:
    """The workspace with this slug or id. Raises CommandError if there is none."""
    named = Q(slug=slug_or_id)
    with suppress(ValueError):  # not an id, so it can only be a slug
        named |= Q(id=UUID(slug_or_id))
    workspace = Workspace.objects.filter(named).first()
    if workspace is None:
        raise CommandError(f"No workspace has the slug or id {slug_or_id!r}.")
    return workspace
