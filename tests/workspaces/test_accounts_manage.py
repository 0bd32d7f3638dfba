"""A person's own pages: address, password, sessions."""

import re

import pytest
import time_machine
from allauth.account.models import EmailAddress

from opsmeter_site.lib.clock import utc_now
from tests.workspaces.people import (
    PASSWORD,
    browser,
    deeds_of,
    is_signed_in,
    link_in,
    make_person,
    new_address,
    proven,
    sign_in,
    sign_up,
    signed_in,
    text_of,
)
from workspaces.models import AuditEntry, User

pytestmark = pytest.mark.django_db

MANAGED = (
    "/accounts/email/",
    "/accounts/password/change/",
    "/accounts/password/set/",
    "/accounts/2fa/",
    "/accounts/2fa/totp/activate/",
    "/accounts/2fa/totp/deactivate/",
    "/accounts/2fa/recovery-codes/",
    "/accounts/2fa/recovery-codes/generate/",
    "/accounts/2fa/recovery-codes/download/",
    "/accounts/2fa/reauthenticate/",
    "/accounts/reauthenticate/",
    "/accounts/sessions/",
    "/accounts/3rdparty/",
)


@pytest.fixture
def person(db):
    return make_person()


@pytest.fixture
def client(person):
    return signed_in(person)


@pytest.mark.parametrize("path", MANAGED)
def test_nobody_manages_an_account_without_signing_in(path):
    assert browser().get(path)["Location"].startswith("/accounts/")
    assert "/login/" in browser().get(path, follow=True).redirect_chain[-1][0]


def test_the_pages_keep_to_the_strict_policy(client):
    entrance = ("login", "signup", "password/reset", "password/reset/done", "confirm-email", "confirm-email/new")
    proven(client)
    pages = [browser().get(f"/accounts/{path}/") for path in entrance] + [client.get(path) for path in MANAGED]
    for page in pages:
        assert not re.search(r"<script(?![^>]*\ssrc=)|\sstyle=|\son[a-z]+=", page.content.decode()), page.request
        assert "'self'" in page["Content-Security-Policy"]


# --- Address ----------------------------------------------------------------------------------------------------------


def test_a_new_address_replaces_the_old_one_once_it_is_confirmed(person, client, mailoutbox):
    before, after = person.email, new_address("moved")
    proven(client).post("/accounts/email/", {"action_add": "", "email": after.upper()})
    assert User.objects.get(pk=person.pk).email == before
    assert after in text_of(client.get("/accounts/email/"))
    (mail,) = mailoutbox
    assert mail.to == [after]

    assert client.post(link_in(mail))["Location"] == "/accounts/email/"
    person.refresh_from_db()
    assert person.email == after
    assert list(EmailAddress.objects.filter(user=person).values_list("email", "verified", "primary")) == [
        (after, True, True)
    ]
    assert mailoutbox[1].to == [before]
    assert mailoutbox[1].subject == "Your Opsmeter address was changed"
    entry = AuditEntry.objects.get(actor=person, action="user.changed")
    assert entry.data == {"email": [before, after]}


def test_a_change_needs_the_password_once_more_and_goes_on_after_it(client, mailoutbox):
    wanted = new_address("moved")
    asked = client.post("/accounts/email/", {"action_add": "", "email": wanted})
    assert asked["Location"].startswith("/accounts/reauthenticate/")
    assert mailoutbox == []
    assert client.post(asked["Location"], {"password": "wrong-password"}).status_code == 422
    client.post(asked["Location"], {"password": PASSWORD, "next": "/accounts/email/"})
    assert [mail.to for mail in mailoutbox] == [[wanted]]


def test_the_link_of_a_change_is_worth_nothing_to_a_stranger(person, client, mailoutbox):
    before = person.email
    proven(client).post("/accounts/email/", {"action_add": "", "email": new_address("typo")})
    link = link_in(mailoutbox[0])
    stranger = browser()
    assert stranger.post(link)["Location"].startswith("/accounts/login/?next=")
    assert User.objects.get(pk=person.pk).email == before
    sign_in(stranger, before, next=link)
    stranger.post(link)
    assert User.objects.get(pk=person.pk).email != before


