"""Signing up, confirming the address, signing in, and a forgotten password."""

import re
from datetime import timedelta
from importlib import import_module

import pytest
import time_machine
from allauth.account.models import EmailAddress
from django.apps import apps
from django.core.management import call_command
from django.test import Client

from opsmeter_site.lib.clock import utc_now
from tests.factories import UserFactory, make_cast
from tests.mailing import REFUSING_PROVIDER
from tests.workspaces.people import (
    PASSWORD,
    browser,
    is_signed_in,
    link_in,
    make_person,
    new_address,
    sign_in,
    sign_up,
    signed_in,
    text_of,
)
from workspaces import services
from workspaces.invitations import invite_member, revoke_invitation
from workspaces.models import AuditEntry, Role, User

pytestmark = pytest.mark.django_db


def confirm(client, mail):
    return client.post(link_in(mail))


# --- Signing up -------------------------------------------------------------------------------------------------------


def test_a_new_person_confirms_the_address_and_is_signed_in(mailoutbox):
    client, email = browser(), new_address("Ada.L")
    assert sign_up(client, email)["Location"] == "/accounts/confirm-email/"
    assert not is_signed_in(client)
    (mail,) = mailoutbox
    assert mail.to == [email.lower()]
    assert mail.subject == "Confirm your address for Opsmeter"
    assert "three days" in mail.body
    assert email.lower() in text_of(client.get(link_in(mail)))

    assert confirm(client, mail)["Location"] == "/"
    assert client.get("/")["Location"] == "/workspaces/new/"
    person = User.objects.get(email=email.lower())
    assert [entry.action for entry in AuditEntry.objects.filter(actor=person).order_by("pk")] == [
        "user.created",
        "user.address_confirmed",
    ]


def test_the_link_works_in_another_browser_which_then_signs_in(mailoutbox):
    email = new_address()
    sign_up(browser(), email)
    other = browser()
    assert confirm(other, mailoutbox[0])["Location"] == "/accounts/login/"
    assert not is_signed_in(other)
    sign_in(other, email)
    assert is_signed_in(other)


def test_nobody_gets_in_without_confirming(mailoutbox):
    client, email = browser(), new_address()
    sign_up(client, email)
    assert sign_in(browser(), email)["Location"] == "/accounts/confirm-email/"
    assert not is_signed_in(client)


@pytest.mark.parametrize("password", ["short", "1234567890", ""])
def test_a_bad_password_is_said_beside_the_field_and_the_address_is_kept(password):
    email = new_address()
    page = sign_up(browser(), email, password)
    assert page.status_code == 422
    assert page.context["form"].errors.keys() == {"password1"}
    assert email in page.content.decode()
    assert not User.objects.filter(email=email).exists()


@pytest.mark.parametrize("email", ["", "no-address", "a@" + "b" * 250 + ".example", "a\x00@example.com"])
def test_a_bad_address_is_refused(email):
    page = sign_up(browser(), email)
    assert page.status_code == 422
    assert "email" in page.context["form"].errors


def test_a_taken_address_is_told_to_its_owner_only(mailoutbox):
    person, client = make_person(), browser()
    assert sign_up(client, person.email.upper())["Location"] == "/accounts/confirm-email/"
    (mail,) = mailoutbox
    assert mail.to == [person.email]
    assert mail.subject == "You already have an Opsmeter account"
    assert User.objects.filter(email=person.email).count() == 1


def test_a_second_press_of_the_button_changes_nothing(mailoutbox):
    client, email = browser(), new_address()
    first, second = sign_up(client, email), sign_up(client, email)
    assert first["Location"] == second["Location"]
    assert len(mailoutbox) == 1
    assert confirm(client, mailoutbox[0]).status_code == 302


def test_somebody_who_only_wants_to_change_to_an_address_keeps_nobody_out(mailoutbox):
    email = new_address("wanted")
    EmailAddress.objects.create(user=make_person(), email=email)
    client = browser()
    sign_up(client, email)
    confirm(client, mailoutbox[0])
    assert is_signed_in(client)


# --- Links that are used up -------------------------------------------------------------------------------------------


def test_an_expired_link_brings_a_new_one_at_one_press(mailoutbox):
    client, email = browser(), new_address()
    sign_up(client, email)
    with time_machine.travel(utc_now() + timedelta(days=4), tick=False):
        page = browser().get(link_in(mailoutbox[0]))
        assert "This link is used up" in text_of(page)
        key = re.search(r'name="key" value="([^"]+)"', page.content.decode())[1]
        other = browser()
        assert other.post("/accounts/confirm-email/new/", {"key": key})["Location"] == "/accounts/confirm-email/"
        assert len(mailoutbox) == 2
        assert confirm(other, mailoutbox[1])["Location"] == "/accounts/login/"
        sign_in(other, email)
        assert is_signed_in(other)


