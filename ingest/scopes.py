"""The dimensions that limits can be set on: what they are called on the wire, and how their values are written.

A value is compared letter by letter with what events are stored with, so it is brought into that form when it is set.
"""

from collections.abc import Mapping
from typing import Protocol

from ingest.models import Environment, ScopeKind

WIRE_NAMES: Mapping[str, str] = {
    ScopeKind.ENDPOINT_TAG.value: "endpointTag",
    ScopeKind.TENANT_ID.value: "tenantId",
    ScopeKind.USER_ID.value: "userId",
    ScopeKind.MODEL.value: "model",
    ScopeKind.PROVIDER.value: "provider",
    ScopeKind.PROMPT_VERSION.value: "promptVersion",
    ScopeKind.ENVIRONMENT.value: "environment",
    ScopeKind.API_KEY_ID.value: "apiKey",
}
# On the wire the whole workspace is a scope like others.
WORKSPACE_WIRE_NAME = "workspace"

# Dimensions that roll-ups have too; the others are found in raw rows only, as long as those are kept.
ROLLED_UP = frozenset(
    {
        ScopeKind.ENDPOINT_TAG.value,
        ScopeKind.MODEL.value,
        ScopeKind.PROVIDER.value,
        ScopeKind.PROMPT_VERSION.value,
        ScopeKind.ENVIRONMENT.value,
    }
)
_LENGTHS = {ScopeKind.PROVIDER.value: 100}
_LONGEST = 200


class Scoped(Protocol):
    """Anything that limits can match: an event, or a question about one to come."""

    def scope_value(self, kind: str) -> str:
        """Its value of the dimension `kind` (a `ScopeKind`)."""


def wire_name(kind: str) -> str:
    """What the wire calls the scope; "workspace" for an empty `kind`."""
    return WIRE_NAMES.get(kind, WORKSPACE_WIRE_NAME)


def cleaned_value(kind: str, text: str) -> str:
    """`text` as events carry it. Raises ValueError, with a sentence, for what no event can carry."""
    value = text.strip()
    if kind == ScopeKind.PROVIDER:
        value = value.lower()
    if kind == ScopeKind.ENVIRONMENT:
        value = value.casefold()
    if not value:
        raise ValueError("Must not be empty.")
    if "\x00" in value:
        raise ValueError("Must not contain NUL characters.")
    longest = _LENGTHS.get(kind, _LONGEST)
    if len(value) > longest:
        raise ValueError(f"At most {longest} characters.")
    if kind == ScopeKind.ENVIRONMENT and value not in Environment.values:
        raise ValueError(f"Must be one of: {', '.join(Environment.values)}.")
    if kind == ScopeKind.API_KEY_ID and not value.isdecimal():
        raise ValueError("Must be the id of an API key of this workspace.")
    return value
