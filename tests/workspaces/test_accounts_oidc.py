"""Signing in through an OpenID Connect provider, played by a server on loopback."""

import html
import re
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from pytest_httpserver import HTTPServer

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
from workspaces import services
from workspaces.models import User

pytestmark = pytest.mark.django_db

LOGIN = "/accounts/oidc/sso/login/"


class Provider:
    """A provider where one person is signed in."""

    def __init__(self, server: HTTPServer, settings) -> None:
        self.server, self.settings = server, settings
        self.claims: dict[str, object] = {}
        for name, answer in {
            ".well-known/openid-configuration": {
                "issuer": server.url_for(""),
                "authorization_endpoint": server.url_for("/authorize"),
                "token_endpoint": server.url_for("/token"),
                "userinfo_endpoint": server.url_for("/userinfo"),
                "jwks_uri": server.url_for("/keys"),
            },
        }.items():
            server.expect_request(f"/{name}").respond_with_json(answer)
        self.configure()

    def configure(self, **facts: object) -> None:
        self.settings.SOCIALACCOUNT_PROVIDERS = {
            "openid_connect": {
                "OAUTH_PKCE_ENABLED": True,
                "APPS": [
                    {
                        "provider_id": "sso",
                        "name": "Acme ID",
                        "client_id": "opsmeter",
                        "secret": "the-secret",
                        "settings": {"server_url": self.server.url_for(""), "email_authentication": False, **facts},
                    }
                ],
            }
        }

    def knows(self, email, *, verified=True, sub="42", **claims):
        """Whom the next sign-in is about."""
        now = utc_now()
        token = {"iss": self.server.url_for(""), "aud": "opsmeter", "sub": sub, "iat": now}
        id_token = jwt.encode({**token, "exp": now + timedelta(minutes=5)}, "k" * 32, algorithm="HS256")
        self.server.expect_oneshot_request("/token", method="POST").respond_with_json(
            {"access_token": "at", "token_type": "Bearer", "id_token": id_token}
        )
        self.server.expect_oneshot_request("/userinfo", headers={"Authorization": "Bearer at"}).respond_with_json(
            {"sub": sub, "email": email, "email_verified": verified, "name": "Ada Lovelace", **claims}
        )


@pytest.fixture
def provider(httpserver, settings) -> Provider:
    return Provider(httpserver, settings)


def way_to_provider(page):
    """What a page that leads to the provider tells it."""
    target = re.search(r'http-equiv="refresh" content="0;url=([^"]+)"', page.content.decode())[1]
    return parse_qs(urlsplit(html.unescape(target)).query)


def there_and_back(client, query=""):
    """Press the button, sign in at the provider, and follow its way back."""
    sent = way_to_provider(client.post(LOGIN + query))
    assert sent["redirect_uri"] == ["http://testserver/accounts/oidc/sso/login/callback/"]
    assert sent["code_challenge_method"] == ["S256"]
    return client.get("/accounts/oidc/sso/login/callback/", {"code": "c", "state": sent["state"][0]})


def test_the_way_is_offered_only_where_it_is_configured(provider, settings):
    for path in ("/accounts/login/", "/accounts/signup/"):
        assert "Continue with Acme ID" in text_of(browser().get(path))
    assert "Connected accounts" in text_of(signed_in(make_person()).get("/accounts/email/"))
    settings.SOCIALACCOUNT_PROVIDERS = {}
    assert "Continue with" not in text_of(browser().get("/accounts/login/"))
    assert "Connected accounts" not in text_of(signed_in(make_person()).get("/accounts/email/"))
    assert browser().post(LOGIN).status_code == 404


def test_a_trusted_provider_spares_the_confirmation_mail(provider, mailoutbox):
    provider.configure(email_authentication=True)
    client, email = browser(), new_address("Sso")
    provider.knows(email)
    assert there_and_back(client)["Location"] == "/"
    assert is_signed_in(client)
    person = User.objects.get(email=email.lower())
    assert person.name == "Ada Lovelace"
    assert not person.has_usable_password()
    assert deeds_of(person) == ["user.created"]
    assert mailoutbox == []


@pytest.mark.parametrize(("trusted", "verified"), [(False, True), (True, False), (True, "false"), (True, "true")])
def test_otherwise_the_address_is_confirmed_by_mail(provider, mailoutbox, trusted, verified):
    provider.configure(email_authentication=trusted)
    client, email = browser(), new_address()
    provider.knows(email, verified=verified)
    assert there_and_back(client)["Location"] == "/accounts/confirm-email/"
    client.post(link_in(mailoutbox[0]))
    assert is_signed_in(client)


def test_a_trusted_provider_connects_the_person_with_that_address(provider, mailoutbox):
    provider.configure(email_authentication=True)
    person, client = make_person(), browser()
    provider.knows(person.email.upper())
    there_and_back(client)
    assert is_signed_in(client)
    assert mailoutbox[0].subject == "Acme ID is connected to your Opsmeter account"
    assert deeds_of(person) == ["user.sign_in_connected"]
    # From then on the provider's name for the person counts, not the address.
    again = browser()
    provider.knows(new_address("renamed"))
    there_and_back(again)
    assert is_signed_in(again)
    assert sign_in(browser(), person.email).status_code == 302


