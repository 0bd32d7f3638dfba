"""What a limit counts, in words: "Tenant acme", "API key Production backend", "3 tenants"."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from alerts.lists import short
from ingest.models import Limit, ScopeKind
from ingest.scope_words import kind_in_words, value_in_words
from opsmeter_site.lib.formats import count
from workspaces.models import ApiKey


@dataclass(frozen=True, slots=True)
class ScopeNames:
    """Values of scopes as people know them. `keys`: names of API keys by the value that stands for them."""

    keys: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, limits: Iterable[Limit]) -> "ScopeNames":
        """All that it takes to name what these limits count; one query at most."""
        workspace_ids = {limit.workspace_id for limit in limits if limit.scope_kind == ScopeKind.API_KEY_ID}
        keys = ApiKey.objects.filter(workspace__in=workspace_ids).values_list("pk", "name")
        return cls({str(pk): name for pk, name in keys})

    def value(self, kind: str, value: str) -> str:
        """One value, short enough for a sentence."""
        return short(value_in_words(kind, value, self.keys))

    def scope(self, kind: str, value: str) -> str:
        """Dimension and value: "Tenant acme"; empty for the whole workspace."""
        return f"{kind_in_words(kind)} {self.value(kind, value)}" if kind else ""


def plural(kind: str) -> str:
    """Several values of a dimension: "tenants", "API keys"."""
    return f"{kind_in_words(kind, is_first=False)}s"


def how_many(kind: str, number: int) -> str:
    """So many values of a dimension: "1 tenant", "3 API keys"."""
    return f"{count(number)} {kind_in_words(kind, is_first=False) if number == 1 else plural(kind)}"
