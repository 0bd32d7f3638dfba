"""What the operators' console pages of all apps share: services do the writing, refusals become messages."""

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from opsmeter_site.lib.errors import OpsmeterError


def explain(refusal: OpsmeterError) -> str:
    """The refusal as one text for people."""
    details = [error.message if error.field == "" else f"{error.field}: {error.message}" for error in refusal.errors]
    return " ".join(details) or refusal.message


def become(shown: Model, stored: Model) -> None:
    """Give the object that the admin goes on with the state of the one that a service has stored."""
    shown.__dict__.update(stored.__dict__)


class ServiceAdminMixin:
    """A page whose `save_model` calls services. What a service refuses is shown; nothing of the form is stored then."""

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: Mapping[str, Any] | None = None,
    ) -> HttpResponse:
        """The stock page, with refusals shown as messages."""
        try:
            response: HttpResponse = super().changeform_view(  # type: ignore[misc]
                request, object_id, form_url, extra_context
            )
        except OpsmeterError as refusal:
            messages.error(request, explain(refusal))
            return HttpResponseRedirect(request.get_full_path())
        return response

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nothing here is deleted: people and keys are switched off, so that their traces keep a name."""
        return False
