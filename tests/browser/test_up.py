"""The life of `./opsmeter up`. It ends what the tests in a browser have used until now, so it comes last."""

import json
import os
import signal
import stat
from urllib.request import urlopen

from opsmeter_site.embedded.up import DEMO_KEYS
from tests.up import Up, processes_of, run, wait_for

EVENT = {
    "externalRequestId": "e-1",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "inputTokens": 10,
    "outputTokens": 5,
    "latencyMs": 1,
    "status": "success",
}


def test_up_serves_until_it_is_stopped_and_leaves_nothing(up):
    """First event, a second start beside it, a killed server, SIGKILL for all, the next start, the end.

    The next start is without the billing provider's double.
    """
    data = up.data
    assert_told(up, {"billingSandboxUrl", "billingWorkspaceSlug"})
    assert_double_is_used(up)
    status, answer = up.send(EVENT)
    assert (status, answer["duplicate"]) == (200, False)

    second = run(data, "up", "--port", "0")
    assert second.returncode == 1
    assert f"in use by process {up.process.pid} (./opsmeter up)" in second.stderr
    code = "from ingest.models import Event; print(Event.objects.filter(external_request_id='e-1').count())"
    counted = run(data, "manage", "shell", "-v0", "-c", code)
    assert counted.stdout.strip() == "1", counted.stderr

    records = json.loads((data / "run" / "processes.json").read_text())
    os.kill(next(record["pid"] for record in records if record["name"] == "valkey"), signal.SIGKILL)
    wait_for(lambda: "valkey ended unexpectedly" in up.output.read_text())
    up.process.kill()
    up.process.wait()

    up.ready_file.unlink()
    next_start = Up(data)
    assert_told(next_start, set())
    status, answer = next_start.send(EVENT)
    assert (status, answer["duplicate"]) == (200, True)
    assert next_start.stop() == 0, next_start.output.read_text()
    assert processes_of(data) == []
    assert not (data / "run" / "processes.json").exists()


def assert_told(up: Up, more: set[str]) -> None:
    """The ready file is complete and private, and the reader was told the same."""
    assert stat.S_IMODE(up.ready_file.stat().st_mode) == 0o600
    assert set(up.ready) == {"url", *DEMO_KEYS, *more}
    output = up.output.read_text()
    for shown in (up.ready["url"], up.ready["email"], up.ready["password"], up.ready["apiKey"], "curl -sS"):
        assert shown in output


def assert_double_is_used(up: Up) -> None:
    """The double answers, the product has its key, and the reader was told where to go."""
    output = up.output.read_text()
    assert up.ready["billingSandboxUrl"] in output
    assert f"{up.ready['url']}/w/{up.ready['billingWorkspaceSlug']}/settings/billing/" in output
    with urlopen(up.ready["billingSandboxUrl"], timeout=60) as panel:
        assert b"No money moves here." in panel.read()
    checked = run(up.data, "manage", "check_billing")
    assert checked.returncode == 0, checked.stdout + checked.stderr
