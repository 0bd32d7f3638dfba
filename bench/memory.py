"""Whether a server process grows: resident memory while a million events go through."""

import argparse
import tempfile
from pathlib import Path

import psutil
import psycopg

from bench.load import Server, granian, open_limited_workspace, write_keys, wrk
from opsmeter_site.lib.database import conninfo

EVENTS = 1_000_000
STEPS = 5


def run(_options: argparse.Namespace) -> None:
    """Print the memory of each server process at every fifth of a million events."""
    with tempfile.TemporaryDirectory() as folder, granian("opsmeter_site.wsgi:application", "/healthz") as product:
        opened = [open_limited_workspace(f"Memory {number}") for number in range(20)]
        keys = str(write_keys(Path(folder) / "keys", opened))
        wrk(product.url, 5, "events.lua", keys)
        start = _count()
        first = []
        for step in range(1, STEPS + 1):
            while _count() - start < EVENTS * step / STEPS:
                wrk(product.url, 3, "batches.lua", keys, connections=8)
            sizes = _resident_mib(product)
            first = first or sizes
            print(f"{(_count() - start):12,} events   " + "   ".join(f"{size:7.1f} MiB" for size in sizes), flush=True)
    growth = max(last / begin for last, begin in zip(sizes, first, strict=True))
    print(f"last ÷ first: {growth:.2f}")


def _resident_mib(server: Server) -> list[float]:
    workers = psutil.Process(server.process.pid).children()
    return sorted(worker.memory_info().rss / 2**20 for worker in workers if worker.memory_info().rss > 30 * 2**20)


def _count() -> int:
    with psycopg.connect(conninfo()) as database:
        found = database.execute("SELECT coalesce(sum(requests), 0) FROM ingest_rollup").fetchone()
    assert found is not None
    return int(found[0])
