import re
from datetime import timedelta

import pytest
import time_machine
from django.test import Client
from django.urls import reverse

from opsmeter_site.lib.clock import utc_now
from tests.client import ApiClient
from tests.factories import make_cast, token_for
from workspaces import services
from workspaces.models import AccessToken, AuditEntry

pytestmark = pytest.mark.django_db

SECRET = re.compile(r"om_pat_[A-Za-z0-9]{8}_[A-Za-z0-9]{32}")


@pytest.fixture
def cast():
    return make_cast("pro")


@pytest.fixture
def page(cast):
    return reverse("settings-tokens", args=[cast.workspace.slug])


def signed_in(person):
    client = Client()
    client.force_login(person)
    return client


def form(**changes):
    return {"name": "Report", "scopes": "read", "expires": "90", **changes}


def token_of(person):
    return AccessToken.objects.filter(user=person).latest("pk")


def revoke_address(cast, token):
    return reverse("settings-token-revoke", args=[cast.workspace.slug, token.pk])


@pytest.mark.parametrize("role", ["viewer", "member", "admin", "owner"])
def test_everybody_makes_tokens_of_their_own_shown_once(cast, page, role):
    person = getattr(cast, role)
    client = signed_in(person)
    assert client.post(page, form())["Location"] == page
    first = client.get(page)
    plain = SECRET.search(first.content.decode()).group()
    assert "no-store" in first["Cache-Control"]
    assert SECRET.search(client.get(page).content.decode()) is None
    assert ApiClient(token=plain).get("/v1/settings/workspace-status").status_code == 200
    assert token_of(person).scopes == ["read"]


@pytest.mark.parametrize(("scopes", "stored"), [("read", ["read"]), ("write", ["read", "write"])])
@pytest.mark.parametrize(("days", "span"), [("7", 7), ("90", 90), ("365", 365), ("", None)])
def test_scopes_and_expiry_are_as_chosen(cast, page, scopes, stored, days, span):
    with time_machine.travel("2026-03-10T12:00:00Z", tick=False):
        signed_in(cast.member).post(page, form(scopes=scopes, expires=days))
        token = token_of(cast.member)
        assert token.scopes == stored
        assert token.expires_at == (None if span is None else utc_now() + timedelta(days=span))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\x00"}, "name"),
        ({"scopes": ""}, "scopes"),
        ({"scopes": "admin"}, "scopes"),
        ({"expires": "8"}, "expires"),
    ],
)
def test_bad_input_is_said_beside_the_field(cast, page, changes, field):
    answer = signed_in(cast.member).post(page, form(**changes))
    assert answer.status_code == 422
    assert f'id="id_{field}_error"' in answer.content.decode()
    assert not AccessToken.objects.filter(user=cast.member).exists()


def test_the_form_sent_twice_makes_one_token(cast, page):
    client = signed_in(cast.member)
    client.post(page, form())
    assert client.post(page, form()).status_code == 422
    assert AccessToken.objects.filter(user=cast.member).count() == 1


def test_the_name_of_a_token_that_is_gone_is_free_again(cast, page):
    client = signed_in(cast.member)
    client.post(page, form())
    services.revoke_access_token(token_of(cast.member), acting_user=cast.member)
    assert client.post(page, form()).status_code == 302


def test_only_owners_and_admins_see_tokens_of_others(cast, page):
    token_for(cast.viewer, cast.workspace)
    for role, sees in (("member", False), ("admin", True), ("owner", True)):
        text = signed_in(getattr(cast, role)).get(page).content.decode()
        assert ("Tokens of others" in text) is sees
        assert (revoke_address(cast, token_of(cast.viewer)) in text) is sees


def test_ones_own_token_is_revoked_after_a_second_question(cast, page):
    plain = token_for(cast.viewer, cast.workspace)
    client = signed_in(cast.viewer)
    address = revoke_address(cast, token_of(cast.viewer))
    assert "never used" in client.get(address).content.decode()
    assert ApiClient(token=plain).get("/v1/settings/workspace-status").status_code == 200
    for _ in range(2):
        assert client.post(address)["Location"] == page
    assert ApiClient(token=plain).get("/v1/settings/workspace-status").status_code == 401
    assert AuditEntry.objects.filter(action="access_token.revoked").count() == 1


def test_tokens_of_others_are_for_owners_and_admins_to_revoke(cast):
    token_for(cast.viewer, cast.workspace)
    token = token_of(cast.viewer)
    assert signed_in(cast.member).post(revoke_address(cast, token)).status_code == 403
    assert signed_in(cast.outsider).post(revoke_address(cast, token)).status_code == 404
    token.refresh_from_db()
    assert token.revoked_at is None
    client = signed_in(cast.admin)
    assert cast.viewer.email in client.get(revoke_address(cast, token)).content.decode()
    client.post(revoke_address(cast, token))
    token.refresh_from_db()
    assert token.revoked_at is not None


def test_tokens_of_other_workspaces_do_not_exist(cast, page):
    foreign = make_cast("pro")
    client = signed_in(cast.owner)
    assert client.post(revoke_address(cast, foreign.opened.access_token)).status_code == 404
    assert signed_in(foreign.owner).get(page).status_code == 404


def test_the_number_of_queries_does_not_grow_with_tokens(cast, page, django_assert_max_num_queries):
    client = signed_in(cast.owner)
    client.get(page)
    with django_assert_max_num_queries(16) as before:
        client.get(page)
    for person in (cast.owner, cast.admin, cast.member):
        token_for(person, cast.workspace)
    with django_assert_max_num_queries(len(before)):
        client.get(page)
