"""What a budget covers, in words: "Tenant acme", "Each tenant"."""

from collections.abc import Mapping
from typing import Protocol
from uuid import UUID

from ingest.models import ScopeKind
from workspaces.models import ApiKey

WORKSPACE_WORDS = "Whole workspace"


class Scope(Protocol):
    """The scope of a `Budget` or a `BudgetDraft`."""

    @property
    def scope_kind(self) -> str:
        """A `ScopeKind`; empty for the whole workspace."""

    @property
    def scope_value(self) -> str:
        """Empty for each value."""

    @property
    def is_each_value(self) -> bool:
        """Whether it holds every value by itself."""


def key_names(workspace_id: UUID) -> dict[str, str]:
    """The names of the workspace's API keys by what limits call them; also of those that are revoked."""
    return {str(pk): name for pk, name in ApiKey.objects.filter(workspace_id=workspace_id).values_list("pk", "name")}


def kind_in_words(kind: str, *, is_first: bool = True) -> str:
    """A dimension as people call it: "Tenant", or "tenant" within a sentence."""
    label = str(ScopeKind(kind).label)
    return label if is_first or kind == ScopeKind.API_KEY_ID else label.lower()


def value_in_words(kind: str, value: str, keys: Mapping[str, str]) -> str:
    """One value of a dimension as people know it: API keys have names."""
    return keys.get(value, f"no. {value}") if kind == ScopeKind.API_KEY_ID else value


def scope_in_words(scope: Scope, keys: Mapping[str, str]) -> str:
    """What it covers: "Whole workspace", "Tenant acme", "Each tenant"."""
    if not scope.scope_kind:
        return WORKSPACE_WORDS
    if scope.is_each_value:
        return f"Each {kind_in_words(scope.scope_kind, is_first=False)}"
    return f"{kind_in_words(scope.scope_kind)} {value_in_words(scope.scope_kind, scope.scope_value, keys)}"
