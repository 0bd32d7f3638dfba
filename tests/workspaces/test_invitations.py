import re
from datetime import timedelta
from importlib import import_module
from types import SimpleNamespace

import pytest
import time_machine
from django.apps import apps
from django.core import mail
from django.db import connection
from django.test import Client
from django.urls import reverse

from billing.plans import Overrides
from billing.services import change_workspace_plan
from opsmeter_site.lib.errors import InvalidInput, NotAllowed
from tests.factories import UserFactory, make_cast
from tests.mailing import REFUSING_PROVIDER
from tests.races import at_once
from workspaces import services
from workspaces.invitations import (
    MAILS_A_DAY,
    accept_invitation,
    invitation_for_token,
    invite_member,
    places_of,
    resend_invitation,
    revoke_invitation,
)
from workspaces.models import AuditEntry, Invitation, Membership, Role, Workspace

pytestmark = pytest.mark.django_db

START = "2026-03-10T12:00:00Z"


@pytest.fixture
def cast():
    return make_cast("pro")


def invite(cast, email="new@example.com", role=Role.MEMBER, by=None):
    return invite_member(cast.workspace, email=email, role=role, acting_user=by or cast.admin)


def role_of(cast, user):
    return Membership.objects.get(workspace=cast.workspace, user=user).role


# --- The rules --------------------------------------------------------------------------------------------------------


def test_an_invited_person_becomes_a_member_in_the_offered_role(cast):
    invitation, token = invite(cast, " New@Example.com ", Role.ADMIN)
    assert invitation_for_token(token) == invitation
    person = UserFactory(email="new@example.com")
    accept_invitation(invitation, acting_user=person)
    assert role_of(cast, person) == Role.ADMIN
    sent, accepted = AuditEntry.objects.filter(target="new@example.com").order_by("pk")
    assert (sent.action, sent.actor, sent.data) == ("invitation.sent", cast.admin, {"role": "admin"})
    assert (accepted.action, accepted.actor) == ("invitation.accepted", person)
    assert token not in str(list(Invitation.objects.values())) + str(list(AuditEntry.objects.values()))


def test_accepting_twice_changes_nothing(cast):
    invitation, _ = invite(cast)
    person = UserFactory(email="new@example.com")
    first = accept_invitation(invitation, acting_user=person)
    assert accept_invitation(invitation, acting_user=person) == first
    assert AuditEntry.objects.filter(action="invitation.accepted").count() == 1


def test_a_member_who_accepts_keeps_the_role_they_have(cast):
    invitation, _ = invite(cast, role=Role.VIEWER)
    person = UserFactory(email="new@example.com")
    services.add_member(cast.workspace, person, Role.ADMIN, acting_user=cast.owner)
    accept_invitation(invitation, acting_user=person)
    assert role_of(cast, person) == Role.ADMIN
    assert places_of(cast.workspace).invited == 0


def test_an_invitation_is_for_its_address_only(cast):
    invitation, _ = invite(cast)
    with pytest.raises(NotAllowed):
        accept_invitation(invitation, acting_user=cast.outsider)
    assert not Membership.objects.filter(user=cast.outsider).exists()


def test_another_confirmed_address_of_the_person_counts_and_an_unconfirmed_one_does_not(cast):
    invitation, _ = invite(cast)
    address = cast.outsider.emailaddress_set.create(email="new@example.com", verified=False)
    with pytest.raises(NotAllowed):
        accept_invitation(invitation, acting_user=cast.outsider)
    address.verified = True
    address.save()
    accept_invitation(invitation, acting_user=cast.outsider)
    assert role_of(cast, cast.outsider) == Role.MEMBER


