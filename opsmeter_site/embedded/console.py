"""What the commands say at the terminal."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_open_step: list[str] = []


def say(text: str) -> None:
    """Print lines of their own, also while a step's line waits for its seconds."""
    with _lock:
        if _open_step:
            _open_step.clear()
            text = f"\n{text}"
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


@contextmanager
def step(title: str) -> Iterator[None]:
    """Show that something is under way, and then how long it took."""
    with _lock:
        _open_step.append(title)
        sys.stdout.write(f"{title} …")
        sys.stdout.flush()
    started = time.monotonic()
    try:
        yield
    except BaseException:
        say_end(title, " failed")
        raise
    say_end(title, f" {time.monotonic() - started:.1f} s")


def say_end(title: str, result: str) -> None:
    """Finish the step's line, or write it again where something else was printed meanwhile."""
    with _lock:
        sys.stdout.write(f"{result}\n" if _open_step else f"{title} …{result}\n")
        sys.stdout.flush()
        _open_step.clear()
