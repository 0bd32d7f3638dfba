import re
from datetime import timedelta

import pytest
import time_machine
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse

from opsmeter_site.lib.clock import utc_now
from tests.factories import make_cast
from workspaces import services
from workspaces.keys import authenticate_api_key
from workspaces.models import ApiKey, AuditEntry

pytestmark = pytest.mark.django_db

SECRET = re.compile(r"om_live_[A-Za-z0-9]{8}_[A-Za-z0-9]{32}")
NOON = "2026-03-10T12:00:00Z"


@pytest.fixture
def cast():
    return make_cast("pro", timezone="Europe/Berlin")


@pytest.fixture
def page(cast):
    return reverse("settings-keys", args=[cast.workspace.slug])


@pytest.fixture
def key(cast):
    """A key that the member has made."""
    found, _ = services.create_api_key(cast.workspace, name="Gateway", created_by=cast.member, acting_user=cast.member)
    return found


def signed_in(person):
    client = Client()
    client.force_login(person)
    return client


def of_key(action, cast, key):
    return reverse(f"settings-key-{action}", args=[cast.workspace.slug, key.pk])


def undo_of(page_text):
    toast = re.search(r'<div class="toast.*?</form>', page_text, re.DOTALL).group()
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', toast))
    return re.search(r'action="([^"]+)"', toast).group(1), fields


def shown_secret(client, page):
    """The secret on the page, or None."""
    found = set(SECRET.findall(client.get(page).content.decode()))
    assert len(found) <= 1
    return next(iter(found), None)


def is_live(plain):
    return authenticate_api_key(plain) is not None


# --- Making one -------------------------------------------------------------------------------------------------------


def test_a_new_key_is_shown_once_and_works(cast, page):
    client = signed_in(cast.member)
    assert client.post(page, {"name": "Worker", "expires_at": ""})["Location"] == page
    assert not any(SECRET.search(cookie.value) for cookie in client.cookies.values())
    assert not any(SECRET.search(str(session.get_decoded())) for session in Session.objects.all())
    first = client.get(page)
    text = first.content.decode()
    plain = SECRET.search(text).group()
    assert is_live(plain)
    assert f"X-API-Key: {plain}" in text.replace("&quot;", '"')
    assert 'data-copy="fresh-secret"' in text
    assert "no-store" in first["Cache-Control"]
    assert shown_secret(client, page) is None
    assert ApiKey.objects.get(name="Worker").created_by == cast.member


def test_the_expiry_is_wall_time_of_the_workspace(cast, page):
    with time_machine.travel(NOON):
        signed_in(cast.admin).post(page, {"name": "Worker", "expires_at": "2026-07-01T10:30"})
    assert ApiKey.objects.get(name="Worker").expires_at.isoformat() == "2026-07-01T08:30:00+00:00"


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "Default"}, "name"),
        ({"name": "Worker", "expires_at": "2020-01-01T00:00"}, "expires_at"),
        ({"name": "Worker", "expires_at": "tomorrow"}, "expires_at"),
        ({"name": "Worker", "expires_at": "2027-03-28T02:30"}, "expires_at"),  # the clocks go forward
    ],
)
def test_bad_input_is_said_beside_the_field_and_what_was_typed_stays(cast, page, sent, field):
    answer = signed_in(cast.admin).post(page, sent)
    text = answer.content.decode()
    assert answer.status_code == 422
    assert f'id="id_{field}_error"' in text
    assert f'value="{sent["name"]}"' in text or not sent["name"]
    assert ApiKey.objects.filter(workspace=cast.workspace).count() == 1


def test_the_form_sent_twice_makes_one_key_whose_secret_can_still_be_seen(cast, page):
    client = signed_in(cast.admin)
    client.post(page, {"name": "Worker"})
    second = client.post(page, {"name": "Worker"})
    assert second.status_code == 422
    assert is_live(SECRET.search(second.content.decode()).group())
    assert ApiKey.objects.filter(name="Worker").count() == 1


def test_viewers_see_keys_and_make_none(cast, page, key):
    client = signed_in(cast.viewer)
    text = client.get(page).content.decode()
    assert f"om_live_{key.lookup}…" in text
    assert "Create key" not in text
    assert of_key("revoke", cast, key) not in text
    assert client.post(page, {"name": "Mine"}).status_code == 403
    assert not ApiKey.objects.filter(name="Mine").exists()


# --- Whose keys -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["rotate", "expiry", "revoke"])
def test_members_change_their_own_keys_and_admins_every_key(cast, page, key, action):
    expected = {"viewer": 403, "member": 200, "admin": 200, "owner": 200, "outsider": 404}
    for role, status in expected.items():
        assert signed_in(getattr(cast, role)).get(of_key(action, cast, key)).status_code == status
    own = of_key(action, cast, cast.opened.api_key)
    client = signed_in(cast.member)
    assert own not in client.get(page).content.decode()
    for answer in (client.get(own), client.post(own, {"grace": "0", "lookup": cast.opened.api_key.lookup})):
        assert answer.status_code == 403
    assert is_live(cast.opened.api_key_plain)


