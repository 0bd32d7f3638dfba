import pytest

from opsmeter_site.lib.errors import InvalidInput, NotAllowed, NotFound
from tests.factories import UserFactory, make_cast
from workspaces import services
from workspaces.keys import authenticate_api_key
from workspaces.models import AccessToken, AuditEntry, Membership, Role

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast():
    return make_cast()


def role_of(cast, user):
    return Membership.objects.get(workspace=cast.workspace, user=user).role


def test_the_last_owner_cannot_leave(cast):
    with pytest.raises(NotAllowed) as refusal:
        services.remove_member(cast.workspace, cast.owner, acting_user=cast.owner)
    assert refusal.value.errors[0].field == "user"
    assert role_of(cast, cast.owner) == Role.OWNER


def test_the_last_owner_cannot_be_demoted(cast):
    with pytest.raises(NotAllowed) as refusal:
        services.change_role(cast.workspace, cast.owner, Role.ADMIN, acting_user=cast.owner)
    assert refusal.value.errors[0].field == "role"
    assert role_of(cast, cast.owner) == Role.OWNER


def test_an_owner_can_leave_once_there_is_another(cast):
    services.change_role(cast.workspace, cast.admin, Role.OWNER, acting_user=cast.owner)
    services.remove_member(cast.workspace, cast.owner, acting_user=cast.owner)
    assert role_of(cast, cast.admin) == Role.OWNER
    assert not Membership.objects.filter(workspace=cast.workspace, user=cast.owner).exists()


def test_leaving_revokes_the_persons_tokens_and_leaves_the_workspaces_keys(cast):
    services.change_role(cast.workspace, cast.admin, Role.OWNER, acting_user=cast.owner)
    services.remove_member(cast.workspace, cast.owner, acting_user=cast.admin)
    assert AccessToken.objects.get(user=cast.owner).revoked_at is not None
    assert authenticate_api_key(cast.opened.api_key_plain) is not None


def test_changes_of_members_are_audited(cast):
    services.change_role(cast.workspace, cast.member, Role.VIEWER, acting_user=cast.admin)
    services.remove_member(cast.workspace, cast.member, acting_user=cast.admin)
    changed, removed = AuditEntry.objects.filter(actor=cast.admin).order_by("id")
    assert (changed.action, changed.target) == ("member.role_changed", cast.member.email)
    assert changed.data == {"role": ["member", "viewer"]}
    assert (removed.action, removed.data) == ("member.removed", {"role": "viewer", "access_tokens_revoked": 0})


def test_the_same_role_again_changes_nothing(cast):
    services.change_role(cast.workspace, cast.member, Role.MEMBER, acting_user=cast.admin)
    assert not AuditEntry.objects.filter(actor=cast.admin).exists()


def test_who_is_not_a_member_has_no_role_to_change_and_cannot_leave(cast):
    with pytest.raises(NotFound):
        services.change_role(cast.workspace, cast.outsider, Role.ADMIN, acting_user=cast.owner)
    with pytest.raises(NotFound):
        services.remove_member(cast.workspace, cast.outsider, acting_user=cast.owner)


def test_a_person_is_a_member_once(cast):
    with pytest.raises(InvalidInput) as refusal:
        services.add_member(cast.workspace, cast.viewer, Role.ADMIN, acting_user=cast.owner)
    assert refusal.value.errors[0].field == "user"
    assert role_of(cast, cast.viewer) == Role.VIEWER


def test_an_unknown_role_is_refused(cast):
    with pytest.raises(InvalidInput) as refusal:
        services.add_member(cast.workspace, UserFactory(), "emperor", acting_user=cast.owner)
    assert refusal.value.errors[0].field == "role"
