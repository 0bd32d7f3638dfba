"""The SQL that reads a cover: rows (place, labels, sums) of one shape, whatever they come from.

From spans: summaries. From gaps: roll-ups, or raw rows for what roll-ups do not have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ingest.covers import Cover
from ingest.models import AttributionKind
from ingest.percentiles import BIN_SQL
from ingest.report_rows import FIGURE_COLUMNS
from ingest.selectors import Slice

Columns = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Source:
    """A SELECT, and its parameters."""

    sql: str
    parameters: Mapping[str, Any]


SQUARES = ("cost_squares", "token_squares", "latency_squares")
KINDS = tuple(AttributionKind.values)

_STORED = {name: name for name in FIGURE_COLUMNS}
_ROLLUP = _STORED | {"unpriced_requests": "CASE WHEN is_priced THEN 0 ELSE requests END"}
_RAW = _STORED | {
    "requests": "1",
    "unpriced_requests": "(cost_usd IS NULL)::int",
    "errors": "(status = 'error')::int",
    "latency_ms_sum": "coalesce(latency_ms, 0)",
    "latency_count": "(latency_ms IS NOT NULL)::int",
    "cost_usd": "coalesce(cost_usd, 0)",
}
_TOKENS = "(uncached_input_tokens::numeric + cache_read_tokens + cache_write_tokens + output_tokens)"
_ATTRIBUTED = " CROSS JOIN LATERAL (VALUES {}) AS attributed (kind, value)".format(
    ", ".join(f"('{kind}', {kind})" for kind in KINDS)
)
_STORED_DETAIL = {name: name for name in ("price_id", *SQUARES)}
_RAW_DETAIL = {
    "price_id": "coalesce(price_id, 0)",
    "cost_squares": "coalesce(cost_usd * cost_usd, 0)",
    "token_squares": f"{_TOKENS} * {_TOKENS}",
    "latency_squares": "coalesce(latency_ms::numeric * latency_ms, 0)",
}
_NO_DETAIL = {"price_id": "0"} | dict.fromkeys(SQUARES, "NULL::numeric")


def usage(cover: Cover, labels: Columns, where: Slice) -> Source:
    """Figures by `labels` (name → SQL over the dimensions); always exact."""
    return _source(
        cover,
        where,
        _from_spans("ingest_usagesummary", {**labels, **_STORED}),
        _from_rollups("gaps", {**labels, **_ROLLUP}),
    )


def detail(cover: Cover, labels: Columns, where: Slice) -> Source:
    """`usage` with `price_id`, 0 for none, and sums of squares; where neither is known, 0 and null."""
    return _source(
        cover,
        where,
        _from_spans("ingest_usagesummary", {**labels, **_STORED, **_STORED_DETAIL}),
        _from_raw_rows({**labels, **_RAW, **_RAW_DETAIL}),
        _from_rollups("lost", {**labels, **_ROLLUP, **_NO_DETAIL}),
    )


def attribution(cover: Cover, kinds: Sequence[str], labels: Columns, where: Slice) -> Source:
    """Figures by `labels` over kind, value, environment and data_mode; nothing where that is not known."""
    only = "kind = ANY(%(kinds)s::text[])"
    source = _source(
        cover,
        where,
        _from_spans("ingest_attributionsummary", {**labels, **_STORED}, only=only),
        _from_raw_rows({**labels, **_RAW}, joined=_ATTRIBUTED, only=only),
    )
    return Source(source.sql, {**source.parameters, "kinds": list(kinds)})


def attribution_of(cover: Cover, values: Mapping[str, Sequence[str]], where: Slice) -> Source:
    """Figures by kind and value, only of `values` (by kind), which are looked up one by one."""
    only = {kind: f"kind = '{kind}' AND value = ANY(%(values_{kind})s::text[])" for kind in KINDS if values.get(kind)}
    columns = {"kind": "kind", "value": "value"}
    source = _source(
        cover,
        where,
        *(_from_spans("ingest_attributionsummary", {**columns, **_STORED}, only=one) for one in only.values()),
        _from_raw_rows({**columns, **_RAW}, joined=_ATTRIBUTED, only=f"({' OR '.join(only.values()) or 'FALSE'})"),
    )
    return Source(source.sql, {**source.parameters, **{f"values_{kind}": list(values[kind]) for kind in only}})


def latency_bins(cover: Cover, labels: Columns, where: Slice, *, by_version: bool) -> Source:
    """Rows (place, labels, bin, requests), with labels over the environment and data mode.

    `by_version`: labels and `where` may also be about the endpoint and the prompt version; many more rows are read.
    """
    return _source(
        cover,
        where,
        _from_spans(
            "ingest_latencysummary",
            {**labels, "bin": "bin", "requests": "requests"},
            joined=" CROSS JOIN LATERAL unnest(bins, counts) AS binned (bin, requests)",
            only="endpoint_tag <> ''" if by_version else "endpoint_tag = ''",
        ),
        _from_raw_rows({**labels, "bin": BIN_SQL, "requests": "1"}, only="latency_ms IS NOT NULL"),
    )


def _from_spans(table: str, columns: Columns, *, joined: str = "", only: str = "TRUE") -> str:
    parts = "unnest(%(span_ids)s::bigint[], %(span_places)s::int[]) AS part (id, place)"
    return _select(parts, columns, f"{table}{joined}", f"span_id = part.id AND {only}")


def _from_rollups(gaps: str, columns: Columns) -> str:
    return _from_gaps(gaps, columns, "ingest_rollup", "bucket_start", "TRUE")


def _from_raw_rows(columns: Columns, *, joined: str = "", only: str = "TRUE") -> str:
    return _from_gaps("raw", columns, f"ingest_event{joined}", "occurred_at", only)


def _from_gaps(gaps: str, columns: Columns, table: str, moment: str, only: str) -> str:
    arrays = f"%({gaps}_starts)s::timestamptz[], %({gaps}_ends)s::timestamptz[], %({gaps}_places)s::int[]"
    parts = f"unnest({arrays}) AS part (starts, ends, place)"
    return _select(parts, columns, table, f"{moment} >= part.starts AND {moment} < part.ends AND {only}")


def _select(parts: str, columns: Columns, table: str, condition: str) -> str:
    """Each part by index, one after the other. OFFSET keeps the planner from joining the whole table instead."""
    listed = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    return f"""
        SELECT part.place, found.* FROM {parts} CROSS JOIN LATERAL (
            SELECT {listed} FROM {table} WHERE workspace_id = %(workspace)s AND {condition}{{where}} OFFSET 0
        ) AS found"""  # noqa: S608 (only names of this module are put in)


def _source(cover: Cover, where: Slice, *selects: str) -> Source:
    asked = {field.name: getattr(where, field.name) for field in fields(where)}
    asked = {name: list(values) for name, values in asked.items() if values}
    conditions = "".join(f" AND {name} = ANY(%(where_{name})s::text[])" for name in asked)
    sql = " UNION ALL ".join(select.format(where=conditions) for select in selects)
    return Source(sql, cover.parameters() | {f"where_{name}": values for name, values in asked.items()})