@pytest.mark.parametrize("action", ["rotate", "expiry", "revoke"])
def test_keys_of_other_workspaces_do_not_exist(cast, action):
    foreign = make_cast("pro")
    client, address = signed_in(cast.owner), of_key(action, cast, foreign.opened.api_key)
    for answer in (client.get(address), client.post(address)):
        assert answer.status_code == 404
    assert is_live(foreign.opened.api_key_plain)


# --- Changing one -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [0, 1, 24, 168])
def test_a_rotated_key_accepts_the_old_secret_for_the_chosen_time(cast, page, hours):
    key, old = cast.opened.api_key, cast.opened.api_key_plain
    client = signed_in(cast.owner)
    with time_machine.travel(NOON, tick=False) as clock:
        assert client.get(of_key("rotate", cast, key)).status_code == 200
        sent = {"grace": str(hours * 3_600), "lookup": key.lookup}
        assert client.post(of_key("rotate", cast, key), sent)["Location"] == page
        text = client.get(page).content.decode()
        new = SECRET.search(text).group()
        assert ("old secret until" in text) is (hours > 0)
        assert is_live(new)
        assert is_live(old) is (hours > 0)
        clock.shift(timedelta(hours=hours))
        assert not is_live(old)
        assert is_live(new)
        assert "old secret until" not in client.get(page).content.decode()


def test_the_rotation_sent_twice_rotates_once(cast, page):
    key, old = cast.opened.api_key, cast.opened.api_key_plain
    client = signed_in(cast.owner)
    for _ in range(2):
        assert client.post(of_key("rotate", cast, key), {"grace": "3600", "lookup": key.lookup}).status_code == 302
    text = client.get(page).content.decode()
    assert "Nothing was changed" in text
    assert is_live(SECRET.search(text).group())
    assert is_live(old)


@pytest.mark.parametrize("grace", ["", "-1", "86401", "soon"])
def test_other_graces_are_refused(cast, grace):
    key = cast.opened.api_key
    answer = signed_in(cast.owner).post(of_key("rotate", cast, key), {"grace": grace, "lookup": key.lookup})
    assert answer.status_code == 422
    assert is_live(cast.opened.api_key_plain)


def test_the_expiry_is_changed_and_undone_to_the_microsecond(cast, page, key):
    before = utc_now() + timedelta(days=3)
    services.change_api_key_expiry(key, before, acting_user=cast.owner)
    client = signed_in(cast.member)
    address = of_key("expiry", cast, key)
    assert f"{before.astimezone(cast.workspace.timezone):%Y-%m-%dT%H:%M}" in client.get(address).content.decode()
    assert client.post(address, {"expires_at": ""})["Location"] == page
    key.refresh_from_db()
    assert key.expires_at is None
    undo, fields = undo_of(client.get(page).content.decode())
    client.post(undo, fields)
    key.refresh_from_db()
    assert key.expires_at == before


def test_an_expiry_in_the_past_is_said_beside_the_field(cast, key):
    answer = signed_in(cast.member).post(of_key("expiry", cast, key), {"expires_at": "2020-01-01T00:00"})
    assert answer.status_code == 422
    assert 'id="id_expires_at_error"' in answer.content.decode()


def test_revoking_says_what_stops_and_happens_once(cast, page, key):
    client = signed_in(cast.member)
    address = of_key("revoke", cast, key)
    text = client.get(address).content.decode()
    assert "never been used" in text
    assert "401" in text
    for _ in range(2):
        assert client.post(address)["Location"] == page
    assert ApiKey.objects.get(pk=key.pk).revoked_at is not None
    assert AuditEntry.objects.filter(action="api_key.revoked").count() == 1
    for action in ("rotate", "expiry"):
        sent = {"grace": "0", "lookup": key.lookup, "expires_at": ""}
        client.post(of_key(action, cast, key), sent)
    assert "Revoked keys" in client.get(page).content.decode()


def test_an_expired_key_is_shown_as_such_and_not_rotated(cast, page, key):
    with time_machine.travel(NOON, tick=False) as clock:
        services.change_api_key_expiry(key, utc_now() + timedelta(hours=1), acting_user=cast.owner)
        clock.shift(timedelta(hours=2))
        client = signed_in(cast.member)
        text = client.get(page).content.decode()
        assert ">Expired<" in text
        assert of_key("rotate", cast, key) not in text
        said = client.post(of_key("rotate", cast, key), {"grace": "0", "lookup": key.lookup}, follow=True)
        assert "has expired" in said.content.decode()


def test_the_number_of_queries_does_not_grow_with_keys(cast, page, django_assert_max_num_queries):
    client = signed_in(cast.owner)
    client.get(page)
    with django_assert_max_num_queries(16) as before:
        client.get(page)
    for number in range(5):
        services.create_api_key(cast.workspace, name=f"Key {number}", created_by=cast.admin, acting_user=cast.admin)
    with django_assert_max_num_queries(len(before)):
        client.get(page)
