"""What tests stand on: people, and workspaces opened the way the product opens them."""

from dataclasses import dataclass
from typing import Any

import factory

from billing.services import OpenedWorkspace, open_workspace
from workspaces import services
from workspaces.models import Role, User, Workspace

PASSWORD = "correct-horse-battery"


class UserFactory(factory.django.DjangoModelFactory):
    """A person who can sign in with `PASSWORD`."""

    class Meta:
        model = User

    email = factory.Sequence(lambda number: f"person{number}@example.com")
    name = factory.Sequence(lambda number: f"Person {number}")

    @classmethod
    def _create(cls, model_class: type[User], *args: Any, **kwargs: Any) -> User:
        return model_class.objects.create_user(*args, **{"password": PASSWORD, **kwargs})


class OperatorFactory(UserFactory):
    """A person who runs the service: may do everything in the admin."""

    email = factory.Sequence(lambda number: f"operator{number}@example.com")
    is_staff = True
    is_superuser = True


class _Wishes(factory.Factory):
    class Meta:
        model = dict

    name = factory.Sequence(lambda number: f"Workspace {number}")
    owner_email = factory.Sequence(lambda number: f"owner{number}@example.com")
    owner_password = PASSWORD


def make_workspace(plan: str = "free", **wanted: Any) -> OpenedWorkspace:
    """A workspace on `plan` with owner, API key and access token; `wanted` goes to `open_workspace`."""
    return open_workspace(**_Wishes(plan_tier=plan, **wanted))


@dataclass(frozen=True)
class Cast:
    """A workspace with one person in every role, and somebody who has no business there."""

    opened: OpenedWorkspace
    owner: User
    admin: User
    member: User
    viewer: User
    outsider: User

    @property
    def workspace(self) -> Workspace:
        return self.opened.workspace


def make_cast(plan: str = "free", **wanted: Any) -> Cast:
    """`make_workspace` with the whole cast."""
    opened = make_workspace(plan, **wanted)
    people = {role: UserFactory(name=f"The {role}") for role in (Role.ADMIN, Role.MEMBER, Role.VIEWER)}
    for role, person in people.items():
        services.add_member(opened.workspace, person, role, acting_user=opened.owner)
    return Cast(
        opened=opened,
        owner=opened.owner,
        admin=people[Role.ADMIN],
        member=people[Role.MEMBER],
        viewer=people[Role.VIEWER],
        outsider=UserFactory(name="The outsider"),
    )


def token_for(user: User, workspace: Workspace, *scopes: str, **wanted: Any) -> str:
    """The plain text of a new access token; without `scopes` it may read and write."""
    _, plain = services.create_access_token(
        user=user,
        workspace=workspace,
        name="A script",
        scopes=scopes or ("read", "write"),
        acting_user=user,
        **wanted,
    )
    return plain
