"""Work in a process of its own, on the tests' database, that is killed with SIGKILL half-way."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from django.db import connection

_PROLOGUE = """
import sys
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
import django
django.setup()
"""
_DEADLINE_SECONDS = 30


def run_and_kill(work: str, is_time: Callable[[], bool]) -> None:
    """Run the Python source `work` until `is_time`, then kill it. Fails if it ended before."""
    script = _PROLOGUE + work
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(connection.settings_dict["NAME"])], cwd=Path(__file__).parent.parent
    )
    try:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not is_time():
            assert time.monotonic() < deadline, "the work never got half-way"
            time.sleep(0.005)
        assert process.poll() is None, "the work was done before it could be killed"
    finally:
        process.kill()
        process.wait()
