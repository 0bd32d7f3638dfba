"""Demo traffic: believable, marked as such, and free."""

from ingest.audit import audit_workspace
from ingest.models import Event
from opsmeter_site.lib.clock import utc_now
from tests.conftest import payload


def test_an_empty_body_stores_a_small_believable_data_set(meter):
    reply = meter.post("/v1/ingest/demo", b"")

    assert reply.status == 200
    assert reply.json["accepted"] == 60
    events = Event.objects.filter(workspace_id=meter.workspace_id)
    assert set(events.values_list("data_mode", flat=True)) == {"demo"}
    assert events.values("endpoint_tag").distinct().count() >= 4
    assert audit_workspace(meter.workspace_id, utc_now()).is_exact


def test_every_empty_body_is_a_data_set_of_its_own(meter):
    meter.post("/v1/ingest/demo", b"")

    assert meter.post("/v1/ingest/demo", b"").json["duplicates"] == 0


def test_one_event_is_always_stored_as_demo(meter):
    reply = meter.post("/v1/ingest/demo", payload(externalRequestId="d", dataMode="real"))

    assert (reply.status, reply.json["accepted"]) == (200, True)
    assert Event.objects.get(workspace_id=meter.workspace_id, external_request_id="d").data_mode == "demo"


def test_a_bad_demo_event_is_refused_like_any_other(meter):
    assert meter.post("/v1/ingest/demo", payload(inputTokens=-1)).status == 400