def test_an_invitation_ends_after_seven_days_or_when_it_is_revoked(cast):
    person = UserFactory(email="new@example.com")
    with time_machine.travel(START, tick=False) as clock:
        expired, _ = invite(cast)
        clock.shift(timedelta(days=7))
        with pytest.raises(NotAllowed):
            accept_invitation(expired, acting_user=person)
        revoked, _ = invite(cast)
        revoke_invitation(revoked, acting_user=cast.admin)
        revoke_invitation(revoked, acting_user=cast.admin)
        with pytest.raises(NotAllowed):
            accept_invitation(revoked, acting_user=person)
    assert not Membership.objects.filter(user=person).exists()
    assert AuditEntry.objects.filter(action="invitation.revoked").count() == 1


def test_an_address_is_invited_once_and_again_after_expiry(cast):
    with time_machine.travel(START, tick=False) as clock:
        invite(cast)
        with pytest.raises(InvalidInput) as refusal:
            invite(cast, "NEW@example.com")
        assert refusal.value.errors[0].field == "email"
        clock.shift(timedelta(days=7))
        invite(cast)
        assert places_of(cast.workspace).invited == 1


@pytest.mark.parametrize("email", ["", "nonsense", "a@b", "a@example.com\x00", "a" * 250 + "@example.com", "a b@c.de"])
def test_a_bad_address_is_refused(cast, email):
    with pytest.raises(InvalidInput) as refusal:
        invite(cast, email)
    assert refusal.value.errors[0].field == "email"


def test_members_are_not_invited(cast):
    with pytest.raises(InvalidInput) as refusal:
        invite(cast, cast.viewer.email)
    assert refusal.value.errors[0].field == "email"


def test_sending_again_replaces_the_link_and_begins_the_seven_days_anew(cast):
    with time_machine.travel(START, tick=False) as clock:
        invitation, old = invite(cast)
        with pytest.raises(NotAllowed):
            resend_invitation(invitation, acting_user=cast.admin)
        clock.shift(timedelta(days=6))
        invitation, new = resend_invitation(invitation, acting_user=cast.admin)
        clock.shift(timedelta(days=6))
        assert invitation_for_token(old) is None
        accept_invitation(invitation_for_token(new), acting_user=UserFactory(email="new@example.com"))


def test_nobody_is_flooded_with_mails(cast):
    services.set_member_limit(cast.workspace.pk, None)
    cast.workspace.refresh_from_db()
    for number in range(MAILS_A_DAY):
        invite(cast, f"person-{number}@example.org")
    with pytest.raises(InvalidInput) as refusal:
        invite(cast)
    assert str(MAILS_A_DAY) in refusal.value.errors[0].message


def test_invitations_end_with_the_right_to_give_their_role(cast):
    by_owner, _ = invite(cast, "a@example.com", Role.OWNER, by=cast.owner)
    modest, _ = invite(cast, "b@example.com", Role.VIEWER, by=cast.owner)
    by_admin, _ = invite(cast, "c@example.com", Role.ADMIN)
    services.change_role(cast.workspace, cast.member, Role.OWNER, acting_user=cast.owner)
    services.change_role(cast.workspace, cast.owner, Role.ADMIN, acting_user=cast.member)
    services.remove_member(cast.workspace, cast.admin, acting_user=cast.member)
    for invitation in (by_owner, modest, by_admin):
        invitation.refresh_from_db()
    assert (by_owner.is_open, modest.is_open, by_admin.is_open) == (False, True, False)
    assert AuditEntry.objects.get(action="member.removed").data["invitations_ended"] == 1


# --- The plan's places ------------------------------------------------------------------------------------------------


def test_members_and_open_invitations_take_the_places_of_the_plan():
    cast = make_cast("starter")
    assert cast.workspace.members.count() == 4
    cast.workspace.refresh_from_db()
    invitation, _ = invite(cast)
    with pytest.raises(InvalidInput) as refusal:
        invite(cast, "other@example.com")
    assert "5 people" in refusal.value.errors[0].message
    assert "larger plan" in refusal.value.errors[0].message
    revoke_invitation(invitation, acting_user=cast.admin)
    invite(cast, "other@example.com")