def test_a_change_can_be_withdrawn(person, client, mailoutbox):
    wanted = new_address("moved")
    proven(client).post("/accounts/email/", {"action_add": "", "email": wanted})
    assert wanted in text_of(client.get("/accounts/email/"))
    client.post("/accounts/email/", {"action_remove": "", "email": wanted})
    assert wanted not in text_of(client.get("/accounts/email/"))
    client.post(link_in(mailoutbox[0]))
    assert User.objects.get(pk=person.pk).email == person.email


def test_an_address_that_somebody_signed_up_with_meanwhile_stays_theirs(person, client, mailoutbox):
    wanted = new_address("contested")
    proven(client).post("/accounts/email/", {"action_add": "", "email": wanted})
    change = mailoutbox[0]
    # Their sign-up removes the wish, so the link is used up.
    sign_up(browser(), wanted)
    client.post(link_in(change))
    assert User.objects.get(pk=person.pk).email == person.email


def test_an_address_that_somebody_has_signed_up_with_is_not_taken_from_them(person, client, mailoutbox):
    wanted = new_address("contested")
    sign_up(browser(), wanted)
    with time_machine.travel(utc_now().timestamp() + 200, tick=False):
        proven(client).post("/accounts/email/", {"action_add": "", "email": wanted})
        page = client.post(link_in(mailoutbox[-1]), follow=True)
    assert "Somebody else has signed up" in text_of(page)
    assert User.objects.get(pk=person.pk).email == person.email


def test_two_people_who_want_the_same_address(person, client, mailoutbox):
    other, wanted = make_person(), new_address("contested")
    second = proven(signed_in(other))
    for each in (proven(client), second):
        each.post("/accounts/email/", {"action_add": "", "email": wanted})
    with time_machine.travel(utc_now().timestamp() + 200, tick=False):
        second.post("/accounts/email/", {"action_send": "", "email": wanted})
    links = [link_in(mail) for mail in mailoutbox]
    client.post(links[0])
    assert "This address is taken" in text_of(second.get(links[1]))
    second.post(links[1])
    assert User.objects.get(pk=other.pk).email == other.email
    assert User.objects.get(pk=person.pk).email == wanted


# --- Password ---------------------------------------------------------------------------------------------------------


def test_changing_the_password_keeps_this_browser_and_signs_out_the_others(person, client, mailoutbox):
    elsewhere = signed_in(person)
    page = client.post("/accounts/password/change/", {"oldpassword": "wrong", "password1": "short"})
    assert page.status_code == 422
    assert page.context["form"].errors.keys() == {"oldpassword", "password1"}
    client.post("/accounts/password/change/", {"oldpassword": PASSWORD, "password1": "another-long-one"})
    assert is_signed_in(client)
    assert not is_signed_in(elsewhere)
    assert deeds_of(person) == ["user.password_changed"]
    (mail,) = mailoutbox
    assert "From: 10.9." in mail.body
    assert "Firefox" in mail.body


# --- Sessions ---------------------------------------------------------------------------------------------------------


def test_a_person_sees_the_browsers_and_ends_the_others(person, client):
    elsewhere = signed_in(person)
    stranger = signed_in(make_person())
    page = text_of(client.get("/accounts/sessions/"))
    assert page.count("Firefox on Windows") == 2
    assert page.count("this one") == 1
    client.post("/accounts/sessions/")
    assert is_signed_in(client)
    assert is_signed_in(stranger)
    assert not is_signed_in(elsewhere)
    entry = AuditEntry.objects.get(actor=person, action="user.sessions_ended")
    assert entry.data == {"sessions": 1}


def test_a_session_from_before_the_password_was_changed_is_not_listed(person, client):
    signed_in(person)
    client.post("/accounts/password/change/", {"oldpassword": PASSWORD, "password1": "another-long-one"})
    assert text_of(client.get("/accounts/sessions/")).count("Firefox on Windows") == 1


def test_many_sessions_cost_no_more_than_one(person, client, django_assert_num_queries):
    for _ in range(8):
        signed_in(person)
    # The session, the person, the sessions twice, the providers.
    with django_assert_num_queries(5):
        page = client.get("/accounts/sessions/")
    assert text_of(page).count("Firefox on Windows") == 9


@pytest.mark.parametrize(
    ("path", "queries"),
    [("/accounts/email/", 7), ("/accounts/password/change/", 3), ("/accounts/2fa/", 5), ("/accounts/3rdparty/", 5)],
)
def test_how_much_the_pages_ask(client, django_assert_num_queries, path, queries):
    with django_assert_num_queries(queries):
        assert client.get(path).status_code == 200