def test_a_used_link_says_so_and_leads_to_signing_in(mailoutbox):
    client, email = browser(), new_address()
    sign_up(client, email)
    link = link_in(mailoutbox[0])
    confirm(client, mailoutbox[0])
    # Pressed again, or in another tab.
    assert "You are signed in as" in text_of(client.post(link, follow=True))
    other = browser()
    assert "This link is used up" in text_of(other.get(link))
    again = other.post("/accounts/confirm-email/new/", {"key": link.split("/")[-2]}, follow=True)
    assert f"{email} is confirmed already" in text_of(again)
    assert len(mailoutbox) == 1


@pytest.mark.parametrize("path", ["/accounts/confirm-email/nonsense/", "/accounts/password/reset/key/1-nonsense/"])
def test_a_link_that_never_was_one(path):
    assert "This link is used up" in text_of(browser().get(path))


def test_a_new_link_for_a_typed_address_tells_strangers_nothing(mailoutbox):
    email, known = new_address(), make_person().email
    sign_up(browser(), email)
    with time_machine.travel(utc_now() + timedelta(minutes=4), tick=False):
        answers = {
            browser().post("/accounts/confirm-email/new/", {"email": asked})["Location"]
            for asked in (email, known, new_address("nobody"))
        }
    assert answers == {"/accounts/confirm-email/"}
    assert [mail.to for mail in mailoutbox] == [[email], [email]]
    assert browser().post("/accounts/confirm-email/new/", {"email": "x"}).status_code == 422


def test_new_links_are_not_sent_one_after_another(mailoutbox):
    email = new_address()
    sign_up(browser(), email)
    browser().post("/accounts/confirm-email/new/", {"email": email})
    assert len(mailoutbox) == 1


# --- Signing in -------------------------------------------------------------------------------------------------------


def test_signing_in_leads_to_the_page_that_was_asked_for_and_nowhere_else():
    person = make_person()
    client = browser()
    page = client.get("/accounts/email/", follow=True)
    assert page.redirect_chain[-1][0] == "/accounts/login/?next=/accounts/email/"
    assert sign_in(browser(), person.email.upper(), next="/accounts/email/")["Location"] == "/accounts/email/"
    assert sign_in(browser(), person.email, next="https://evil.example/")["Location"] == "/"


def test_a_wrong_password_and_an_unknown_address_look_the_same():
    person = make_person()
    wrong, unknown = sign_in(browser(), person.email, "wrong-password"), sign_in(browser(), new_address(), PASSWORD)
    assert wrong.status_code == unknown.status_code == 422
    assert wrong.context["form"].errors == unknown.context["form"].errors
    assert person.email in wrong.content.decode()


def test_a_person_who_was_switched_off_stays_out():
    person = make_person()
    client = signed_in(person)
    services.update_user(person, is_active=False, acting_user=None)
    assert not is_signed_in(client)
    again = browser()
    assert sign_in(again, person.email)["Location"] == "/accounts/inactive/"
    assert not is_signed_in(again)
    assert "switched off" in text_of(again.get("/accounts/inactive/"))


def test_passwords_cannot_be_tried_one_after_another():
    person = make_person()
    pages = [sign_in(browser(), person.email, f"wrong-{number}") for number in range(6)]
    assert "Too many attempts" in text_of(pages[-1])
    assert sign_in(browser(), person.email).status_code == 422


def test_too_many_forms_from_one_address_are_answered_with_a_page():
    client = browser()
    statuses = [sign_up(client, "no-address").status_code for _ in range(21)]
    assert statuses[-2:] == [422, 429]
    assert "Too many attempts" in text_of(sign_up(client, "no-address"))


def test_the_form_of_an_old_tab_leads_on_once_another_tab_has_signed_in():
    person = make_person()
    client = Client(enforce_csrf_checks=True)
    tabs = [csrf_token_of(client.get("/accounts/login/")) for _ in range(2)]
    assert sign_in(client, person.email, csrfmiddlewaretoken=tabs[0])["Location"] == "/"
    assert sign_in(client, person.email, csrfmiddlewaretoken=tabs[1])["Location"] == "/"
    assert sign_in(Client(enforce_csrf_checks=True), person.email).status_code == 403


def csrf_token_of(page):
    return re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.content.decode())[1]


def test_signing_out_is_asked_on_a_page_and_done_at_once_from_the_menu():
    person = make_person()
    client = signed_in(person)
    assert "Sign out of this browser?" in text_of(client.get("/accounts/logout/"))
    assert is_signed_in(client)
    assert client.post("/accounts/logout/")["Location"] == "/"
    assert not is_signed_in(client)


# --- A forgotten password ---------------------------------------------------------------------------------------------


def set_new_password(client, link, password):
    form = client.get(link)["Location"]
    return client.post(form, {"password1": password})


def test_a_forgotten_password_is_replaced_and_other_browsers_are_signed_out(mailoutbox):
    person = make_person()
    elsewhere, client = signed_in(person), browser()
    sent = client.post("/accounts/password/reset/", {"email": person.email})
    assert sent["Location"] == "/accounts/password/reset/done/"
    asked = mailoutbox[0]
    assert asked.to == [person.email]
    assert "three days" in asked.body
    link = link_in(asked)
    assert set_new_password(browser(), link, "short").status_code == 422

    set_new_password(client, link, "another-long-one")
    assert is_signed_in(client)
    assert not is_signed_in(elsewhere)
    assert mailoutbox[-1].subject == "Your Opsmeter password was reset"
    assert AuditEntry.objects.filter(action="user.password_changed", actor=person).exists()
    assert "This link is used up" in text_of(browser().get(link))
    assert sign_in(browser(), person.email).status_code == 422


