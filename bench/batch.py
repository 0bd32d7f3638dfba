"""Batches of 500 events against raw COPY of the same rows into the same table, by one and by two connections."""

import argparse
import multiprocessing
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from uuid import UUID

import psycopg

from bench.copying import EVENTS, copy_for
from bench.load import PROCESSES, granian, open_limited_workspace, write_keys, wrk
from opsmeter_site.lib.database import conninfo

CLIENTS = 8
WORKSPACES = 20
BATCHES, ONE, TWO = "batches of 500, committed", "raw COPY, one connection", f"raw COPY, {PROCESSES} connections"


def run(options: argparse.Namespace) -> None:
    """Measure the three in turn, `options.rounds` times, and print events a second and the ratios."""
    with tempfile.TemporaryDirectory() as folder, granian("opsmeter_site.wsgi:application", "/healthz") as product:
        opened = [open_limited_workspace(f"Batch {number}") for number in range(WORKSPACES)]
        keys = str(write_keys(Path(folder) / "keys", opened))
        wrk(product.url, 2, "batches.lua", keys, connections=CLIENTS)
        columns, rows = _stored_rows(opened[0].workspace.id)
        workspaces = [str(one.workspace.id) for one in opened]
        measure = {
            BATCHES: lambda: (
                wrk(product.url, options.seconds, "batches.lua", keys, connections=CLIENTS).per_second * EVENTS
            ),
            ONE: lambda: _copy_together(columns, rows, workspaces[:1], options.seconds),
            TWO: lambda: _copy_together(columns, rows, workspaces, options.seconds),
        }
        results: dict[str, list[float]] = {name: [] for name in measure}
        for _ in range(options.rounds):
            for name, take in measure.items():
                results[name].append(take())
    rate = {name: statistics.median(taken) for name, taken in results.items()}
    for name, per_second in rate.items():
        print(f"{name:38}{per_second:12,.0f} events/s")
    print(f"{BATCHES} ÷ {ONE}: {rate[BATCHES] / rate[ONE]:.2f}   ÷ {TWO}: {rate[BATCHES] / rate[TWO]:.2f}")


def _stored_rows(workspace_id: UUID) -> tuple[list[str], list[list[str]]]:
    """A batch as it was stored, as COPY writes it: the columns without the generated id, and the texts of each row."""
    with psycopg.connect(conninfo()) as database:
        found = database.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_name = 'ingest_event' AND column_name <> 'id' ORDER BY ordinal_position"
        ).fetchall()
        columns = [name for (name,) in found]
        rows = f"SELECT {', '.join(columns)} FROM ingest_event WHERE workspace_id = '{workspace_id}' LIMIT {EVENTS}"
        with database.cursor().copy(f"COPY ({rows}) TO STDOUT") as copy:
            lines = b"".join(bytes(part) for part in copy).decode().splitlines()
    return columns, [line.split("\t") for line in lines]


def _copy_together(columns: list[str], rows: list[list[str]], workspaces: list[str], seconds: int) -> float:
    given = [(conninfo(), columns, rows, workspace, seconds) for workspace in workspaces]
    # Spawned: a forked process would share this one's connections.
    with ProcessPoolExecutor(len(given), mp_context=multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(copy_for, *zip(*given, strict=True)))
