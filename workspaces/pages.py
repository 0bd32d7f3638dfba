"""Pages of a workspace: the one door through which every view below `/w/<slug>/` is entered."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseBase

from opsmeter_site.lib.errors import NotAllowed, NotFound
from workspaces.access import WorkspaceAccess, require_role, workspace_for
from workspaces.models import Role

# The session key of the workspace whose pages were opened last.
LAST_WORKSPACE = "last_workspace"

_P = ParamSpec("_P")
PageView = Callable[Concatenate[HttpRequest, WorkspaceAccess, _P], HttpResponseBase]


class RoleTooLow(PermissionDenied):
    """A member opened what their role does not include; the text is for them."""


def workspace_page(minimum: Role = Role.VIEWER) -> Callable[[PageView[_P]], Callable[..., HttpResponseBase]]:
    """Make `view(request, access, …)` a page of the workspace that the address names.

    404 for people of other workspaces, 403 for members whose role does not include `minimum`. The access is also
    `request.workspace_access`, for navigation and banners.
    """

    def decorate(view: PageView[_P]) -> Callable[..., HttpResponseBase]:
        @wraps(view)
        def page(request: HttpRequest, slug: str, *args: Any, **kwargs: Any) -> HttpResponseBase:
            try:
                access = workspace_for(request.user, slug)
            except NotFound as error:
                raise Http404(error.message) from error
            request.workspace_access = access  # type: ignore[attr-defined]
            if request.session.get(LAST_WORKSPACE) != slug:
                request.session[LAST_WORKSPACE] = slug
            try:
                require_role(access, minimum)
                return view(request, access, *args, **kwargs)
            except NotAllowed as error:
                raise RoleTooLow(f"{error.message} Nothing was changed.") from error
            except NotFound as error:
                raise Http404(error.message) from error

        return page

    return decorate
