"""Whatever was answered with 200 is stored, once, whatever is killed."""

import itertools
import signal
import threading
from collections import Counter

from ingest.audit import audit_workspace
from ingest.models import Event
from opsmeter_site.lib.clock import utc_now
from tests.conftest import payload
from tests.factories import make_workspace
from tests.servers import Crowd, serve, wait_until

KILLS = 10
# For failures alone.
PATIENCE_SECONDS = 120
NO_RATE = 10_000_000


def endless(prefix):
    return (payload(externalRequestId=f"{prefix}-{number}") for number in itertools.count())


def stored_ids(opened):
    return list(Event.objects.filter(workspace_id=opened.workspace.id).values_list("external_request_id", flat=True))


def answered(crowd):
    return [one.body["externalRequestId"] for one in crowd.sent if one.status == 200]


def processes(crowd):
    """Which processes have answered: request ids begin with eight digits of their own."""
    return {one.headers["x-request-id"][:8] for one in list(crowd.sent) if one.status == 200}


def test_nothing_answered_is_lost_when_server_processes_are_killed_ten_times(committed):
    opened = make_workspace("pro", monthly_requests=10**9, requests_per_minute=NO_RATE)
    with serve(workers=2) as server, Crowd(server, opened.api_key_plain, endless("k"), clients=32) as crowd:
        try:
            for _ in range(KILLS):
                before = len(answered(crowd))
                wait_until(lambda seen=before: len(answered(crowd)) > seen + 150, PATIENCE_SECONDS)
                server.stop(signal.SIGKILL)
                server.start()
        finally:
            crowd.stop()

    stored = Counter(stored_ids(opened))
    assert max(stored.values()) == 1
    assert set(answered(crowd)) <= set(stored)
    assert any(one.status == 0 for one in crowd.sent), "the kills must have hit requests under way"
    assert audit_workspace(opened.workspace.id, utc_now()).is_exact


def test_sigterm_answers_every_request_that_was_accepted(committed):
    opened = make_workspace("pro", monthly_requests=10**9, requests_per_minute=NO_RATE)
    with serve(workers=2) as server, Crowd(server, opened.api_key_plain, endless("t"), clients=32) as crowd:
        # One that is told to stop before it has begun to load does not hear it.
        wait_until(lambda: len(answered(crowd)) > 300 and len(processes(crowd)) == 2, PATIENCE_SECONDS)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        stopper.join()
        crowd.stop()

    assert set(stored_ids(opened)) == set(answered(crowd))
    assert {one.status for one in crowd.sent} <= {0, 200}
    assert audit_workspace(opened.workspace.id, utc_now()).is_exact
