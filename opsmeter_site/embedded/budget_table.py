"""The table of states in `docs/budgets.md`: what an answer must say in each of them, and what a client then shows."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "budgets.md"

# The rows of the document's table, by the text in their first column.
BELOW = "below the warning threshold"
WARNING = "at or above the warning threshold"
SOFT_STOP = "above the limit, soft stop"
HARD_STOP = "above the limit, hard stop"
OBSERVED = "above the limit, hard stop, observe mode"
PLAN_LIMIT = "plan limit reached"


class VerifyError(Exception):
    """The check failed, or could not be made; the text is shown as it is."""


@dataclass(frozen=True)
class Row:
    """One state of the document's table: what the answer must say (by field), and what a client shows."""

    fields: Mapping[str, Any]
    shows: Sequence[str]


def read_table(text: str) -> dict[str, Row]:
    """The table whose first column is called "State". A dash in a cell: this state says nothing about that field."""
    rows: dict[str, Row] = {}
    header: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not header:
            header = [cell.strip("`") for cell in cells] if cells[:1] == ["State"] else []
        elif not cells:
            break
        elif set(cells[0]) - set("-: "):
            named = dict(zip(header, cells, strict=True))
            shows = re.findall(r"`([^`]+)`", named.pop("A client shows"))
            state = named.pop("State")
            rows[state] = Row({name: _value(cell) for name, cell in named.items() if cell != "–"}, shows)
    return rows


def _value(cell: str) -> Any:
    plain = cell.strip("`")
    try:
        return json.loads(plain)
    except ValueError:
        return plain


def documented(path: Path, states: Sequence[str]) -> dict[str, Row]:
    """The document's table; VerifyError if it cannot be read or one of the states is missing."""
    try:
        rows = read_table(path.read_text(encoding="utf-8"))
    except (OSError, KeyError, ValueError) as error:
        raise VerifyError(f"the table of states in {path} cannot be read: {error}") from error
    for state in states:
        if state not in rows:
            raise VerifyError(f'{path} has no row "{state}" in its table of states')
    return rows


def messages(answer: Mapping[str, Any]) -> list[str]:
    """What the documented client code shows for an ingest answer, in its order and its words."""
    shown = []
    if answer.get("budgetWarning"):
        shown.append("Budget warning threshold reached")
    if answer.get("budgetExceeded"):
        shown.append("Budget reached")
    if answer.get("planLimitRequests", 0) > 0 and answer.get("freeLimitRemainingRequests", 0) <= 0:
        shown.append("Telemetry paused. Plan limit reached.")
    return shown


def differences(row: Row, said: Mapping[str, Any], shown: Sequence[str] | None) -> Iterator[str]:
    """Where `said` (fields, of which the row's are looked at) and what a client shows are not as documented."""
    for name, expected in row.fields.items():
        if name in said and not _is_same(said[name], expected):
            yield f"{name} is {json.dumps(said[name])}, documented is {json.dumps(expected)}"
    if shown is not None and list(shown) != list(row.shows):
        yield f"a client shows {quoted(shown)}, documented is {quoted(row.shows)}"


def _is_same(said: Any, expected: Any) -> bool:
    """Strictly: 1 is not true."""
    return type(said) is type(expected) and bool(said == expected)


def quoted(shown: Sequence[str]) -> str:
    """What a client shows, in words."""
    return " and ".join(f'"{text}"' for text in shown) or "nothing"
