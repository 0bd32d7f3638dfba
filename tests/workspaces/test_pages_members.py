import re
from datetime import timedelta

import pytest
import time_machine
from allauth.mfa.models import Authenticator
from django.core import mail
from django.test import Client
from django.urls import reverse

from tests.factories import UserFactory, make_cast
from workspaces import services
from workspaces.invitations import invite_member
from workspaces.models import AuditEntry, Invitation, Membership, Role

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast():
    return make_cast("pro")


@pytest.fixture
def page(cast):
    return reverse("settings-members", args=[cast.workspace.slug])


def signed_in(person):
    client = Client()
    client.force_login(person)
    return client


def of_member(name, cast, person):
    member = Membership.objects.get(workspace=cast.workspace, user=person)
    return reverse(name, args=[cast.workspace.slug, member.pk])


def role_of(cast, person):
    return Membership.objects.get(workspace=cast.workspace, user=person).role


def undo_of(page_text):
    toast = re.search(r'<div class="toast.*?</form>', page_text, re.DOTALL).group()
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', toast))
    return re.search(r'action="([^"]+)"', toast).group(1), fields


# --- The list ---------------------------------------------------------------------------------------------------------


def test_everybody_sees_who_is_there_and_only_owners_and_admins_more(cast, page):
    Authenticator.objects.create(user=cast.owner, type=Authenticator.Type.TOTP, data={})
    Authenticator.objects.create(user=cast.member, type=Authenticator.Type.RECOVERY_CODES, data={})
    invite_member(cast.workspace, email="new@example.com", role=Role.MEMBER, acting_user=cast.admin)
    for role in ("viewer", "member"):
        text = signed_in(getattr(cast, role)).get(page).content.decode()
        assert cast.owner.email in text
        for hidden in ("Last sign-in", "Two-factor</th>", "new@example.com", "<select", "Remove"):
            assert hidden not in text
    text = signed_in(cast.admin).get(page).content.decode()
    assert "new@example.com" in text
    assert text.count(">On<") == 1
    assert text.count(">Off<") == 3


def test_an_admin_is_offered_nothing_about_owners(cast, page):
    text = signed_in(cast.admin).get(page).content.decode()
    assert of_member("settings-member-remove", cast, cast.owner) not in text
    assert of_member("settings-member-remove", cast, cast.viewer) in text
    assert 'value="owner"' not in text


def test_the_page_of_others_does_not_exist(cast, page):
    assert signed_in(cast.outsider).get(page).status_code == 404


def test_the_number_of_queries_does_not_grow_with_people(cast, page, django_assert_max_num_queries):
    client = signed_in(cast.owner)
    client.get(page)
    with django_assert_max_num_queries(20) as before:
        client.get(page)
    for number in range(5):
        services.add_member(cast.workspace, UserFactory(), Role.MEMBER, acting_user=None)
        invite_member(cast.workspace, email=f"{number}@example.org", role=Role.VIEWER, acting_user=cast.admin)
    with django_assert_max_num_queries(len(before)):
        client.get(page)


# --- Roles ------------------------------------------------------------------------------------------------------------


def test_a_role_is_changed_from_the_list_and_can_be_undone(cast, page):
    client = signed_in(cast.admin)
    address = of_member("settings-member-role", cast, cast.viewer)
    assert client.post(address, {"role": "admin", "was": "viewer"})["Location"] == page
    assert role_of(cast, cast.viewer) == Role.ADMIN
    undo, fields = undo_of(client.get(page).content.decode())
    client.post(undo, fields)
    assert role_of(cast, cast.viewer) == Role.VIEWER


def test_the_same_form_sent_twice_changes_the_role_once(cast):
    client = signed_in(cast.admin)
    address = of_member("settings-member-role", cast, cast.viewer)
    for _ in range(2):
        assert client.post(address, {"role": "member", "was": "viewer"}).status_code == 302
    assert AuditEntry.objects.filter(action="member.role_changed").count() == 1