@pytest.mark.parametrize(("trusted", "verified"), [(False, True), (True, False), (True, "false")])
def test_nobody_is_let_into_an_account_by_an_address_that_is_not_proven(provider, mailoutbox, trusted, verified):
    provider.configure(email_authentication=trusted)
    person, client = make_person(), browser()
    provider.knows(person.email, verified=verified)
    there_and_back(client)
    assert not is_signed_in(client)
    assert not SocialAccount.objects.exists()
    assert [mail.subject for mail in mailoutbox] == ["You already have an Opsmeter account"]


def test_whoever_signed_up_with_a_foreign_address_loses_it_to_its_owner(provider, mailoutbox):
    provider.configure(email_authentication=True)
    email = new_address("victim")
    sign_up(browser(), email)
    client = browser()
    provider.knows(email)
    there_and_back(client)
    assert sign_in(browser(), email).status_code == 422
    assert not User.objects.get(email=email).has_usable_password()


def test_an_address_that_somebody_wants_to_change_to_leads_to_nobody_elses_account(provider):
    provider.configure(email_authentication=True)
    attacker, email = make_person(), new_address("victim")
    EmailAddress.objects.create(user=attacker, email=email)
    client = browser()
    provider.knows(email)
    there_and_back(client)
    assert User.objects.get(email=email) != attacker
    assert email in text_of(client.get("/accounts/email/"))


def test_a_person_connects_and_disconnects_on_their_own_page(provider, mailoutbox):
    person = make_person()
    client = proven(signed_in(person))
    provider.knows(new_address("other"), sub="7")
    assert there_and_back(client, "?process=connect")["Location"] == "/accounts/3rdparty/"
    assert "You can sign in as" in text_of(client.get("/accounts/3rdparty/"))
    other = browser()
    provider.knows(new_address("other"), sub="7")
    there_and_back(other)
    assert is_signed_in(other)
    page = client.get("/accounts/3rdparty/").content.decode()
    client.post("/accounts/3rdparty/", {"account": re.search(r'name="account" value="(\d+)"', page)[1]})
    assert not SocialAccount.objects.exists()
    assert deeds_of(person) == ["user.sign_in_connected", "user.sign_in_disconnected"]


def test_connecting_asks_for_the_password_first(provider):
    client = signed_in(make_person())
    provider.knows(new_address(), sub="8")
    assert there_and_back(client, "?process=connect")["Location"] == "/accounts/reauthenticate/"
    assert not SocialAccount.objects.exists()
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})
    assert SocialAccount.objects.count() == 1


def test_the_last_way_in_cannot_be_disconnected(provider):
    provider.configure(email_authentication=True)
    client = browser()
    provider.knows(new_address())
    there_and_back(client)
    page = client.post("/accounts/3rdparty/", {"account": SocialAccount.objects.get().pk})
    assert page.status_code == 422
    assert "Set a password first" in text_of(page)
    client.post("/accounts/password/set/", {"password1": PASSWORD})
    proven(client).post("/accounts/3rdparty/", {"account": SocialAccount.objects.get().pk})
    assert not SocialAccount.objects.exists()


def test_a_provider_that_tells_no_address_is_asked_around(provider, mailoutbox):
    client, email = browser(), new_address()
    provider.knows(None)
    assert there_and_back(client)["Location"] == "/accounts/3rdparty/signup/"
    assert client.post("/accounts/3rdparty/signup/", {"email": "x"}).status_code == 422
    client.post("/accounts/3rdparty/signup/", {"email": email})
    client.post(link_in(mailoutbox[0]))
    assert is_signed_in(client)


def test_somebody_who_was_switched_off_stays_out(provider):
    provider.configure(email_authentication=True)
    person = make_person()
    services.update_user(person, is_active=False, acting_user=None)
    client = browser()
    provider.knows(person.email)
    assert there_and_back(client)["Location"] == "/accounts/inactive/"
    assert not is_signed_in(client)


def test_a_press_is_needed(provider):
    page = browser().get(LOGIN)
    assert page.status_code == 200
    assert "Continue with Acme ID?" in text_of(page)


def test_giving_up_at_the_provider(provider):
    client = browser()
    state = way_to_provider(client.post(LOGIN))["state"][0]
    back = client.get("/accounts/oidc/sso/login/callback/", {"error": "access_denied", "state": state}, follow=True)
    assert "You did not go on" in text_of(back)


@pytest.mark.parametrize("query", ["", "?code=c&state=forged", "?error=server_error"])
def test_a_way_back_that_nobody_started(provider, query):
    page = browser().get(f"/accounts/oidc/sso/login/callback/{query}")
    assert page.status_code == 401
    assert "Signing in did not work" in text_of(page)


def test_a_provider_that_is_away(provider, httpserver):
    provider.configure(server_url="http://127.0.0.1:9/")
    page = browser().post(LOGIN)
    assert page.status_code == 502
    assert "Signing in did not work" in text_of(page)
