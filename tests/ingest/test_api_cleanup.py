import json

import pytest

from ingest.models import Event
from tests.client import ApiClient, assert_refused
from tests.factories import make_cast, token_for
from tests.ledger import make_event
from workspaces.models import AuditEntry
from workspaces.services import create_api_key

pytestmark = pytest.mark.django_db

PATHS = {"demo": "/v1/ingest/demo-data", "test": "/v1/ingest/test-data"}


@pytest.fixture
def people():
    return make_cast()


@pytest.fixture
def rows(people):
    """Two rows of each mode: one sent with the owner's key, one with the viewer's."""
    keys = {}
    for name in ("owner", "viewer"):
        person = getattr(people, name)
        keys[name], _ = create_api_key(
            people.workspace, name=f"Key of {name}", created_by=person, acting_user=people.owner
        )
    for mode in ("real", "test", "demo"):
        for name, key in keys.items():
            make_event(people.workspace, data_mode=mode, api_key_id=key.pk, external_request_id=f"{mode}-{name}")
    return keys


def client_of(people, role, *scopes):
    return ApiClient(token=token_for(getattr(people, role), people.workspace, *scopes))


def ids(people):
    return set(Event.objects.filter(workspace=people.workspace).values_list("external_request_id", flat=True))


ALL = {f"{mode}-{name}" for mode in ("real", "test", "demo") for name in ("owner", "viewer")}


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("mode", ["demo", "test"])
@pytest.mark.parametrize("role", ["owner", "admin"])
def test_owners_and_admins_clean_the_whole_workspace(people, mode, role):
    response = client_of(people, role).send("DELETE", PATHS[mode] + "?scope=workspace")
    assert (response.status_code, json.loads(response.content)) == (200, {"ok": True, "deleted": 2})
    assert ids(people) == ALL - {f"{mode}-owner", f"{mode}-viewer"}


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("query", ["?scope=mine", ""])
def test_everybody_takes_back_what_their_own_keys_sent(people, query):
    response = client_of(people, "viewer").send("DELETE", PATHS["demo"] + query)
    assert (response.status_code, json.loads(response.content)) == (200, {"ok": True, "deleted": 1})
    assert ids(people) == ALL - {"demo-viewer"}


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("role", ["member", "viewer"])
@pytest.mark.parametrize("path", PATHS.values())
def test_members_and_viewers_do_not_clean_the_workspace(people, role, path):
    assert_refused(client_of(people, role).send("DELETE", path + "?scope=workspace"), 403, "not_allowed")
    assert ids(people) == ALL


@pytest.mark.usefixtures("rows")
def test_a_read_token_deletes_nothing(people):
    for query in ("", "?scope=mine", "?scope=workspace"):
        assert_refused(client_of(people, "owner", "read").send("DELETE", PATHS["demo"] + query), 403, "not_allowed")
    assert ids(people) == ALL


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("scope", ["everything", "", "Mine", "mine%00", "mine,workspace", "%ff"])
def test_an_unknown_scope_is_refused(people, scope):
    response = client_of(people, "owner").send("DELETE", f"{PATHS['demo']}?scope={scope}")
    assert_refused(response, 400, "invalid_payload", "scope")
    assert ids(people) == ALL


@pytest.mark.usefixtures("rows")
def test_another_workspace_is_not_touched(people):
    other = make_cast()
    response = client_of(other, "owner").send("DELETE", PATHS["demo"] + "?scope=workspace")
    assert json.loads(response.content)["deleted"] == 0
    assert ids(people) == ALL


@pytest.mark.usefixtures("rows")
def test_who_deleted_is_on_record(people):
    client_of(people, "admin").send("DELETE", PATHS["test"] + "?scope=workspace")
    entry = AuditEntry.objects.filter(workspace=people.workspace, actor=people.admin, data__deleted=2).get()
    assert entry.data["scope"] == "workspace"


@pytest.mark.usefixtures("rows")
def test_a_second_time_deletes_nothing(people):
    client = client_of(people, "owner")
    client.send("DELETE", PATHS["demo"] + "?scope=workspace")
    assert json.loads(client.send("DELETE", PATHS["demo"] + "?scope=workspace").content)["deleted"] == 0


def test_credentials_are_asked_for(people):
    assert_refused(ApiClient().send("DELETE", PATHS["demo"]), 401, "missing_token")
    assert_refused(ApiClient(api_key=people.opened.api_key_plain).send("DELETE", PATHS["demo"]), 401, "missing_token")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", PATHS.values())
def test_it_only_deletes(people, path, method):
    response = client_of(people, "owner").send(method, path)
    assert response.status_code == 405
    assert response["Allow"] == "DELETE"
    if method != "HEAD":
        assert_refused(response, 405, "method_not_allowed")


@pytest.mark.usefixtures("rows")
def test_a_body_is_ignored_whatever_it_is(people):
    response = client_of(people, "owner").send("DELETE", PATHS["demo"], b"\x00{", content_type="text/plain")
    assert response.status_code == 200
