import uuid

import pytest
from django.contrib.auth.models import AnonymousUser

from opsmeter_site.lib.errors import NotAllowed, NotFound
from tests.factories import make_cast, make_workspace
from workspaces.access import require_role, role_includes, workspace_for
from workspaces.models import Role

pytestmark = pytest.mark.django_db

TABLE = {
    # role: what it includes
    Role.OWNER: {Role.OWNER, Role.ADMIN, Role.MEMBER, Role.VIEWER},
    Role.ADMIN: {Role.ADMIN, Role.MEMBER, Role.VIEWER},
    Role.MEMBER: {Role.MEMBER, Role.VIEWER},
    Role.VIEWER: {Role.VIEWER},
}


@pytest.fixture
def cast():
    return make_cast()


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("minimum", Role)
def test_roles_include_the_ones_below_them(role, minimum):
    assert role_includes(role, minimum) is (minimum in TABLE[role])


@pytest.mark.parametrize("role", Role)
def test_members_enter_by_slug_and_by_id_in_their_role(cast, role):
    person = getattr(cast, role.value)
    for name in (cast.workspace.slug, cast.workspace.pk):
        access = workspace_for(person, name)
        assert (access.workspace, access.user, access.role) == (cast.workspace, person, role)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("minimum", Role)
def test_a_door_that_needs_a_role_opens_for_it_and_above(cast, role, minimum):
    access = workspace_for(getattr(cast, role.value), cast.workspace.slug)
    if minimum in TABLE[role]:
        require_role(access, minimum)
    else:
        with pytest.raises(NotAllowed):
            require_role(access, minimum)


def test_not_yours_and_not_there_look_the_same(cast):
    seen = set()
    for name in (cast.workspace.slug, cast.workspace.pk, "no-such-workspace", uuid.uuid4(), str(cast.workspace.pk)):
        with pytest.raises(NotFound) as refusal:
            workspace_for(cast.outsider, name)
        seen.add((refusal.value.status, refusal.value.reason, refusal.value.message))
    assert len(seen) == 1


def test_the_owner_of_another_workspace_is_an_outsider(cast):
    with pytest.raises(NotFound):
        workspace_for(make_workspace().owner, cast.workspace.slug)


def test_nobody_and_deactivated_people_stay_outside(cast):
    cast.owner.is_active = False
    for user in (AnonymousUser(), cast.owner):
        with pytest.raises(NotFound):
            workspace_for(user, cast.workspace.slug)
