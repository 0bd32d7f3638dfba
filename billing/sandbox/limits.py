"""The API's limit of calls."""

import threading
import time
from collections import deque

_WINDOW_SECONDS = 60.0


class RateLimit:
    """Counts calls in the last minute of real time; the double's clock has no say in it."""

    def __init__(self) -> None:
        self._calls: deque[float] = deque()
        self._lock = threading.Lock()

    def take(self, most: int) -> int | None:
        """Count a call: how many of `most` are left in this minute, or None if there was none left."""
        now = time.monotonic()
        with self._lock:
            while self._calls and self._calls[0] <= now - _WINDOW_SECONDS:
                self._calls.popleft()
            if len(self._calls) >= most:
                return None
            self._calls.append(now)
            return most - len(self._calls)
