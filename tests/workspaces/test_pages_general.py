import re

import pytest
import time_machine
from django.test import Client
from django.urls import reverse

from tests.factories import make_cast
from workspaces import services
from workspaces.models import AccessToken, AuditEntry, Membership, Role

pytestmark = pytest.mark.django_db

ROLES = ("viewer", "member", "admin", "owner")


@pytest.fixture
def cast():
    return make_cast("pro", timezone="Europe/Berlin")


@pytest.fixture
def page(cast):
    """The page's address."""
    return reverse("settings-general", args=[cast.workspace.slug])


def signed_in(person):
    client = Client()
    client.force_login(person)
    return client


def form_of(cast, **changes):
    """What a browser sends: the fields, and beside them what the page showed."""
    shown = {"name": cast.workspace.name, "timezone": "Europe/Berlin"}
    return {**shown, **{f"initial-{name}": value for name, value in shown.items()}, **changes}


def undo_of(page_text):
    """Address and fields of the Undo button on a page."""
    toast = re.search(r'<div class="toast.*?</form>', page_text, re.DOTALL).group()
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', toast))
    return re.search(r'action="([^"]+)"', toast).group(1), fields


def stored(cast):
    cast.workspace.refresh_from_db()
    return cast.workspace.name, str(cast.workspace.timezone)


@pytest.mark.parametrize("role", ROLES)
def test_every_member_sees_the_facts_and_only_owners_and_admins_the_form(cast, page, role):
    with time_machine.travel("2026-11-01T12:00:00Z"):
        text = signed_in(getattr(cast, role)).get(page).content.decode()
    assert str(cast.workspace.pk) in text
    assert 'data-copy="workspace-slug"' in text
    assert "13:00" in text
    assert ('name="timezone"' in text) is (role in {"admin", "owner"})


def test_a_new_name_is_saved_and_can_be_undone(cast, page):
    client = signed_in(cast.admin)
    before = cast.workspace.name
    answer = client.post(page, form_of(cast, name="  Acme  "))
    assert (answer.status_code, answer["Location"]) == (302, page)
    assert stored(cast)[0] == "Acme"
    address, fields = undo_of(client.get(page).content.decode())
    client.post(address, fields)
    assert stored(cast) == (before, "Europe/Berlin")
    assert AuditEntry.objects.filter(action="workspace.changed", actor=cast.admin).count() == 2


def test_another_timezone_is_asked_twice_and_can_be_undone(cast, page):
    client = signed_in(cast.admin)
    question = client.post(page, form_of(cast, name="Acme", timezone="Asia/Kathmandu"))
    text = question.content.decode()
    assert question.status_code == 200
    assert "Asia/Kathmandu instead of Europe/Berlin" in text
    assert "may be lost" in text
    assert stored(cast)[1] == "Europe/Berlin"
    carried = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', text))
    assert client.post(page, carried)["Location"] == page
    assert stored(cast) == ("Acme", "Asia/Kathmandu")
    address, fields = undo_of(client.get(page).content.decode())
    assert client.post(address, fields).status_code == 302
    assert stored(cast)[1] == "Europe/Berlin"


def test_two_tabs_do_not_undo_each_other(cast, page):
    client = signed_in(cast.admin)
    client.post(page, form_of(cast, name="From the first tab"))
    client.post(page, form_of(cast, timezone="UTC", confirmed="yes"))
    assert stored(cast) == ("From the first tab", "UTC")


def test_sending_the_same_twice_changes_nothing_the_second_time(cast, page):
    client = signed_in(cast.admin)
    for _ in range(2):
        assert client.post(page, form_of(cast, name="Acme")).status_code == 302
    assert AuditEntry.objects.filter(action="workspace.changed").count() == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", ""), ("name", "   "), ("name", "x" * 101), ("name", "a\x00b"), ("timezone", "Mars/Base")],
)
def test_bad_input_is_said_beside_the_field_and_what_was_typed_stays(cast, page, field, value):
    before = stored(cast)
    answer = signed_in(cast.admin).post(page, form_of(cast, **{field: value}))
    text = answer.content.decode()
    assert answer.status_code == 422
    assert f'id="id_{field}_error"' in text
    assert f'name="initial-{field}"' in text
    assert stored(cast) == before


def test_an_old_alias_as_timezone_can_still_be_saved(cast, page):
    services.update_workspace(cast.workspace, timezone="US/Pacific", acting_user=None)
    sent = form_of(cast, name="Acme", timezone="US/Pacific", **{"initial-timezone": "US/Pacific"})
    assert signed_in(cast.admin).post(page, sent).status_code == 302
    assert stored(cast) == ("Acme", "US/Pacific")


@pytest.mark.parametrize("role", ["viewer", "member"])
def test_members_cannot_save(cast, page, role):
    before = stored(cast)
    assert signed_in(getattr(cast, role)).post(page, form_of(cast, name="Mine")).status_code == 403
    assert stored(cast) == before


def test_the_pages_of_others_do_not_exist(cast, page):
    for name in ("settings-general", "settings-leave"):
        assert signed_in(cast.outsider).get(reverse(name, args=[cast.workspace.slug])).status_code == 404


def test_the_page_needs_few_queries(cast, page, django_assert_max_num_queries):
    client = signed_in(cast.admin)
    client.get(page)
    with django_assert_max_num_queries(14):
        client.get(page)


# --- Leaving ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def leave(cast):
    return reverse("settings-leave", args=[cast.workspace.slug])


def test_leaving_is_asked_twice_and_says_what_happens_to_tokens_and_keys(cast, leave):
    services.create_api_key(cast.workspace, name="Mine", created_by=cast.member, acting_user=cast.member)
    token, _ = services.create_access_token(
        user=cast.member, workspace=cast.workspace, name="Mine", scopes=["read"], acting_user=cast.member
    )
    client = signed_in(cast.member)
    text = client.get(leave).content.decode()
    assert "revoked: 1" in text
    assert "go on working: 1" in text
    assert Membership.objects.filter(user=cast.member).exists()
    assert client.post(leave)["Location"] == reverse("home")
    assert not Membership.objects.filter(user=cast.member).exists()
    assert AccessToken.objects.get(pk=token.pk).revoked_at is not None
    assert client.post(leave).status_code == 404
    assert AuditEntry.objects.filter(action="member.removed").count() == 1


def test_the_last_owner_stays_and_is_told_why(cast, leave):
    client = signed_in(cast.owner)
    text = client.post(leave, follow=True).content.decode()
    assert "at least one owner" in text
    assert Membership.objects.get(user=cast.owner).role == Role.OWNER