def test_a_role_that_somebody_else_has_changed_meanwhile_is_left_alone(cast):
    services.change_role(cast.workspace, cast.viewer, Role.ADMIN, acting_user=cast.owner)
    address = of_member("settings-member-role", cast, cast.viewer)
    text = signed_in(cast.admin).post(address, {"role": "member", "was": "viewer"}, follow=True).content.decode()
    assert "it is Admin now" in text
    assert role_of(cast, cast.viewer) == Role.ADMIN


def test_admins_neither_make_nor_unmake_owners(cast):
    client = signed_in(cast.admin)
    client.post(of_member("settings-member-role", cast, cast.viewer), {"role": "owner", "was": "viewer"})
    assert role_of(cast, cast.viewer) == Role.VIEWER
    services.change_role(cast.workspace, cast.member, Role.OWNER, acting_user=cast.owner)
    for was in ("owner", "member"):
        client.post(of_member("settings-member-role", cast, cast.member), {"role": "viewer", "was": was})
        client.post(of_member("settings-member-remove", cast, cast.member))
    assert role_of(cast, cast.member) == Role.OWNER


def test_the_last_owner_stays_owner(cast):
    client = signed_in(cast.owner)
    address = of_member("settings-member-role", cast, cast.owner)
    text = client.post(address, {"role": "admin", "was": "owner"}, follow=True).content.decode()
    assert "at least one owner" in text
    assert role_of(cast, cast.owner) == Role.OWNER


def test_ones_own_role_is_asked_twice_because_there_is_no_way_back(cast, page):
    client = signed_in(cast.admin)
    address = of_member("settings-member-role", cast, cast.admin)
    assert "back to yourself" in client.get(address).content.decode()
    text = client.post(address, {"role": "viewer", "was": "admin"}, follow=True).content.decode()
    assert role_of(cast, cast.admin) == Role.VIEWER
    assert "Undo" not in text
    assert client.post(address, {"role": "admin", "was": "viewer"}).status_code == 403


@pytest.mark.parametrize(
    "sent", [{}, {"role": "emperor", "was": "viewer"}, {"role": "admin"}, {"role": "admin", "was": "x"}]
)
def test_a_form_that_makes_no_sense_changes_nothing(cast, sent):
    address = of_member("settings-member-role", cast, cast.viewer)
    assert signed_in(cast.admin).post(address, sent).status_code == 422
    assert role_of(cast, cast.viewer) == Role.VIEWER


# --- Removing ---------------------------------------------------------------------------------------------------------


def test_removing_is_asked_twice(cast, page):
    client = signed_in(cast.admin)
    address = of_member("settings-member-remove", cast, cast.viewer)
    assert cast.viewer.email in client.get(address).content.decode()
    assert role_of(cast, cast.viewer) == Role.VIEWER
    assert client.post(address)["Location"] == page
    assert not Membership.objects.filter(user=cast.viewer).exists()
    # The second press and the way back end on the list.
    for again in (client.post, client.get):
        assert again(address)["Location"] == page
    assert "not a member any more" in client.get(page).content.decode()
    assert AuditEntry.objects.filter(action="member.removed").count() == 1


def test_ones_own_removal_is_leaving(cast):
    answer = signed_in(cast.admin).post(of_member("settings-member-remove", cast, cast.admin))
    assert answer["Location"] == reverse("settings-leave", args=[cast.workspace.slug])
    assert role_of(cast, cast.admin) == Role.ADMIN


def test_members_of_other_workspaces_are_out_of_reach(cast):
    foreign = make_cast("pro")
    client = signed_in(cast.owner)
    for name in ("settings-member-role", "settings-member-remove"):
        member = Membership.objects.get(workspace=foreign.workspace, user=foreign.viewer)
        client.post(reverse(name, args=[cast.workspace.slug, member.pk]), {"role": "admin", "was": "viewer"})
    assert role_of(foreign, foreign.viewer) == Role.VIEWER


@pytest.mark.parametrize("role", ["viewer", "member"])
def test_members_change_nobody(cast, page, role):
    client = signed_in(getattr(cast, role))
    for name in ("settings-member-role", "settings-member-remove"):
        address = of_member(name, cast, cast.viewer)
        assert client.get(address).status_code == 403
        assert client.post(address, {"role": "admin", "was": "viewer"}).status_code == 403
    assert client.post(page, {"email": "new@example.com", "role": "viewer"}).status_code == 403
    assert role_of(cast, cast.viewer) == Role.VIEWER
    assert not mail.outbox


