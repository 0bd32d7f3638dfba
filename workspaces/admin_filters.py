"""Filters of the operators' lists."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.widgets import AutocompleteSelect
from django.db.models import Model, Q, QuerySet
from django.forms import Media
from django.http import HttpRequest

from opsmeter_site.lib.clock import utc_now
from workspaces.models import CredentialState, Workspace

WORKSPACE = "workspace"


class WorkspaceFilter(admin.SimpleListFilter):
    """Chooses one workspace by typing part of its name; a list of all of them would be as long as the customer list."""

    title = "workspace"
    parameter_name = WORKSPACE
    template = "admin/workspace_filter.html"

    def __init__(self, request: HttpRequest, params: Any, model: type[Model], model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        self._model_admin = model_admin
        self._others = {name: value for name, value in request.GET.items() if name not in {WORKSPACE, "p"}}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """None: the template has a field of its own."""
        return []

    def has_output(self) -> bool:
        """Always."""
        return True

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows of the chosen workspace, or all."""
        chosen = self._chosen()
        return queryset.filter(workspace_id=chosen) if chosen else queryset

    def choices(self, changelist: Any) -> Any:
        """What the template shows: one entry with the field."""
        chosen = self._chosen()
        field = forms.ModelChoiceField(
            Workspace.objects.all(), required=False, widget=workspace_widget(self._model_admin)
        )
        yield {
            "field": field.widget.render(WORKSPACE, chosen, {"id": "filter-workspace"}),
            "others": self._others.items(),
            "clear": changelist.get_query_string(remove=[WORKSPACE]),
            "is_chosen": chosen is not None,
        }

    def _chosen(self) -> UUID | None:
        value = self.value()
        try:
            return UUID(value) if value else None
        except ValueError as error:
            raise IncorrectLookupParameters(error) from error


class WorkspaceFilterMixin:
    """For pages with a `WorkspaceFilter`: brings the scripts of its field."""

    @property
    def media(self) -> Media:
        """The page's own, and the field's."""
        return super().media + workspace_widget(self).media  # type: ignore[misc, no-any-return]


def workspace_widget(model_admin: Any) -> AutocompleteSelect:
    """The stock autocomplete for the model's workspace."""
    return _AnyWorkspace(model_admin.model._meta.get_field(WORKSPACE), model_admin.admin_site)


class _AnyWorkspace(AutocompleteSelect):
    """Says what holds as long as nothing is chosen."""

    def build_attrs(self, base_attrs: dict[str, Any], extra_attrs: dict[str, Any] | None = None) -> dict[str, Any]:
        """The stock attributes, whose placeholder is empty."""
        return super().build_attrs(base_attrs, extra_attrs) | {"data-placeholder": "Any workspace"}


class CredentialStateFilter(admin.SimpleListFilter):
    """Live, expired or revoked; of API keys and access tokens alike."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The states."""
        return [(state.value, state.label) for state in CredentialState]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows in the chosen state, by the rule of `ApiKey.state`."""
        expired = Q(revoked_at=None, expires_at__lte=utc_now())
        match self.value():
            case CredentialState.LIVE:
                return queryset.filter(~expired, revoked_at=None)
            case CredentialState.EXPIRED:
                return queryset.filter(expired)
            case CredentialState.REVOKED:
                return queryset.exclude(revoked_at=None)
        return queryset


class LastUseFilter(admin.SimpleListFilter):
    """When something was last used: a credential, or any key of a workspace."""

    title = "last use"
    parameter_name = "used"
    field = "last_used_at"
    _AGES = (("1", "In the last day", 1), ("7", "In the last 7 days", 7), ("30", "In the last 30 days", 30))

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Ages, and never."""
        return [*((name, label) for name, label, _days in self._AGES), ("never", "Never")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows that were used in the chosen time, or never."""
        if self.value() == "never":
            return queryset.filter(**{f"{self.field}__isnull": True})
        days = next((days for name, _label, days in self._AGES if name == self.value()), None)
        return queryset if days is None else queryset.filter(**{f"{self.field}__gte": utc_now() - timedelta(days=days)})
