"""One state of the database for all figures of a page, and nothing of it read twice."""

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.db import connection, transaction

# Sums fit into memory. Statements are small and many: by index, and not compiled, they take a few milliseconds each.
_BEGIN = """
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
SET LOCAL work_mem = '32MB';
SET LOCAL jit = off
"""

_memory: ContextVar[dict[Hashable, dict[Any, Any]] | None] = ContextVar("memory_of_snapshot", default=None)


@contextmanager
def snapshot() -> Iterator[None]:
    """Everything read inside is of one moment, and nothing can be written.

    Inside another transaction (or snapshot) it only adds a memory of its own, if there is none.
    """
    if _memory.get() is not None:
        yield
        return
    token = _memory.set({})
    try:
        if connection.in_atomic_block:
            yield
            return
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_BEGIN)
            yield
    finally:
        _memory.reset(token)


def remembered(subject: Hashable) -> dict[Any, Any]:
    """What this snapshot has read about `subject` so far, to be added to; outside of one: nothing, ever."""
    memory = _memory.get()
    return {} if memory is None else memory.setdefault(subject, {})


def fetch(sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """All rows of a statement."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows
