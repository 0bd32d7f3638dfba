"""Which model of the same host an unknown name might mean. A suggestion for people: nothing is ever priced by it.

Three exact steps, in this order, each deciding the same way every time:

1. What hosts and gateways add to a name is taken away bit by bit (regions, paths, versions, short dates); the first
   rest that the catalogue knows.
2. A model whose name has the same words and numbers in another order or spelling.
3. A model with the same numbers and most of the words: gpt-4o is never suggested for gpt-5o.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

# How much of all the words of both names must be in both.
_WORDS_IN_COMMON = 0.6
_MOST_CANDIDATES = 100
_PARTS = re.compile(r"[a-z]+|\d+")
_ADDITIONS = (
    re.compile(r"^.*/(?=.)"),  # publishers/google/models/…, accounts/fireworks/models/…, an ARN
    re.compile(r"^(?:us|us-gov|eu|apac|ap|au|ca|sa|jp|global)\.(?=.)"),
    re.compile(r"^[a-z][a-z0-9-]*\.(?=[a-z])"),  # the vendor in front of the model on Bedrock
    re.compile(r"(?<=.)[-:]v\d+(?::\d+)?$"),
    re.compile(r"(?<=.):\d+$"),
    re.compile(r"(?<=.)[-@](?:20\d\d-\d\d-\d\d|\d\d-\d\d|\d{3,8})$"),
    re.compile(r"(?<=.)[-:@](?:latest|preview|exp|experimental|beta|stable|default|free)$"),
)


class _Parts(NamedTuple):
    words: frozenset[str]
    numbers: tuple[str, ...]
    ordered: tuple[str, ...]


def simpler_names(name: str) -> Iterator[str]:
    """`name` (cleaned), then what is left of it when additions are taken away, the least taken first."""
    found = [name]
    for written in found:
        yield written
        for addition in _ADDITIONS:
            rest = addition.sub("", written, count=1)
            if rest not in found and len(found) < _MOST_CANDIDATES:
                found.append(rest)


class Suggester:
    """Suggests among the models of one host."""

    def __init__(self, models: Mapping[str, Iterable[str]]) -> None:
        """`models`: each model with its other names."""
        self._known = {alias: model for model, aliases in models.items() for alias in aliases} | {
            model: model for model in models
        }
        # Of several models of the same parts, the plainest name, so that the answer is always the same.
        plain = sorted(models, key=lambda model: (len(model), model))
        self._parts = {model: _parts_of(model) for model in plain}
        self._by_parts: dict[tuple[str, ...], str] = {}
        for model, parts in self._parts.items():
            self._by_parts.setdefault(parts.ordered, model)

    def suggest(self, name: str) -> str | None:
        """The model that `name` (cleaned, unknown) might mean, if there is one to suggest."""
        for written in simpler_names(name):
            if written in self._known:
                return self._known[written]
        parts = _parts_of(name)
        return self._by_parts.get(parts.ordered) or self._nearest(parts)

    def _nearest(self, wanted: _Parts) -> str | None:
        best, best_share = None, 0.0
        for model, parts in self._parts.items():
            if parts.numbers != wanted.numbers or not parts.words:
                continue
            share = len(parts.words & wanted.words) / len(parts.words | wanted.words)
            if share > best_share:
                best, best_share = model, share
        return best if best_share >= _WORDS_IN_COMMON else None


def _parts_of(name: str) -> _Parts:
    """The words and numbers of a name without its additions, in an order that does not depend on how it is written."""
    shortest = min(simpler_names(name), key=lambda written: (len(written), written))
    ordered = tuple(sorted(_PARTS.findall(shortest)))
    numbers = tuple(part for part in ordered if part.isdigit())
    return _Parts(frozenset(ordered) - frozenset(numbers), numbers, ordered)
