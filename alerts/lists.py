"""Names that programs sent, and lists of them, as parts of a sentence."""

from collections.abc import Sequence

MOST_LISTED = 20
_LONGEST_NAME = 60


def listed(lines: Sequence[str], most: int = MOST_LISTED) -> str:
    """`lines` as part of a sentence: the first ones, and how many more."""
    rest = len(lines) - most
    shown = ", ".join(lines[:most])
    return f"{shown} and {rest:,} more" if rest > 0 else shown


def short(name: str) -> str:
    """A name that somebody's program sent, short enough for a sentence."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
