"""Several workers at once, each with a database connection of its own."""

import threading
from collections.abc import Callable
from typing import Any

from django.db import connection


def run_together(*works: Callable[[], object]) -> list[Any]:
    """Start every one of `works` at the same moment; what they answered, in order. Raises the first failure."""
    results: list[Any] = [None] * len(works)
    failures: list[BaseException] = []
    barrier = threading.Barrier(len(works))

    def run(place: int) -> None:
        try:
            barrier.wait()
            results[place] = works[place]()
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results