def test_an_unknown_address_gets_the_same_page_and_a_mail_that_says_so(mailoutbox):
    known, unknown = make_person().email, new_address("nobody")
    pages = [browser().post("/accounts/password/reset/", {"email": each}, follow=True) for each in (known, unknown)]
    assert pages[0].redirect_chain == pages[1].redirect_chain
    assert text_of(pages[0]) == text_of(pages[1])
    assert mailoutbox[1].to == [unknown]
    assert mailoutbox[1].subject == "There is no Opsmeter account with this address"


def test_a_reset_confirms_the_address_it_was_mailed_to(mailoutbox):
    email, client = new_address(), browser()
    sign_up(browser(), email)
    client.post("/accounts/password/reset/", {"email": email})
    set_new_password(client, link_in(mailoutbox[1]), "another-long-one")
    assert is_signed_in(client)


def test_an_address_that_somebody_wants_to_change_to_does_not_open_the_account(mailoutbox):
    person, wanted = make_person(), new_address("typo")
    EmailAddress.objects.create(user=person, email=wanted)
    browser().post("/accounts/password/reset/", {"email": wanted})
    assert [mail.subject for mail in mailoutbox] == ["There is no Opsmeter account with this address"]


# --- Invitations ------------------------------------------------------------------------------------------------------


@pytest.fixture
def invitation(db):
    cast = make_cast("pro")
    return invite_member(cast.workspace, email=new_address("guest"), role=Role.MEMBER, acting_user=cast.owner)


def with_invitation(client, token):
    """A browser that has opened the invitation's link."""
    assert client.get(f"/invitations/{token}/").status_code == 200
    return client


def test_an_invited_person_needs_no_second_mail(invitation, mailoutbox):
    invited, token = invitation
    client = with_invitation(browser(), token)
    assert sign_up(client, invited.email.upper())["Location"].startswith("/invitations/")
    assert is_signed_in(client)
    assert mailoutbox == []


def test_another_address_than_the_invited_one_is_confirmed_as_usual(invitation, mailoutbox):
    _, token = invitation
    client = with_invitation(browser(), token)
    assert sign_up(client, new_address())["Location"] == "/accounts/confirm-email/"
    assert confirm(client, mailoutbox[0])["Location"].startswith("/invitations/")


def test_a_revoked_invitation_proves_nothing(invitation, mailoutbox):
    invited, token = invitation
    revoke_invitation(invited, acting_user=None)
    assert sign_up(with_invitation(browser(), token), invited.email)["Location"] == "/accounts/confirm-email/"


def test_signing_in_comes_back_to_the_invitation(invitation):
    _, token = invitation
    client = with_invitation(browser(), token)
    assert sign_in(client, make_person().email)["Location"].startswith("/invitations/")


# --- People made by operators and commands ----------------------------------------------------------------------------


def test_the_one_who_was_made_at_the_command_line_gets_in(mailoutbox):
    email = new_address("root")
    call_command("createsuperuser", email=email, interactive=False)
    root = User.objects.get(email=email)
    root.set_password(PASSWORD)
    root.save()
    assert is_signed_in(signed_in(root))
    assert mailoutbox == []


def test_people_from_before_addresses_were_confirmed_get_in():
    person = UserFactory(password=PASSWORD)
    migration = import_module("workspaces.migrations.0003_verified_addresses")
    for _ in range(2):
        migration.confirm_addresses(apps, None)
    assert is_signed_in(signed_in(person))


def test_an_address_changed_by_an_operator_counts_at_once(mailoutbox):
    person, wanted = make_person(), new_address("changed")
    EmailAddress.objects.create(user=person, email=new_address("pending"))
    before = person.email
    person = services.update_user(person, email=wanted.upper(), acting_user=None)
    assert is_signed_in(signed_in(person))
    assert sign_in(browser(), before).status_code == 422
    assert list(EmailAddress.objects.filter(user=person).values_list("email", "verified", "primary")) == [
        (wanted, True, True)
    ]


def test_a_mail_server_that_is_away_is_told_and_signing_up_is_kept(settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
    client, email = browser(), new_address()
    page = client.post("/accounts/signup/", {"email": email, "password1": PASSWORD}, follow=True)
    assert page.status_code == 200
    assert "The mail could not be sent" in text_of(page)
    assert User.objects.filter(email=email).exists()


def test_a_mail_provider_that_refuses_the_address_is_told_too(settings):
    settings.EMAIL_BACKEND = REFUSING_PROVIDER
    email = new_address()
    page = browser().post("/accounts/signup/", {"email": email, "password1": PASSWORD}, follow=True)
    assert "The mail could not be sent" in text_of(page)
    assert User.objects.filter(email=email).exists()
