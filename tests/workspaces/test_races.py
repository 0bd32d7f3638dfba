"""Promises that hold when two people do things at the same moment, on a real PostgreSQL."""

from typing import Any

import pytest
from django.db import connection

from opsmeter_site.lib.errors import InvalidInput, NotAllowed, OpsmeterError
from tests.factories import UserFactory, make_workspace
from tests.races import at_once, while_uncommitted
from workspaces import services
from workspaces.keys import authenticate_api_key
from workspaces.models import ApiKey, Membership, Role, User, Workspace

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("_redis_used")]


def refusals(results: list[Any]) -> list[Any]:
    return [result for result in results if isinstance(result, OpsmeterError)]


@pytest.fixture
def opened():
    return make_workspace()


def test_two_rotations_at_once_make_one_new_secret_and_the_old_one_keeps_its_grace(opened):
    keys = [ApiKey.objects.get(pk=opened.api_key.pk) for _ in range(2)]
    results = at_once(*[lambda key=key: services.rotate_api_key(key, acting_user=opened.owner) for key in keys])
    (plain,) = [result for result in results if isinstance(result, str)]
    (refusal,) = refusals(results)
    assert isinstance(refusal, NotAllowed)
    assert authenticate_api_key(plain) is not None
    assert authenticate_api_key(opened.api_key_plain) is not None


def test_the_last_two_owners_cannot_both_leave(opened):
    second = UserFactory()
    services.add_member(opened.workspace, second, Role.OWNER, acting_user=opened.owner)
    result = while_uncommitted(
        lambda: services.remove_member(opened.workspace, opened.owner, acting_user=opened.owner),
        lambda: services.change_role(opened.workspace, second, Role.VIEWER, acting_user=second),
    )
    assert isinstance(result, NotAllowed)
    assert Membership.objects.filter(workspace=opened.workspace, role=Role.OWNER).count() == 1


def test_the_same_person_is_added_once(opened):
    person = UserFactory()
    add = lambda: services.add_member(opened.workspace, person, Role.MEMBER, acting_user=opened.owner)  # noqa: E731
    (refusal,) = refusals(at_once(add, add))
    assert isinstance(refusal, InvalidInput)
    assert refusal.errors[0].field == "user"


def test_workspaces_of_one_name_opened_at_once_all_get_a_slug_of_their_own(opened):
    owner = opened.owner
    create = lambda: services.create_workspace(name="Acme", owner=owner, timezone="UTC", acting_user=owner)  # noqa: E731
    results = at_once(*[create] * 6)
    assert not refusals(results)
    assert {workspace.slug for workspace in results} == {"acme", *(f"acme-{number}" for number in range(2, 7))}


def test_the_same_new_owner_of_two_workspaces_is_stored_once():
    make_workspace()
    results = at_once(*[lambda: make_workspace(owner_email="new@example.com")] * 2)
    assert not refusals(results)
    assert User.objects.filter(email="new@example.com").count() == 1
    assert Workspace.objects.filter(members__email="new@example.com").count() == 2
    assert sorted(result.owner_password is None for result in results) == [False, True]


def test_a_server_thread_keeps_no_connection_after_asking(opened):
    def ask() -> bool:
        identity = authenticate_api_key(opened.api_key_plain)
        return identity is not None and connection.connection is None

    assert at_once(ask) == [True]
