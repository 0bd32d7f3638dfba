"""How an export is written: CSV or JSON Lines, piece by piece, from whatever place the last piece ended at."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection

from ingest.export_rows import COLUMNS, PART_ROWS, Row, Wish, local_text, read, utc_text
from ingest.models.exports import ExportFormat, ExportWhat

MOST_ROWS = 5_000_000
CONTENT_TYPES = {
    ExportFormat.CSV: "text/csv; charset=utf-8",
    ExportFormat.JSONL: "application/x-ndjson; charset=utf-8",
}
# What a spreadsheet would run. Callers choose most texts, and a file is opened by somebody else.
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
_NAMES = {ExportWhat.REQUESTS: "requests", ExportWhat.QUARTER_HOURS: "quarter-hours", ExportWhat.DAYS: "days"}


@dataclass(frozen=True, slots=True)
class Outline:
    """A file to be written: its rows, its format, and what it says about itself.

    `words` are the filters as people read them; `made_at` is when it was asked for.
    """

    wish: Wish
    format: str
    slug: str
    made_at: datetime
    words: list[tuple[str, str]] = field(default_factory=list)
    most_rows: int = MOST_ROWS

    def name(self, *, is_truncated: bool = False) -> str:
        """The file's name: whose, what, which days, and whether rows were left out."""
        filters, zone = self.wish.filters, self.wish.zone
        first = f"{filters.start.astimezone(zone):%Y%m%d}" if filters.start else "beginning"
        # The end is not included: midnight is the end of the day before.
        end = min(filters.end or self.made_at, self.made_at) - timedelta(microseconds=1)
        last = f"{end.astimezone(zone):%Y%m%d}"
        parts = [self.slug, _NAMES[ExportWhat(self.wish.what)], f"{first}-{last}"]
        parts += ["filtered"] if filters.where else []
        parts += ["truncated"] if is_truncated else []
        return f"{'-'.join(parts)}.{self.format}"

    def about(self, progress: "Progress") -> dict[str, Any]:
        """What the file covers, for machines."""
        filters, zone = self.wish.filters, self.wish.zone
        return {
            "workspace": self.slug,
            "what": self.wish.what,
            "timezone": zone.key,
            "fromUtc": filters.start and utc_text(filters.start),
            "untilUtc": filters.end and utc_text(filters.end),
            "fromLocal": filters.start and local_text(filters.start, zone),
            "untilLocal": filters.end and local_text(filters.end, zone),
            "filters": dict(self.words),
            "madeAtUtc": utc_text(self.made_at),
            "rows": progress.rows,
            "isComplete": progress.is_done and not progress.is_truncated,
            "isTruncated": progress.is_truncated,
            "mostRows": self.most_rows,
            "columns": list(COLUMNS[self.wish.what]),
        }


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a file is written."""

    position: str = ""
    rows: int = 0
    is_begun: bool = False
    is_done: bool = False
    is_truncated: bool = False


def write_part(outline: Outline, progress: Progress) -> tuple[bytes, Progress]:
    """The next piece of the file, perhaps empty, and how far it is then."""
    part = read(outline.wish, progress.position, min(PART_ROWS, outline.most_rows - progress.rows))
    rows = progress.rows + len(part.rows)
    is_truncated = bool(part.position) and rows >= outline.most_rows
    after = Progress(part.position, rows, True, not part.position or is_truncated, is_truncated)
    columns = COLUMNS[outline.wish.what]
    text = _WRITERS[outline.format](columns, part.rows, not progress.is_begun)
    if after.is_done and outline.format == ExportFormat.JSONL:
        text += json.dumps({"_about": outline.about(after)}, ensure_ascii=False) + "\n"
    return text.encode(), after


def stream(outline: Outline) -> Iterator[bytes]:
    """The whole file, read while it is sent. Between two pieces no connection to the database is held."""
    progress = Progress()
    while not progress.is_done:
        piece, progress = write_part(outline, progress)
        release_connection()
        yield piece


def release_connection() -> None:
    """Give this thread's connection back: whoever reads a file slowly must not keep it from others."""
    if not connection.in_atomic_block:
        connection.close()


# --- Formats --------------------------------------------------------------------------------------------------------


def _csv(columns: Iterable[str], rows: Iterable[Row], has_header: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    if has_header:
        writer.writerow(columns)
    writer.writerows([_csv_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def _csv_cell(cell: Any) -> Any:
    match cell:
        case str():
            return f"'{cell}" if cell.startswith(_FORMULA_SIGNS) else cell
        case Decimal():
            return f"{cell:f}"
        case bool():
            return "true" if cell else "false"
        case dict():
            return json.dumps(cell, ensure_ascii=False)
    return cell


def _jsonl(columns: Iterable[str], rows: Iterable[Row], _has_header: bool) -> str:
    names = tuple(columns)
    return "".join(
        json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, default=_json_value) + "\n" for row in rows
    )


def _json_value(value: object) -> str:
    """Money as a text with exactly its digits: most readers of JSON make floats of numbers."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    raise TypeError(f"{type(value).__name__} has no place in an export")


_WRITERS: Mapping[str, Callable[[Iterable[str], Iterable[Row], bool], str]] = {
    ExportFormat.CSV: _csv,
    ExportFormat.JSONL: _jsonl,
}
