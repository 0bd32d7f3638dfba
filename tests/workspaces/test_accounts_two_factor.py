"""The second step of signing in: an authenticator app and recovery codes."""

import re

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time

from tests.workspaces.people import browser, deeds_of, is_signed_in, make_person, proven, sign_in, signed_in, text_of

# Mails about it leave after the commit.
pytestmark = pytest.mark.usefixtures("committed")


@pytest.fixture
def person(committed):
    return make_person()


@pytest.fixture
def client(person):
    return signed_in(person)


def code_for(secret):
    (counter,) = yield_hotp_counters_from_time()
    return format_hotp_value(hotp_value(secret, counter))


def turn_on(client):
    """Turn it on; its secret."""
    page = proven(client).get("/accounts/2fa/totp/activate/")
    secret = re.search(r'id="totp-secret">(\w+)<', page.content.decode())[1]
    assert 'src="data:image/svg+xml;base64,' in page.content.decode()
    assert client.post("/accounts/2fa/totp/activate/", {"code": "000000"}).status_code == 422
    done = client.post("/accounts/2fa/totp/activate/", {"code": code_for(secret)})
    assert done["Location"] == "/accounts/2fa/recovery-codes/"
    return secret


def codes_of(client):
    return client.get("/accounts/2fa/recovery-codes/download/").content.decode().split()[-10:]


def test_secrets_are_stored_encrypted(person, client):
    secret = turn_on(client)
    stored = [authenticator.data for authenticator in Authenticator.objects.filter(user=person)]
    assert len(stored) == 2
    assert secret not in str(stored)
    assert not any(code in str(stored) for code in codes_of(client))


def test_signing_in_asks_for_a_code_once_it_is_on(person, client, mailoutbox):
    secret = turn_on(client)
    other = browser()
    assert sign_in(other, person.email)["Location"] == "/accounts/2fa/authenticate/"
    assert not is_signed_in(other)
    assert other.post("/accounts/2fa/authenticate/", {"code": "000000"}).status_code == 422
    other.post("/accounts/2fa/authenticate/", {"code": code_for(secret)})
    assert is_signed_in(other)
    assert mailoutbox[0].subject == "Two-factor sign-in is on"
    assert deeds_of(person) == ["user.two_factor_turned_on"]


def test_a_recovery_code_lets_in_once(person, client):
    turn_on(client)
    codes = codes_of(client)
    assert all(code in text_of(client.get("/accounts/2fa/recovery-codes/")) for code in codes)
    for expected in (True, False):
        other = browser()
        sign_in(other, person.email)
        other.post("/accounts/2fa/authenticate/", {"code": codes[0]})
        assert is_signed_in(other) is expected


def test_replacing_the_codes_is_asked_twice_and_ends_the_old_ones(person, client, mailoutbox):
    turn_on(client)
    old = codes_of(client)
    assert "Replace your recovery codes?" in text_of(client.get("/accounts/2fa/recovery-codes/generate/"))
    assert codes_of(client) == old
    client.post("/accounts/2fa/recovery-codes/generate/")
    assert not set(codes_of(client)) & set(old)
    assert deeds_of(person)[-1] == "user.recovery_codes_replaced"


def test_turning_it_off_is_asked_twice(person, client, mailoutbox):
    turn_on(client)
    assert "Turn off two-factor sign-in?" in text_of(client.get("/accounts/2fa/totp/deactivate/"))
    client.post("/accounts/2fa/totp/deactivate/")
    assert is_signed_in(signed_in(person))
    assert mailoutbox[-1].subject == "Two-factor sign-in is off"
    assert deeds_of(person)[-1] == "user.two_factor_turned_off"


def test_it_needs_the_password_once_more(client):
    assert client.get("/accounts/2fa/totp/activate/")["Location"].startswith("/accounts/reauthenticate/")


def test_other_tabs_are_led_back_once_it_is_on_or_off(client):
    index = "/accounts/2fa/"
    turn_on(client)
    assert client.post("/accounts/2fa/totp/activate/", {"code": "000000"})["Location"] == index
    client.post("/accounts/2fa/totp/deactivate/")
    assert client.post("/accounts/2fa/totp/deactivate/")["Location"] == index
    for path in ("/accounts/2fa/recovery-codes/", "/accounts/2fa/recovery-codes/download/"):
        assert client.get(path)["Location"] == index
    assert client.post("/accounts/2fa/recovery-codes/generate/").status_code == 422
