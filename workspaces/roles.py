"""Who may give and take which role."""

from workspaces.access import ROLE_ORDER, role_includes
from workspaces.models import Role


def grantable_roles(role: str) -> list[Role]:
    """The roles that somebody with `role` may give to others and take away: only owners make and unmake owners."""
    if not role_includes(role, Role.ADMIN):
        return []
    return [each for each in ROLE_ORDER if role_includes(role, each)]
