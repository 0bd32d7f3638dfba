"""Two things at the same moment, on a real PostgreSQL. For tests with `django_db(transaction=True)`."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from django.db import connection, connections, transaction

from opsmeter_site.lib.errors import OpsmeterError
from tests.together import run_together

_PATIENCE_SECONDS = 20


def alone(call: Callable[[], Any]) -> Any:
    """What `call` answers or which refusal it raises, in a thread that leaves no connection behind."""
    try:
        return call()
    except OpsmeterError as refusal:
        return refusal
    finally:
        connections.close_all()


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run the calls in threads of their own, released together; each result is a value or the refusal it raised."""
    return run_together(*(partial(alone, call) for call in calls))


def while_uncommitted(first: Callable[[], Any], second: Callable[[], Any]) -> Any:
    """The result of `second`, started while `first` is done but not committed. Fails unless it waits for `first`."""
    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            first()
            later = threads.submit(alone, second)
            _wait_for_a_blocked_session()
        return later.result(_PATIENCE_SECONDS)


def _wait_for_a_blocked_session() -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    with connection.cursor() as cursor:
        while time.monotonic() < end:
            # Inside a transaction the first look would otherwise be repeated from memory.
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if cursor.fetchone()[0]:
                return
            time.sleep(0.02)
    raise AssertionError("The second change did not wait for the first.")
