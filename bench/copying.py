"""Raw COPY into the events table, as fast as a client can: the yardstick of batches. Knows nothing of Django."""

import secrets
import time

import psycopg

EVENTS = 500
BLOCKS = 40


def copy_for(database_url: str, columns: list[str], rows: list[list[str]], workspace: str, seconds: int) -> float:
    """COPY blocks of 500 rows, a transaction each, for `seconds`; rows a second. Building the blocks is not timed."""
    statement = f"COPY ingest_event ({', '.join(columns)}) FROM STDIN"
    copied, spent = 0, 0.0
    with psycopg.connect(database_url, autocommit=True) as database:
        while spent < seconds:
            blocks = [_block(columns, rows, workspace) for _ in range(BLOCKS)]
            started = time.perf_counter()
            for block in blocks:
                with database.cursor().copy(statement) as copy:
                    copy.write(block)
            spent += time.perf_counter() - started
            copied += BLOCKS * EVENTS
    return copied / spent


def _block(columns: list[str], rows: list[list[str]], workspace: str) -> bytes:
    """The rows as COPY reads them, in `workspace` and under ids of their own."""
    prefix = secrets.token_hex(8)
    at_id, at_workspace = columns.index("external_request_id"), columns.index("workspace_id")
    lines = []
    for number, row in enumerate(rows):
        fresh = list(row)
        fresh[at_id], fresh[at_workspace] = f"{prefix}-{number}", workspace
        lines.append("\t".join(fresh))
    return ("\n".join(lines) + "\n").encode()
