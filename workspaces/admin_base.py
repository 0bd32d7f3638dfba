"""What the operators' console pages of all apps share: services do the writing, facts are only looked at."""

from collections.abc import Mapping
from typing import Any, cast

from django.contrib import messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from opsmeter_site.lib.errors import OpsmeterError
from workspaces.models import User
from workspaces.services import record_audit


def operator_of(request: HttpRequest) -> User:
    """Who asks. The console lets nobody in who is not signed in."""
    return cast(User, request.user)


def explain(refusal: OpsmeterError) -> str:
    """The refusal as one text for people."""
    details = [error.message if error.field == "" else f"{error.field}: {error.message}" for error in refusal.errors]
    return " ".join(details) or refusal.message


def become(shown: Model, stored: Model) -> None:
    """Give the object that the admin goes on with the state of the one that a service has stored."""
    shown.__dict__.update(stored.__dict__)


def ask_first(
    model_admin: Any, request: HttpRequest, rows: QuerySet[Any], question: str, consequence: str, yes: str
) -> HttpResponse | None:
    """The page that asks a second time before an action on `rows`; None once it was answered with yes."""
    if request.POST.get("confirmed"):
        return None
    context = {
        **model_admin.admin_site.each_context(request),
        "title": question,
        "opts": model_admin.opts,
        "consequence": consequence,
        "yes": yes,
        "rows": rows,
        "action": request.POST["action"],
    }
    return TemplateResponse(request, "admin/confirm_action.html", context)


class ReadOnlyMixin:
    """Rows that only the product writes: to look at, never to change."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Never; the second argument is that of inlines."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Never."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Never."""
        return False


class AuditedMixin:
    """For the stock pages of tables that have no service: what the console logs goes into the audit trail, too."""

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        """Record that a row was added."""
        _record(request, "added", obj, message)
        return super().log_addition(request, obj, message)  # type: ignore[misc]

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        """Record that a row was changed."""
        _record(request, "changed", obj, message)
        return super().log_change(request, obj, message)  # type: ignore[misc]

    def log_deletions(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        """Record that rows are about to be deleted."""
        for row in queryset:
            _record(request, "deleted", row, "")
        return super().log_deletions(request, queryset)  # type: ignore[misc]


def _record(request: HttpRequest, verb: str, row: Model, message: Any) -> None:
    subject = row._meta.model_name
    record_audit(f"{subject}.{verb}", acting_user=operator_of(request), target=row, data={"fields": message})


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