def test_the_number_follows_the_plan_its_edits_and_the_workspaces_own(cast):
    def limit():
        cast.workspace.refresh_from_db()
        return cast.workspace.member_limit

    assert limit() == 15
    change_workspace_plan(cast.workspace, plan_tier="enterprise", acting_user=None)
    assert limit() is None
    change_workspace_plan(cast.workspace, plan_tier="free", overrides=Overrides(members=7), acting_user=None)
    assert limit() == 7
    assert places_of(cast.workspace).limit == 7


def test_workspaces_from_before_are_told_their_number(cast):
    own = make_cast("free")
    change_workspace_plan(own.workspace, plan_tier="free", overrides=Overrides(members=9), acting_user=None)
    Workspace.objects.update(member_limit=None)
    migration = import_module("billing.migrations.0004_member_limits")
    migration.push_member_limits(apps, SimpleNamespace(connection=connection))
    limits = dict(Workspace.objects.values_list("pk", "member_limit"))
    assert (limits[cast.workspace.pk], limits[own.workspace.pk]) == (15, 9)


def test_an_expired_invitation_gives_its_place_back_and_needs_another_to_be_sent_again():
    cast = make_cast("starter")
    with time_machine.travel(START, tick=False) as clock:
        first, _ = invite(cast)
        clock.shift(timedelta(days=7))
        invite(cast, "other@example.com")
        with pytest.raises(InvalidInput):
            resend_invitation(first, acting_user=cast.admin)


def test_a_place_that_is_gone_is_not_taken_by_accepting(cast):
    invitation, _ = invite(cast)
    services.set_member_limit(cast.workspace.pk, 4)
    with pytest.raises(NotAllowed):
        accept_invitation(invitation, acting_user=UserFactory(email="new@example.com"))
    assert cast.workspace.members.count() == 4


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_redis_used")
def test_people_who_accept_at_once_never_exceed_the_plan():
    cast = make_cast("pro")
    people = [UserFactory() for _ in range(4)]
    offers = [invite(cast, person.email)[0] for person in people]
    services.set_member_limit(cast.workspace.pk, 6)
    results = at_once(
        *[
            lambda offer=offer, person=person: accept_invitation(offer, acting_user=person)
            for offer, person in zip(offers, people, strict=True)
        ]
    )
    assert sum(isinstance(result, NotAllowed) for result in results) == 2
    assert cast.workspace.members.count() == 6


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_redis_used")
def test_two_admins_who_invite_at_once_never_exceed_the_plan():
    cast = make_cast("pro")
    services.set_member_limit(cast.workspace.pk, 5)
    results = at_once(lambda: invite(cast, "a@example.com"), lambda: invite(cast, "b@example.com", by=cast.owner))
    assert sum(isinstance(result, InvalidInput) for result in results) == 1
    assert Invitation.objects.count() == 1


# --- The link ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def admin_page(cast):
    client = Client()
    client.force_login(cast.admin)
    return client


def press_invite(cast, page, email, **options):
    address = reverse("settings-members", args=[cast.workspace.slug])
    return page.post(address, {"email": email, "role": "member"}, **options)


@pytest.fixture
def link(cast, admin_page):
    """The path in the mail that the members page has sent to new@example.com."""
    sent = press_invite(cast, admin_page, "new@example.com")
    assert sent.status_code == 302
    return path_in(mail.outbox[-1])


def path_in(message):
    return re.search(r"http://testserver(/invitations/\S+/)", message.body).group(1)


def signed_in(person):
    client = Client()
    client.force_login(person)
    return client


def test_the_mail_says_who_invites_to_what(cast, link):
    message = mail.outbox[-1]
    assert message.to == ["new@example.com"]
    assert message.subject == f"The admin invites you to {cast.workspace.name} on Opsmeter"
    assert cast.admin.email in message.body
    assert "as member" in message.body


def test_names_are_written_as_they_are_in_mails(cast, admin_page):
    services.update_workspace(cast.workspace, name="R&D <1>", acting_user=cast.owner)
    press_invite(cast, admin_page, "x@example.com")
    assert "R&D <1>" in mail.outbox[-1].subject
    assert "R&D <1>" in mail.outbox[-1].body


