"""What the frame around every page knows. Nothing is read from the database unless the template asks for it."""

from functools import cache, partial
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from alerts.selectors import open_alerts
from opsmeter_site.console.banners import banners_for
from opsmeter_site.console.navigation import MAIN, SETTINGS, links
from workspaces.access import WorkspaceAccess, role_includes
from workspaces.models import Membership, Role, User


def console(request: HttpRequest) -> dict[str, Any]:
    """The context processor: navigation, open alerts, banners and the workspaces to switch to."""
    context: dict[str, Any] = {
        "is_local": settings.OPSMETER_ENV == "local",
        "my_workspaces": SimpleLazyObject(lambda: _workspaces_of(request)),
    }
    access: WorkspaceAccess | None = getattr(request, "workspace_access", None)
    if access is None:
        return context
    return context | {
        "workspace": access.workspace,
        "access": access,
        "can_manage": role_includes(access.role, Role.ADMIN),
        "is_owner": access.role is Role.OWNER,
        "main_links": links(MAIN, access, request.path),
        "settings_links": links(SETTINGS, access, request.path),
        # Templates call it; a wrapped number would be none to filters.
        "open_alerts": cache(partial(open_alerts, access.workspace.pk)),
        "banners": SimpleLazyObject(lambda: banners_for(access)),
    }


def _workspaces_of(request: HttpRequest) -> list[Membership]:
    if not isinstance(request.user, User):
        return []
    return list(request.user.memberships.select_related("workspace").order_by("workspace__name"))
