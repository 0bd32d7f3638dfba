"""How a provider and model name, as a caller sends them, become a model of the catalogue. No guessing, no patterns.

Every step is an exact look-up of one written-out name, in an order that is fixed and shown:

1. as sent (trimmed, lower case)
2. an alias: another name that the catalogue, or an operator, gives the same model
3. the same name with its date written differently (`-20240513`, `@20240513`, `-2024-05-13`), because a dated snapshot
   can have a price of its own (gpt-4o-2024-05-13 costs twice gpt-4o)
4. without its date: a snapshot that the catalogue does not list costs what its model costs
5. dots as hyphens (claude-3.5-sonnet and claude-3-5-sonnet), if that leaves exactly one model

`-latest` is never removed: it follows whatever its vendor calls the newest, so only the catalogue knows what it costs.
Neither are shorter dates (-0613, -2407), which can also be versions with prices of their own (gpt-3.5-turbo-1106).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum


class Rule(StrEnum):
    """The step that found a model; stored and shown with every cost."""

    WORKSPACE_OVERRIDE = "workspace_override"
    EXACT = "exact"
    ALIAS = "alias"
    DATE_SPELLING = "date_spelling"
    DATE_REMOVED = "date_removed"
    PUNCTUATION = "punctuation"
    UNPRICED = "unpriced"


@dataclass(frozen=True, slots=True)
class Step:
    """One look-up: by which rule, of which written-out name, and which model it found."""

    rule: Rule
    name: str
    found: str | None


# What SDKs, gateways and the OpenTelemetry conventions call the hosts of the catalogue. Only names of the *same* host:
# Azure and Bedrock have prices of their own, and "azure-openai" is Azure, not OpenAI. Google's two doors, Gemini API
# and Vertex, are one provider in the catalogue's source.
PROVIDER_ALIASES: Mapping[str, str] = {
    alias: provider
    for provider, aliases in {
        "anthropic": ("claude",),
        "aws": (
            "amazon", "amazon-bedrock", "amazon_bedrock", "amazon.bedrock", "aws-bedrock", "aws_bedrock", "aws.bedrock",
            "bedrock", "bedrock_converse",
        ),
        "azure": (
            "az.ai.inference", "az.ai.openai", "azure-ai", "azure-openai", "azure.ai.inference", "azure.ai.openai",
            "azure_ai", "azure_openai", "azureopenai", "microsoft.foundry",
        ),
        "cloudflare": ("cloudflare-workers-ai", "workers-ai"),
        "cohere": ("cohere_chat",),
        "fireworks": ("fireworks-ai", "fireworks.ai", "fireworks_ai"),
        "github-copilot": ("copilot", "github_copilot"),
        "google": (
            "gcp.gemini", "gcp.gen_ai", "gcp.vertex_ai", "gemini", "google-ai", "google-gemini", "google-genai",
            "google-gla", "google-vertex", "google_ai", "google_genai", "google_vertexai", "googleai", "vertex",
            "vertex-ai", "vertex_ai", "vertexai",
        ),
        "mistral": ("mistral-ai", "mistral_ai", "mistralai"),
        "moonshotai": ("moonshot", "moonshot-ai"),
        "novita": ("novita-ai", "novita_ai"),
        "openai": ("open-ai", "open_ai"),
        "perplexity": ("perplexity-ai", "perplexity_ai", "perplexityai"),
        "together": ("together-ai", "together_ai", "togetherai"),
        "voyageai": ("voyage", "voyage-ai", "voyage_ai"),
        "x-ai": ("grok", "x_ai", "xai"),
        "zai": ("z-ai", "z.ai", "z_ai"),
    }.items()
    for alias in aliases
}  # fmt: skip

_DATE_AT_END = re.compile(r"^(.+)[-@](20\d\d)(-?)(\d\d)\3(\d\d)$")


def clean(name: str) -> str:
    """`name` as it is looked up: trimmed, lower case."""
    return name.strip().lower()


def canonical_provider(provider: str) -> str:
    """The catalogue's name of a host, from any of its known names; an unknown one is only trimmed and lower-cased."""
    cleaned = clean(provider)
    return PROVIDER_ALIASES.get(cleaned, cleaned)


def _squash(name: str) -> str:
    return name.replace(".", "-")


def _date_forms(name: str) -> tuple[tuple[str, ...], str | None]:
    """The other spellings of the date that ends `name`, and the name without it; nothing and None without a date."""
    match = _DATE_AT_END.match(name)
    if match is None:
        return (), None
    base, year, month, day = match[1], match[2], match[4], match[5]
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return (), None
    spellings = (f"{base}-{year}-{month}-{day}", f"{base}-{year}{month}{day}", f"{base}@{year}{month}{day}")
    return tuple(spelling for spelling in spellings if spelling != name), base


class NameIndex:
    """The names of one host's models (or of one workspace's own prices on it), ready to be looked up."""

    def __init__(self, models: Iterable[str], aliases: Mapping[str, str]) -> None:
        self.models = frozenset(models)
        # An alias of a model without prices would hide the steps after it.
        self.aliases = {alias: model for alias, model in aliases.items() if model in self.models}
        squashed: dict[str, str | None] = {}
        for name, model in [*((model, model) for model in self.models), *self.aliases.items()]:
            key = _squash(name)
            # Two models behind one squashed name: neither is meant.
            squashed[key] = model if squashed.get(key, model) == model else None
        self._squashed = squashed

    def steps(self, name: str) -> Iterator[Step]:
        """Look `name` (cleaned) up, one step at a time, ending with the step that found a model, if one does."""
        for step in self._all_steps(name):
            yield step
            if step.found is not None:
                return

    def _all_steps(self, name: str) -> Iterator[Step]:
        yield Step(Rule.EXACT, name, name if name in self.models else None)
        yield Step(Rule.ALIAS, name, self.aliases.get(name))
        spellings, base = _date_forms(name)
        for spelling in spellings:
            yield Step(Rule.DATE_SPELLING, spelling, self._known(spelling))
        if base is not None:
            yield Step(Rule.DATE_REMOVED, base, self._known(base))
        for written in (name, *spellings, base):
            if written is not None:
                yield Step(Rule.PUNCTUATION, _squash(written), self._squashed.get(_squash(written)))

    def _known(self, name: str) -> str | None:
        return name if name in self.models else self.aliases.get(name)