# --- Inviting ---------------------------------------------------------------------------------------------------------


def test_inviting_mails_a_link_and_lists_the_invitation(cast, page):
    client = signed_in(cast.admin)
    assert client.post(page, {"email": "New@Example.com", "role": "viewer"})["Location"] == page
    assert "new@example.com" in client.get(page).content.decode()
    assert [message.to for message in mail.outbox] == [["new@example.com"]]


@pytest.mark.parametrize(
    ("email", "role", "field"),
    [
        ("", "member", "email"),
        ("nonsense", "member", "email"),
        ("a@example.com", "owner", "role"),
        ("a@b.de", "", "role"),
    ],
)
def test_bad_input_is_said_beside_the_field(cast, page, email, role, field):
    answer = signed_in(cast.admin).post(page, {"email": email, "role": role})
    text = answer.content.decode()
    assert answer.status_code == 422
    assert f'id="id_{field}_error"' in text
    assert f'value="{email}"' in text or not email
    assert not Invitation.objects.exists()


def test_owners_invite_owners(cast, page):
    signed_in(cast.owner).post(page, {"email": "new@example.com", "role": "owner"})
    assert Invitation.objects.get().role == Role.OWNER


def test_a_full_workspace_says_so_with_the_next_step():
    cast = make_cast("free")
    page = reverse("settings-members", args=[cast.workspace.slug])
    client = signed_in(cast.admin)
    text = client.get(page).content.decode()
    assert "Your plan includes 2 people" in text
    assert "larger plan" in text
    answer = client.post(page, {"email": "new@example.com", "role": "viewer"})
    assert answer.status_code == 422
    assert "Your plan includes 2 people" in answer.content.decode()
    assert not mail.outbox


def test_an_invitation_is_sent_again_at_most_once_a_minute(cast, page):
    client = signed_in(cast.admin)
    with time_machine.travel("2026-03-10T12:00:00Z", tick=False) as clock:
        client.post(page, {"email": "new@example.com", "role": "viewer"})
        again = reverse("settings-invitation-resend", args=[cast.workspace.slug, Invitation.objects.get().pk])
        assert "just been sent" in client.post(again, follow=True).content.decode()
        clock.shift(timedelta(minutes=1))
        assert client.post(again)["Location"] == page
        client.post(again)
    first, second = (re.search(r"/invitations/(\S+)/", message.body).group(1) for message in mail.outbox)
    assert first != second


def test_revoking_an_invitation_is_asked_twice(cast, page):
    client = signed_in(cast.admin)
    client.post(page, {"email": "new@example.com", "role": "viewer"})
    invitation = Invitation.objects.get()
    address = reverse("settings-invitation-revoke", args=[cast.workspace.slug, invitation.pk])
    assert "new@example.com" in client.get(address).content.decode()
    for _ in range(2):
        assert client.post(address)["Location"] == page
    invitation.refresh_from_db()
    assert invitation.revoked_at is not None
    assert AuditEntry.objects.filter(action="invitation.revoked").count() == 1


def test_admins_leave_owners_invitations_alone(cast):
    invitation, _ = invite_member(cast.workspace, email="new@example.com", role=Role.OWNER, acting_user=cast.owner)
    client = signed_in(cast.admin)
    for name in ("settings-invitation-revoke", "settings-invitation-resend"):
        client.post(reverse(name, args=[cast.workspace.slug, invitation.pk]))
    stored = Invitation.objects.get()
    assert stored.is_open
    assert not mail.outbox


def test_invitations_of_other_workspaces_do_not_exist(cast):
    foreign = make_cast("pro")
    invitation, _ = invite_member(foreign.workspace, email="a@example.com", role=Role.VIEWER, acting_user=foreign.owner)
    client = signed_in(cast.owner)
    for name in ("settings-invitation-revoke", "settings-invitation-resend"):
        assert client.post(reverse(name, args=[cast.workspace.slug, invitation.pk])).status_code == 404
