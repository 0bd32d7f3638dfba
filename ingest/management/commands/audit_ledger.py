"""`manage.py audit_ledger`: print where raw rows, sums, leases and holds disagree; exit code 1 if they do anywhere."""

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from ingest.audit import HoldDrift, LedgerReport, MeterDrift, RollupDrift, audit_all, audit_workspace
from ingest.management.workspace_argument import find_workspace
from ingest.scopes import wire_name
from opsmeter_site.lib.clock import utc_now

_METER_HEAD = ("meter", "scope", "events", "meter says", "difference", "unpriced tokens")
_HOLD_HEAD = ("until", "scope", "leases", "held", "difference", "unpriced tokens")


class Command(BaseCommand):
    help = (
        "Compares raw rows, roll-ups and meters, leases and holds of every workspace, or of one. Exit code 1 if any "
        "drift is not zero."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--workspace", metavar="SLUG|ID", help="only this workspace")
        parser.add_argument("--json", action="store_true", help="print a list of JSON reports instead of tables")

    def handle(self, *_args: Any, **options: Any) -> None:
        failed = 0
        if options["workspace"]:
            reports = [audit_workspace(find_workspace(options["workspace"]).id, utc_now())]
        else:
            reports, failed = audit_all(utc_now())
        if options["json"]:
            self.stdout.write(json.dumps([report.to_json() for report in reports], indent=2))
        else:
            for report in reports:
                self.stdout.write(describe(report))
        if failed:
            self.stderr.write(f"{failed} workspaces could not be audited; the log says why.")
        if failed or not all(report.is_exact for report in reports):
            sys.exit(1)


def describe(report: LedgerReport) -> str:
    """The report as a table for people."""
    since = f"since {report.since:%Y-%m-%d %H:%MZ}" if report.since else "since the first"
    lines = [
        f"{report.slug} ({report.workspace_id})",
        f"  {report.events:,} raw rows {since}, {report.days} days; {report.periods} meters",
        f"  drift: {report.drift_usd:.12f} USD, {report.drift_requests} requests"
        f"{'' if report.is_exact else ' — NOT EXACT'}",
    ]
    if not report.ids_are_unique:
        lines.append("  the unique index on external request ids is missing or invalid: duplicates are possible")
    if report.rollups:
        lines.append("  raw rows minus roll-ups, by UTC day:")
        lines += _table(
            (
                "day",
                "requests",
                "errors",
                "input",
                "cache read",
                "cache write",
                "output",
                "reasoning",
                "USD",
                "misplaced",
            ),
            [_rollup_cells(row) for row in report.rollups],
        )
    if report.meters:
        lines.append("  events minus meters:")
        lines += _table(_METER_HEAD, [_meter_cells(row) for row in report.meters])
    if report.holds:
        lines.append("  live leases minus holds:")
        lines += _table(_HOLD_HEAD, [_hold_cells(row) for row in report.holds])
    return "\n".join(lines)


def _rollup_cells(row: RollupDrift) -> tuple[str, ...]:
    counts = (
        row.requests,
        row.errors,
        row.uncached_input_tokens,
        row.cache_read_tokens,
        row.cache_write_tokens,
        row.output_tokens,
        row.reasoning_tokens,
    )
    return (f"{row.day:%Y-%m-%d}", *map(str, counts), f"{row.cost_usd:.12f}", str(row.misplaced))


def _meter_cells(row: MeterDrift) -> tuple[str, ...]:
    meter = f"{row.measure} a {row.period}, {row.period_start:%Y-%m-%d}"
    return (meter, _scope(row), *_differences(row))


def _hold_cells(row: HoldDrift) -> tuple[str, ...]:
    return (f"{row.expires_at:%Y-%m-%d %H:%M:%S}", _scope(row), *_differences(row))


def _scope(row: MeterDrift | HoldDrift) -> str:
    return f"{wire_name(row.scope_kind)} {row.scope_value}".rstrip()


def _differences(row: MeterDrift | HoldDrift) -> tuple[str, ...]:
    amounts = (row.expected, row.actual, row.expected - row.actual)
    tokens = row.expected_unpriced_tokens - row.actual_unpriced_tokens
    return (*(f"{amount:.12f}" for amount in amounts), str(tokens))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    return [
        "    " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in (head, *rows)
    ]