def test_signed_out_the_link_explains_and_waits_for_the_sign_in(cast, link, client):
    page = client.get(link)
    assert page.status_code == 200
    text = page.content.decode()
    assert cast.workspace.name in text
    assert reverse("account_signup") in text
    assert reverse("account_login") in text
    assert client.session["pending_invitation"] == link.split("/")[2]
    assert "no-store" in page["Cache-Control"]
    assert client.post(link).status_code == 302
    assert not Membership.objects.filter(user__email="new@example.com").exists()


def test_the_invited_person_accepts_with_one_press(cast, link):
    person = UserFactory(email="new@example.com")
    client = signed_in(person)
    assert "Accept" in client.get(link).content.decode()
    assert not Membership.objects.filter(user=person).exists()
    done = client.post(link)
    assert done["Location"] == reverse("overview", args=[cast.workspace.slug])
    assert role_of(cast, person) == Role.MEMBER
    # The second press, another tab, the way back: all lead to the workspace.
    assert client.post(link)["Location"] == done["Location"]
    assert client.get(link)["Location"] == done["Location"]


def test_somebody_else_is_told_so_and_may_switch_accounts(cast, link):
    client = signed_in(cast.outsider)
    text = client.get(link).content.decode()
    assert cast.outsider.email in text
    assert f'action="{reverse("account_logout")}"' in text
    assert client.post(link).status_code == 200
    assert not Membership.objects.filter(user=cast.outsider).exists()
    away = client.post(reverse("account_logout"), {"next": link})
    assert away["Location"] == link
    assert "Create account" in client.get(link).content.decode()


def test_a_member_is_led_to_the_workspace(cast, link):
    assert signed_in(cast.viewer).get(link)["Location"] == reverse("overview", args=[cast.workspace.slug])


@pytest.mark.parametrize(
    ("end", "said"), [("expired", "has expired"), ("revoked", "taken back"), ("used", "has been used")]
)
def test_links_that_open_nothing_any_more_say_why(cast, link, client, end, said):
    invitation = Invitation.objects.get(email="new@example.com")
    if end == "revoked":
        revoke_invitation(invitation, acting_user=cast.admin)
    if end == "used":
        accept_invitation(invitation, acting_user=UserFactory(email="new@example.com"))
    days = 8 if end == "expired" else 0
    with time_machine.travel(invitation.created_at + timedelta(days=days)):
        for visitor in (client, signed_in(cast.outsider)):
            page = visitor.get(link)
            assert page.status_code == 200
            assert said in page.content.decode()
            assert visitor.post(link).status_code == 200
    assert "pending_invitation" not in client.session


@pytest.mark.parametrize("token", ["x", "om_inv_aaaaaaaa_" + "a" * 32, "%00", "é", "a" * 3_000])
def test_an_unknown_link_is_a_helpful_404(client, token):
    page = client.get(f"/invitations/{token}/")
    assert page.status_code == 404
    assert "newer mail" in page.content.decode()


def test_a_place_taken_since_the_page_was_opened_is_said_on_the_page(cast, link):
    person = UserFactory(email="new@example.com")
    services.set_member_limit(cast.workspace.pk, 4)
    page = signed_in(person).post(link)
    assert page.status_code == 409
    assert "full" in page.content.decode()


def test_the_mail_server_being_away_is_said_and_the_invitation_can_be_sent_again(cast, admin_page, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    page = press_invite(cast, admin_page, "new@example.com", follow=True).content.decode()
    assert "could not be sent" in page
    assert "Send again" in page


def test_a_mail_provider_that_refuses_the_address_is_said_too(cast, admin_page, settings):
    settings.EMAIL_BACKEND = REFUSING_PROVIDER
    page = press_invite(cast, admin_page, "new@example.com", follow=True).content.decode()
    assert "could not be sent" in page
