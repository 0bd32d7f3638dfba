"""Browsers and mails, for the tests of people's accounts."""

import itertools
import re

from django.test import Client

from workspaces.models import AuditEntry
from workspaces.services import create_user

PASSWORD = "correct-horse-battery"
_numbers = itertools.count(1)


def browser() -> Client:
    """A browser at an address of its own: allauth counts attempts per address, across tests."""
    number = next(_numbers)
    return Client(REMOTE_ADDR=f"10.9.{number // 250}.{number % 250 + 1}", HTTP_USER_AGENT="Firefox/140.0 (Windows NT)")


def new_address(name="person"):
    return f"{name}{next(_numbers)}@example.com"


def make_person(**facts):
    """Somebody with a confirmed address and `PASSWORD`."""
    return create_user(**{"email": new_address(), "password": PASSWORD, "acting_user": None, **facts})


def sign_in(client, email, password=PASSWORD, **more):
    return client.post("/accounts/login/", {"login": email, "password": password, **more})


def sign_up(client, email, password=PASSWORD):
    return client.post("/accounts/signup/", {"email": email, "password1": password})


def signed_in(person):
    client = browser()
    assert sign_in(client, person.email).status_code == 302
    return client


def is_signed_in(client):
    return client.get("/accounts/email/").status_code == 200


def link_in(mail):
    """The path of the first link in a mail."""
    return re.search(r"http://testserver(/\S+)", mail.body)[1]


def text_of(response):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", response.content.decode()))


def proven(client):
    """The same browser after typing the password once more."""
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})
    return client


def deeds_of(person):
    """What the audit trail says the person did."""
    return list(AuditEntry.objects.filter(actor=person).order_by("pk").values_list("action", flat=True))
