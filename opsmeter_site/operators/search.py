"""Finds a customer by whatever a support request names."""

import re
from uuid import UUID

from django.db.models import Q

from opsmeter_site.operators import traffic
from workspaces.models import AccessToken, ApiKey, Membership, Workspace

MOST = 50
# A credential, its public beginning, or the eight characters that name it.
_CREDENTIAL = re.compile(r"(?:om_(?:live|pat)_)?([0-9A-Za-z]{8})(?:_\S*)?")
_SECRET_PART = re.compile(r"(om_(?:live|pat)_[0-9A-Za-z]{8}_)\S+")


def find_workspaces(wanted: str) -> list[Workspace]:
    """Up to `MOST` workspaces, by id, slug, name, a member's address, or the public part of a key or token.

    Only if there is none: those that hold an event under this externalRequestId.
    """
    wanted = wanted.strip().replace("\x00", "")
    if not wanted:
        return []
    found = list(Workspace.objects.filter(_matches(wanted)).order_by("name")[:MOST])
    return found or _with_request(wanted)


def public_part(wanted: str) -> str:
    """What was asked for, to be shown again: of a whole credential only what is no secret."""
    return _SECRET_PART.sub(r"\1…", wanted)


def _matches(wanted: str) -> Q:
    members = Membership.objects.filter(user__email__icontains=wanted).values("workspace")
    matches = Q(slug__icontains=wanted) | Q(name__icontains=wanted) | Q(pk__in=members)
    if credential := _CREDENTIAL.fullmatch(wanted):
        keys = ApiKey.objects.filter(Q(lookup=credential[1]) | Q(previous_lookup=credential[1]))
        tokens = AccessToken.objects.filter(lookup=credential[1])
        matches |= Q(pk__in=keys.values("workspace")) | Q(pk__in=tokens.values("workspace"))
    try:
        return matches | Q(pk=UUID(wanted))
    except ValueError:
        return matches


def _with_request(wanted: str) -> list[Workspace]:
    return list(Workspace.objects.filter(pk__in=traffic.workspaces_with_request(wanted, MOST)).order_by("name"))
