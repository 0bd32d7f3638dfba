"""Batches of 500 events against raw COPY of the same rows into the same indexed table, both by two processes."""

import argparse
import multiprocessing
import secrets
import statistics
import tempfile
import time
from pathlib import Path
from uuid import UUID

import psycopg

from bench.load import PROCESSES, granian, open_limited_workspace, write_keys, wrk
from opsmeter_site.lib.database import conninfo

EVENTS = 500
BLOCKS = 40


def run(options: argparse.Namespace) -> None:
    """Measure both in turn, `options.rounds` times, and print events a second and the ratio."""
    with tempfile.TemporaryDirectory() as folder, granian("opsmeter_site.wsgi:application", "/healthz") as product:
        opened = [open_limited_workspace(f"Batch {number}") for number in range(PROCESSES)]
        keys = str(write_keys(Path(folder) / "keys", opened))
        wrk(product.url, 2, "batches.lua", keys, connections=8)
        columns, row = _sample(opened[0].workspace.id)
        ours, raw = [], []
        for _ in range(options.rounds):
            ours.append(wrk(product.url, options.seconds, "batches.lua", keys, connections=8).per_second * EVENTS)
            raw.append(_copy_together(columns, row, [one.workspace.id for one in opened], options.seconds))
    mine, theirs = statistics.median(ours), statistics.median(raw)
    print(f"{'batches of 500, committed':38}{mine:12,.0f} events/s")
    print(f"{'raw COPY, same rows, same table':38}{theirs:12,.0f} events/s")
    print(f"ratio: {mine / theirs:.2f}")


def _sample(workspace_id: UUID) -> tuple[list[str], list[str]]:
    """One stored row as COPY writes it: the columns without the generated id, and their texts."""
    with psycopg.connect(conninfo()) as database:
        found = database.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_name = 'ingest_event' AND column_name <> 'id' ORDER BY ordinal_position"
        ).fetchall()
        columns = [name for (name,) in found]
        row = f"SELECT {', '.join(columns)} FROM ingest_event WHERE workspace_id = '{workspace_id}' LIMIT 1"
        with database.cursor().copy(f"COPY ({row}) TO STDOUT") as copy:
            text = b"".join(bytes(part) for part in copy).decode().rstrip("\n")
    return columns, text.split("\t")


def _copy_together(columns: list[str], row: list[str], workspaces: list[UUID], seconds: int) -> float:
    with multiprocessing.get_context("spawn").Pool(len(workspaces)) as pool:
        given = [(conninfo(), columns, row, str(workspace), seconds) for workspace in workspaces]
        return sum(pool.starmap(copy_for, given))


def copy_for(database_url: str, columns: list[str], row: list[str], workspace: str, seconds: int) -> float:
    """COPY blocks of 500 rows, a transaction each, for `seconds`; rows a second. Building the blocks is not timed."""
    statement = f"COPY ingest_event ({', '.join(columns)}) FROM STDIN"
    copied, spent = 0, 0.0
    with psycopg.connect(database_url, autocommit=True) as database:
        while spent < seconds:
            blocks = [_block(columns, row, workspace) for _ in range(BLOCKS)]
            started = time.perf_counter()
            for block in blocks:
                with database.cursor().copy(statement) as copy:
                    copy.write(block)
            spent += time.perf_counter() - started
            copied += BLOCKS * EVENTS
    return copied / spent


def _block(columns: list[str], row: list[str], workspace: str) -> bytes:
    prefix = secrets.token_hex(8)
    fields = dict(zip(columns, row, strict=True)) | {"workspace_id": workspace}
    lines = ["\t".join((fields | {"external_request_id": f"{prefix}-{n}"}).values()) for n in range(EVENTS)]
    return ("\n".join(lines) + "\n").encode()
