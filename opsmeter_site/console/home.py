"""The address without a path: wherever the person was last."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_GET

from workspaces.models import User
from workspaces.pages import LAST_WORKSPACE


@login_not_required
@require_GET
def home(request: HttpRequest) -> HttpResponse:
    """To the workspace used last, to making the first one, or to signing in."""
    if not isinstance(request.user, User):
        return redirect("account_login")
    slugs = list(request.user.workspaces.order_by("name").values_list("slug", flat=True))
    if not slugs:
        return redirect("workspace-new")
    last = request.session.get(LAST_WORKSPACE)
    return redirect("overview", slug=last if last in slugs else slugs[0])
